//! What a search and a filter are: smart-case regular expressions, and words that must or must not be there.

use regex::{Regex, RegexBuilder};

use crate::model::event::LogLine;

#[derive(Debug, Clone)]
pub struct Search {
    pub text: String,
    pub pattern: Regex,
    /// First lines of the entries that match.
    pub matches: Vec<u64>,
}

/// Words that must all be there, and words (`!word`) none of which may be.
#[derive(Debug, Clone)]
pub struct Filter {
    pub text: String,
    include: Vec<Regex>,
    exclude: Vec<Regex>,
}

/// Smart case; what is no regular expression is taken literally.
pub fn pattern(text: &str) -> Option<Regex> {
    let plain = !text.chars().any(char::is_uppercase);
    let build = |text: &str| RegexBuilder::new(text).case_insensitive(plain).size_limit(1 << 20).build().ok();
    build(text).or_else(|| build(&regex::escape(text)))
}

impl Filter {
    /// From what was typed; none when it says nothing.
    pub fn parse(text: &str) -> Option<Filter> {
        let mut filter = Filter { text: text.to_owned(), include: Vec::new(), exclude: Vec::new() };
        for word in text.split_whitespace() {
            match word.strip_prefix('!') {
                Some("") => {}
                Some(word) => filter.exclude.extend(pattern(word)),
                None => filter.include.extend(pattern(word)),
            }
        }
        (!filter.include.is_empty() || !filter.exclude.is_empty()).then_some(filter)
    }

    /// The line is to be shown.
    pub fn passes(&self, line: &LogLine) -> bool {
        let hit = |pattern: &Regex| pattern.is_match(&line.text) || pattern.is_match(&line.unit);
        self.include.iter().all(hit) && !self.exclude.iter().any(hit)
    }
}

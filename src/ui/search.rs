//! What a search and a filter are: smart-case regular expressions, and words that must or must not be there.

use std::collections::VecDeque;

use regex::{Regex, RegexBuilder};

use crate::model::event::LogLine;

use super::logs::Numbered;

/// A pattern, and the lines of a log that match it as far as they have been looked through.
#[derive(Debug, Clone)]
pub struct Search {
    pub text: String,
    pub pattern: Regex,
    /// Numbers of the lines that match, in order.
    pub matches: VecDeque<u64>,
    /// Seen: from `first` up to before `end`.
    pub first: u64,
    pub end: u64,
    /// It was asked to go to a match and had none yet.
    pub waits: bool,
}

impl Search {
    /// Nothing seen yet; it begins at line `first`.
    pub fn new(text: &str, pattern: Regex, first: u64) -> Self {
        Self { text: text.to_owned(), pattern, matches: VecDeque::new(), first, end: first, waits: false }
    }

    /// As if new.
    pub fn restart(&mut self, first: u64) {
        self.matches.clear();
        (self.first, self.end) = (first, first);
    }

    /// Look at the line after all that were seen.
    pub fn note(&mut self, number: u64, line: &LogLine) {
        if self.pattern.is_match(&line.text) {
            self.matches.push_back(number);
        }
        self.end = number + 1;
    }

    /// Look at a stretch of lines as far as it joins what was seen.
    pub fn look(&mut self, first: u64, lines: &[Numbered]) {
        let end = first + lines.len() as u64;
        if first <= self.end && end > self.end {
            let skip = usize::try_from(self.end - first).unwrap_or(usize::MAX);
            let seen = self.end;
            lines.iter().skip(skip).zip(seen..).for_each(|(line, number)| self.note(number, &line.line));
        }
        if first < self.first && end >= self.first {
            let take = usize::try_from(self.first - first).unwrap_or(0);
            for (place, line) in lines.iter().take(take).enumerate().rev() {
                if self.pattern.is_match(&line.line.text) {
                    self.matches.push_front(first + place as u64);
                }
            }
            self.first = first;
        }
    }

    /// Forget what is at or after `end`.
    pub fn cut(&mut self, end: u64) {
        self.end = self.end.min(end);
        self.first = self.first.min(self.end);
        self.matches.truncate(self.matches.partition_point(|number| *number < end));
    }
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

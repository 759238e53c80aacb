//! A pattern of the catalogue: what it cannot do without, and the regular expression itself, made when it is first needed.
//!
//! Of a thousand patterns a log touches a few dozen. Making all of them would take a quarter of a second at every start and
//! a hundred megabytes; a test makes all of the built-in ones, and those of the user are made when they are read.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use memchr::memmem::Finder;
use regex::Regex;
use regex_syntax::ParserBuilder;
use regex_syntax::hir::Hir;

use super::literal::{self, Worth};

/// A regular expression that was read.
#[derive(Debug)]
pub(super) struct Pattern {
    text: String,
    names: Vec<String>,
    hir: OnceLock<Result<Hir, String>>,
    /// Of each group one stands in every line that it matches.
    groups: OnceLock<Vec<Vec<Finder<'static>>>>,
    made: OnceLock<Result<Regex, String>>,
}

/// Patterns by their text: many signatures share some.
#[derive(Debug, Default)]
pub(super) struct Patterns(BTreeMap<String, Arc<Pattern>>);

impl Patterns {
    pub(super) fn get(&mut self, text: &str) -> Result<Arc<Pattern>, String> {
        let pattern = self.later(text);
        pattern.hir()?;
        Ok(pattern)
    }

    pub(super) fn all(&mut self, texts: &[String]) -> Result<Vec<Arc<Pattern>>, String> {
        texts.iter().map(|text| self.get(text)).collect()
    }

    /// One that most starts have no use for: it is read when it is first needed.
    pub(super) fn later(&mut self, text: &str) -> Arc<Pattern> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let pattern = Arc::new(Pattern::new(text));
        self.0.insert(text.to_owned(), pattern.clone());
        pattern
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        let (hir, groups, made) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { text: text.to_owned(), names: names_in(text), hir, groups, made }
    }

    /// # Errors
    /// When it is no regular expression.
    fn hir(&self) -> Result<&Hir, String> {
        let read = || {
            // What a class stands for is of no interest here, unless it is a few letters: much of the time that reading
            // takes would go into those of Unicode. What needs them is read once more.
            let plain = ParserBuilder::new().unicode(false).utf8(false).build().parse(&self.text);
            match plain {
                Ok(hir) => Ok(hir),
                Err(_) => regex_syntax::parse(&self.text).map_err(|error| error.to_string()),
            }
        };
        self.hir.get_or_init(read).as_ref().map_err(Clone::clone)
    }

    /// Names of its captures.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The expression of a program's name, where it wants to see that as a console prints it: `ignition\[\d+\]: `.
    pub(super) fn tag(&self) -> Option<&str> {
        let (before, _) = self.text.split_once(r"\[\d+\]: ")?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || r"_.-\()?:|".contains(c);
        let name = before.rsplit(|c| !is_name(c)).next().unwrap_or(before).trim_start_matches('|');
        Some(name).filter(|name| !name.is_empty())
    }

    /// # Errors
    /// When it is larger than a regular expression may be.
    pub(super) fn regex(&self) -> Result<&Regex, String> {
        self.made
            .get_or_init(|| Regex::new(&self.text).map_err(|error| error.to_string()))
            .as_ref()
            .map_err(Clone::clone)
    }

    pub(super) fn is_match(&self, text: &str) -> bool {
        self.may_match(text) && self.regex().is_ok_and(|regex| regex.is_match(text))
    }

    pub(super) fn captures<'a>(&self, text: &'a str) -> Option<regex::Captures<'a>> {
        if self.may_match(text) { self.regex().ok()?.captures(text) } else { None }
    }

    /// Whether the texts are there without which it does not match: ten times faster than the expression.
    fn may_match(&self, text: &str) -> bool {
        let groups = self.groups.get_or_init(|| {
            let mut groups = self.hir().map(|hir| literal::groups(hir, &shortest)).unwrap_or_default();
            groups.retain(|group| group.len() <= FEW);
            // The one that fails most often first.
            groups.sort_by_key(|group| std::cmp::Reverse(shortest(group)));
            groups.dedup();
            groups.iter().map(|group| group.iter().map(|piece| Finder::new(piece).into_owned()).collect()).collect()
        });
        groups.iter().all(|group| group.iter().any(|piece| piece.find(text.as_bytes()).is_some()))
    }

    /// The most worthy group of texts of which one stands in every line that it matches.
    ///
    /// # Errors
    /// When there is none with `least` bytes in each text.
    pub(super) fn required(&self, least: usize, worth: Worth<'_>) -> Result<Vec<String>, String> {
        let enough = |group: &Vec<String>| group.iter().all(|text| text.len() >= least);
        let groups = literal::groups(self.hir()?, worth).into_iter();
        groups.filter(enough).max_by_key(|group| worth(group)).ok_or_else(|| {
            format!("no plain text of {least} characters stands in every line that {} matches", self.text)
        })
    }
}

/// Longer texts are in fewer lines.
fn shortest(group: &[String]) -> i64 {
    group.iter().map(|text| i64::try_from(text.len()).unwrap_or(i64::MAX)).min().unwrap_or(0)
}

/// Alternatives that are worth looking for one after the other.
const FEW: usize = 4;

/// Of captures as `(?P<name>` or `(?<name>` begins them.
fn names_in(text: &str) -> Vec<String> {
    let name = |group: &str| {
        let name = group.strip_prefix('P').unwrap_or(group).strip_prefix('<')?;
        name.split_once('>').map(|(name, _)| name.to_owned())
    };
    text.split("(?").skip(1).filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pattern_cannot_do_without() {
        let pattern = Pattern::new;
        for (text, wanted) in [
            ("abcd.*efghi", vec!["efghi"]),
            ("(?:first|second) it", vec!["first it", "second it"]),
            ("(?:one|three) word", vec!["one word", "three word"]),
            ("(?:one|three) word", vec![" word"]),
            (
                "[Ff]ailed (?:the )?call: .*",
                vec!["Failed call: ", "Failed the call: ", "failed call: ", "failed the call: "],
            ),
            (r#"(?P<x>\S+): \\?"quoted text\\?""#, vec!["quoted text"]),
            ("a(?:bcde)?fghi[a-z]+", vec!["abcdefghi", "afghi"]),
            ("one +two +three", vec![" two "]),
            (r"the (?P<what>aws_\w+) is", vec!["the aws_"]),
            ("│ it [‘']is", vec!["│ it 'is", "│ it ‘is"]),
            ("(?i)ab", vec!["AB", "Ab", "aB", "ab"]),
        ] {
            let found = literal::groups(pattern(text).hir().expect("an expression"), &shortest);
            assert!(found.iter().any(|group| *group == wanted), "{text}: {found:?}");
        }
        for text in [r"\d+", "(?:abcdef)?", "abc|abcdef", "[a-f]{6}"] {
            assert!(pattern(text).required(4, &shortest).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_matches_what_its_expression_does() {
        let pattern = Pattern::new(r#"^(?P<who>\w+): (?:dial|lookup) .*"(?P<what>no such|refused)"$"#);
        assert_eq!(pattern.names().collect::<Vec<_>>(), ["who", "what"]);
        for line in [
            r#"oc: dial tcp: "no such""#,
            r#"oc: lookup x "refused""#,
            r#"oc: dial tcp: "such""#,
            r#"oc: ask x "refused""#,
            "",
        ] {
            assert_eq!(pattern.is_match(line), pattern.regex().expect("an expression").is_match(line), "{line}");
        }
    }
}

//! A pattern of the catalogue: what it cannot do without, and the regular expression itself, made when it is first needed.
//!
//! Of a thousand patterns a log touches a few dozen. Making all of them would take a quarter of a second at every start and
//! a hundred megabytes; a test makes all of the built-in ones, and those of the user are made when they are read.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use memchr::memmem::Finder;
use regex::Regex;
use regex_syntax::hir::{Hir, HirKind};

/// A regular expression that was read.
#[derive(Debug)]
pub(super) struct Pattern {
    text: String,
    names: Vec<String>,
    hir: Hir,
    /// Of each group one stands in every line that it matches.
    groups: OnceLock<Vec<Vec<Finder<'static>>>>,
    made: OnceLock<Result<Regex, String>>,
}

/// Patterns by their text: many signatures share some.
#[derive(Debug, Default)]
pub(super) struct Patterns(BTreeMap<String, Arc<Pattern>>);

impl Patterns {
    pub(super) fn get(&mut self, text: &str) -> Result<Arc<Pattern>, String> {
        if let Some(known) = self.0.get(text) {
            return Ok(known.clone());
        }
        let pattern = Arc::new(Pattern::parse(text)?);
        self.0.insert(text.to_owned(), pattern.clone());
        Ok(pattern)
    }

    pub(super) fn all(&mut self, texts: &[String]) -> Result<Vec<Arc<Pattern>>, String> {
        texts.iter().map(|text| self.get(text)).collect()
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let hir = regex_syntax::parse(text).map_err(|error| error.to_string())?;
        let mut names = Vec::new();
        gather_names(&hir, &mut names);
        Ok(Self { text: text.to_owned(), names, hir, groups: OnceLock::new(), made: OnceLock::new() })
    }

    /// Names of its captures.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
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
            let mut groups: Vec<_> = groups(&self.hir).into_iter().filter(|group| group.len() <= FEW).collect();
            // The one that fails most often first.
            groups.sort_by_key(|group| std::cmp::Reverse(group.iter().map(String::len).min()));
            groups.iter().map(|group| group.iter().map(|piece| Finder::new(piece).into_owned()).collect()).collect()
        });
        groups.iter().all(|group| group.iter().any(|piece| piece.find(text.as_bytes()).is_some()))
    }

    /// Pieces of text, none of them shorter than `shortest` bytes, of which one stands in every line that it matches.
    ///
    /// # Errors
    /// When there are none.
    pub(super) fn required(&self, shortest: usize) -> Result<Vec<String>, String> {
        let long = |group: &Vec<String>| group.iter().map(String::len).min().unwrap_or(0);
        let own = |group: &Vec<String>| {
            let counts = group.iter().map(|piece| own(piece).into_iter().filter(|own| *own).count());
            counts.min().unwrap_or(0)
        };
        let enough = groups(&self.hir).into_iter().filter(|group| long(group) >= shortest);
        let best = enough.max_by_key(|group| (own(group).min(ENOUGH), long(group)));
        best.ok_or_else(|| {
            format!("no plain text of {shortest} characters stands in every line that {} matches", self.text)
        })
    }
}

/// What half of all lines about failures say. Of a pattern's groups one is taken that says something of its own.
const SHARED: &[&str] = &[
    "connection refused",
    "connect: ",
    "dial tcp",
    "https://",
    "http://",
    "i/o timeout",
    "no such host",
    "timed out",
    "context deadline exceeded",
    "x509: certificate",
    "ailed to ",
    "error",
    "Error",
    "waiting for",
    "Waiting for",
    "openshift",
    "image",
    "cluster",
    "kubelet",
    "node",
    "Node",
    "container",
    "manifest",
    "request",
    "status",
    "master",
    "bootstrap",
    "unable to",
    "the server",
    "could not",
    "cannot",
    "not found",
    "registry",
    "reading",
    "creating",
    "operator",
];
/// Bytes that are enough of one's own.
pub(super) const ENOUGH: usize = 6;

/// Which bytes of a piece are not what many lines say.
pub(super) fn own(piece: &str) -> Vec<bool> {
    let mut own: Vec<bool> = piece.bytes().map(|byte| byte != b' ').collect();
    for (at, shared) in SHARED.iter().flat_map(|shared| piece.match_indices(shared)) {
        own.iter_mut().skip(at).take(shared.len()).for_each(|own| *own = false);
    }
    own
}

/// Alternatives of one group that are looked for by themselves.
const ALTERNATIVES: usize = 24;
/// Alternatives that are worth looking for one after the other.
const FEW: usize = 4;

/// Groups of pieces of text: of each group one piece stands in every line that is matched. The pieces have no quotes and
/// backslashes in them, so that they are found in lines that are still wrapped into JSON or logfmt as well.
fn groups(hir: &Hir) -> Vec<Vec<String>> {
    match hir.kind() {
        HirKind::Literal(literal) => {
            let text = String::from_utf8_lossy(&literal.0);
            let parts = text.split(['"', '\\', '\n', '\t', '\u{fffd}']).filter(|part| part.len() > 1);
            parts.map(|part| vec![part.to_owned()]).collect()
        }
        HirKind::Capture(capture) => groups(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => groups(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().flat_map(groups).collect(),
        HirKind::Alternation(parts) => {
            let longest = |part: &Hir| groups(part).into_iter().max_by_key(|group| group.iter().map(String::len).min());
            let each: Option<Vec<Vec<String>>> = parts.iter().map(longest).collect();
            each.map(|each| each.concat()).filter(|all| all.len() <= ALTERNATIVES).into_iter().collect()
        }
        HirKind::Repetition(_) | HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => Vec::new(),
    }
}

fn gather_names(hir: &Hir, names: &mut Vec<String>) {
    match hir.kind() {
        HirKind::Capture(capture) => {
            names.extend(capture.name.as_ref().map(|name| name.to_string()));
            gather_names(&capture.sub, names);
        }
        HirKind::Repetition(repetition) => gather_names(&repetition.sub, names),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().for_each(|part| gather_names(part, names));
        }
        HirKind::Literal(_) | HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_pattern_cannot_do_without() {
        let pattern = |text: &str| Pattern::parse(text).expect("a pattern");
        for (text, wanted) in [
            ("abcd.*efghi", vec!["efghi"]),
            ("(?:first|second) it", vec!["first", "second"]),
            ("(?:one|three) word", vec![" word"]),
            (r#"(?P<x>\S+): \\?"quoted text\\?""#, vec!["quoted text"]),
            ("a(?:bcde)?fghij+", vec!["afghij"]),
        ] {
            let found = pattern(text).required(4).unwrap_or_default();
            let held = |piece: &String| wanted.iter().any(|text| text.contains(piece.as_str()));
            assert!(!found.is_empty() && found.iter().all(held), "{text}: {found:?}");
        }
        for text in [r"\d+", "(?:abcdef)?", "abc|abcdef", "(?i)abcdef"] {
            assert!(pattern(text).required(4).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_matches_what_its_expression_does() {
        let pattern =
            Pattern::parse(r#"^(?P<who>\w+): (?:dial|lookup) .*"(?P<what>no such|refused)"$"#).expect("a pattern");
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

//! The last gate of everything that is handed on: secrets that this process knows, and what looks like one.
//!
//! The patterns are in `assets/scrub.toml`. What was taken out is counted by kind and file, so that whoever gets the result
//! knows what is missing, and whoever gives it can see that nothing was forgotten.

use std::collections::BTreeMap;

use regex::{Captures, Regex, RegexSet};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::spec::secret::redact;

const FILE: &str = include_str!("../../assets/scrub.toml");
/// What [`redact`] leaves in the place of a secret that is known.
const KNOWN: &str = "[redacted]";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    secret: Vec<Pattern>,
    address: Vec<Pattern>,
    #[cfg_attr(not(test), expect(dead_code, reason = "what must stay is for the test of this file"))]
    harmless: Harmless,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Harmless {
    #[cfg_attr(not(test), expect(dead_code, reason = "as above"))]
    lines: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pattern {
    kind: String,
    pattern: String,
    #[cfg_attr(not(test), expect(dead_code, reason = "examples are for the test of this file"))]
    examples: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("the table of secrets: {0}")]
pub struct ScrubError(String);

/// So many of a kind were taken out of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Removal {
    pub kind: String,
    pub file: String,
    pub count: u64,
}

/// Takes secrets out of text, and keeps count.
#[derive(Debug)]
pub struct Scrub {
    any: RegexSet,
    patterns: Vec<(String, Regex)>,
    /// Patterns from this one on are addresses.
    addresses: usize,
    /// Words that stand for addresses.
    words: BTreeMap<String, String>,
    removed: BTreeMap<(String, String), u64>,
    /// The text before ended inside of a private key.
    in_key: bool,
}

impl Scrub {
    /// `addresses` are hidden too when asked for.
    ///
    /// # Errors
    /// When the table is wrong; a test proves that it is not.
    pub fn new(addresses: bool) -> Result<Self, ScrubError> {
        let table: Table = toml::from_str(FILE).map_err(|error| ScrubError(error.to_string()))?;
        let first_address = table.secret.len();
        let of_addresses = table.address.into_iter().filter(|_| addresses);
        let patterns = table
            .secret
            .into_iter()
            .chain(of_addresses)
            .map(|entry| Ok((entry.kind, Regex::new(&entry.pattern).map_err(|error| ScrubError(error.to_string()))?)))
            .collect::<Result<Vec<_>, ScrubError>>()?;
        let any = RegexSet::new(patterns.iter().map(|(_, regex)| regex.as_str()))
            .map_err(|error| ScrubError(error.to_string()))?;
        Ok(Self {
            any,
            patterns,
            addresses: first_address,
            words: BTreeMap::new(),
            removed: BTreeMap::new(),
            in_key: false,
        })
    }

    /// `text` of `file` without secrets.
    pub fn text(&mut self, file: &str, text: &str) -> String {
        let mut clean = redact(text);
        let known = clean.matches(KNOWN).count().saturating_sub(text.matches(KNOWN).count());
        self.count("secret of this installation", file, known);
        if self.in_key {
            // A key that is spread over lines ends where it says so.
            const END: &str = "PRIVATE KEY-----";
            clean = match clean.split_once(END) {
                Some((_, rest)) => {
                    self.in_key = false;
                    format!("[removed: private key]{rest}")
                }
                None => "[removed: private key]".to_owned(),
            };
            self.count("line of a private key", file, 1);
        }
        self.in_key |= clean.rfind("-----BEGIN ").is_some_and(|at| {
            let rest = clean.get(at..).unwrap_or_default();
            rest.contains("PRIVATE KEY-----") && !rest.contains("-----END ")
        });
        for index in self.any.matches(&clean) {
            let Some((kind, regex)) = self.patterns.get(index) else { continue };
            let (mut count, words, is_address) = (0, &mut self.words, index >= self.addresses);
            let replaced = regex.replace_all(&clean, |found: &Captures| {
                let whole = found.get(0).map_or("", |whole| whole.as_str());
                let before = found.name("before").map_or("", |before| before.as_str());
                if whole.contains(KNOWN) || whole.contains("[removed:") {
                    return whole.to_owned();
                }
                count += 1;
                if !is_address {
                    return format!("{before}[removed: {kind}]");
                }
                let next = words.len() + 1;
                let word =
                    words.entry(whole.to_owned()).or_insert_with(|| format!("{}-{next}", kind.replace(' ', "-")));
                format!("{before}{word}")
            });
            clean = replaced.into_owned();
            let kind = kind.clone();
            self.count(&kind, file, count);
        }
        clean
    }

    /// A JSON value of `file`, each of its strings cleaned.
    pub fn json(&mut self, file: &str, value: &mut Value) {
        match value {
            Value::String(text) => {
                let clean = self.text(file, text);
                if clean != *text {
                    *text = clean;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(file, item)),
            Value::Object(fields) => fields.iter_mut().for_each(|(_, value)| self.json(file, value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// One line of a file of JSON lines: the strings when it is JSON, else as text.
    pub fn json_line(&mut self, file: &str, line: &str) -> String {
        match serde_json::from_str::<Value>(line) {
            Ok(mut value) => {
                self.json(file, &mut value);
                value.to_string()
            }
            Err(_) => self.text(file, line),
        }
    }

    /// A file that is not JSON, line by line.
    pub fn lines(&mut self, file: &str, text: &str) -> String {
        self.in_key = false;
        text.lines().fold(String::new(), |mut out, line| {
            out.push_str(&self.text(file, line));
            out.push('\n');
            out
        })
    }

    /// What was taken out, by kind and file.
    pub fn removed(&self) -> Vec<Removal> {
        self.removed
            .iter()
            .map(|((kind, file), count)| Removal { kind: kind.clone(), file: file.clone(), count: *count })
            .collect()
    }

    fn count(&mut self, kind: &str, file: &str, count: usize) {
        if count > 0 {
            *self.removed.entry((kind.to_owned(), file.to_owned())).or_default() += count as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_finds_its_examples_and_no_harmless_line() {
        let table: Table = toml::from_str(FILE).unwrap();
        for (entry, addresses) in
            table.secret.iter().map(|entry| (entry, false)).chain(table.address.iter().map(|entry| (entry, true)))
        {
            for example in &entry.examples {
                let mut scrub = Scrub::new(addresses).unwrap();
                let clean = scrub.text("f", example);
                let removed = scrub.removed();
                assert!(
                    removed.iter().any(|one| one.kind == entry.kind),
                    "{}: {example:?} gives {removed:?}",
                    entry.kind
                );
                assert!(clean != *example && Scrub::new(addresses).unwrap().text("f", &clean) == clean, "{clean}");
            }
            assert!(!entry.examples.is_empty(), "{}", entry.kind);
        }
        for line in &table.harmless.lines {
            assert_eq!(Scrub::new(false).unwrap().text("f", line), *line);
        }
    }

    #[test]
    fn a_key_spread_over_lines_goes_as_a_whole_and_an_address_keeps_its_identity() {
        let mut scrub = Scrub::new(true).unwrap();
        let text = "a\n-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA\nq83vEjRWeJ\n-----END RSA PRIVATE KEY-----\nb 10.0.0.7 10.0.0.8 10.0.0.7";
        let clean = scrub.lines("f", text);
        assert!(!clean.contains("MIIE") && !clean.contains("q83v") && clean.starts_with("a\n"), "{clean}");
        assert!(clean.ends_with("b address-1 address-2 address-1\n"), "{clean}");
        let kinds: Vec<_> = scrub.removed().into_iter().map(|one| (one.kind, one.count)).collect();
        assert!(kinds.contains(&("address".to_owned(), 3)), "{kinds:?}");
    }
}

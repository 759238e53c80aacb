//! What is wrong with a file that an operator wrote, as sentences with a place.

use std::fmt;

/// One mistake: where, which key, what was found and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// `mirror.host`; empty when the file as a whole is meant.
    pub key: String,
    /// The predicate of the sentence: `is "localhost"`, `is missing`. Never the content of a secret.
    pub found: String,
    /// What would be right, and why.
    pub want: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, key, found, want } = self;
        let gap = if key.is_empty() { "" } else { " " };
        write!(f, "{file}:{line}: {key}{gap}{found}: {want}")
    }
}

/// All that is wrong, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecErrors(pub Vec<Problem>);

impl fmt::Display for SpecErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for SpecErrors {}

/// A text of the operator's as part of a sentence: quoted, one line, not too long, nothing that moves a cursor.
pub fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    let clean: String = text.chars().filter(|c| !c.is_control()).take(LONGEST + 1).collect();
    if clean.chars().count() > LONGEST {
        format!("\"{}…\"", clean.chars().take(LONGEST).collect::<String>())
    } else {
        format!("\"{clean}\"")
    }
}

/// The one of `known` that was probably meant by `text`.
pub fn nearest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(text, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

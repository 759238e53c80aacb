//! What can be said of a failure that no signature knows: the first error of every file, units that failed, and how far
//! each log went.

use std::collections::{BTreeMap, BTreeSet};

use aho_corasick::AhoCorasick;

use super::plain;
use crate::model::event::LogLine;

/// Files of which the first error is kept, and bytes of it.
const FILES: usize = 200;
const TEXT_LIMIT: usize = 400;
/// Units of which it is kept that they failed.
const UNITS: usize = 100;
const FAILED_UNIT: &str = ".service: Failed with result";

/// A line and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    pub line: u64,
    pub text: String,
}

#[derive(Debug, Clone, Default)]
pub struct Unknown {
    /// By file, the first line that speaks of an error.
    pub first_errors: BTreeMap<String, Sighting>,
    /// As systemd calls them.
    pub failed_units: BTreeSet<String>,
    /// By file, its last line.
    pub last_lines: BTreeMap<String, Sighting>,
    words: Option<AhoCorasick>,
}

impl Unknown {
    pub(super) fn look(&mut self, file: &str, number: u64, line: &[u8]) {
        if self.first_errors.len() >= FILES || self.first_errors.contains_key(file) {
            return;
        }
        if self.words.is_none() {
            self.words = AhoCorasick::new(["error", "Error", "ERROR", "fatal", "FATAL", "panic:", "Failed to "]).ok();
        }
        if self.words.as_ref().is_some_and(|words| words.is_match(line)) {
            self.first_errors.insert(file.to_owned(), sighting(number, line));
        }
    }

    pub(super) fn look_closer(&mut self, line: &LogLine) {
        if let Some((unit, _)) = line.text.split_once(FAILED_UNIT)
            && self.failed_units.len() < UNITS
        {
            self.failed_units.insert(unit.rsplit(' ').next().unwrap_or(unit).to_owned());
        }
    }

    pub(super) fn end(&mut self, file: &str, number: u64, line: &[u8]) {
        if self.last_lines.len() < FILES {
            self.last_lines.insert(file.to_owned(), sighting(number, line));
        }
    }
}

fn sighting(line: u64, text: &[u8]) -> Sighting {
    let kept = text.get(..text.len().min(TEXT_LIMIT)).unwrap_or(text);
    Sighting { line, text: plain(&String::from_utf8_lossy(kept)) }
}

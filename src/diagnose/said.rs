//! What a line was evidence of when it was said before in the same words: a log that waits says the same thing thousands
//! of times, and that need not be found out anew.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;

use super::matcher::Seen;

/// Lines that are remembered, and as many older ones.
const LIMIT: usize = 1000;
/// `0301 10:00:00.123456`, what klog puts between a level and the number of its process.
const STAMP: usize = 20;

/// A signature by its place in the catalogue, and the id of the finding.
pub(super) type Evidence = (usize, String);
/// All that a line is evidence of.
pub(super) type Known = Arc<[Evidence]>;

#[derive(Debug, Default)]
pub(super) struct Said {
    hasher: RandomState,
    known: HashMap<u64, Known, RandomState>,
    /// What was known before that and not said since goes next.
    older: HashMap<u64, Known, RandomState>,
}

impl Said {
    pub(super) fn key(&self, seen: &Seen<'_>) -> u64 {
        self.hasher.hash_one((seen.source, seen.unit, timeless(seen.text)))
    }

    pub(super) fn of(&mut self, key: u64) -> Option<Known> {
        if let Some(evidence) = self.older.remove(&key) {
            self.keep(key, evidence);
        }
        self.known.get(&key).cloned()
    }

    pub(super) fn keep(&mut self, key: u64, of: Known) {
        if self.known.len() >= LIMIT {
            self.older = std::mem::take(&mut self.known);
        }
        self.known.insert(key, of);
    }

    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.older.clear();
    }
}

/// A line of klog without its time and process (k8s.io/klog, `klog.go`), any other as it is.
fn timeless(text: &str) -> (Option<u8>, &str) {
    let rest = text.get(1 + STAMP..).filter(|_| {
        let stamp = text.as_bytes().get(1..1 + STAMP).unwrap_or_default();
        stamp.iter().all(|byte| byte.is_ascii_digit() || b" :.".contains(byte))
    });
    match rest {
        Some(rest) => (text.bytes().next(), rest.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit())),
        None => (None, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_time_of_a_line_is_left_out() {
        let line = |text| timeless(text);
        let first = line(r#"E0301 10:00:00.000008    2247 reflector.go:158] "Failed" err="x""#);
        assert_eq!(first, line(r#"E0302 23:59:59.123456       1 reflector.go:158] "Failed" err="x""#));
        assert_ne!(first, line(r#"I0302 23:59:59.123456       1 reflector.go:158] "Failed" err="x""#));
        assert_ne!(first, line(r#"E0302 23:59:59.123456       1 reflector.go:158] "Failed" err="y""#));
        assert_eq!(line("Error: 10.0.0.8 is not there"), (None, "Error: 10.0.0.8 is not there"));
        assert_eq!(line("é"), (None, "é"));
    }
}

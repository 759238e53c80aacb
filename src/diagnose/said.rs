//! What a line was evidence of when it was said before: a log that waits says the same thing thousands of times, and that
//! need not be found out anew. What differs may be the time, or a number that somebody made up for this one request.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;

use super::matcher::Seen;

/// Lines that are remembered, and as many older ones.
const LIMIT: usize = 1000;
/// `0301 10:00:00.123456`, what klog puts between a level and the number of its process.
const STAMP: usize = 20;
/// Hexadecimal digits in a row that are no word and no number that means something: they name a container, a request, a
/// digest.
const NAME: usize = 8;

/// A signature by its place in the catalogue, and the id of the finding.
pub(super) type Evidence = (usize, String);
/// All that a line is evidence of.
pub(super) type Known = Arc<[Evidence]>;

#[derive(Debug, Default)]
pub(super) struct Said {
    hasher: RandomState,
    known: HashMap<u64, Meaning, RandomState>,
    /// What was known before that and not said since goes next.
    older: HashMap<u64, Meaning, RandomState>,
    shape: Vec<u8>,
}

/// What lines of one shape mean.
#[derive(Debug, Clone)]
enum Meaning {
    Known(Known),
    /// That depends on the names that were made up.
    Differs,
}

/// By what a line is remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Without times and made-up names.
    shape: u64,
    words: u64,
}

impl Said {
    pub(super) fn key(&mut self, seen: &Seen<'_>) -> Key {
        let (level, text) = timeless(seen.text);
        self.shape.clear();
        let named = shape(text.as_bytes(), &mut self.shape);
        let shape = self.hasher.hash_one((seen.source, seen.unit, level, &self.shape));
        let words = if named { self.hasher.hash_one((seen.source, seen.unit, level, text)) } else { shape };
        Key { shape, words }
    }

    pub(super) fn of(&mut self, key: Key) -> Option<Known> {
        match self.meaning(key.shape)? {
            Meaning::Known(known) => Some(known),
            Meaning::Differs => match self.meaning(key.words)? {
                Meaning::Known(known) => Some(known),
                Meaning::Differs => None,
            },
        }
    }

    pub(super) fn keep(&mut self, key: Key, known: Known) {
        let differs = key.shape != key.words && known.iter().any(|(_, id)| shape(id.as_bytes(), &mut Vec::new()));
        if differs {
            self.put(key.shape, Meaning::Differs);
        }
        self.put(if differs { key.words } else { key.shape }, Meaning::Known(known));
    }

    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.older.clear();
    }

    fn meaning(&mut self, key: u64) -> Option<Meaning> {
        if let Some(meaning) = self.older.remove(&key) {
            self.put(key, meaning);
        }
        self.known.get(&key).cloned()
    }

    fn put(&mut self, key: u64, meaning: Meaning) {
        if self.known.len() >= LIMIT {
            self.older = std::mem::take(&mut self.known);
        }
        self.known.insert(key, meaning);
    }
}

/// Put into `shape` what is left of a line without times, made-up names and the ports that a connection goes out from.
/// Says whether it had any.
fn shape(line: &[u8], shape: &mut Vec<u8>) -> bool {
    let mut rest = line;
    let mut named = false;
    while let Some(start) = rest.iter().position(u8::is_ascii_digit) {
        // The letters before the first figure belong to it.
        let letters = rest.iter().take(start).rev().take_while(|byte| is_figure(byte)).count();
        let (before, from) = rest.split_at(start - letters);
        let (length, kind) = made_up(from);
        shape.extend_from_slice(before);
        if length > 0 {
            named = true;
            shape.push(kind);
            rest = from.get(length..).unwrap_or_default();
        } else {
            let end = from.iter().position(|byte| !is_figure(byte)).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            shape.extend_from_slice(word);
            rest = after;
        }
    }
    shape.extend_from_slice(rest);
    named
}

/// How many bytes from here on are a time, a date, a port that leads out or a made-up name, and which of them. A name of
/// figures only is not what one of letters is, nor one of another length.
fn made_up(from: &[u8]) -> (usize, u8) {
    const TIME: u8 = 0;
    const DATE: u8 = 1;
    const PORT: u8 = 2;
    // With its length.
    const FIGURES: u8 = 64;
    const LETTERS: u8 = 160;
    const LONGEST: u8 = 95;
    let figures = from.iter().take_while(|byte| is_figure(byte)).count();
    let after = from.get(figures..).unwrap_or_default();
    let pair = |bytes: &[u8], by: u8| matches!(bytes, [sign, a, b, ..] if *sign == by && a.is_ascii_digit() && b.is_ascii_digit());
    let pairs = |by: u8| pair(after, by) && after.get(3..).is_some_and(|rest| pair(rest, by));
    match figures {
        2 if pairs(b':') => {
            let fraction = after.get(6..).filter(|rest| rest.starts_with(b".")).unwrap_or_default();
            let digits = fraction.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count();
            (figures + 6 + if digits > 0 { 1 + digits } else { 0 }, TIME)
        }
        4 if pairs(b'-') => (figures + 6, DATE),
        NAME.. => {
            let letters = from.iter().take(figures).any(u8::is_ascii_lowercase);
            let length = u8::try_from(figures).unwrap_or(LONGEST).min(LONGEST);
            (figures, length + if letters { LETTERS } else { FIGURES })
        }
        _ if after.starts_with(b"->") => (figures, PORT),
        _ => (0, 0),
    }
}

fn is_figure(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
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

    #[test]
    fn what_was_made_up_for_one_request_is_left_out() {
        let shape_of = |line: &str| {
            let mut kept = Vec::new();
            let named = shape(line.as_bytes(), &mut kept);
            (kept, named)
        };
        for (one, other) in [
            (
                r#"time="2025-03-01 10:00:00.759337789Z" level=info"#,
                r#"time="2026-12-31 23:59:59.123456789Z" level=info"#,
            ),
            ("id=2f5c1c0e-7d0e-4b39 name=/runtime.v1", "id=9a0b1c2d-7d0e-4b39 name=/runtime.v1"),
            ("container died df4a020d0848 (x)", "container died a4762c3d1111 (x)"),
            ("read udp 10.0.0.6:40349->10.0.0.2:53", "read udp 10.0.0.6:1024->10.0.0.2:53"),
        ] {
            assert_eq!(shape_of(one), shape_of(other));
            assert!(shape_of(one).1, "{one}");
        }
        for (one, other) in [
            ("status code: 403", "status code: 401"),
            ("dial tcp 10.0.1.5:6443: i/o timeout", "dial tcp 10.0.1.6:6443: i/o timeout"),
            ("4.14.0 is not 4.14.1", "4.14.0 is not 4.14.2"),
            ("sha256:01234567", "sha256:0123456789"),
            ("ip-10-0-0-8 é 1", "ip-10-0-0-9 é 1"),
            ("x 01234567", "x 0123456f"),
        ] {
            assert_ne!(shape_of(one), shape_of(other));
        }
        assert_eq!(shape_of("no figures, and 3 of ten"), (b"no figures, and 3 of ten".to_vec(), false));
    }

    #[test]
    fn what_names_the_finding_is_no_made_up_name() {
        let mut said = Said::default();
        let at = jiff::Timestamp::UNIX_EPOCH;
        let mut key = |said: &mut Said, text: &str| {
            said.key(&Seen::new("journal:a", "crio", text, at, crate::model::event::Level::Info))
        };
        let known = |id: &str| Known::from(vec![(1, id.to_owned())]);
        let pulled = |digest: &str, id: u32| format!("cannot pull a@sha256:{digest} id={id:08x}aa");
        let (one, other) = ("0a1b2c3d", "ffff0000");
        let first = key(&mut said, &pulled(one, 1));
        said.keep(first, known(&format!("PULL:{one}")));
        // The same words are known, those of another image are not.
        assert!(said.of(first).is_some());
        let second = key(&mut said, &pulled(other, 1));
        assert!(said.of(second).is_none());
        said.keep(second, known(&format!("PULL:{other}")));
        assert_eq!(said.of(first).as_deref(), Some(&*known("PULL:0a1b2c3d")));
        assert_eq!(said.of(second).as_deref(), Some(&*known("PULL:ffff0000")));
        // What does not depend on the name is known for all of them.
        let third = key(&mut said, "sandbox 0a1b2c3d0a1b is gone");
        said.keep(third, known("SANDBOX"));
        let fourth = key(&mut said, "sandbox ffff00000a1b is gone");
        assert_eq!(said.of(fourth).as_deref(), Some(&*known("SANDBOX")));
    }
}

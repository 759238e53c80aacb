//! What a line was evidence of when it was said before: a log that waits says the same thing thousands of times, and that
//! need not be found out anew. What differs may be the time, or a number that somebody made up for this one request.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::ops::Range;
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
    last: Last,
}

/// The line that was asked for last.
#[derive(Debug, Default)]
struct Last {
    text: Vec<u8>,
    shape: Vec<u8>,
    /// Where made-up names stand in it.
    names: Vec<Range<usize>>,
}

/// What lines of one shape mean.
#[derive(Debug, Clone)]
enum Meaning {
    Known(Known),
    /// That depends on these of the made-up names.
    By(Arc<[usize]>),
}

/// By what the line that was asked for last is remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    words: u64,
    /// Without times and made-up names; nothing when the very words are known.
    shape: Option<u64>,
}

impl Said {
    /// What a line is remembered by, and what it meant before.
    pub(super) fn of(&mut self, seen: &Seen<'_>) -> (Key, Option<Known>) {
        let (level, text) = timeless(seen.text);
        let words = self.hasher.hash_one((seen.source, seen.unit, level, text));
        if let Some(Meaning::Known(known)) = self.meaning(words) {
            return (Key { words, shape: None }, Some(known));
        }
        self.last.take(text);
        let named = !self.last.names.is_empty();
        let shape = named.then(|| self.hasher.hash_one((seen.source, seen.unit, level, &self.last.shape)));
        let known = match shape.and_then(|shape| Some((shape, self.meaning(shape)?))) {
            Some((_, Meaning::Known(known))) => Some(known),
            Some((shape, Meaning::By(names))) => match self.meaning(self.named(shape, &names)) {
                Some(Meaning::Known(known)) => Some(known),
                Some(Meaning::By(_)) | None => None,
            },
            None => None,
        };
        (Key { words, shape }, known)
    }

    /// What the line that was asked for last means.
    pub(super) fn keep(&mut self, key: Key, known: Known) {
        if let Some(shape) = key.shape {
            match self.last.decisive(&known) {
                None => self.put(shape, Meaning::Known(Arc::clone(&known))),
                Some(names) => {
                    self.put(self.named(shape, &names), Meaning::Known(Arc::clone(&known)));
                    self.put(shape, Meaning::By(names.into()));
                }
            }
        }
        self.put(key.words, Meaning::Known(known));
    }

    /// Of lines of this shape those with the same names in these places.
    fn named(&self, shape: u64, names: &[usize]) -> u64 {
        let name = |place: &usize| self.last.names.get(*place).and_then(|name| self.last.text.get(name.clone()));
        self.hasher.hash_one((shape, names.iter().map(name).collect::<Vec<_>>()))
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

impl Last {
    fn take(&mut self, text: &str) {
        self.text.clear();
        self.text.extend_from_slice(text.as_bytes());
        self.shape.clear();
        self.names.clear();
        shape(text.as_bytes(), &mut self.shape, &mut self.names);
    }

    /// Which of its made-up names the findings are called by; all of them when one comes from elsewhere.
    fn decisive(&self, known: &Known) -> Option<Vec<usize>> {
        let called: Vec<Vec<u8>> = known.iter().flat_map(|(_, id)| names(id.as_bytes())).collect();
        let text = |name: &Range<usize>| self.text.get(name.clone()).unwrap_or_default();
        let from_here = |called: &Vec<u8>| self.names.iter().any(|name| text(name) == called);
        let all = !called.iter().all(from_here);
        let decides = |(_, name): &(usize, &Range<usize>)| all || called.iter().any(|called| called == text(name));
        let places = self.names.iter().enumerate().filter(decides).map(|(place, _)| place);
        (!called.is_empty()).then(|| places.collect())
    }
}

/// The made-up names in a text.
fn names(text: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    shape(text, &mut Vec::new(), &mut found);
    found.into_iter().filter_map(|name| text.get(name).map(<[u8]>::to_vec)).collect()
}

/// Put into `shape` what is left of a line without times, made-up names, numbers of processes and tries, and the
/// ports that a connection goes out from, and where those stand into `names`.
fn shape(line: &[u8], shape: &mut Vec<u8>, names: &mut Vec<Range<usize>>) {
    let mut rest = line;
    while let Some(start) = first_digit(rest) {
        // The letters before the first figure belong to it.
        let letters = rest.iter().take(start).rev().take_while(|byte| is_figure(byte)).count();
        let (before, from) = rest.split_at(start - letters);
        let (length, kind) = made_up(before, from);
        shape.extend_from_slice(before);
        if length > 0 {
            shape.extend([0, kind]);
            let at = line.len() - from.len();
            names.push(at..at + length);
            rest = from.get(length..).unwrap_or_default();
        } else {
            let end = from.iter().position(|byte| !is_figure(byte)).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            shape.extend_from_slice(word);
            rest = after;
        }
    }
    shape.extend_from_slice(rest);
}

/// Most of a line has none: several bytes are looked at together.
fn first_digit(line: &[u8]) -> Option<usize> {
    let mut parts = line.chunks(16).enumerate();
    let (place, part) = parts.find(|(_, part)| part.iter().fold(false, |any, byte| any | byte.is_ascii_digit()))?;
    part.iter().position(u8::is_ascii_digit).map(|at| place * 16 + at)
}

/// How many bytes from here on are a time, a date, a port that leads out, the number of a process or a made-up name, and
/// which of them. A name of figures only is not what one of letters is, nor one of another length.
fn made_up(before: &[u8], from: &[u8]) -> (usize, u8) {
    const TIME: u8 = 0;
    const DATE: u8 = 1;
    const PORT: u8 = 2;
    const UUID: u8 = 3;
    const PROCESS: u8 = 4;
    const TIMES: u8 = 5;
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
        8 if is_uuid(from) => (36, UUID),
        NAME.. => {
            let letters = from.iter().take(figures).any(u8::is_ascii_lowercase);
            let length = u8::try_from(figures).unwrap_or(LONGEST).min(LONGEST);
            (figures, length + if letters { LETTERS } else { FIGURES })
        }
        _ if after.starts_with(b"->") => (figures, PORT),
        _ if ["PID=", "PID ", "pid=", "pid ", "pid:"].iter().any(|name| before.ends_with(name.as_bytes())) => {
            (figures, PROCESS)
        }
        // How often something was tried: `[#12] failed to create some manifests`.
        _ if before.ends_with(b"[#") && after.starts_with(b"]") => (figures, TIMES),
        _ => (0, 0),
    }
}

/// 8-4-4-4-12 figures.
fn is_uuid(from: &[u8]) -> bool {
    let dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let fits = |(at, byte): (usize, &u8)| if dash(at) { *byte == b'-' } else { is_figure(byte) };
    from.get(..36).is_some_and(|text| text.iter().enumerate().all(fits))
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
            let (mut kept, mut names) = (Vec::new(), Vec::new());
            shape(line.as_bytes(), &mut kept, &mut names);
            (kept, names.len())
        };
        for (one, other) in [
            (
                r#"time="2025-03-01 10:00:00.759337789Z" level=info"#,
                r#"time="2026-12-31 23:59:59.123456789Z" level=info"#,
            ),
            ("id=2f5c1c0e-7d0e-4b39-9bd7-7f9a2f1b3c4d x", "id=9a0b1c2d-0000-1111-2222-0123456789ab x"),
            ("container died df4a020d0848 (x)", "container died a4762c3d1111 (x)"),
            ("read udp 10.0.0.6:40349->10.0.0.2:53", "read udp 10.0.0.6:1024->10.0.0.2:53"),
            ("container died PID=7 (x)", "container died PID=40349 (x)"),
            ("Found defunct process with PID 7 (conmon)", "Found defunct process with PID 40349 (conmon)"),
            ("[#7] failed to create some manifests:", "[#3542] failed to create some manifests:"),
        ] {
            assert_eq!(shape_of(one), shape_of(other));
            assert!(shape_of(one).1 > 0, "{one}");
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
        assert_eq!(shape_of("no figures, and 3 of ten"), (b"no figures, and 3 of ten".to_vec(), 0));
    }

    #[test]
    fn what_names_the_finding_is_no_made_up_name() {
        let mut said = Said::default();
        let at = jiff::Timestamp::UNIX_EPOCH;
        let of = |said: &mut Said, text: &str| {
            said.of(&Seen::new("journal:a", "crio", text, at, crate::model::event::Level::Info))
        };
        let known = |id: &str| Known::from(vec![(1, id.to_owned())]);
        let pulled = |digest: &str, id: u32| format!("cannot pull a@sha256:{digest} id={id:08x}aa");
        let (one, other) = (pulled("0a1b2c3d", 1), pulled("ffff0000", 1));
        let (key, none) = of(&mut said, &one);
        assert!(none.is_none());
        said.keep(key, known("PULL:0a1b2c3d"));
        // The same words are known, those of another image are not.
        let (key, none) = of(&mut said, &other);
        assert!(none.is_none());
        said.keep(key, known("PULL:ffff0000"));
        assert_eq!(of(&mut said, &one).1.as_deref(), Some(&*known("PULL:0a1b2c3d")));
        assert_eq!(of(&mut said, &other).1.as_deref(), Some(&*known("PULL:ffff0000")));
        // Nor does it matter what the request is called that the finding is not called by.
        assert_eq!(of(&mut said, &pulled("0a1b2c3d", 2)).1.as_deref(), Some(&*known("PULL:0a1b2c3d")));
        assert!(of(&mut said, &pulled("00000001", 2)).1.is_none());
        // What does not depend on the name is known for all of them.
        let (key, _) = of(&mut said, "sandbox 0a1b2c3d0a1b is gone");
        said.keep(key, known("SANDBOX"));
        assert_eq!(of(&mut said, "sandbox ffff00000a1b is gone").1.as_deref(), Some(&*known("SANDBOX")));
        assert!(of(&mut said, "sandbox ffff0000 is gone").1.is_none());
    }
}

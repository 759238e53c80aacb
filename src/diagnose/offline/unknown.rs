//! What can be said of a failure that no signature knows: what a program said as it gave up, the first error of every
//! file, units that failed, and how far each log went.

use std::collections::{BTreeMap, BTreeSet};

use regex::bytes::Regex;

use super::{Located, plain, text_of};
use crate::diagnose::line::{CAPTURE_LIMIT, cut, innermost, shortened};
use crate::diagnose::matcher::EVIDENCE_LIMIT;
use crate::diagnose::rank::UNKNOWN;
use crate::model::event::{Finding, Level, LogLine};

/// Behind everything that is known.
const RANK: u32 = 99;

/// Files of which the first error is kept, and bytes of it.
const FILES: usize = 200;
const TEXT_LIMIT: usize = 400;
/// An error that so many lines come after was not the last word.
const HORIZON: u64 = 40;
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
    words: Option<Regex>,
    /// Whether the log that is being read has said an error.
    erred: bool,
    /// What the log that is being read was given up with, and the first of the errors at its end.
    fatal: Option<Words>,
    error: Option<Words>,
    /// The same of all the logs before it; the first one speaks.
    given_up: Option<(Located, Level)>,
}

/// What a program said as it gave up.
#[derive(Debug, Clone)]
struct Words {
    number: u64,
    source: String,
    line: LogLine,
}

/// How lines begin with which a program ends for good, and with an error that may not be the last one. Lines of the
/// journal and of klog are none: what goes on says frightening things there all the time.
const FATAL: &[&str] = &["FATAL ", "FATA[", "fatal: ", "fatal error: ", "panic: "];
const ERROR: &[&str] = &[
    "ERROR ",
    "ERRO[",
    "[ERROR]",
    "Error: ",
    "error: ",
    // Ansible goes on after some of its fatal errors.
    "fatal: [",
    "Failed to ",
    "failed to ",
    "Unable to ",
    "unable to ",
    "Could not ",
    "could not ",
    "Cannot ",
    "cannot ",
];
/// Bytes at the beginning of a line of logfmt that hold its level.
const HEAD: usize = 80;

pub(super) fn ends(line: &[u8]) -> Option<Level> {
    let line = line.strip_prefix("│ ".as_bytes()).unwrap_or(line);
    let begins = |starts: &[&str]| starts.iter().any(|start| line.starts_with(start.as_bytes()));
    let says = |word: &str| memchr::memmem::find(line.get(..HEAD).unwrap_or(line), word.as_bytes()).is_some();
    match line.first()? {
        b'0'..=b'9' => {
            let behind_time = line.get(19..)?.trim_ascii_start();
            behind_time.starts_with(b"[ERROR]").then_some(Level::Warn)
        }
        b't' | b'l' if !begins(&["time=\"", "level="]) => None,
        b't' | b'l' if says("level=fatal") => Some(Level::Error),
        b't' | b'l' => says("level=error").then_some(Level::Warn),
        _ if begins(ERROR) => Some(Level::Warn),
        _ => begins(FATAL).then_some(Level::Error),
    }
}

impl Unknown {
    pub(super) fn look(&mut self, file: &str, number: u64, line: &[u8]) {
        if self.erred || self.first_errors.len() >= FILES {
            return;
        }
        if self.words.is_none() {
            self.words = Regex::new("error|Error|ERROR|fatal|FATAL|panic:|Failed to ").ok();
        }
        if self.words.as_ref().is_some_and(|words| words.is_match(line)) {
            self.erred = true;
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

    /// A line that [`ends`] something.
    pub(super) fn last_words(&mut self, how: Level, source: &str, number: u64, line: &LogLine) {
        let words = || Some(Words { number, source: source.to_owned(), line: line.clone() });
        if innermost(&line.text).is_empty() {
        } else if how >= Level::Error {
            self.fatal = words();
        } else if self.error.as_ref().is_none_or(|first| number > first.number + HORIZON) {
            self.error = words();
        }
    }

    /// The line after the last words, when these break off in the middle of a sentence.
    pub(super) fn go_on(&mut self, number: u64, line: &[u8]) {
        for words in self.fatal.iter_mut().chain(&mut self.error) {
            if words.number + 1 == number && words.line.text.trim_end().ends_with([',', ':']) {
                words.line.text = format!("{} {}", words.line.text.trim_end(), text_of(line).trim());
            }
        }
    }

    /// The finding that says of a failure which no signature knows what the program said itself.
    pub(super) fn given_up(&mut self) -> Option<Located> {
        self.given_up.take().map(|(located, _)| located)
    }

    pub(super) fn end(&mut self, file: &str, number: u64, line: &[u8]) {
        let (fatal, error) = (self.fatal.take(), self.error.take());
        self.erred = false;
        let error = error.filter(|first| number <= first.number + HORIZON).map(|words| (words, Level::Info));
        let fatal = fatal.map(|words| (words, Level::Error));
        let says_why = |(words, _): &(Words, Level)| !is_vague(innermost(&words.line.text));
        let chosen = fatal.clone().filter(says_why).or(error.filter(says_why)).or(fatal);
        if let Some((words, severity)) = chosen
            && self.given_up.as_ref().is_none_or(|(_, known)| severity > *known)
        {
            let number = words.number;
            self.given_up = Some((Located::new(words.finding(severity), file, number), severity));
        }
        if self.last_lines.len() < FILES {
            self.last_lines.insert(file.to_owned(), sighting(number, line));
        }
    }
}

impl Words {
    fn finding(self, severity: Level) -> Finding {
        let why = shortened(&plain(innermost(&self.line.text)), CAPTURE_LIMIT);
        Finding {
            id: UNKNOWN.to_owned(),
            signature: UNKNOWN.to_owned(),
            title: format!("No signature knows this failure; in its own words: {why}"),
            next: Some("Look at the lines before it; `bartizan signature new` makes a signature of it".to_owned()),
            severity,
            captures: [("why".to_owned(), why)].into(),
            source: self.source,
            unit: self.line.unit,
            at: self.line.at,
            line: cut(&self.line.text, EVIDENCE_LIMIT).to_owned(),
            line_number: Some(self.number),
            checklist: None,
            recovery: None,
            rank: RANK,
            explained_by: None,
        }
    }
}

/// Whether it only says that it failed.
fn is_vague(why: &str) -> bool {
    why.len() < 20
        || ["exit status 1", "failed", "errors occurred", "failed to complete", "errors", "failure"]
            .iter()
            .any(|end| why.trim_end_matches(['.', ' ']).ends_with(end))
}

fn sighting(line: u64, text: &[u8]) -> Sighting {
    let kept = text.get(..text.len().min(TEXT_LIMIT)).unwrap_or(text);
    Sighting { line, text: plain(&String::from_utf8_lossy(kept)) }
}

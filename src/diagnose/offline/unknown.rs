//! What can be said of a failure that no signature knows: what a program said as it gave up, the first error of every
//! file, units that failed, and how far each log went.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use regex::{Regex, bytes};

use super::{Located, plain, text_of};
use crate::diagnose::line::{CAPTURE_LIMIT, cut, decoded, innermost, shortened};
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
/// So few lines were chosen by somebody: what complains in them is what they are about, whoever says it. In a longer log
/// of a node something complains all the time.
const EXCERPT: u64 = 60;
/// As loud as what is told beside findings that are known: an error, or words that say what is wrong and that it is.
pub(super) const LOUD: u32 = 3;
/// Bytes of words that can be understood by themselves.
const ENOUGH: usize = 160;
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
    /// What complains in the log that is being read, and how loud.
    complaints: Vec<Complaint>,
    /// The loudest of the first log that is an excerpt, and how loud it is.
    complaint: Option<(Located, u32)>,
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

/// A line of an excerpt that says that something is wrong.
#[derive(Debug, Clone)]
struct Complaint {
    words: Words,
    loud: u32,
    severity: Level,
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
/// What is looked for in every line until it is found.
static ERRORS: LazyLock<Option<bytes::Regex>> =
    LazyLock::new(|| bytes::Regex::new("error|Error|ERROR|fatal|FATAL|panic:|Failed to ").ok());
/// How a line sounds that says what is wrong, and one that says only that something is.
static WHAT: LazyLock<Option<bytes::Regex>> = LazyLock::new(|| {
    let words = [
        "denied|forbidden|refused|cannot|can't|couldn't|could not|invalid|not found|no such|missing|unknown|expired",
        "timed out|timeout|exceed(?:ed|s)?|unsupported|not supported|not allowed|conflicts?|mismatch|unauthorized",
        "rejected|insufficient|must|does not|doesn't|do not|is not|isn't|not (?:available|ready|valid|permitted|loaded)",
        "unavailable|already (?:exists|in use)|no (?:space|route|usable)|has no|there is no|reset by peer|blocked|busy|EOF",
        "required|expected|incompatible|too (?:old|new|large|small|long|many|few)|out of|exhausted|corrupt(?:ed)?|undefined",
    ];
    bytes::Regex::new(&format!(r"(?i-u)\b(?:{})\b", words.join("|"))).ok()
});
static THAT: LazyLock<Option<bytes::Regex>> = LazyLock::new(|| {
    bytes::Regex::new("(?i-u)error|fail|fatal|unable|panic|unexpected|degraded|warning|problem|backoff|abort|crash")
        .ok()
});
/// Where loggers put a message and its error: klog's text, logfmt, JSON of zap and others.
static MESSAGE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r#"(?:\bmsg="|"(?:msg|message)": ?"|^(?:[IWEF]\d{4} \S+ +\d+ \S+\] )?")((?:[^"\\]|\\.)+)""#).ok()
});
static KLOG: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[IWEF]\d{4} \S+ +\d+ \S+\] ").ok());
static ERROR_OF: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r#"(?:\berr(?:or)?="|"err(?:or)?": ?")((?:[^"\\]|\\.)+)""#).ok());
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
        if matches(&ERRORS, line) {
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
        let complaint = self.complaints.last_mut().map(|complaint| &mut complaint.words);
        for words in self.fatal.iter_mut().chain(&mut self.error).chain(complaint) {
            if words.number + 1 == number && words.line.text.trim_end().ends_with([',', ':']) {
                words.line.text = format!("{} {}", words.line.text.trim_end(), text_of(line).trim());
            }
        }
    }

    /// The finding that says of a failure which no signature knows what the program said itself.
    pub(super) fn given_up(&mut self) -> Option<Located> {
        self.given_up.take().map(|(located, _)| located)
    }

    /// Whether a line may be what an excerpt is about.
    pub(super) fn complains(number: u64, line: &[u8]) -> bool {
        // Heads of tables name what can be wrong, and so does who types a command.
        let typed = ["$ ", "# "].iter().any(|prompt| line.starts_with(prompt.as_bytes()))
            || ["]$ ", "]# "].iter().any(|prompt| memchr::memmem::find(line, prompt.as_bytes()).is_some());
        number <= EXCERPT && !typed && line.iter().any(u8::is_ascii_lowercase) && loudness(line) > 0
    }

    /// A line that [`Self::complains`] and that no signature knows.
    pub(super) fn complaint(&mut self, ends: Option<Level>, source: &str, number: u64, line: LogLine) {
        let fatal = ends.is_some_and(|how| how >= Level::Error);
        let error = ends.is_some() || line.level >= Level::Error;
        let loud = loudness(line.text.as_bytes()) + 2 * u32::from(error) + u32::from(fatal);
        let words = Words { number, source: source.to_owned(), line };
        self.complaints.push(Complaint { words, loud, severity: if fatal { Level::Error } else { Level::Info } });
    }

    /// What an excerpt says besides what is known, when that is `loud` enough.
    pub(super) fn complained(&mut self, loud: u32) -> Option<Located> {
        self.complaint.take().filter(|(_, loudest)| *loudest >= loud).map(|(located, _)| located)
    }

    pub(super) fn end(&mut self, file: &str, number: u64, line: &[u8]) {
        let (fatal, error) = (self.fatal.take(), self.error.take());
        let complaints = std::mem::take(&mut self.complaints);
        if number <= EXCERPT && self.complaint.is_none() {
            self.complaint = loudest(complaints).map(|(line, found, loud)| (Located::new(found, file, line), loud));
        }
        self.erred = false;
        let error = error.filter(|first| number <= first.number + HORIZON).map(|words| (words, Level::Info));
        let fatal = fatal.map(|words| (words, Level::Error));
        let says_why = |(words, _): &(Words, Level)| !is_vague(innermost(&words.line.text));
        let chosen = fatal.clone().filter(says_why).or(error.filter(says_why)).or(fatal);
        if let Some((words, severity)) = chosen
            && self.given_up.as_ref().is_none_or(|(_, known)| severity > *known)
        {
            let (number, why) = (words.number, words.why());
            self.given_up = Some((Located::new(words.finding(severity, why), file, number), severity));
        }
        if self.last_lines.len() < FILES {
            self.last_lines.insert(file.to_owned(), sighting(number, line));
        }
    }
}

impl Words {
    fn why(&self) -> String {
        shortened(&plain(innermost(&reason(&self.line.text))), CAPTURE_LIMIT)
    }

    fn finding(self, severity: Level, why: String) -> Finding {
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

/// The loudest of these (the first of such); what is too short to be understood by itself, with what the others say.
fn loudest(mut complaints: Vec<Complaint>) -> Option<(u64, Finding, u32)> {
    let loud = |complaint: &Complaint| match is_vague(innermost(&reason(&complaint.words.line.text))) {
        true => complaint.loud / 2,
        false => complaint.loud,
    };
    complaints.sort_by_cached_key(|complaint| std::cmp::Reverse(loud(complaint)));
    let (mut said, mut length) = (Vec::new(), 0);
    for why in complaints.iter().map(|complaint| complaint.words.why()) {
        let more = length < ENOUGH && length + why.len() <= CAPTURE_LIMIT && !said.contains(&why);
        if more || said.is_empty() {
            length += why.len();
            said.push(why);
        }
    }
    let loudest = complaints.into_iter().next()?;
    let (loud, Complaint { words, severity, .. }) = (loud(&loudest), loudest);
    Some((words.number, words.finding(severity, said.join("; ")), loud))
}

fn matches(words: &LazyLock<Option<bytes::Regex>>, line: &[u8]) -> bool {
    words.as_ref().is_some_and(|words| words.is_match(line))
}

fn loudness(line: &[u8]) -> u32 {
    2 * u32::from(matches(&WHAT, line)) + u32::from(matches(&THAT, line))
}

/// Of a line with fields its message and its error, of any other the whole.
fn reason(text: &str) -> Cow<'_, str> {
    let field = |of: &LazyLock<Option<Regex>>| {
        let found = of.as_ref()?.captures(text)?.get(1)?;
        Some(decoded(found.as_str()))
    };
    match (field(&MESSAGE), field(&ERROR_OF)) {
        (Some(message), Some(error)) if !message.contains(&*error) => Cow::Owned(format!("{message}: {error}")),
        (Some(error), _) if text.starts_with('{') => error,
        (None, Some(error)) => error,
        _ => {
            let head = KLOG.as_ref().and_then(|klog| klog.find(text)).map_or(0, |head| head.end());
            Cow::Borrowed(text.get(head..).unwrap_or(text))
        }
    }
}

/// Whether it only says that it failed.
fn is_vague(why: &str) -> bool {
    why.len() < 20
        || why.trim_end().ends_with(':')
        || ["exit status 1", "failed", "errors occurred", "failed to complete", "errors", "failure"]
            .iter()
            .any(|end| why.trim_end_matches(['.', ' ']).ends_with(end))
}

fn sighting(line: u64, text: &[u8]) -> Sighting {
    let kept = text.get(..text.len().min(TEXT_LIMIT)).unwrap_or(text);
    Sighting { line, text: plain(&String::from_utf8_lossy(kept)) }
}

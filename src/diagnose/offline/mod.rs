//! Diagnosis of what was kept: log files, directories of them, a must-gather, a `log-bundle-*.tar.gz` of
//! `openshift-install gather bootstrap`, a run of this program, standard input. Archives are read as streams and never
//! unpacked to disk; what they may cost is bounded.

mod advice;
pub mod files;
mod folded;
pub mod forms;
mod joined;
pub mod objects;
pub mod report;
mod sound;
mod unknown;

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use self::files::{Files, Holds};
use self::folded::Folded;
use self::forms::{Forms, Origin, Parsed};
use self::unknown::{EXCERPT, FEW};
pub use self::unknown::{Sighting, Unknown};
use super::line::decoded;
use super::matcher::{CLUSTER, Seen, WINDOW};
use super::said::Known;
use super::signature::{Catalogue, CatalogueError};
use super::{Matcher, rank};
use crate::model::event::{Data, Event, Finding, Level, LogLine, Outcome};
use crate::model::text::strip_control;

/// What reading may cost.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes after decompression, over all files.
    pub bytes: u64,
    pub files: usize,
    /// Longer lines are cut.
    pub line: usize,
    /// Of directories.
    pub depth: usize,
    /// Bytes of a file with objects, which is read whole.
    pub objects: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 8 << 30, files: 20_000, line: 64 << 10, depth: 12, objects: 64 << 20 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error("{path}: {why}")]
    Read { path: String, why: String },
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Still true where the logs end; the most likely cause first.
    pub findings: Vec<Located>,
    /// What was over before it lasted for long. In an excerpt that says nothing else it is what there is to say.
    faded: Vec<Located>,
    /// What is nothing to worry about. Who cut out an excerpt may not know that.
    normal: Vec<Located>,
    /// What there is to see where no signature knows anything.
    pub unknown: Unknown,
    pub files: usize,
    pub lines: u64,
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

/// A finding and the places of its evidence.
#[derive(Debug, Clone)]
pub struct Located {
    pub finding: Finding,
    /// File, or archive and file in it.
    pub file: String,
    /// From 1.
    pub line: u64,
    /// Other files that say the same: file, line, text.
    pub also: Vec<(String, u64, String)>,
    /// 0 to 1, and what it rests on.
    pub confidence: f64,
    pub reasons: Vec<String>,
}

/// Other files that are named for one finding.
const ALSO: usize = 4;

/// Diagnose a file, a directory or a bundle with the built-in catalogue.
pub fn diagnose(path: &Path) -> Result<Report, OfflineError> {
    diagnose_with(&Catalogue::builtin()?, path, Limits::default())
}

pub fn diagnose_with(catalogue: &Catalogue, path: &Path, limits: Limits) -> Result<Report, OfflineError> {
    diagnose_all(catalogue, &[path.to_owned()], limits)
}

/// All of these together: what one says can explain what another does. `-` is standard input.
pub fn diagnose_all(catalogue: &Catalogue, paths: &[PathBuf], limits: Limits) -> Result<Report, OfflineError> {
    let mut reader = Reader::new(catalogue, limits);
    for path in paths {
        reader.path(path)?;
    }
    Ok(reader.finish())
}

struct Reader<'a> {
    catalogue: &'a Catalogue,
    limits: Limits,
    left: u64,
    report: Report,
    /// Seen, but for less than is unusual where their logs end.
    early: Vec<Located>,
    forms: Forms,
    /// One for all: its automaton is made once. Its memory is emptied for each file.
    matcher: Matcher,
}

/// Findings of the log that is being read.
type Opened = BTreeMap<String, Located>;

/// The log that is being read.
struct Log<'a> {
    name: &'a str,
    origin: Origin,
    number: u64,
    /// Of the newest line that has a time.
    at: Timestamp,
    open: Opened,
    /// The newest line that was held against the catalogue.
    looked_at: Vec<u8>,
    /// Lines after it that only those after them may have to know; the newest is the last.
    passed: VecDeque<Passed>,
}

struct Passed {
    line: Vec<u8>,
    evidence: Option<Known>,
}

enum Heard {
    /// It was held against the catalogue.
    New,
    /// It says nothing, or the same as one before it.
    Known(Option<Known>),
}

impl<'a> Log<'a> {
    fn new(name: &'a str) -> Self {
        let (origin, passed) = (files::origin(name), VecDeque::with_capacity(WINDOW + 1));
        let at = Timestamp::UNIX_EPOCH;
        Self { name, origin, number: 0, at, open: Opened::new(), looked_at: Vec::new(), passed }
    }

    /// Keep a line for those after it. Gives the room of one that is too long ago.
    fn pass(&mut self, line: Vec<u8>, evidence: Option<Known>) -> Vec<u8> {
        let oldest = if self.passed.len() > WINDOW { self.passed.pop_front() } else { None };
        self.passed.push_back(Passed { line, evidence });
        oldest.map_or_else(Vec::new, |oldest| oldest.line)
    }
}

fn seen<'a>(read: &'a Parsed<'_>) -> Seen<'a> {
    Seen::new(&read.source, &read.unit, &read.text, read.at, read.level)
}

impl<'a> Reader<'a> {
    fn new(catalogue: &'a Catalogue, limits: Limits) -> Self {
        let (report, early, forms) = (Report::default(), Vec::new(), Forms::default());
        Self { catalogue, limits, left: limits.bytes, report, early, forms, matcher: Matcher::new(catalogue) }
    }

    /// One log: its lines are held against the catalogue by themselves, since logs of one bundle overlap in time.
    fn log(&mut self, name: &str, mut text: impl BufRead) {
        self.matcher.forget();
        let (mut log, mut line, mut number) = (Log::new(name), Vec::new(), 0);
        let (mut excerpt, mut folded) = (Vec::new(), None);
        loop {
            match self.line(&mut text, &mut line) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.skip(name, &error.to_string());
                    break;
                }
            }
            number += 1;
            if let Some(plain) = uncoloured(&line) {
                line = plain;
            }
            if number <= EXCERPT {
                excerpt.push((number, std::mem::take(&mut line)));
                continue;
            }
            for (number, line) in excerpt.drain(..) {
                self.fold(&mut log, &mut folded, number, line);
            }
            line = self.fold(&mut log, &mut folded, number, line);
        }
        let excerpt = joined::together(excerpt, |text| self.hits(&log, text));
        for (number, line) in excerpt.into_iter().chain(folded.map(|last| (last.number, last.line))) {
            self.take(&mut log, number, line);
        }
        self.report.lines += number;
        if let Some(last) = log.passed.back() {
            log.at = self.forms.read(&log.origin, &text_of(&last.line), log.at).at;
        }
        let last = log.passed.back().map_or(&log.looked_at, |last| &last.line);
        self.report.unknown.end(name, number, last);
        self.end(name, number, log.at, log.open);
    }

    /// A line of a log that may be the rest of the one before it. Gives the room of another.
    fn fold(&mut self, log: &mut Log<'_>, folded: &mut Option<Folded>, number: u64, line: Vec<u8>) -> Vec<u8> {
        if folded.as_mut().is_some_and(|before| before.takes(&line)) {
            return line;
        }
        let before = folded.replace(Folded::new(number, line));
        before.map_or_else(Vec::new, |whole| self.take(log, whole.number, whole.line))
    }

    /// One whole line of a log. Gives the room of another.
    fn take(&mut self, log: &mut Log<'_>, number: u64, mut line: Vec<u8>) -> Vec<u8> {
        log.number = number;
        self.report.unknown.look(log.name, number, &line);
        let goes_on = self.report.unknown.go_on(number, &line);
        let complains = !goes_on && number <= EXCERPT && Unknown::complains(&line);
        if complains || number <= FEW {
            let text = text_of(&line);
            let read = self.forms.read(&log.origin, &text, log.at);
            let known = self.catalogue.prefilter.knows(&read.unit, &decoded(&read.text));
            self.report.unknown.say(number, &line, known);
            if complains && !known {
                let source = read.source.clone();
                self.report.unknown.complaint(sound::ends(&line), &source, number, read.into_line());
            }
        }
        match self.hear(log, &line) {
            Heard::New => {
                std::mem::swap(&mut line, &mut log.looked_at);
                line
            }
            Heard::Known(evidence) => log.pass(line, evidence),
        }
    }

    /// Signatures that a line means, whatever stands around it.
    fn hits(&mut self, log: &Log<'_>, line: &[u8]) -> joined::Hits {
        let text = text_of(line);
        let read = self.forms.read(&log.origin, &text, log.at);
        let text = decoded(&read.text);
        self.matcher.hits(&seen(&read), &text)
    }

    /// Hold a line against the catalogue, when what it says is not known already.
    fn hear(&mut self, log: &mut Log<'_>, line: &[u8]) -> Heard {
        let last_words = sound::ends(line);
        if last_words.is_none() && !self.catalogue.prefilter.may_match(line) {
            return Heard::Known(None);
        }
        let text = text_of(line);
        let read = self.forms.read(&log.origin, &text, log.at);
        log.at = read.at;
        if last_words.is_none()
            && let Some((evidence, told)) = self.matcher.recall(&seen(&read))
        {
            self.keep(told, log.name, log.number, &mut log.open);
            return Heard::Known(Some(evidence));
        }
        let (source, read) = (read.source.clone(), read.into_line());
        for passed in log.passed.drain(..) {
            let text = text_of(&passed.line);
            let passed_by = self.forms.read(&log.origin, &text, log.at);
            self.matcher.pass_by(&seen(&passed_by), passed.evidence.as_deref());
        }
        self.feed(log.name, &source, &read, log.number, &mut log.open);
        if let Some(passed) = self.matcher.take_passed() {
            self.report.unknown.over(passed);
        }
        if let Some(how) = last_words {
            let known = self.catalogue.prefilter.knows(&read.unit, &decoded(&read.text));
            self.report.unknown.last_words(how, &source, log.number, &read, known);
        }
        Heard::New
    }

    fn feed(&mut self, name: &str, source: &str, line: &LogLine, number: u64, open: &mut Opened) {
        self.report.unknown.look_closer(line);
        let told = self.matcher.feed(source, line, Some(number));
        self.keep(told, name, number, open);
    }

    /// The events of a run of this program.
    fn events(&mut self, name: &str, mut text: impl BufRead) {
        self.matcher.forget();
        let (mut open, mut number, mut at) = (Opened::new(), 0, Timestamp::UNIX_EPOCH);
        let mut line = Vec::new();
        while matches!(self.line(&mut text, &mut line), Ok(true)) {
            number += 1;
            let Ok(event) = serde_json::from_slice::<Event>(&line) else { continue };
            at = event.at;
            let told = match &event.data {
                Data::Sync(sync) => self.matcher.feed_sync(sync, at),
                Data::Observed(observed) => self.matcher.feed_observed(observed, at),
                Data::StepEnded { step, outcome: Outcome::Failed { causes }, .. } => {
                    self.matcher.feed_error(step.as_str(), causes, at)
                }
                Data::StepRetry { step, why, .. } => {
                    self.matcher.feed_error(step.as_str(), std::slice::from_ref(why), at)
                }
                Data::StepEnded { step, outcome, .. } if outcome.is_good() => {
                    self.matcher.feed_step_done(step.as_str())
                }
                Data::Rewound { .. } => {
                    self.matcher.forget();
                    open.clear();
                    Vec::new()
                }
                _ => Vec::new(),
            };
            self.keep(told, name, number, &mut open);
        }
        self.report.lines += number;
        self.end(name, number, at, open);
    }

    /// A file with objects of the cluster's API.
    fn objects(&mut self, name: &str, text: impl Read) {
        let mut whole = Vec::new();
        if let Err(error) = text.take(self.limits.objects.min(self.left)).read_to_end(&mut whole) {
            return self.skip(name, &error.to_string());
        }
        self.left = self.left.saturating_sub(whole.len() as u64);
        self.matcher.forget();
        let mut open = Opened::new();
        let objects = objects::parse(name, &whole);
        for object in &objects {
            let told = objects::feed(&mut self.matcher, object);
            self.keep(told, name, 1, &mut open);
        }
        let newest = objects.iter().filter_map(|object| objects::newest(object, 0)).max();
        self.end(name, 1, newest.unwrap_or(Timestamp::UNIX_EPOCH), open);
    }

    /// The service records of the bootstrap machine: what the last lines of a failing unit were.
    fn records(&mut self, name: &str, text: impl Read) {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Record {
            #[serde(default)]
            timestamp: String,
            error_message: Option<String>,
        }
        self.matcher.forget();
        let origin = files::origin(name);
        let (mut open, mut at) = (Opened::new(), Timestamp::UNIX_EPOCH);
        let records: Vec<Record> = serde_json::from_reader(text.take(self.limits.objects)).unwrap_or_default();
        for (record, number) in records.iter().zip(1..) {
            at = record.timestamp.parse().unwrap_or(at);
            for line in record.error_message.iter().flat_map(|text| text.lines()) {
                let line = self.forms.read(&origin, line, at).into_line();
                self.feed(name, &origin.source, &line, number, &mut open);
            }
        }
        self.end(name, 1, at, open);
    }

    /// A log is over: what lasts is due, what waits is early.
    fn end(&mut self, name: &str, number: u64, at: Timestamp, mut open: Opened) {
        let told = self.matcher.tick(at);
        self.keep(told, name, number, &mut open);
        self.report.findings.extend(open.into_values());
        let early = std::mem::take(&mut self.matcher.waiting).into_values().map(|waiting| waiting.finding);
        self.early.extend(early.map(|finding| Located::new(finding, name, number)));
        for (finding, because) in std::mem::take(&mut self.matcher.faded) {
            let found = Located::new(finding, name, number);
            match because {
                Some(because) => self.report.faded.push(found.over(&because)),
                None => self.report.normal.push(found.at_info()),
            }
        }
    }

    fn keep(&mut self, told: Vec<Data>, file: &str, number: u64, open: &mut Opened) {
        for data in told {
            match data {
                Data::FindingOpened { finding } => match open.get_mut(&finding.id) {
                    Some(known) => {
                        known.line = finding.line_number.unwrap_or(known.line);
                        known.finding = finding;
                    }
                    None => {
                        open.insert(finding.id.clone(), Located::new(finding, file, number));
                    }
                },
                Data::FindingCleared { finding, .. } => {
                    open.remove(&finding);
                }
                _ => {}
            }
        }
    }

    /// The next line, cut to what is kept of one. False at the end.
    fn line(&mut self, from: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
        files::next_line(from, line, self.limits.line, &mut self.left)
    }

    fn finish(self) -> Report {
        let mut report = self.report;
        // Where something says that the installation has failed, nothing is early any more.
        let verdict = |found: &Located| self.catalogue.get(&found.finding.signature).is_some_and(|known| known.verdict);
        let failed = report.findings.iter().any(verdict);
        let known: Vec<String> = report.findings.iter().map(|found| found.finding.id.clone()).collect();
        for mut early in self.early.into_iter().filter(|early| !known.contains(&early.finding.id)) {
            if !failed {
                early.finding.set_early();
            }
            report.findings.push(early);
        }
        let is_excerpt = report.files == 1 && report.lines <= EXCERPT;
        if is_excerpt {
            report.findings.append(&mut report.normal);
        }
        let unknown = report.unknown.finding(&report.findings, report.files);
        report.findings.extend(unknown);
        if is_excerpt && report.findings.is_empty() {
            report.findings = std::mem::take(&mut report.faded);
        }
        let mut places: BTreeMap<String, Located> = BTreeMap::new();
        for found in report.findings.drain(..) {
            match places.get_mut(&found.finding.id) {
                None => {
                    places.insert(found.finding.id.clone(), found);
                }
                Some(known) if found.finding.at < known.finding.at => {
                    let later = std::mem::replace(known, found);
                    known.also = later.also.clone();
                    known.add(&later);
                }
                Some(known) => known.add(&found),
            }
        }
        let mut findings: Vec<Finding> = places.values().map(|found| found.finding.clone()).collect();
        rank::arrange(self.catalogue, &mut findings);
        let weighed = rank::weigh(self.catalogue, &findings);
        let together = findings.into_iter().zip(weighed);
        report.findings = together
            .filter_map(|(finding, (confidence, reasons))| {
                let place = places.remove(&finding.id)?;
                Some(Located { finding, confidence, reasons, ..place })
            })
            .collect();
        report
    }
}

impl Files for Reader<'_> {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn left(&self) -> u64 {
        self.left
    }

    fn count(&mut self) -> &mut usize {
        &mut self.report.files
    }

    fn skip(&mut self, name: &str, why: &str) {
        if self.report.skipped.len() < 1000 {
            self.report.skipped.push(format!("{}: {why}", plain(name)));
        }
    }

    fn read(&mut self, holds: Holds, name: &str, from: impl BufRead) {
        match holds {
            Holds::Log => self.log(name, from),
            Holds::Record => self.records(name, from),
            Holds::Objects => self.objects(name, from),
            Holds::Events => self.events(name, from),
        }
    }
}

impl Located {
    fn new(finding: Finding, file: &str, number: u64) -> Self {
        let line = finding.line_number.unwrap_or(number);
        let (file, also, reasons) = (plain(file), Vec::new(), Vec::new());
        Self { finding, file, line, also, confidence: 0.0, reasons }
    }

    fn at_info(mut self) -> Self {
        self.finding.severity = Level::Info;
        self
    }

    /// A later line says that this is over: `because`.
    fn over(mut self, because: &str) -> Self {
        self.finding.title = format!("{}; a later line says that it is over: {because}", self.finding.title);
        self.at_info()
    }

    fn add(&mut self, other: &Self) {
        if self.also.len() < ALSO && other.file != self.file {
            self.also.push((other.file.clone(), other.line, other.finding.line.clone()));
        }
    }

    /// Whether its evidence is a state of the cluster, not a line.
    pub fn is_state(&self) -> bool {
        self.finding.source == CLUSTER
    }
}

/// A line without what colours it on a terminal, if there is such: it stands before and between the words that are
/// looked for.
fn uncoloured(line: &[u8]) -> Option<Vec<u8>> {
    memchr::memchr(0x1b, line).map(|_| strip_control(&text_of(line)).into_bytes())
}

/// Bytes as text. Most are in order, which is known faster than what to put where they are not.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// Without control characters; what ended a line or a column inside a message is a space.
pub fn plain(text: &str) -> String {
    clean(text).into_owned()
}

fn clean(text: &str) -> Cow<'_, str> {
    // Control characters are single bytes, or begin with this one.
    if !text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == 0x7f) | (byte == 0xc2)) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(strip_control(text).replace('\n', " "))
}

//! Diagnosis of what was kept: a log file, a directory of them, or a `log-bundle-*.tar.gz` of
//! `openshift-install gather bootstrap`. Archives are read as streams and never unpacked to disk; what they may cost is
//! bounded.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use jiff::{SignedDuration, Timestamp, civil};
use regex::Regex;

use super::place::ANYWHERE;
use super::signature::{Catalogue, CatalogueError};
use super::{Matcher, rank};
use crate::model::event::{Data, Finding, Level, LogLine};

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
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 2 << 30, files: 20_000, line: 64 << 10, depth: 8 }
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
    /// Still true where the logs end; causes first.
    pub findings: Vec<Located>,
    /// Findings that a later line cleared.
    pub cleared: Vec<Located>,
    pub files: usize,
    pub lines: u64,
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

/// A finding and the place of its evidence.
#[derive(Debug, Clone)]
pub struct Located {
    pub finding: Finding,
    /// File, or archive and file in it.
    pub file: String,
    /// From 1.
    pub line: u64,
}

/// Diagnose a file, a directory or a bundle with the built-in catalogue.
pub fn diagnose(path: &Path) -> Result<Report, OfflineError> {
    diagnose_with(&Catalogue::builtin()?, path, Limits::default())
}

pub fn diagnose_with(catalogue: &Catalogue, path: &Path, limits: Limits) -> Result<Report, OfflineError> {
    let mut reader = Reader::new(catalogue, limits);
    if path.is_dir() {
        reader.directory(path, 0)?;
    } else {
        reader.file(path)?;
    }
    Ok(reader.finish())
}

struct Reader<'a> {
    catalogue: &'a Catalogue,
    limits: Limits,
    left: u64,
    report: Report,
    shapes: Shapes,
    /// One for all: its automaton is made once. Its memory is emptied for each file.
    matcher: Matcher,
}

/// Forms of lines, compiled once.
struct Shapes {
    installer: Option<Regex>,
    short: Option<Regex>,
    full: Option<Regex>,
}

/// Where the lines of a file come from.
#[derive(Debug, Clone, PartialEq)]
struct Origin {
    source: String,
    unit: String,
}

impl<'a> Reader<'a> {
    fn new(catalogue: &'a Catalogue, limits: Limits) -> Self {
        let shapes = Shapes {
            // openshift-install's log file: logrus text.
            installer: Regex::new(r#"^time="([^"]+)" level=(\w+) msg=("(?:[^"\\]|\\.)*"|\S*)(.*)$"#).ok(),
            // journalctl -o short, and short-iso.
            short: Regex::new(
                r"^(?:([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\.\d+)?|(\d{4}-\d\d-\d\dT\S+)) (\S+) ([^\s\[:]+)(?:\[\d+\])?: (.*)$",
            )
            .ok(),
            // journalctl -o with-unit, as in journal.log.gz of a bundle.
            full: Regex::new(
                r"^(?:[A-Z][a-z]{2} )?(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) (?:UTC|GMT) (\S+) ([^\s\[:]+)(?:\[\d+\])?: (.*)$",
            )
            .ok(),
        };
        let matcher = Matcher::new(catalogue);
        Self { catalogue, limits, left: limits.bytes, report: Report::default(), shapes, matcher }
    }

    fn directory(&mut self, path: &Path, depth: usize) -> Result<(), OfflineError> {
        let entries = std::fs::read_dir(path).map_err(|error| unread(path, &error))?;
        let mut paths: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let kind = match std::fs::symlink_metadata(&path) {
                Ok(kind) => kind,
                Err(error) => {
                    self.skip(&path.display().to_string(), &error.to_string());
                    continue;
                }
            };
            if kind.is_dir() && depth < self.limits.depth {
                self.directory(&path, depth + 1)?;
            } else if kind.is_file()
                && (is_archive(&path) || is_log(&path.to_string_lossy()))
                && let Err(error) = self.file(&path)
            {
                self.skip(&path.display().to_string(), &error.to_string());
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), OfflineError> {
        let file = File::open(path).map_err(|error| unread(path, &error))?;
        let name = path.display().to_string();
        if is_archive(path) {
            return self.archive(&name, file);
        }
        if name.ends_with(".gz") {
            self.log(&name, GzDecoder::new(file));
        } else {
            self.log(&name, file);
        }
        Ok(())
    }

    fn archive(&mut self, name: &str, file: File) -> Result<(), OfflineError> {
        let unread = |error: std::io::Error| OfflineError::Read { path: name.to_owned(), why: error.to_string() };
        // The archive itself is bounded too: entries that are passed over cost decompression as well.
        let mut archive = tar::Archive::new(GzDecoder::new(file).take(self.limits.bytes));
        for (number, entry) in archive.entries().map_err(unread)?.enumerate() {
            if number >= self.limits.files || self.left == 0 {
                self.skip(name, "there is more in it than is read");
                break;
            }
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.skip(name, &error.to_string());
                    break;
                }
            };
            let inner = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            if !entry.header().entry_type().is_file() || !is_log(&inner) {
                continue;
            }
            let place = format!("{name}:{}", plain(&inner));
            if inner.ends_with(".gz") {
                self.log(&place, GzDecoder::new(entry));
            } else {
                self.log(&place, entry);
            }
        }
        Ok(())
    }

    /// One log: its lines are held against the catalogue by themselves, since logs of one bundle overlap in time.
    fn log(&mut self, name: &str, text: impl Read) {
        if self.report.files >= self.limits.files {
            return self.skip(name, "there are more files than are read");
        }
        self.report.files += 1;
        self.matcher.forget();
        let origin = origin(name);
        let mut lines = BufReader::new(text);
        let mut number = 0u64;
        let mut open: BTreeMap<String, Located> = BTreeMap::new();
        let mut at = Timestamp::UNIX_EPOCH;
        loop {
            let line = match self.line(&mut lines) {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => {
                    self.skip(name, &error.to_string());
                    break;
                }
            };
            number += 1;
            self.report.lines += 1;
            let (origin, line) = self.read(&origin, &String::from_utf8_lossy(&line), at);
            at = line.at;
            let told = self.matcher.feed(&origin.source, &line, Some(number));
            self.keep(told, name, number, &mut open);
        }
        let told = self.matcher.tick(at);
        self.keep(told, name, number, &mut open);
        self.report.findings.extend(open.into_values());
    }

    fn keep(&mut self, told: Vec<Data>, file: &str, number: u64, open: &mut BTreeMap<String, Located>) {
        for data in told {
            match data {
                Data::FindingOpened { finding } => match open.get_mut(&finding.id) {
                    Some(known) => known.finding = finding,
                    None => {
                        let line = finding.line_number.unwrap_or(number);
                        open.insert(finding.id.clone(), Located { finding, file: file.to_owned(), line });
                    }
                },
                Data::FindingCleared { finding, .. } => self.report.cleared.extend(open.remove(&finding)),
                _ => {}
            }
        }
    }

    /// The next line, without its end, cut to what is kept of one.
    fn line(&mut self, from: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let mut any = false;
        loop {
            if self.left == 0 {
                return if any { Ok(Some(line)) } else { Err(std::io::Error::other("there is more than is read")) };
            }
            let buffer = from.fill_buf()?;
            if buffer.is_empty() {
                return Ok(any.then_some(line));
            }
            any = true;
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let taken = end.map_or(buffer.len(), |end| end + 1);
            let room = self.limits.line.saturating_sub(line.len());
            line.extend(buffer.iter().take(end.unwrap_or(taken).min(room)));
            from.consume(taken);
            self.left = self.left.saturating_sub(taken as u64);
            if end.is_some() {
                return Ok(Some(line));
            }
        }
    }

    /// A line of any of the known forms. `before` is the time of the line before it.
    fn read(&self, origin: &Origin, line: &str, before: Timestamp) -> (Origin, LogLine) {
        let make = |origin: Origin, at: Option<Timestamp>, level: Level, text: &str| {
            let at = at.unwrap_or(before);
            let line = LogLine { at, unit: origin.unit.clone(), level, text: plain(text), cursor: None };
            (origin, line)
        };
        let known = |source: &str, unit: &str| Origin {
            source: if origin.source == ANYWHERE { source.to_owned() } else { origin.source.clone() },
            unit: unit.to_owned(),
        };
        if let Some((unit, at, text)) = journal_json(line) {
            return make(known("journal:bootstrap", &unit), at, Level::Info, &text);
        }
        if let Some(found) = self.shapes.installer.as_ref().and_then(|shape| shape.captures(line)) {
            let text = |place: usize| found.get(place).map_or("", |part| part.as_str());
            let message = serde_json::from_str::<String>(text(3)).unwrap_or_else(|_| text(3).to_owned());
            let level = match text(2) {
                "error" | "fatal" => Level::Error,
                "warning" => Level::Warn,
                "info" => Level::Info,
                _ => Level::Debug,
            };
            let origin = Origin { source: "installer".into(), unit: "installer".into() };
            return make(origin, text(1).parse().ok(), level, &format!("{message}{}", text(4)));
        }
        if let Some(found) = self.shapes.full.as_ref().and_then(|shape| shape.captures(line)) {
            let text = |place: usize| found.get(place).map_or("", |part| part.as_str());
            let at = format!("{}T{}Z", text(1), text(2)).parse().ok();
            return make(known("journal:bootstrap", unit_of(text(4), text(5))), at, Level::Info, text(5));
        }
        if let Some(found) = self.shapes.short.as_ref().and_then(|shape| shape.captures(line)) {
            let text = |place: usize| found.get(place).map_or("", |part| part.as_str());
            let at = match text(6) {
                "" => short_time([text(1), text(2), text(3), text(4), text(5)]),
                iso => iso.parse().ok(),
            };
            let unit = if origin.source == ANYWHERE || origin.unit.is_empty() {
                unit_of(text(8), text(9))
            } else {
                &origin.unit
            };
            return make(known("journal:bootstrap", unit), at, Level::Info, text(9));
        }
        make(origin.clone(), None, Level::Info, line)
    }

    fn skip(&mut self, name: &str, why: &str) {
        if self.report.skipped.len() < 1000 {
            self.report.skipped.push(format!("{}: {why}", plain(name)));
        }
    }

    fn finish(self) -> Report {
        let mut report = self.report;
        let mut places: BTreeMap<String, Located> = BTreeMap::new();
        for found in report.findings.drain(..) {
            let known = places.entry(found.finding.id.clone()).or_insert_with(|| found.clone());
            if found.finding.at < known.finding.at {
                *known = found;
            }
        }
        let mut findings: Vec<Finding> = places.values().map(|found| found.finding.clone()).collect();
        rank::arrange(self.catalogue, &mut findings);
        report.findings = findings
            .into_iter()
            .filter_map(|finding| places.remove(&finding.id).map(|place| Located { finding, ..place }))
            .collect();
        report
    }
}

fn unread(path: &Path, error: &std::io::Error) -> OfflineError {
    OfflineError::Read { path: path.display().to_string(), why: error.to_string() }
}

fn is_archive(path: &Path) -> bool {
    let name = path.to_string_lossy();
    name.ends_with(".tar.gz") || name.ends_with(".tgz")
}

/// Files of a bundle or a directory that hold log lines.
fn is_log(name: &str) -> bool {
    let name = name.strip_suffix(".gz").unwrap_or(name);
    [".log", ".txt", ".jsonl", ".journal.json"].iter().any(|end| name.ends_with(end))
}

/// Where a file's lines come from, by the layout of a log bundle, or by its name.
fn origin(path: &str) -> Origin {
    let parts: Vec<&str> = path.rsplit(['/', ':']).take(4).collect();
    let part = |place: usize| parts.get(place).copied().unwrap_or("");
    let stem = part(0).strip_suffix(".gz").unwrap_or(part(0));
    let stem = stem.strip_suffix(".log").unwrap_or(stem);
    let at = |source: String, unit: &str| Origin { source, unit: unit.to_owned() };
    let unit = if stem == "journal" { "" } else { stem };
    match (part(1), part(2), part(3)) {
        ("journals" | "containers" | "pods", "bootstrap", _) => at("journal:bootstrap".into(), unit),
        ("journals" | "containers", node, "control-plane") => at(format!("journal:{node}"), unit),
        ("serial", ..) => at(format!("serial:{}", stem.strip_suffix("-serial").unwrap_or(stem)), "console"),
        ("clusterapi", ..) => at("installer".into(), stem),
        _ if stem == ".openshift_install" => at("installer".into(), "installer"),
        _ => at(ANYWHERE.into(), ""),
    }
}

/// Unit of a line in text form: systemd's own lines are about the unit that they begin with.
fn unit_of<'a>(program: &'a str, text: &'a str) -> &'a str {
    let program = match program {
        "systemd" | "init.scope" => text.split_once(".service: ").map_or(program, |(unit, _)| unit),
        other => other,
    };
    let program = program.strip_suffix(".service").unwrap_or(program);
    match program {
        "release-image-download.sh" => "release-image",
        other => other.strip_suffix(".sh").unwrap_or(other),
    }
}

/// One line of `journalctl -o json`: unit, time, text. MESSAGE can be a string, bytes, null or several of them.
fn journal_json(line: &str) -> Option<(String, Option<Timestamp>, String)> {
    if !line.starts_with('{') {
        return None;
    }
    let entry: serde_json::Value = serde_json::from_str(line).ok()?;
    let text = match entry.get("MESSAGE")? {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(parts) if parts.iter().all(serde_json::Value::is_u64) => {
            let bytes: Vec<u8> =
                parts.iter().filter_map(|part| part.as_u64().and_then(|byte| u8::try_from(byte).ok())).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        serde_json::Value::Array(parts) => {
            parts.iter().filter_map(serde_json::Value::as_str).collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    };
    let field = |name: &str| entry.get(name).and_then(serde_json::Value::as_str);
    let unit = if field("_PID") == Some("1") { field("UNIT") } else { field("_SYSTEMD_UNIT") };
    let unit = unit.or_else(|| field("SYSLOG_IDENTIFIER")).unwrap_or("");
    let at = field("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse().ok());
    let at = at.and_then(|micros| Timestamp::from_microsecond(micros).ok());
    Some((unit.strip_suffix(".service").unwrap_or(unit).to_owned(), at, text))
}

/// `Mar 01 10:00:00` has no year: the last one that it can have been.
fn short_time([month, day, hour, minute, second]: [&str; 5]) -> Option<Timestamp> {
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = i8::try_from(MONTHS.find(month)? / 3 + 1).ok()?;
    let now = Timestamp::now();
    let year = now.to_zoned(jiff::tz::TimeZone::UTC).year();
    let time = |year: i16| {
        let (hour, minute, second) = (hour.parse().ok()?, minute.parse().ok()?, second.parse().ok()?);
        let local = civil::DateTime::new(year, month, day.parse().ok()?, hour, minute, second, 0).ok()?;
        local.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    let tomorrow = now.checked_add(SignedDuration::from_hours(24)).ok()?;
    time(year).filter(|at| *at <= tomorrow).or_else(|| time(year.checked_sub(1)?))
}

/// Without control characters, tabs apart.
fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

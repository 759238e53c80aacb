//! The forms in which lines are kept: journalctl (short, with-unit, JSON), logfmt of openshift-install and of the container
//! tools, their output on a terminal, klog, container logs, and this program's own segments. What has no known form is a
//! line all the same.

use jiff::{SignedDuration, Timestamp, civil};
use regex::Regex;

use super::plain;
use crate::diagnose::place::{ANYWHERE, anywhere};
use crate::model::event::{Level, LogLine};

/// Where the lines of a file come from. An empty unit is taken from the lines.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    pub source: String,
    pub unit: String,
}

/// Forms of lines, compiled once.
pub struct Forms {
    klog: Option<Regex>,
    logrus: Option<Regex>,
    level: Option<Regex>,
    terminal: Option<Regex>,
    mirror: Option<Regex>,
    container: Option<Regex>,
    short: Option<Regex>,
    full: Option<Regex>,
    foreign: Option<Regex>,
}

/// What a form gave.
#[derive(Default)]
struct Parts<'a> {
    host: &'a str,
    unit: &'a str,
    at: Option<Timestamp>,
    level: Option<Level>,
    text: &'a str,
}

impl Default for Forms {
    fn default() -> Self {
        let make = |pattern: &str| Regex::new(pattern).ok();
        Self {
            klog: make(r"^([IWEF])(\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.\d+ +\d+ \S+?:\d+\] "),
            // logrus text, as openshift-install, skopeo, podman and the registry write it.
            logrus: make(r#"^time="([^"]+)" level=(\w+)(?: msg=("(?:[^"\\]|\\.)*"|\S*)(.*))?$"#),
            // The same on stderr, and behind whatever a CI puts in front of it.
            level: make(r"^(?:.{0,160}? )?level=(\w+) msg=(.*)$"),
            terminal: make(r"^(DEBUG|INFO|WARN|WARNING|ERROR|FATAL|DEBU|ERRO|FATA)(?:\[\d+\])? +(.*)$"),
            // oc-mirror v2.
            mirror: make(r"^(\d{4})/(\d\d)/(\d\d) (\d\d:\d\d:\d\d)  ?\[(\w+)\] *: (.*)$"),
            // CRI log files, and others that begin with a time.
            container: make(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S*)[ \t](?:std(?:out|err) [FP] )?(.*)$"),
            // journalctl -o short, and short-iso.
            short: make(
                r"^(?:([A-Z][a-z]{2}) +(\d{1,2}) (\d\d):(\d\d):(\d\d)(?:\.\d+)?|(\d{4}-\d\d-\d\dT\S+)) +(\S+) ([^\s\[:]+)(?:\[\d+\])?: (.*)$",
            ),
            // journalctl -o with-unit, as in journal.log.gz of a bundle.
            full: make(
                r"^(?:[A-Z][a-z]{2} )?(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) (?:UTC|GMT) (\S+) ([^\s\[:]+)(?:\[\d+\])?: (.*)$",
            ),
            // A journal in another language.
            foreign: make(r"^.{0,30}\d\d:\d\d:\d\d\S* (?:(\S+) )?([A-Za-z][\w@.-]*)\[\d+\]: (.*)$"),
        }
    }
}

impl Forms {
    /// A line of any form. `before` is the time of the line before it.
    pub fn read(&self, origin: &Origin, line: &str, before: Timestamp) -> (Origin, LogLine) {
        if let Some((unit, at, text)) = own(line).or_else(|| journal_json(line)) {
            let parts = Parts { unit: &unit, at, text: &text, ..Parts::default() };
            return make(origin, &parts, before);
        }
        let parts = self.parts(line).unwrap_or(Parts { text: line, ..Parts::default() });
        if let Some(message) = logrus_message(parts.text) {
            return make(origin, &Parts { text: &message, ..parts }, before);
        }
        make(origin, &parts, before)
    }

    /// Level and time that klog has put before a message (k8s.io/klog, `klog.go`); it knows no year.
    pub fn klog(&self, text: &str) -> Option<(Level, Option<Timestamp>)> {
        let found = self.klog.as_ref()?.captures(text)?;
        let part = |place: usize| found.get(place).map_or("", |part| part.as_str());
        let level = match part(1) {
            "I" => Level::Info,
            "W" => Level::Warn,
            _ => Level::Error,
        };
        Some((level, part(2).parse().ok().and_then(|month| time_of(month, [part(3), part(4), part(5), part(6)]))))
    }

    fn parts<'a>(&self, line: &'a str) -> Option<Parts<'a>> {
        let of = |form: &Option<Regex>| form.as_ref().and_then(|form| form.captures(line));
        let text = |found: &regex::Captures<'a>, place: usize| found.get(place).map_or("", |part| part.as_str());
        if let Some(found) = of(&self.logrus) {
            let message = found.get(3).map_or("", |part| line.get(part.start()..).unwrap_or(""));
            let (at, level) = (text(&found, 1).parse().ok(), Some(level(text(&found, 2))));
            return Some(Parts { at, level, text: message, ..Parts::default() });
        }
        if let Some(found) = of(&self.full) {
            let at = format!("{}T{}Z", text(&found, 1), text(&found, 2)).parse().ok();
            let message = text(&found, 5);
            let unit = unit_of(text(&found, 4), message);
            return Some(Parts { host: text(&found, 3), unit, at, level: None, text: message });
        }
        if let Some(found) = of(&self.short) {
            let part = |place: usize| text(&found, place);
            let at = match part(6) {
                "" => short_time([part(1), part(2), part(3), part(4), part(5)]),
                iso => iso.parse().ok(),
            };
            let (host, message) = (part(7), part(9));
            return Some(Parts { host, unit: unit_of(part(8), message), at, level: None, text: message });
        }
        if let Some(found) = of(&self.terminal) {
            return Some(Parts { level: Some(level(text(&found, 1))), text: text(&found, 2), ..Parts::default() });
        }
        if let Some(found) = of(&self.mirror) {
            let part = |place: usize| text(&found, place);
            let at = format!("{}-{}-{}T{}Z", part(1), part(2), part(3), part(4)).parse().ok();
            return Some(Parts { at, level: Some(level(part(5))), text: part(6), ..Parts::default() });
        }
        if let Some(found) = of(&self.level) {
            return Some(Parts { level: Some(level(text(&found, 1))), text: text(&found, 2), ..Parts::default() });
        }
        if let Some(found) = of(&self.container) {
            return Some(Parts { at: text(&found, 1).parse().ok(), text: text(&found, 2), ..Parts::default() });
        }
        let found = of(&self.foreign)?;
        let (host, message) = (text(&found, 1), text(&found, 3));
        Some(Parts { host, unit: unit_of(text(&found, 2), message), text: message, ..Parts::default() })
    }
}

fn make(origin: &Origin, parts: &Parts<'_>, before: Timestamp) -> (Origin, LogLine) {
    let source = match anywhere(&origin.source) && !parts.host.is_empty() {
        true => format!("{ANYWHERE}:{}", parts.host),
        false => origin.source.clone(),
    };
    let unit = if origin.unit.is_empty() { parts.unit } else { &origin.unit };
    let origin = Origin { source, unit: unit.to_owned() };
    let line = LogLine {
        at: parts.at.unwrap_or(before),
        unit: unit.to_owned(),
        level: parts.level.unwrap_or(Level::Info),
        text: plain(parts.text),
        cursor: None,
    };
    (origin, line)
}

/// `"quoted \"message\"" more=fields` without its outer quotes.
fn logrus_message(text: &str) -> Option<String> {
    let rest = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = rest.char_indices().find(|(_, c)| {
        let ends = *c == '"' && !escaped;
        escaped = *c == '\\' && !escaped;
        ends
    });
    let (at, _) = end?;
    let quoted = text.get(..at + 2)?;
    let message = serde_json::from_str::<String>(quoted).unwrap_or_else(|_| rest.get(..at).unwrap_or("").to_owned());
    Some(format!("{message}{}", rest.get(at + 1..).unwrap_or("")))
}

fn level(word: &str) -> Level {
    match word.to_ascii_lowercase().as_str() {
        "error" | "erro" | "fatal" | "fata" | "panic" => Level::Error,
        "warning" | "warn" => Level::Warn,
        "info" => Level::Info,
        _ => Level::Debug,
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
        "hyperkube" | "kubenswrapper" => "kubelet",
        other => other.strip_suffix(".sh").unwrap_or(other),
    }
}

type Entry = (String, Option<Timestamp>, String);

/// A line of this program's own segments.
fn own(line: &str) -> Option<Entry> {
    let line: LogLine = line.starts_with("{\"at\":").then(|| serde_json::from_str(line).ok()).flatten()?;
    Some((line.unit, Some(line.at), line.text))
}

/// One line of `journalctl -o json`: unit, time, text. MESSAGE can be a string, bytes, null or several of them.
fn journal_json(line: &str) -> Option<Entry> {
    if !line.starts_with('{') || !line.contains("\"MESSAGE\"") {
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
    time_of(i8::try_from(MONTHS.find(month)? / 3 + 1).ok()?, [day, hour, minute, second])
}

fn time_of(month: i8, [day, hour, minute, second]: [&str; 4]) -> Option<Timestamp> {
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

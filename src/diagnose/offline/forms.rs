//! The forms in which lines are kept: journalctl (short, with-unit, JSON), logfmt of openshift-install and of the container
//! tools, their output on a terminal, klog, container logs, and this program's own segments. What has no known form is a
//! line all the same.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp, civil};
use regex::Regex;

use super::clean;
use crate::diagnose::line::MARKS;
use crate::diagnose::place::{ANYWHERE, anywhere};
use crate::model::entry::Kept;
use crate::model::event::{Level, LogLine};

/// Where the lines of a file come from. An empty unit is taken from the lines.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    pub source: Arc<str>,
    pub unit: String,
}

/// A line taken apart; what stands in it as it is is not copied.
#[derive(Debug)]
pub struct Parsed<'a> {
    pub source: Arc<str>,
    pub unit: Cow<'a, str>,
    pub at: Timestamp,
    pub level: Level,
    pub text: Cow<'a, str>,
}

impl Parsed<'_> {
    pub fn into_line(self) -> LogLine {
        let (unit, text) = (self.unit.into_owned(), self.text.into_owned());
        LogLine { at: self.at, unit, level: self.level, text, cursor: None }
    }
}

/// Forms of lines, compiled once.
pub struct Forms {
    klog: Option<Regex>,
    logrus: Option<Regex>,
    level: Option<Regex>,
    terminal: Option<Regex>,
    mirror: Option<Regex>,
    container: Option<Regex>,
    foreign: Option<Regex>,
    /// Times without a year are not later than a day after this.
    now: Timestamp,
    /// A journal says the same second and the same host many times: the last ones, as they stand there and as they are
    /// understood.
    second: (String, Option<Timestamp>),
    place: Arc<str>,
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
            level: make(r"^(?:.{0,160}? )??level=(\w+) msg=(.*)$"),
            terminal: make(r"^(DEBUG|INFO|WARN|WARNING|ERROR|FATAL|DEBU|ERRO|FATA)(?:\[\d+\])? +(.*)$"),
            // oc-mirror v2.
            mirror: make(r"^(\d{4})/(\d\d)/(\d\d) (\d\d:\d\d:\d\d)  ?\[(\w+)\] *: (.*)$"),
            // CRI log files, and others that begin with a time.
            container: make(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[\d.,:Z+-]*)[ \t](?:std(?:out|err) [FP] )?(.*)$"),
            // A journal in another language.
            foreign: make(r"^.{0,30}\d\d:\d\d:\d\d\S* (?:(\S+) )?([A-Za-z][\w@.-]*)\[\d+\]: (.*)$"),
            now: Timestamp::now(),
            second: (String::new(), None),
            place: ANYWHERE.into(),
        }
    }
}

impl Forms {
    /// A line of any form. `before` is the time of the line before it.
    pub fn read<'a>(&mut self, origin: &'a Origin, line: &'a str, before: Timestamp) -> Parsed<'a> {
        if let Some(kept) = own(line).or_else(|| Kept::parse(line.as_bytes())) {
            let unit = if origin.unit.is_empty() { Cow::Owned(kept.unit) } else { Cow::Borrowed(origin.unit.as_str()) };
            let text = Cow::Owned(clean(&kept.text).into_owned());
            let at = kept.at.unwrap_or(before);
            return Parsed { source: origin.source.clone(), unit, at, level: Level::Info, text };
        }
        let parts = self.parts(line).unwrap_or(Parts { text: line, ..Parts::default() });
        let text = match logrus_message(parts.text) {
            Some(message) => Cow::Owned(clean(&message).into_owned()),
            None => clean(parts.text),
        };
        let unit = if origin.unit.is_empty() { parts.unit } else { &origin.unit };
        let (at, level) = (parts.at.unwrap_or(before), parts.level.unwrap_or(Level::Info));
        Parsed { source: self.source(origin, parts.host), unit: Cow::Borrowed(unit), at, level, text }
    }

    /// Of a line from somewhere, the host that it names.
    fn source(&mut self, origin: &Origin, host: &str) -> Arc<str> {
        if host.is_empty() || !anywhere(&origin.source) {
            return origin.source.clone();
        }
        let known = self.place.strip_prefix(ANYWHERE).and_then(|rest| rest.strip_prefix(':'));
        if known != Some(host) {
            self.place = format!("{ANYWHERE}:{host}").into();
        }
        self.place.clone()
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
        let clock = format!("{}:{}:{}", part(4), part(5), part(6));
        let at = part(2).parse().ok().and_then(|month| self.without_year(month, part(3), &clock));
        Some((level, at))
    }

    /// Most lines of a large log are none of ours: what a form begins with is looked at before the form is tried.
    fn parts<'a>(&mut self, line: &'a str) -> Option<Parts<'a>> {
        let of = |form: &Option<Regex>| form.as_ref().and_then(|form| form.captures(line));
        let text = |found: &regex::Captures<'a>, place: usize| found.get(place).map_or("", |part| part.as_str());
        let first = line.bytes().next()?;
        if first == b't'
            && let Some(found) = of(&self.logrus)
        {
            let message = found.get(3).map_or("", |part| line.get(part.start()..).unwrap_or(""));
            let (at, level) = (text(&found, 1).parse().ok(), Level::of(text(&found, 2)));
            return Some(Parts { at, level, text: message, ..Parts::default() });
        }
        if let Some(parts) = self.journal(line) {
            return Some(parts);
        }
        if matches!(first, b'D' | b'I' | b'W' | b'E' | b'F')
            && let Some(found) = of(&self.terminal)
        {
            let text = marked(line, text(&found, 2));
            return Some(Parts { level: Level::of(found.get(1)?.as_str()), text, ..Parts::default() });
        }
        if first.is_ascii_digit()
            && let Some(found) = of(&self.mirror)
        {
            let part = |place: usize| text(&found, place);
            let at = format!("{}-{}-{}T{}Z", part(1), part(2), part(3), part(4)).parse().ok();
            return Some(Parts { at, level: Level::of(part(5)), text: part(6), ..Parts::default() });
        }
        if line.contains("level=")
            && let Some(found) = of(&self.level)
        {
            let begun = line.get(line.find("level=")?..)?;
            let text = marked(begun, text(&found, 2));
            return Some(Parts { level: Level::of(found.get(1)?.as_str()), text, ..Parts::default() });
        }
        if first.is_ascii_digit()
            && let Some(found) = of(&self.container)
        {
            return Some(Parts { at: text(&found, 1).parse().ok(), text: text(&found, 2), ..Parts::default() });
        }
        let found = line.contains("]: ").then(|| of(&self.foreign)).flatten()?;
        let (host, message) = (text(&found, 1), text(&found, 3));
        Some(Parts { host, unit: unit_of(text(&found, 2), message), text: message, ..Parts::default() })
    }

    /// journalctl -o short, short-iso and with-unit (as in `journal.log.gz` of a bundle): `TIME HOST PROGRAM[PID]: TEXT`,
    /// --no-hostname without the host. By hand, since these are nearly all the lines that there are.
    fn journal<'a>(&mut self, line: &'a str) -> Option<Parts<'a>> {
        let (at, rest) = self.short_time(line).or_else(|| full_time(line)).or_else(|| iso_time(line))?;
        let rest = rest.trim_start_matches(' ');
        let (host, rest) = rest
            .split_once(' ')
            .map(|(host, behind)| if host.ends_with("]:") { ("", rest) } else { (host, behind) })?;
        let end = rest.find(['[', ':', ' ']).filter(|end| *end > 0)?;
        let (program, rest) = rest.split_at_checked(end)?;
        let rest = match rest.strip_prefix('[') {
            Some(rest) => rest.split_once(']').filter(|(pid, _)| digits(pid))?.1,
            None => rest,
        };
        let message = rest.strip_prefix(": ")?;
        Some(Parts { host, unit: unit_of(program, message), at, level: None, text: message })
    }

    fn short_time<'a>(&mut self, line: &'a str) -> Option<(Option<Timestamp>, &'a str)> {
        const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
        if let Some(rest) = line.strip_prefix(&self.second.0).filter(|_| !self.second.0.is_empty()) {
            return Some((self.second.1, rest));
        }
        let (month, rest) = line.split_at_checked(3)?;
        let month = MONTHS.find(month).filter(|at| at % 3 == 0)? / 3 + 1;
        let (day, rest) = rest.strip_prefix(' ')?.trim_start_matches(' ').split_once(' ')?;
        let (time, rest) = rest.split_once(' ')?;
        let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
        if !(digits(day)
            && digits(fraction)
            && clock.len() == 8
            && clock.bytes().filter(|byte| *byte == b':').count() == 2)
        {
            return None;
        }
        let at = self.without_year(i8::try_from(month).ok()?, day, clock);
        self.second.0.clear();
        self.second.0.push_str(line.get(..line.len() - rest.len()).unwrap_or(""));
        self.second.1 = at;
        Some((at, rest))
    }

    /// `Mar 01 10:00:00` has no year: the last one that it can have been.
    fn without_year(&self, month: i8, day: &str, clock: &str) -> Option<Timestamp> {
        let (day, time): (i8, civil::Time) = (day.parse().ok()?, clock.parse().ok()?);
        let year = jiff::tz::Offset::UTC.to_datetime(self.now).year();
        let in_year = |year: i16| {
            let date = civil::Date::new(year, month, day).ok()?;
            jiff::tz::Offset::UTC.to_timestamp(date.to_datetime(time)).ok()
        };
        let tomorrow = self.now.checked_add(SignedDuration::from_hours(24)).ok()?;
        in_year(year).filter(|at| *at <= tomorrow).or_else(|| in_year(year.checked_sub(1)?))
    }
}

/// `Sat 2025-03-01 10:00:00 UTC`, with or without the day.
fn full_time(line: &str) -> Option<(Option<Timestamp>, &str)> {
    let dated = match line.split_once(' ') {
        Some((day, rest)) if day.len() == 3 && day.starts_with(|c: char| c.is_ascii_uppercase()) => rest,
        _ => line,
    };
    let (time, rest) = dated.split_at_checked(19).filter(|(time, _)| time.as_bytes().get(10) == Some(&b' '))?;
    let rest = rest.strip_prefix(" UTC ").or_else(|| rest.strip_prefix(" GMT "))?;
    let at: civil::DateTime = time.parse().ok()?;
    Some((jiff::tz::Offset::UTC.to_timestamp(at).ok(), rest))
}

/// `2025-03-01T10:00:00+0000`
fn iso_time(line: &str) -> Option<(Option<Timestamp>, &str)> {
    let dated =
        |bytes: &[u8]| bytes.get(4) == Some(&b'-') && bytes.get(7) == Some(&b'-') && bytes.get(10) == Some(&b'T');
    let (time, rest) = line.split_once(' ').filter(|(time, _)| dated(time.as_bytes()))?;
    Some((time.parse().ok(), rest))
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
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

/// The message of a line that openshift-install prints. What Terraform told it keeps its mark: others say `Error: ` too.
fn marked<'a>(line: &'a str, message: &'a str) -> &'a str {
    let terraforms = MARKS.iter().any(|mark| line.strip_prefix(mark).is_some_and(|rest| rest.starts_with(message)));
    if terraforms && message.trim_start_matches('"').starts_with("Error: ") { line } else { message }
}

/// A line of this program's own segments.
fn own(line: &str) -> Option<Kept> {
    let line: LogLine = line.starts_with("{\"at\":").then(|| serde_json::from_str(line).ok()).flatten()?;
    Some(Kept { at: Some(line.at), unit: line.unit, text: line.text })
}

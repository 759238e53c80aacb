//! Which files of a bundle are read as what.

use std::collections::{BTreeSet, VecDeque};
use std::io::{BufRead, Read};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use crate::diagnose::offline::files::{Files, Holds, next_line, origin};
use crate::diagnose::offline::forms::{Forms, Origin};
use crate::diagnose::offline::{Limits, objects, plain};
use crate::model::entry::LINE_LIMIT;
use crate::model::event::{Level, LogLine};
use crate::model::text::one_line;
use crate::spec::secret::redact;
use crate::watch::journal::{BOOTSTRAP, BOOTSTRAP_UNITS, NODE_UNITS, QUIET_UNITS};
use crate::watch::records::{self, Record};
use crate::watch::{installer, mcs};

/// Lines that are kept of one file, its newest: of a journal, and of a container.
const OF_A_JOURNAL: usize = 50_000;
const OF_A_CONTAINER: usize = 5_000;

/// A line and the place where it was found.
pub(super) struct Line {
    /// Of [`Kept::names`].
    pub file: usize,
    /// From 1.
    pub number: u64,
    pub source: Arc<str>,
    pub line: LogLine,
    rank: Rank,
}

/// Which of the files that have the same lines is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rank {
    /// Of a unit or a container alone.
    Own,
    /// Of a unit that failed, whichever it is.
    Failed,
    /// Of all units.
    Whole,
}

/// Whose lines a file has.
struct Place {
    source: Arc<str>,
    unit: String,
    rank: Rank,
    most: usize,
}

impl Place {
    fn of(name: &str) -> Option<Self> {
        let parts: Vec<&str> = name.rsplit(['/', ':']).take(4).collect();
        let part = |place: usize| parts.get(place).copied().unwrap_or("");
        if part(1) == "unit-status" {
            let unit = part(0).strip_suffix(".log")?.strip_suffix(".service")?.to_owned();
            return Some(Self { source: journal_of(name), unit, rank: Rank::Failed, most: OF_A_JOURNAL });
        }
        let Origin { source, unit } = origin(name);
        let is_known = ["journal:", "serial:", installer::SOURCE].iter().any(|known| source.starts_with(known));
        // What podman kept of a unit's containers has no times, and is in the journal of the unit.
        if !is_known || part(1) == "pods" {
            return None;
        }
        let (source, unit, most) = match part(1) {
            "containers" => {
                let unit = container(&unit).to_owned();
                let source = if unit == mcs::UNIT { mcs::SOURCE.into() } else { source };
                (source, unit, OF_A_CONTAINER)
            }
            "clusterapi" => (source, unit, OF_A_CONTAINER),
            _ => (source, unit, OF_A_JOURNAL),
        };
        let rank = if unit.is_empty() { Rank::Whole } else { Rank::Own };
        Some(Self { source, unit, rank, most })
    }
}

/// `etcd-3f1c0a…` without the id that crictl puts behind it.
fn container(stem: &str) -> &str {
    match stem.rsplit_once('-') {
        Some((name, id)) if id.len() >= 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => stem,
    }
}

/// The machine whose part of the bundle a file is in.
fn machine(name: &str) -> &str {
    name.split_once("control-plane/").and_then(|(_, rest)| rest.split('/').next()).unwrap_or("bootstrap")
}

fn journal_of(name: &str) -> Arc<str> {
    format!("journal:{}", machine(name)).into()
}

/// All that was read.
pub(super) struct Kept {
    limits: Limits,
    left: u64,
    count: usize,
    every_line: bool,
    forms: Forms,
    pub names: Vec<String>,
    pub lines: Vec<Line>,
    /// By service.
    pub records: Vec<(String, Vec<Record>)>,
    pub objects: Vec<Value>,
    /// Machine and unit.
    pub failed: Vec<(String, String)>,
    /// Lines of a source that were left out, because it has too many.
    pub lost: Vec<(Arc<str>, u64)>,
    pub skipped: Vec<String>,
}

impl Kept {
    pub fn new(every_line: bool) -> Self {
        let limits = Limits::default();
        Self {
            limits,
            left: limits.bytes,
            count: 0,
            every_line,
            forms: Forms::default(),
            names: Vec::new(),
            lines: Vec::new(),
            records: Vec::new(),
            objects: Vec::new(),
            failed: Vec::new(),
            lost: Vec::new(),
            skipped: Vec::new(),
        }
    }

    /// Each line once, the oldest first.
    pub fn arrange(&mut self) {
        let own: BTreeSet<(Arc<str>, String)> = self
            .lines
            .iter()
            .filter(|line| line.rank == Rank::Own)
            .map(|line| (line.source.clone(), line.line.unit.clone()))
            .collect();
        let failed: BTreeSet<(Arc<str>, String)> = self
            .lines
            .iter()
            .filter(|line| line.rank == Rank::Failed)
            .map(|line| (line.source.clone(), line.line.unit.clone()))
            .collect();
        self.lines.retain(|line| {
            let key = (line.source.clone(), line.line.unit.clone());
            let wanted = || {
                let unit = line.line.unit.as_str();
                if &*line.source == BOOTSTRAP { BOOTSTRAP_UNITS.contains(&unit) } else { NODE_UNITS.contains(&unit) }
            };
            match line.rank {
                Rank::Own => true,
                Rank::Failed => !own.contains(&key),
                Rank::Whole => wanted() && !own.contains(&key) && !failed.contains(&key),
            }
        });
        // What has no time at all is told where the bundle ends.
        let last = self.lines.iter().map(|line| line.line.at).max().unwrap_or_default();
        for line in self.lines.iter_mut().filter(|line| line.line.at == Timestamp::UNIX_EPOCH) {
            line.line.at = last;
        }
        self.lines.sort_by_key(|line| (line.line.at, line.file, line.number));
    }

    fn log(&mut self, name: &str, mut text: impl BufRead) {
        if name.ends_with("failed-units.txt") {
            let mut list = String::new();
            if text.by_ref().take(1 << 20).read_to_string(&mut list).is_ok() {
                let units = list.lines().filter_map(failed_unit);
                self.failed.extend(units.map(|unit| (machine(name).to_owned(), unit.to_owned())));
            }
            return;
        }
        let Some(place) = Place::of(name) else { return };
        let file = self.names.len();
        self.names.push(plain(name));
        let mut tail: VecDeque<Line> = VecDeque::new();
        let (mut line, mut number, mut lost, mut at) = (Vec::new(), 0, 0, Timestamp::UNIX_EPOCH);
        loop {
            match next_line(&mut text, &mut line, self.limits.line, &mut self.left) {
                Ok(true) => number += 1,
                Ok(false) => break,
                Err(error) => {
                    self.skip(name, &error.to_string());
                    break;
                }
            }
            let Some(line) = self.line(&place, &String::from_utf8_lossy(&line), at) else { continue };
            at = line.at;
            tail.push_back(Line { file, number, source: place.source.clone(), line, rank: place.rank });
            if tail.len() > place.most {
                tail.pop_front();
                lost += 1;
            }
        }
        // What comes before the first time was not later than it.
        let first = tail.iter().map(|line| line.line.at).find(|at| *at != Timestamp::UNIX_EPOCH);
        for line in tail.iter_mut().take_while(|line| line.line.at == Timestamp::UNIX_EPOCH) {
            line.line.at = first.unwrap_or_default();
        }
        if lost > 0 {
            self.lost.push((place.source.clone(), lost));
        }
        self.lines.extend(tail);
    }

    fn line(&mut self, place: &Place, text: &str, before: Timestamp) -> Option<LogLine> {
        // `-- Logs begin at`, `-- Boot`, `-- No entries --`
        if text.trim().is_empty() || text.starts_with("-- ") {
            return None;
        }
        if &*place.source == installer::SOURCE && place.unit == installer::SOURCE {
            let unit = installer::SOURCE.to_owned();
            return Some(match installer::parse(text) {
                Ok(entry) => {
                    let text = format!("{}{}", entry.message, entry.fields);
                    LogLine { at: entry.at, unit, level: entry.level, text, cursor: None }
                }
                Err(_) => {
                    let text = redact(&one_line(text, LINE_LIMIT));
                    LogLine { at: before, unit, level: Level::Info, text, cursor: None }
                }
            });
        }
        let nobody = Origin { source: place.source.clone(), unit: String::new() };
        let mut line = self.forms.read(&nobody, text, Timestamp::UNIX_EPOCH).into_line();
        if !place.unit.is_empty() {
            // podman's containers say to the journal what bootkube.sh says again.
            let again = !matches!(line.unit.as_str(), "" | "bootkube" | "systemd" | "init.scope");
            if place.unit == "bootkube" && again {
                return None;
            }
            line.unit.clone_from(&place.unit);
        }
        let klog = self.forms.klog(&line.text);
        line.level = line.level.max(klog.map_or(Level::Debug, |(level, _)| level));
        if line.at == Timestamp::UNIX_EPOCH {
            line.at = klog.and_then(|(_, at)| at).or_else(|| stamped(&line.text)).unwrap_or(before);
        }
        let is_loud = ["level=warning", "level=error", "level=fatal"].iter().any(|loud| line.text.contains(loud));
        let of_systemd = line.text.starts_with(&format!("{}.service: ", line.unit));
        let is_quiet = QUIET_UNITS.contains(&line.unit.as_str()) && line.level < Level::Warn;
        if is_quiet && !is_loud && !of_systemd && !self.every_line {
            return None;
        }
        line.text = redact(&one_line(&line.text, LINE_LIMIT));
        Some(line)
    }
}

/// The time in a line of JSON as zap writes it (etcd and others).
fn stamped(text: &str) -> Option<Timestamp> {
    text.starts_with('{').then(|| text.split_once("\"ts\":\"")?.1.split('"').next()?.parse().ok()).flatten()
}

/// The unit in a row of `systemctl list-units --state=failed`.
fn failed_unit(row: &str) -> Option<&str> {
    let mut words = row.split_whitespace();
    let unit = words.by_ref().find(|word| word.contains('.'))?;
    let states = [words.next()?, words.next()?];
    (states[1] == "failed").then(|| unit.strip_suffix(".service").unwrap_or(unit))
}

impl Files for Kept {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn left(&self) -> u64 {
        self.left
    }

    fn count(&mut self) -> &mut usize {
        &mut self.count
    }

    fn skip(&mut self, name: &str, why: &str) {
        if self.skipped.len() < 100 {
            self.skipped.push(format!("{}: {why}", plain(name)));
        }
    }

    fn read(&mut self, holds: Holds, name: &str, from: impl BufRead) {
        if let Holds::Log = holds {
            return self.log(name, from);
        }
        let mut whole = Vec::new();
        if let Err(error) = from.take(self.limits.objects.min(self.left)).read_to_end(&mut whole) {
            return self.skip(name, &error.to_string());
        }
        self.left = self.left.saturating_sub(whole.len() as u64);
        match holds {
            Holds::Record => match records::parse(&whole) {
                Ok(read) => {
                    let file = name.rsplit('/').next().unwrap_or(name);
                    self.records.push((file.strip_suffix(".json").unwrap_or(file).to_owned(), read));
                }
                Err(error) => self.skip(name, &error.to_string()),
            },
            Holds::Objects => self.objects.extend(objects::parse(name, &whole)),
            // A run of this program is opened as what it is.
            Holds::Events | Holds::Log => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_lines_a_file_has_is_in_its_path() {
        let told =
            |name: &str| Place::of(name).map(|place| format!("{} {} {:?}", place.source, place.unit, place.rank));
        let bundle = "log-bundle-1.tar.gz:log-bundle-1";
        for (name, wanted) in [
            ("bootstrap/journals/bootkube.log", Some("journal:bootstrap bootkube Own")),
            ("bootstrap/journals/journal.log", Some("journal:bootstrap  Whole")),
            ("bootstrap/containers/etcd-0123456789abcdef.log", Some("journal:bootstrap etcd Own")),
            (
                "bootstrap/containers/machine-config-server-0123456789abcdef.log",
                Some("containers:bootstrap machine-config-server Own"),
            ),
            ("bootstrap/pods/0123456789abcdef.log", None),
            ("unit-status/crio.service.log", Some("journal:bootstrap crio Failed")),
            ("control-plane/10.0.1.5/unit-status/crio.service.log", Some("journal:10.0.1.5 crio Failed")),
            ("control-plane/10.0.1.5/journals/kubelet.log", Some("journal:10.0.1.5 kubelet Own")),
            ("serial/edge-x7k2p-master-0-serial.log", Some("serial:edge-x7k2p-master-0 console Own")),
            ("gather.log", None),
        ] {
            assert_eq!(told(&format!("{bundle}/{name}")).as_deref(), wanted, "{name}");
        }
        assert_eq!(failed_unit("● crio.service loaded failed failed Open Container Initiative Daemon"), Some("crio"));
        assert_eq!(failed_unit("  UNIT LOAD ACTIVE SUB DESCRIPTION"), None);
    }
}

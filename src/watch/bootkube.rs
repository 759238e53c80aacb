//! Which stage the bootstrap node is in, worked out from what its units print and from their service records.
//!
//! [`Recogniser`] is pure: lines and records in, changes out. What each release prints is data
//! (`assets/bootkube.toml`); here is only what a start line, a warning or a dying process means. There is no line for
//! the end of a stage: the start of the next one in the same unit is the end of the one before.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use regex::{Regex, RegexSet};
use serde::Deserialize;
use tokio::sync::Notify;

use crate::host::{Host, HostError};
use crate::model::event::{BootStage, LogLine, Observed};
use crate::model::run::BootStageRecord;
use crate::model::text::one_line;

use super::records::{self, Phase, Record};
use super::{Out, journal};

/// The name of the node in events.
const HOST: &str = "bootstrap";
const EVIDENCE_LIMIT: usize = 400;
/// The record of a start, in whole seconds, is written just before its line.
const LINE_AFTER_RECORD: SignedDuration = SignedDuration::from_millis(1100);
const AGAIN: &str = "it started again without having ended";

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct StageEntry {
    stage: String,
    unit: String,
    from: Option<String>,
    until: Option<String>,
    start: Vec<String>,
    #[serde(default)]
    step: Vec<String>,
    #[serde(default)]
    warn: Vec<String>,
    #[serde(default)]
    fail: Vec<String>,
    #[serde(default)]
    done: Vec<String>,
    #[serde(default)]
    silent: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StageFile {
    stage: Vec<StageEntry>,
}

/// The table as it is in the program. A test holds it to be readable and every expression in it to be used.
static TABLE: LazyLock<Vec<StageEntry>> = LazyLock::new(|| {
    toml::from_str::<StageFile>(include_str!("../../assets/bootkube.toml")).map(|file| file.stage).unwrap_or_default()
});

/// Major and minor of `4.18.12`. What cannot be read counts as the newest.
fn release(version: &str) -> (u32, u32) {
    let mut parts = version.trim_start_matches('v').split(['.', '-']).map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (u32::MAX, u32::MAX),
    }
}

fn entries(version: &str) -> impl Iterator<Item = &'static StageEntry> {
    let wanted = release(version);
    TABLE.iter().filter(move |entry| {
        entry.from.as_deref().is_none_or(|from| release(from) <= wanted)
            && entry.until.as_deref().is_none_or(|until| wanted <= release(until))
    })
}

/// The stages of a release in the order in which they run: `(unit, stage)`.
pub fn stages(version: &str) -> Vec<(&'static str, &'static str)> {
    entries(version).map(|entry| (entry.unit.as_str(), entry.stage.as_str())).collect()
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Meaning {
    /// `once` is true for the line that a process prints once, so that seeing it again tells of a restart.
    Start {
        once: bool,
    },
    Step,
    Warn,
    Fail,
    Done,
}

/// The expressions of one unit.
#[derive(Debug)]
struct UnitTable {
    set: RegexSet,
    /// What each expression of the set means, and for which stage.
    meaning: Vec<(usize, Meaning)>,
}

#[derive(Debug)]
struct StageNow {
    state: BootStage,
    /// The process of the unit in which it was last seen.
    process: u32,
    evidence: String,
    at: Timestamp,
}

#[derive(Debug, Default)]
struct UnitNow {
    state: String,
    restarts: u32,
    /// Counts the lives of the unit's process.
    process: u32,
    current: Option<usize>,
    /// The newest line that speaks of an error since the present stage began.
    error: Option<String>,
    /// The newest moment of which the service record was believed. What lines tell of earlier ones comes late.
    recorded: Option<Timestamp>,
}

/// What the bootstrap node is doing, from its lines.
#[derive(Debug)]
pub struct Recogniser {
    names: Vec<String>,
    silent: Vec<bool>,
    tables: BTreeMap<String, UnitTable>,
    stages: BTreeMap<usize, StageNow>,
    units: BTreeMap<String, UnitNow>,
    /// The pods that cluster-bootstrap waits for, each with its last state.
    pods: BTreeMap<String, String>,
}

/// openshift/cluster-bootstrap `pkg/start/status.go`: printed for one pod at a time, on change.
static POD: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^\s*Pod Status:\s*(?:\S+/)?(?P<pod>\S+)\s+(?P<state>\S+)\s*$").ok());

static EXITED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"^\S+\.service: (?:Main process exited, (?P<how>code=\w+, status=\S+)|Scheduled restart job, restart counter is at (?P<count>\d+)|Failed with result '(?P<result>[^']*)'|(?P<end>Deactivated successfully|Succeeded)\.)").ok()
});

impl Recogniser {
    /// For a release such as `4.18.12`.
    pub fn new(version: &str) -> Self {
        let mut names = Vec::new();
        let mut silent = Vec::new();
        let mut expressions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut meanings: BTreeMap<&str, Vec<(usize, Meaning)>> = BTreeMap::new();
        for (index, entry) in entries(version).enumerate() {
            names.push(entry.stage.clone());
            silent.push(entry.silent);
            let expressions = expressions.entry(&entry.unit).or_default();
            let meaning = meanings.entry(&entry.unit).or_default();
            let mut add = |list: &'static [String], means: &dyn Fn(usize) -> Meaning| {
                for (place, expression) in list.iter().enumerate() {
                    expressions.push(expression.as_str());
                    meaning.push((index, means(place)));
                }
            };
            add(&entry.fail, &|_| Meaning::Fail);
            add(&entry.warn, &|_| Meaning::Warn);
            add(&entry.done, &|_| Meaning::Done);
            add(&entry.start, &|place| Meaning::Start { once: place == 0 });
            add(&entry.step, &|_| Meaning::Step);
        }
        let tables = meanings
            .into_iter()
            .filter_map(|(unit, meaning)| {
                let set = RegexSet::new(expressions.get(unit)?).ok()?;
                Some((unit.to_owned(), UnitTable { set, meaning }))
            })
            .collect();
        Self { names, silent, tables, stages: BTreeMap::new(), units: BTreeMap::new(), pods: BTreeMap::new() }
    }

    /// Go on from what an earlier process had recorded.
    pub fn resume(version: &str, seen: &[BootStageRecord]) -> Self {
        let mut this = Self::new(version);
        for record in seen {
            let index = this.index(&record.stage);
            let at = record.ended.unwrap_or(record.started);
            let now = StageNow { state: record.state, process: 0, evidence: record.evidence.clone(), at };
            this.stages.insert(index, now);
            let unit = this.unit_of(index);
            if record.state == BootStage::Running
                && let Some(unit) = unit
            {
                this.units.entry(unit).or_default().current = Some(index);
            }
        }
        this
    }

    /// What a line of the bootstrap node's journal changes.
    pub fn feed(&mut self, line: &LogLine) -> Vec<Observed> {
        let mut changes = Vec::new();
        if self.feed_manager(line, &mut changes) {
            return changes;
        }
        let Some(table) = self.tables.get(&line.unit) else { return changes };
        let hits: Vec<(usize, Meaning)> =
            table.set.matches(&line.text).iter().filter_map(|hit| table.meaning.get(hit).copied()).collect();
        let current = self.units.get(&line.unit).and_then(|unit| unit.current);
        // The same words may belong to two stages; the one at work has them first. But its last line may have no end, and the
        // next stage's first one follows on it.
        let begins = |(stage, meaning): &&(usize, Meaning)| {
            matches!(meaning, Meaning::Start { once: true }) && current.is_some_and(|current| *stage > current)
        };
        let own = hits.iter().find(|(stage, _)| Some(*stage) == current);
        let hit = hits.iter().find(begins).or(own).or_else(|| hits.first()).copied();
        match hit {
            Some((stage, _)) if self.comes_late(line, stage) => {}
            Some((stage, meaning)) => self.mean(line, stage, meaning, &mut changes),
            None if speaks_of_error(line) => {
                self.units.entry(line.unit.clone()).or_default().error = Some(evidence(&line.text));
            }
            None => {}
        }
        changes
    }

    /// Over a slow link the record is often read before the lines: they may not begin a second time what it has told of.
    fn comes_late(&self, line: &LogLine, stage: usize) -> bool {
        let Some(recorded) = self.units.get(&line.unit).and_then(|unit| unit.recorded) else { return false };
        match line.at.as_second().cmp(&recorded.as_second()) {
            Ordering::Less => true,
            Ordering::Equal => self.stages.contains_key(&stage),
            Ordering::Greater => false,
        }
    }

    /// What the service record of a unit adds to what its lines have shown. Also for stages that no table knows.
    pub fn confirm(&mut self, unit: &str, entries: &[Record]) -> Vec<Observed> {
        let mut changes = Vec::new();
        let starts = entries.iter().filter(|record| record.phase == Phase::ServiceStart).count();
        let restarts = u32::try_from(starts.saturating_sub(1)).unwrap_or(u32::MAX);
        let now = self.units.entry(unit.to_owned()).or_default();
        if restarts > now.restarts {
            now.restarts = restarts;
            let state = if now.state.is_empty() { "running".to_owned() } else { now.state.clone() };
            now.state = state.clone();
            changes.push(Observed::Unit { host: HOST.into(), unit: unit.to_owned(), state, restarts });
        }
        for record in entries {
            let Some(stage) = &record.stage else { continue };
            let index = self.index(stage);
            // Records count in seconds. What a line has said in the same second or later stands.
            let (known, age) = match self.stages.get(&index) {
                Some(now) => (Some(now.state), record.at.as_second().cmp(&now.at.as_second())),
                None => (None, Ordering::Greater),
            };
            let state = match &record.phase {
                Phase::StageStart if age.is_gt() => BootStage::Running,
                Phase::StageEnd { .. } if age.is_lt() => continue,
                Phase::StageEnd { success: true } => BootStage::Done,
                Phase::StageEnd { success: false } if goes_on(stage) => BootStage::Warned,
                Phase::StageEnd { success: false } => BootStage::Failed,
                _ => continue,
            };
            let told = match state {
                BootStage::Running => "the service record says that it has started".to_owned(),
                BootStage::Done => "the service record says success".to_owned(),
                _ => record.last_words(),
            };
            if state == BootStage::Running && known == Some(state) {
                self.set(index, unit, BootStage::Failed, AGAIN, record.at, &mut changes);
            }
            if state == BootStage::Running || known != Some(state) {
                self.set(index, unit, state, &told, record.at, &mut changes);
                let now = self.units.entry(unit.to_owned()).or_default();
                now.recorded = now.recorded.max(Some(record.at));
                if state == BootStage::Running {
                    now.current = Some(index);
                }
            }
        }
        changes
    }

    /// Lines of systemd about a unit. True when there is nothing more in the line.
    fn feed_manager(&mut self, line: &LogLine, changes: &mut Vec<Observed>) -> bool {
        let text = line.text.as_str();
        let unit = self.units.entry(line.unit.clone()).or_default();
        let Some(found) = EXITED.as_ref().and_then(|exited| exited.captures(text)) else {
            let state = match text {
                _ if !text.ends_with('.') => return false,
                _ if text.starts_with("Started ") => "running",
                _ if text.starts_with("Finished ") => "finished",
                _ if text.starts_with("Failed to start ") => "failed",
                _ => return false,
            };
            if unit.state != state {
                unit.state = state.to_owned();
                changes.push(unit.observed(&line.unit));
            }
            return false;
        };
        let mut died = false;
        if let Some(count) = found.name("count") {
            unit.restarts = count.as_str().parse().unwrap_or(unit.restarts);
            unit.state = "restarting".to_owned();
        } else if found.name("end").is_some() {
            unit.state = "finished".to_owned();
            changes.push(unit.observed(&line.unit));
            return false;
        } else {
            let how = found.name("how").or(found.name("result")).map_or("", |how| how.as_str());
            if how.ends_with("status=0/SUCCESS") {
                return true;
            }
            died = found.name("how").is_some();
            unit.state = format!("failed: {how}");
            let last_words = unit.error.take();
            if let Some(stage) = unit.current
                && self.stages.get(&stage).is_some_and(|now| now.state == BootStage::Running)
            {
                let told = last_words.unwrap_or_else(|| text.to_owned());
                self.set(stage, &line.unit, BootStage::Failed, &told, line.at, changes);
            }
        }
        if let Some(unit) = self.units.get_mut(&line.unit) {
            unit.process = unit.process.saturating_add(u32::from(died));
            changes.push(unit.observed(&line.unit));
        }
        true
    }

    fn mean(&mut self, line: &LogLine, stage: usize, meaning: Meaning, changes: &mut Vec<Observed>) {
        let unit = self.units.entry(line.unit.clone()).or_default();
        let (current, process) = (unit.current, unit.process);
        let now = self.stages.get(&stage);
        let recorded =
            now.is_some_and(|now| unit.recorded == Some(now.at) && line.at.duration_since(now.at) < LINE_AFTER_RECORD);
        let is_current = current == Some(stage);
        // A stage that ended in this life of the process is over, whatever it prints after that.
        let over = now.is_some_and(|now| now.process == process && now.state != BootStage::Running) && is_current;
        match meaning {
            Meaning::Start { once } if is_current => {
                let running = now.is_some_and(|now| now.state == BootStage::Running);
                if running && (!once || recorded) {
                    return;
                }
                if running {
                    if let Some(unit) = self.units.get_mut(&line.unit) {
                        unit.process = unit.process.saturating_add(1);
                    }
                    self.set(stage, &line.unit, BootStage::Failed, AGAIN, line.at, changes);
                } else if over && !once {
                    return;
                }
                self.begin(stage, line, changes);
            }
            Meaning::Start { .. } => self.begin(stage, line, changes),
            Meaning::Step if over => {}
            Meaning::Step if is_current => {
                let pods = self.pods_after(&line.text);
                let told = pods.as_deref().unwrap_or(&line.text);
                self.set(stage, &line.unit, BootStage::Running, told, line.at, changes);
            }
            Meaning::Step => self.begin(stage, line, changes),
            Meaning::Warn | Meaning::Fail | Meaning::Done => {
                if !is_current {
                    self.close_before(stage, line, changes);
                }
                let state = match meaning {
                    Meaning::Warn => BootStage::Warned,
                    Meaning::Fail => BootStage::Failed,
                    _ => BootStage::Done,
                };
                let last_words = self.units.get(&line.unit).and_then(|unit| unit.error.clone());
                let told = last_words.filter(|_| state == BootStage::Failed).unwrap_or_else(|| line.text.clone());
                if let Some(unit) = self.units.get_mut(&line.unit) {
                    unit.current = Some(stage);
                }
                // One that fails over and over, many times a second, is told of when its words change.
                let same =
                    |now: &StageNow| now.state == state && without_digits(&now.evidence) == without_digits(&told);
                if !self.stages.get(&stage).is_some_and(same) {
                    self.set(stage, &line.unit, state, &told, line.at, changes);
                }
            }
        }
    }

    fn begin(&mut self, stage: usize, line: &LogLine, changes: &mut Vec<Observed>) {
        self.close_before(stage, line, changes);
        if let Some(unit) = self.units.get_mut(&line.unit) {
            unit.current = Some(stage);
            unit.error = None;
        }
        self.pods.clear();
        self.set(stage, &line.unit, BootStage::Running, &line.text, line.at, changes);
    }

    /// The states of all pods that are waited for, when the line tells of one.
    fn pods_after(&mut self, text: &str) -> Option<String> {
        let found = POD.as_ref()?.captures(text)?;
        self.pods.insert(found.name("pod")?.as_str().to_owned(), found.name("state")?.as_str().to_owned());
        let pods: Vec<String> = self.pods.iter().map(|(pod, state)| format!("{pod} {state}")).collect();
        Some(format!("Pod Status: {}", pods.join(", ")))
    }

    /// `stage` begins, so the one before it in its unit is over, and so are those that print nothing.
    fn close_before(&mut self, stage: usize, line: &LogLine, changes: &mut Vec<Observed>) {
        let unit = self.units.entry(line.unit.clone()).or_default();
        let told = format!("next: {}", line.text);
        if let Some(before) = unit.current.filter(|before| *before != stage) {
            match self.stages.get(&before).map(|now| now.state) {
                // Back at a stage that had begun before: the process was restarted and nobody said so.
                Some(BootStage::Running) if before > stage && self.stages.contains_key(&stage) => {
                    let told = format!("the unit started again: {}", line.text);
                    self.set(before, &line.unit, BootStage::Failed, &told, line.at, changes);
                }
                Some(BootStage::Running) => self.set(before, &line.unit, BootStage::Done, &told, line.at, changes),
                Some(BootStage::Failed) if before < stage => {
                    self.set(before, &line.unit, BootStage::Done, &told, line.at, changes);
                }
                _ => {}
            }
        }
        let quiet: Vec<usize> = (0..stage)
            .filter(|index| self.silent.get(*index) == Some(&true) && !self.stages.contains_key(index))
            .filter(|index| self.unit_of(*index).as_deref() == Some(line.unit.as_str()))
            .collect();
        for index in quiet {
            self.set(index, &line.unit, BootStage::Done, &told, line.at, changes);
        }
    }

    fn set(
        &mut self,
        stage: usize,
        unit: &str,
        state: BootStage,
        told: &str,
        at: Timestamp,
        changes: &mut Vec<Observed>,
    ) {
        let evidence = evidence(told);
        let process = self.units.get(unit).map_or(0, |unit| unit.process);
        let same = |now: &StageNow| now.state == state && now.evidence == evidence;
        let changed = !self.stages.get(&stage).is_some_and(same);
        if changed && let Some(name) = self.names.get(stage) {
            let (stage, evidence) = (name.clone(), evidence.clone());
            changes.push(Observed::Bootkube { stage, state, evidence, since: Some(at) });
        }
        self.stages.insert(stage, StageNow { state, process, evidence, at });
    }

    /// The place of a stage, made at the end when the table has none.
    fn index(&mut self, name: &str) -> usize {
        self.names.iter().position(|have| have == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.silent.push(false);
            self.names.len() - 1
        })
    }

    fn unit_of(&self, stage: usize) -> Option<String> {
        let has = |table: &UnitTable| table.meaning.iter().any(|(index, _)| *index == stage);
        self.tables.iter().find(|(_, table)| has(table)).map(|(unit, _)| unit.clone())
    }
}

impl UnitNow {
    fn observed(&self, unit: &str) -> Observed {
        Observed::Unit { host: HOST.into(), unit: unit.to_owned(), state: self.state.clone(), restarts: self.restarts }
    }
}

/// The checks of the URLs: when one fails, bootkube goes on.
fn goes_on(stage: &str) -> bool {
    (stage.starts_with("resolve-api") || stage.starts_with("check-api")) && stage.ends_with("-url")
}

fn evidence(text: &str) -> String {
    one_line(text.trim(), EVIDENCE_LIMIT)
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Errors that are normal while the API comes up are no last words.
fn speaks_of_error(line: &LogLine) -> bool {
    let text = line.text.as_str();
    let normal = text.starts_with("[#") || text.starts_with("Failed to create \"") || text.starts_with('"');
    !normal
        && ["rror", "atal", "denied", "unauthorized", "failed", "no such host"].iter().any(|word| text.contains(word))
}

/// Follow the bootstrap node: its journal, its service records, and what both say about its stages.
///
/// # Errors
/// As [`journal::follow`].
pub async fn follow(
    host: Arc<dyn Host>,
    recogniser: Recogniser,
    options: journal::Options,
    out: &Out,
) -> Result<(), HostError> {
    let shared = Arc::new(Mutex::new(recogniser));
    let look = Arc::new(Notify::new());
    let stop = out.cancel.child_token();
    let here = Out { cancel: stop.clone(), ..out.clone() };
    let journal = async {
        let (shared, look) = (shared.clone(), look.clone());
        let mut reader = |line: &LogLine| {
            // A unit died or came back: its record has just been written.
            if line.text.starts_with(&format!("{}.service: ", line.unit)) {
                look.notify_one();
            }
            shared.lock().unwrap_or_else(PoisonError::into_inner).feed(line)
        };
        let ended = journal::follow(host.clone(), options, &here, &mut reader).await;
        stop.cancel();
        ended
    };
    let records = records::follow(host.clone(), shared.clone(), look.clone(), RECORDS_EVERY, &here);
    let (ended, ()) = tokio::join!(journal, records);
    ended
}

/// How often the service records are looked at when nothing calls for it.
const RECORDS_EVERY: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_of_the_table_is_valid_and_used() {
        let file: StageFile = toml::from_str(include_str!("../../assets/bootkube.toml")).unwrap();
        for entry in &file.stage {
            let name = &entry.stage;
            for text in [&entry.start, &entry.step, &entry.warn, &entry.fail, &entry.done].into_iter().flatten() {
                Regex::new(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            }
            for bound in [&entry.from, &entry.until].into_iter().flatten() {
                assert_ne!(release(bound), (u32::MAX, u32::MAX), "{name}: {bound}");
            }
            assert!(journal::BOOTSTRAP_UNITS.contains(&entry.unit.as_str()), "{name}: nobody follows {}", entry.unit);
            let in_some = (12..=22).any(|minor| stages(&format!("4.{minor}")).contains(&(&entry.unit, name)));
            assert!(in_some, "{name} is in no release");
        }
        for minor in 12..=22 {
            let stages = stages(&format!("4.{minor}"));
            let names: std::collections::BTreeSet<_> = stages.iter().map(|(_, stage)| stage).collect();
            assert_eq!(names.len(), stages.len(), "a stage occurs twice in 4.{minor}");
        }
    }
}

//! A run without a screen: the same events as plain lines (pipes, CI, screen readers) or as JSON lines.
//!
//! Standard output is data and flushed per event; everything else goes to standard error or the log.

mod ask;

use std::collections::BTreeMap;
use std::io::{self, Write};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

pub use ask::Ask;

use crate::engine::Command;
use crate::model::event::*;
use crate::model::progress::{Eta, percent};
use crate::model::text::{dollars, strip_control};
use crate::model::{RunModel, reduce};
use crate::record::Follower;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Plain,
    Json,
}

/// Somebody who reads the lines and can be asked.
pub struct Person {
    pub ask: Ask,
    /// Lines of input.
    pub answers: mpsc::Receiver<String>,
    pub commands: mpsc::Sender<Command>,
}

/// Writes everything that happens until the run is closed or `out` is; a `person` is asked when the run waits.
///
/// # Errors
/// When `out` cannot be written.
pub async fn show(
    mut model: RunModel,
    mut events: Follower,
    format: Format,
    mut person: Option<Person>,
    mut out: impl Write,
) -> io::Result<()> {
    let mut lines = Lines::default();
    loop {
        let answer = async {
            match &mut person {
                Some(person) => person.answers.recv().await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            event = events.next() => event,
            line = answer => {
                match (line, &mut person) {
                    (Some(line), Some(person)) => {
                        let (said, command) = person.ask.answer(&line, &model);
                        said.iter().try_for_each(|line| writeln!(out, "{}", strip_control(line)))?;
                        out.flush()?;
                        if let Some(command) = command {
                            // An engine that has ended says so itself.
                            let _ended = person.commands.send(command).await;
                        }
                    }
                    // Nobody is there any more: the run goes on by itself.
                    _ => person = None,
                }
                continue;
            }
        };
        let Some(event) = event else { return Ok(()) };
        reduce(&mut model, &event);
        match format {
            Format::Json => writeln!(out, "{}", serde_json::to_string(&*event)?)?,
            Format::Plain => {
                for line in lines.of(&model, &event) {
                    writeln!(out, "{line}")?;
                }
            }
        }
        if let Some(person) = &mut person {
            match &event.data {
                data if wants_a_person(data, &model) => {
                    let asked = person.ask.begin(&model);
                    asked.iter().try_for_each(|line| writeln!(out, "{}", strip_control(line)))?;
                }
                Data::StepStarted { .. } | Data::Decision { .. } | Data::FindingCleared { .. } => person.ask.over(),
                _ => {}
            }
        }
        out.flush()?;
        if matches!(event.data, Data::RunClosed { .. }) {
            return Ok(());
        }
    }
}

/// The run waits for a decision, or something was found that can be put right when somebody says so.
fn wants_a_person(data: &Data, model: &RunModel) -> bool {
    match data {
        Data::Note { level: Level::Warn, text } => text.contains(NEEDS_YOU),
        Data::FindingOpened { finding } => {
            let again = model.findings.iter().any(|record| record.finding.id == finding.id && record.count > 1);
            finding.recovery.is_some() && finding.explained_by.is_none() && !again
        }
        _ => false,
    }
}

/// Turns events into sentences, at most one each ten seconds for the same progress.
#[derive(Debug, Default)]
pub struct Lines {
    told: BTreeMap<String, Timestamp>,
}

impl Lines {
    const PROGRESS_EVERY: SignedDuration = SignedDuration::from_secs(10);

    /// What is new with this event, after it was folded into `model`.
    pub fn of(&mut self, model: &RunModel, event: &Event) -> Vec<String> {
        let at = event.at;
        let text = match &event.data {
            Data::StepProgress { step, done, total, unit, note } => {
                if !self.due(step.as_str(), at) {
                    return Vec::new();
                }
                let amount = match (unit, total) {
                    (Unit::Bytes, Some(total)) => format!("{} of {}", size(*done), size(*total)),
                    (Unit::Bytes, None) => size(*done),
                    (Unit::Percent, _) => format!("{done} %"),
                    (Unit::Count, Some(total)) => format!("{done} of {total}"),
                    (Unit::Count, None) => done.to_string(),
                };
                let note = note.as_ref().map_or(String::new(), |note| format!(" {note}"));
                format!("{step}: {amount}{note}")
            }
            Data::Sync(SyncEvent::Planned { images, blobs, bytes, present_bytes }) => format!(
                "sync: {} images, {blobs} blobs, {}; {} are in the mirror already",
                images.len(),
                size(*bytes),
                size(*present_bytes)
            ),
            Data::Sync(SyncEvent::Driven { engine, images }) => {
                format!("sync: {} images by {engine}, which tells of whole images only", images.len())
            }
            Data::Sync(
                SyncEvent::Progress { .. }
                | SyncEvent::Moved { .. }
                | SyncEvent::ImageState { state: ImageState::Copying, .. },
            ) => {
                if !self.due("sync", at) {
                    return Vec::new();
                }
                sync_line(model, at)
            }
            Data::Sync(SyncEvent::ImageState { image, state: ImageState::Failed { side, class, why }, attempt }) => {
                format!("sync: {image} failed at the {side} ({class}), attempt {attempt}: {why}")
            }
            Data::Sync(SyncEvent::Retry { image, side, class, why }) => {
                if !self.due(&format!("retry {side} {class}"), at) {
                    return Vec::new();
                }
                format!("sync: {image}: the {side} is asked again ({class}): {why}")
            }
            Data::Sync(SyncEvent::ImageState { image, state: ImageState::Skipped, .. }) => {
                format!("sync: {image} is left out")
            }
            Data::Sync(SyncEvent::ImageState { .. }) => return Vec::new(),
            Data::Sync(SyncEvent::Proven { images, missing, left_out }) => match missing.len() {
                0 if !left_out.is_empty() => format!(
                    "sync: {images} digests answer in the mirror; left out and not there: {}",
                    left_out.join(" ")
                ),
                0 => format!("sync: all {images} digests answer in the mirror"),
                count => format!("sync: {count} of {images} digests are missing: {}", missing.join(" ")),
            },
            Data::Observed(Observed::Installer { phase, message, .. }) => format!("installer: {phase}: {message}"),
            Data::Observed(Observed::Bootkube { stage, state, .. }) => {
                format!("bootstrap: {stage} {}", format!("{state:?}").to_lowercase())
            }
            Data::Observed(Observed::Operator(operator)) => {
                let yes = |tri: Tri| if tri == Tri::True { "yes" } else { "no" };
                let (available, progressing, degraded) =
                    (yes(operator.available), yes(operator.progressing), yes(operator.degraded));
                let line = format!(
                    "operator {}: available {available}, progressing {progressing}, degraded {degraded}",
                    operator.name
                );
                let message = operator.message.replace('\n', " ");
                if message.is_empty() { line } else { format!("{line}: {message}") }
            }
            Data::Observed(Observed::ClusterVersion(version)) if version.failing == Tri::True => {
                format!("cluster version: {}; failing: {}", version.message, version.failing_message)
            }
            Data::Observed(Observed::ClusterVersion(version)) => format!("cluster version: {}", version.message),
            Data::Observed(Observed::Pool { name, machines, updated, degraded, message, .. }) => {
                let degraded = if *degraded > 0 { format!(", {degraded} degraded") } else { String::new() };
                let message = if message.is_empty() { String::new() } else { format!(": {message}") };
                format!("pool {name}: {updated} of {machines} updated{degraded}{message}")
            }
            Data::Observed(Observed::Pod(pod)) => {
                let Pod { namespace, name, reason, message, restarts, .. } = pod;
                format!("pod {namespace}/{name}: {reason}, {restarts} restarts: {message}")
            }
            Data::Observed(Observed::Gone { what: Vanished::Pod, name }) => format!("pod {name} gets on"),
            Data::Observed(Observed::Gone { what, name }) => {
                format!("{} {name} is gone", format!("{what:?}").to_lowercase())
            }
            Data::Observed(Observed::Machine { name, role, phase, message }) => {
                let message = if message.is_empty() { String::new() } else { format!(": {message}") };
                format!("machine {name} ({role}) {}{message}", phase.to_lowercase())
            }
            Data::Observed(Observed::Node { name, ready, .. }) => {
                format!("node {name} is {}", if *ready { "ready" } else { "not ready" })
            }
            Data::Observed(Observed::Csr { name, requester, state, .. }) => {
                format!("csr {name} of {requester} {}", format!("{state:?}").to_lowercase())
            }
            Data::Observed(Observed::Resource { resource, id, state, standing, waits_for, .. }) => {
                let Object { kind, name } = resource;
                match (waits_for, standing) {
                    (Some(blocker), _) => format!("{kind} {name} ({id}) waits: {blocker}"),
                    (None, Standing::Leaving) => format!("{kind} {name} ({id}) goes: {state}"),
                    (None, _) => format!("{kind} {name} ({id}) is {state}{}", costs(model)),
                }
            }
            Data::FindingOpened { finding } => {
                let next = finding.next.as_ref().map_or(String::new(), |next| format!("\nNEXT {next}"));
                let Finding { signature, title, source, line, .. } = finding;
                format!("FINDING {signature}: {title} | {source}: {}{next}", line.replace('\n', " "))
            }
            Data::CheckResult { check, state, evidence, .. } if *state != CheckState::Running => {
                format!("check {check} {}: {evidence}", format!("{state:?}").to_lowercase())
            }
            Data::StepInferred { step, because, .. } => format!("{step} still holds: {because}"),
            Data::RunClosed { outcome, exit, summary } => {
                format!("{}: {summary} (exit {exit})", format!("{outcome:?}").to_lowercase())
            }
            // Everything else that matters has its sentence in the activity.
            _ => match model.activity.last() {
                Some(activity) if activity.at == at && !self.same(activity) => {
                    self.told.insert("activity".into(), at);
                    self.told.insert(activity.text.clone(), at);
                    activity.text.clone()
                }
                _ => return Vec::new(),
            },
        };
        let stage = model.current_stage().map_or("--", |stage| stage.number());
        let clock = at.strftime("%H:%M:%S");
        text.lines().take(8).map(|line| format!("{clock} [{stage}] {}", strip_control(line))).collect()
    }

    /// The activity line was there before this event.
    fn same(&mut self, activity: &crate::model::run::Activity) -> bool {
        let known = self.told.get(&activity.text) == Some(&activity.at);
        if self.told.len() > 4096 {
            self.told.clear();
        }
        known
    }

    fn due(&mut self, key: &str, at: Timestamp) -> bool {
        let due = self.told.get(key).is_none_or(|last| at.duration_since(*last) >= Self::PROGRESS_EVERY);
        if due {
            self.told.insert(key.to_owned(), at);
        }
        due
    }
}

/// What everything that stands costs, once it does.
fn costs(model: &RunModel) -> String {
    let cost = model.now.map(|now| model.cost(now)).unwrap_or_default();
    if cost.hourly == 0 { String::new() } else { format!("; all together about {} per hour", dollars(cost.hourly)) }
}

/// Where the sync stands, in one line.
pub fn sync_line(model: &RunModel, now: Timestamp) -> String {
    let sync = &model.sync;
    let (done, all) = sync.done();
    let wanted = sync.bytes.saturating_sub(sync.present_bytes);
    let moved = sync.moved();
    let rate: f64 = sync.images.iter().filter_map(|image| image.rate.per_second()).sum();
    let left = sync.images.iter().filter(|image| image.state == ImageState::Copying);
    let eta = left.map(|image| image.rate.eta(now, image.bytes, image.image.bytes)).fold(Eta::None, longer);
    let eta = match eta {
        Eta::None => "no estimate".to_owned(),
        Eta::Seconds(_) if rate > 0.0 => {
            format!("about {} s left", ((wanted - moved.min(wanted)) as f64 / rate).ceil())
        }
        Eta::Seconds(seconds) => format!("about {seconds} s left"),
        Eta::MoreThanADay => "more than a day left".to_owned(),
    };
    format!("sync: {done}/{all} images, {} of {} ({} %), {eta}", size(moved), size(wanted), percent(moved, wanted))
}

fn longer(one: Eta, other: Eta) -> Eta {
    match (one, other) {
        (Eta::MoreThanADay, _) | (_, Eta::MoreThanADay) => Eta::MoreThanADay,
        (Eta::Seconds(a), Eta::Seconds(b)) => Eta::Seconds(a.max(b)),
        (Eta::None, other) | (other, Eta::None) => other,
    }
}

/// `1.4 GiB`: bytes in binary units, three figures.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or("B");
    if unit == 0 || value >= 100.0 { format!("{value:.0} {name}") } else { format!("{value:.1} {name}") }
}

//! Where lines meet signatures: one task that reads the tap and the run's own events and records what it finds.
//!
//! A process can die between recording a line and matching it. Whoever goes on with the run therefore holds the end of
//! each log, and what the run has said, against the catalogue once more; what the record knows already is not said again.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::diagnose::{Catalogue, Matcher};
use crate::model::RunModel;
use crate::model::event::{Data, Finding, LogLine, Outcome};
use crate::record::{Follower, SegmentReader, Sink, read_events};

const TICK: Duration = Duration::from_secs(1);
/// Lines of each log that are matched again when a run is gone on with.
const TAIL: u64 = 2000;

/// Starts the task. It ends when the run is no longer written.
pub fn start(
    catalogue: &Catalogue,
    run_dir: &Path,
    model: &RunModel,
    mut tap: mpsc::Receiver<(String, Vec<LogLine>)>,
    mut events: Follower,
    sink: Sink,
) -> JoinHandle<()> {
    let mut matcher = Matcher::new(catalogue);
    // Lines reach the tap in the order in which they are recorded, so counting on gives their numbers.
    let mut lines: BTreeMap<String, u64> = model.logs.iter().map(|(source, log)| (source.clone(), log.lines)).collect();
    let missed = catch_up(&mut matcher, run_dir, model);
    tokio::spawn(async move {
        for data in missed {
            sink.emit(data).await;
        }
        let mut tick = tokio::time::interval(TICK);
        loop {
            let found = tokio::select! {
                tapped = tap.recv() => match tapped {
                    None => return,
                    Some((source, tapped)) => {
                        let number = lines.entry(source.clone()).or_default();
                        let mut told = Vec::new();
                        for line in &tapped {
                            *number += 1;
                            told.extend(matcher.feed(&source, line, Some(*number)));
                        }
                        told
                    }
                },
                event = events.next() => match event {
                    None => return,
                    Some(event) if matches!(event.data, Data::RunClosed { .. }) => return,
                    Some(event) => feed(&mut matcher, &event.data, event.at),
                },
                _ = tick.tick() => matcher.tick(Timestamp::now()),
            };
            for data in found {
                sink.emit(data).await;
            }
        }
    })
}

/// An event of the run.
fn feed(matcher: &mut Matcher, data: &Data, at: Timestamp) -> Vec<Data> {
    match data {
        Data::Sync(sync) => matcher.feed_sync(sync, at),
        Data::Observed(observed) => matcher.feed_observed(observed, at),
        Data::StepEnded { step, outcome: Outcome::Failed { causes }, .. } => {
            matcher.feed_error(step.as_str(), causes, at)
        }
        Data::StepRetry { step, why, .. } => matcher.feed_error(step.as_str(), std::slice::from_ref(why), at),
        Data::StepEnded { step, outcome, .. } if outcome.is_good() => matcher.feed_step_done(step.as_str()),
        Data::Rewound { .. } => {
            *matcher = Matcher::new(&catalogue_of(matcher));
            Vec::new()
        }
        _ => Vec::new(),
    }
}

/// Something of the past.
enum Past {
    Event(Data),
    Line(String, u64, LogLine),
    /// What the record says is open.
    Open(Finding),
}

/// Go through what was recorded, in the order of time: the matcher knows what is open afterwards. Gives what the record
/// does not know yet.
fn catch_up(matcher: &mut Matcher, run_dir: &Path, model: &RunModel) -> Vec<Data> {
    let events = read_events(&run_dir.join("run.jsonl")).unwrap_or_default();
    let mut past: Vec<(Timestamp, Past)> =
        events.into_iter().map(|event| (event.at, Past::Event(event.data))).collect();
    let mut logs = SegmentReader::new(run_dir);
    for (source, log) in &model.logs {
        let first = log.lines.saturating_sub(TAIL) + 1;
        let tail = logs.read(source, first, TAIL as usize).unwrap_or_default();
        past.extend(
            tail.into_iter().zip(first..).map(|(line, number)| (line.at, Past::Line(source.clone(), number, line))),
        );
    }
    let open = model.findings.iter().filter(|record| record.cleared.is_none());
    past.extend(open.map(|record| (record.finding.at, Past::Open(record.finding.clone()))));
    past.sort_by_key(|(at, _)| *at);
    let mut cleared = BTreeMap::new();
    for (at, past) in past {
        let told = match past {
            Past::Event(data) => feed(matcher, &data, at),
            Past::Line(source, number, line) => matcher.feed(&source, &line, Some(number)),
            Past::Open(finding) => {
                matcher.take_up(finding);
                Vec::new()
            }
        };
        cleared.extend(told.into_iter().filter_map(|data| match data {
            Data::FindingCleared { finding, because } => Some((finding, because)),
            _ => None,
        }));
    }
    let known = |finding: &Finding| {
        let mut records = model.findings.iter().filter(|record| record.finding.id == finding.id);
        records.any(|record| record.cleared.is_none() || record.finding.at >= finding.at)
    };
    let open: Vec<&Finding> = matcher.open();
    let over = model.findings.iter().filter(|record| record.cleared.is_none());
    let over = over.filter(|record| !open.iter().any(|finding| finding.id == record.finding.id));
    let over = over.filter_map(|record| {
        let because = cleared.get(&record.finding.id)?.clone();
        Some(Data::FindingCleared { finding: record.finding.id.clone(), because })
    });
    let new = open.iter().filter(|finding| !known(finding));
    let new = new.map(|finding| Data::FindingOpened { finding: (*finding).clone() });
    over.chain(new).collect()
}

/// A matcher that starts anew after a rewind knows the same signatures.
fn catalogue_of(matcher: &Matcher) -> Catalogue {
    matcher.catalogue().clone()
}

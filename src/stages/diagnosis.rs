//! Where lines meet signatures: one task that reads the tap and the run's own events and records what it finds.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::diagnose::{Catalogue, Matcher};
use crate::model::RunModel;
use crate::model::event::{Data, LogLine, Outcome};
use crate::record::{Follower, Sink};

const TICK: Duration = Duration::from_secs(1);

/// Starts the task. It ends when the run is no longer written.
pub fn start(
    catalogue: &Catalogue,
    model: &RunModel,
    mut tap: mpsc::Receiver<(String, LogLine)>,
    mut events: Follower,
    sink: Sink,
) -> JoinHandle<()> {
    let mut matcher = Matcher::new(catalogue);
    // Lines reach the tap in the order in which they are recorded, so counting on gives their numbers.
    let mut lines: BTreeMap<String, u64> = model.logs.iter().map(|(source, log)| (source.clone(), log.lines)).collect();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(TICK);
        loop {
            let found = tokio::select! {
                line = tap.recv() => match line {
                    None => return,
                    Some((source, line)) => {
                        let number = lines.entry(source.clone()).or_default();
                        *number += 1;
                        matcher.feed(&source, &line, Some(*number))
                    }
                },
                event = events.next() => match event {
                    None => return,
                    Some(event) => match &event.data {
                        Data::Sync(sync) => matcher.feed_sync(sync, event.at),
                        Data::Observed(observed) => matcher.feed_observed(observed, event.at),
                        Data::StepEnded { step, outcome: Outcome::Failed { causes }, .. } => {
                            matcher.feed_error(step.as_str(), causes, event.at)
                        }
                        Data::StepRetry { step, why, .. } => matcher.feed_error(step.as_str(), std::slice::from_ref(why), event.at),
                        Data::StepEnded { step, outcome, .. } if outcome.is_good() => matcher.feed_step_done(step.as_str()),
                        Data::Rewound { .. } => {
                            matcher = Matcher::new(&catalogue_of(&matcher));
                            Vec::new()
                        }
                        Data::RunClosed { .. } => return,
                        _ => Vec::new(),
                    },
                },
                _ = tick.tick() => matcher.tick(Timestamp::now()),
            };
            for data in found {
                sink.emit(data).await;
            }
        }
    })
}

/// A matcher that starts anew after a rewind knows the same signatures.
fn catalogue_of(matcher: &Matcher) -> Catalogue {
    matcher.catalogue().clone()
}

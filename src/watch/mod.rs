//! Followers of what is alive: journals, bootkube, service records, who fetched its config, the installer's log, the
//! cluster.
//!
//! A follower needs no engine and knows nobody who reads its events. It goes on for ever: a connection that goes away
//! is tried again, from the cursor or offset where it stopped, so that nothing is lost and nothing comes twice. It ends
//! when it is cancelled, or when the other side refuses us for good.

pub mod attach;
pub mod bootkube;
pub mod cluster;
pub mod install_dir;
pub mod installer;
pub mod journal;
pub mod mcs;
pub mod pods;
pub mod records;
pub mod serial;

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::model::event::{Data, LogLine, Observed};
use crate::record::Sink;

/// Every line once more, with the name of its source, for whoever matches lines against signatures. Lines come in the
/// handfuls in which they are recorded.
pub type Tap = mpsc::Sender<(String, Vec<LogLine>)>;

/// Where a follower's findings go, and when it is to stop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Out {
    pub sink: Sink,
    pub tap: Option<Tap>,
    pub cancel: CancellationToken,
}

impl Out {
    pub fn new(sink: Sink, cancel: CancellationToken) -> Self {
        Self { sink, tap: None, cancel }
    }

    pub fn tap(mut self, tap: Tap) -> Self {
        self.tap = Some(tap);
        self
    }

    /// Record lines, then hand them to the tap.
    pub(crate) async fn lines(&self, source: &str, lines: Vec<LogLine>) {
        match &self.tap {
            Some(tap) => {
                self.sink.lines(source, lines.clone()).await;
                // Nobody matching is no reason to stop following.
                let _unmatched = tap.send((source.to_owned(), lines)).await;
            }
            None => self.sink.lines(source, lines).await,
        }
    }

    pub(crate) async fn observed(&self, seen: impl IntoIterator<Item = Observed>) {
        for observed in seen {
            self.sink.emit(Data::Observed(observed)).await;
        }
    }

    /// Wait, unless cancelled first. True when there is still work to do.
    pub(crate) async fn pause(&self, time: Duration) -> bool {
        tokio::select! {
            () = self.cancel.cancelled() => false,
            () = tokio::time::sleep(time) => true,
        }
    }
}

/// Growing pauses between attempts: doubled each time up to a ceiling, with jitter so that many do not knock at once.
#[derive(Debug)]
pub(crate) struct BackOff {
    next: Duration,
}

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(20);

impl BackOff {
    pub(crate) fn new() -> Self {
        Self { next: FIRST_PAUSE }
    }

    pub(crate) fn reset(&mut self) {
        self.next = FIRST_PAUSE;
    }

    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next.mul_f64(0.75 + 0.5 * fastrand::f64());
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        pause
    }
}

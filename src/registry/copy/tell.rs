//! What the copier says of itself while it works.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{OnRetry, Progress, Work, failed};
use crate::model::event::{ImageState, SyncEvent};

/// Between two reports on one image.
const TICK: Duration = Duration::from_millis(250);

impl Work {
    pub(super) async fn tell(&self, image: usize, state: ImageState, attempt: u32) {
        let _nobody_listens = self.events.send(SyncEvent::ImageState { image: self.name(image), state, attempt }).await;
    }

    /// What is known before the first byte: images that are there, and images that cannot be had.
    pub(super) async fn announce(&self) {
        for (at, image) in self.plan.images.iter().enumerate() {
            if let Some(error) = &image.broken {
                self.tell(at, failed(error), 1).await;
            } else if image.left_out {
                self.tell(at, ImageState::Skipped, 1).await;
            } else if image.is_present() {
                self.tell(at, ImageState::Present, 1).await;
            }
        }
    }

    /// Says that something is tried again on behalf of an image. Dropped when the reader of events is behind.
    pub(super) fn on_retry(&self, image: Option<usize>) -> OnRetry {
        let (events, image) = (self.events.clone(), image.map(|image| self.name(image)).unwrap_or_default());
        Arc::new(move |error| {
            let _behind = events.try_send(SyncEvent::Retry {
                image: image.clone(),
                side: error.side.as_str().to_owned(),
                class: error.class().to_owned(),
                why: format!("{}: {}", error.what, error.why),
            });
        })
    }

    /// What was begun and will not be ended now waits again.
    pub(super) async fn settle(&self) {
        let begun: Vec<usize> = {
            let state = self.lock();
            let begun = |progress: &Progress| progress.started && progress.is_open();
            state.images.iter().enumerate().filter(|(_, progress)| begun(progress)).map(|(at, _)| at).collect()
        };
        for image in begun {
            self.tell(image, ImageState::Waiting, 1).await;
        }
    }

    /// Tell of every image that grew, four times a second.
    pub(super) async fn report(&self) {
        let mut owners: Vec<Vec<usize>> = self.plan.images.iter().map(|_| Vec::new()).collect();
        for (at, blob) in self.plan.blobs.iter().enumerate() {
            for image in &blob.images {
                if let Some(blobs) = owners.get_mut(*image) {
                    blobs.push(at);
                }
            }
        }
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut before = Instant::now();
        let mut told: u64 = 0;
        loop {
            ticks.tick().await;
            let elapsed = before.elapsed().as_secs_f64();
            before = Instant::now();
            let mut grown = Vec::new();
            {
                let mut state = self.lock();
                for (at, progress) in state.images.iter_mut().enumerate() {
                    if !progress.is_open() || !progress.started {
                        continue;
                    }
                    let blobs = owners.get(at).map(Vec::as_slice).unwrap_or_default();
                    let bytes = blobs.iter().filter_map(|blob| self.arrived.get(*blob));
                    let bytes: u64 = bytes.map(|arrived| arrived.load(Ordering::Relaxed)).sum();
                    if bytes > progress.reported {
                        let rate = (bytes - progress.reported) as f64 / elapsed.max(0.05);
                        grown.push((at, bytes, rate as u64));
                        progress.reported = bytes;
                    }
                }
            }
            let blobs = self.plan.blobs.iter().zip(&self.arrived).filter(|(blob, _)| !blob.is_stored());
            let moved = blobs.map(|(_, arrived)| arrived.load(Ordering::Relaxed)).sum();
            if moved > told {
                told = moved;
                let _behind = self.events.try_send(SyncEvent::Moved { bytes: moved });
            }
            for (at, bytes, rate) in grown {
                // Dropped when the reader is behind; the next report holds more.
                let _behind =
                    self.events.try_send(SyncEvent::Progress { image: self.name(at), bytes, rate: Some(rate) });
            }
        }
    }
}

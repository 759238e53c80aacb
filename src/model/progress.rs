//! Rate and estimate from a short window of samples, honest about not knowing.

use std::collections::VecDeque;

use jiff::Timestamp;

/// Samples older than this are forgotten.
const WINDOW_S: f64 = 15.0;
/// Without growth for this long, something is stalled.
pub const STALL_S: f64 = 10.0;

/// A rolling window over a counter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rate {
    samples: VecDeque<(Timestamp, u64)>,
    grew: Option<Timestamp>,
}

/// What can be said about the time left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Eta {
    /// Too few samples, or nothing moves.
    None,
    Seconds(u64),
    MoreThanADay,
}

impl Rate {
    pub fn add(&mut self, at: Timestamp, value: u64) {
        match self.samples.back() {
            // The counter went back: a new attempt.
            Some((_, last)) if *last > value => {
                self.samples.clear();
                self.grew = Some(at);
            }
            Some((_, last)) if *last == value => {}
            _ => self.grew = Some(at),
        }
        self.samples.push_back((at, value));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|(first, _)| seconds(*first, at) > WINDOW_S) {
            self.samples.pop_front();
        }
        if self.samples.len() > 256 {
            self.samples.pop_front();
        }
    }

    /// Units per second, from at least 3 samples over at least 3 seconds.
    pub fn per_second(&self) -> Option<f64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let span = seconds(first.0, last.0);
        (self.samples.len() >= 3 && span >= 3.0).then(|| last.1.saturating_sub(first.1) as f64 / span)
    }

    /// Seconds without growth, once that is longer than [`STALL_S`].
    pub fn stalled(&self, now: Timestamp) -> Option<f64> {
        self.grew.map(|grew| seconds(grew, now)).filter(|quiet| *quiet >= STALL_S)
    }

    pub fn eta(&self, now: Timestamp, done: u64, total: u64) -> Eta {
        match self.per_second() {
            Some(rate) if rate > 0.0 && self.stalled(now).is_none() && total > done => {
                let left = (total - done) as f64 / rate;
                if left > 86_400.0 { Eta::MoreThanADay } else { Eta::Seconds(left.ceil() as u64) }
            }
            _ => Eta::None,
        }
    }
}

/// Parts of a hundred; 100 only when all is done.
pub fn percent(done: u64, total: u64) -> u8 {
    if total == 0 || done >= total {
        return 100;
    }
    u8::try_from(u128::from(done) * 100 / u128::from(total)).unwrap_or(99).min(99)
}

fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

//! A cap on bytes per second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// What was not used may be made up for, up to this much.
const BURST: Duration = Duration::from_millis(100);

/// Shared by all who read: together they stay below the rate.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_second: f64,
    /// When the next byte is due.
    next: Mutex<Instant>,
}

impl Pace {
    pub fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1) as f64, next: Mutex::new(Instant::now()) }
    }

    /// Wait until these bytes, which have come, were due.
    pub async fn keep(&self, bytes: u64) {
        tokio::time::sleep_until(self.due(Instant::now(), bytes)).await;
    }

    fn due(&self, now: Instant, bytes: u64) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        *next = (*next).max(now.checked_sub(BURST).unwrap_or(now));
        *next += Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        *next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_stay_below_the_rate_together_and_a_pause_is_not_made_up_for() {
        let pace = Pace::new(1 << 20);
        let begun = Instant::now();
        let last = (0..192).map(|_| pace.due(begun, 16 << 10)).last().unwrap();
        let took = (last - begun).as_secs_f64();
        assert!((2.9..3.1).contains(&took), "3 MiB at 1 MiB/s took {took} s");
        let later = last + Duration::from_secs(60);
        assert!(pace.due(later, 1 << 20) >= later + Duration::from_millis(900));
    }
}

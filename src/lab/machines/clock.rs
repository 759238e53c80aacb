//! The lab's clock: waits of the pretended world are shortened by one factor, dates are the real ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// How fast the lab's world goes. A tool that pretends to work for a minute sleeps a minute on this clock; what a shell
/// script sleeps (`sleep 2`) is real time, because the product's own waits are real too.
#[derive(Debug, Clone)]
pub struct Clock {
    speed: f64,
}

impl Clock {
    /// `speed` 1.0 is real time, 20.0 is twenty times as fast. Anything that is not a positive number counts as 1.0.
    pub fn new(speed: f64) -> Self {
        Self { speed: if speed.is_finite() && speed > 0.0 { speed } else { 1.0 } }
    }
    /// Wait for a time of the lab's world.
    pub async fn sleep(&self, lab: Duration) {
        tokio::time::sleep(lab.div_f64(self.speed.max(0.001))).await;
    }
    /// The real time, so that log lines, certificates and file times agree with the operator's computer.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }
    pub fn speed(&self) -> f64 {
        self.speed
    }
}

/// How far the clock of one machine is from the right time, in seconds; shared by all that looks at that clock.
#[derive(Debug, Clone, Default)]
pub struct Skew(Arc<AtomicI64>);

impl Skew {
    pub fn seconds(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
    /// Behind when negative.
    pub fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
    /// What the machine takes for the present time.
    pub fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        now.checked_add(SignedDuration::from_secs(self.seconds())).unwrap_or(now)
    }
}

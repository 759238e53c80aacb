//! How long to wait before another attempt.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(60);

/// Doubles from 2 s to 60 s by attempt (the first retry is attempt 2), with up to a quarter more by chance, so that
/// many clients of a sick server do not come back together.
pub fn pause_before(attempt: u32) -> Duration {
    let doublings = attempt.saturating_sub(2).min(16);
    let pause = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    pause + pause.mul_f64(fastrand::f64() / 4.0)
}

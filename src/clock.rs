//! Time: UTC for people and payloads, the monotonic clock for durations and deadlines.
//!
//! Durations and order never come from UTC, which jumps. Not here: timers and waiting (`shutdown`).

use std::time::Instant;

use jiff::Timestamp;

/// A source of time; tests hand in one that they turn by hand.
pub trait Clock: Send + Sync {
    /// Now, in UTC.
    fn utc(&self) -> Timestamp;
    /// Now, on the monotonic clock.
    fn monotonic(&self) -> Instant;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn utc(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Instant {
        Instant::now()
    }
}

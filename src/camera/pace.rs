//! Pace: no more than so many frames a second, on the monotonic clock.
//!
//! Owned by the camera that keeps it. A camera that fell behind does not catch up in a burst.

use std::time::{Duration, Instant};

/// The longest from one frame to the next: a rate that asks for less is as good as none.
const SLOWEST: Duration = Duration::from_secs(86_400);

/// When the next frame is due.
#[derive(Debug)]
pub(super) struct Pace {
    period: Duration,
    due: Instant,
}

impl Pace {
    /// `rate` frames a second; 0 is without limit.
    pub(super) fn new(rate: f64) -> Self {
        let period = if rate > 0.0 { Duration::try_from_secs_f64(1.0 / rate) } else { Ok(Duration::ZERO) };
        Self { period: period.unwrap_or(SLOWEST).min(SLOWEST), due: Instant::now() }
    }

    /// Blocks until a frame is due, or until `deadline`; tells whether one is.
    pub(super) fn wait(&self, deadline: Instant) -> bool {
        let now = Instant::now();
        std::thread::sleep(self.due.min(deadline).saturating_duration_since(now));
        Instant::now() >= self.due
    }

    /// Counts a frame that was delivered.
    pub(super) fn delivered(&mut self) {
        let now = Instant::now();
        self.due += self.period;
        if self.due < now {
            self.due = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_next_to_nothing_is_a_long_wait() {
        for rate in [1e-20, f64::MIN_POSITIVE] {
            let mut pace = Pace::new(rate);
            assert!(pace.wait(Instant::now()));
            pace.delivered();
            assert!(!pace.wait(Instant::now()));
        }
    }
}

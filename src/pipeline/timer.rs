//! The timed trigger: ticks at equal distances on the monotonic clock, whatever the work between them takes.
//!
//! Pure: nothing here waits or reads a clock. A timer that was not asked in time tells how many ticks it missed, since each
//! of them is a part that passed.

use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub(crate) struct Timer {
    period: Duration,
    due: Option<Instant>,
}

/// A tick that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tick {
    /// When it was due.
    pub(crate) at: Instant,
    /// How many ticks before it nobody asked for.
    pub(crate) missed: u32,
}

impl Timer {
    /// A timer that has not begun; `period` is not zero.
    pub(crate) fn new(period: Duration) -> Self {
        Self { period: period.max(Duration::from_micros(1)), due: None }
    }

    /// Begins with a tick at `now`, unless it has begun.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.due.get_or_insert(now);
    }

    /// How long until the next tick.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        self.due.map_or(self.period, |due| due.saturating_duration_since(now))
    }

    /// When the tick was due that came `count` ticks before `tick`.
    pub(crate) fn before(&self, tick: Tick, count: u32) -> Instant {
        tick.at.checked_sub(self.period.saturating_mul(count)).unwrap_or(tick.at)
    }

    /// The newest tick that is due by `now`, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Tick> {
        let due = self.due?;
        let late = now.checked_duration_since(due)?;
        let missed = u32::try_from(late.as_nanos() / self.period.as_nanos()).unwrap_or(u32::MAX);
        let at = due.checked_add(self.period.saturating_mul(missed)).unwrap_or(now);
        self.due = Some(at + self.period);
        Some(Tick { at, missed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_their_distance_and_missed_ones_are_counted() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut timer = Timer::new(Duration::from_millis(100));
        assert_eq!((timer.take(start), timer.wait(start)), (None, Duration::from_millis(100)));
        timer.begin(start);
        timer.begin(at(50));
        assert_eq!(timer.take(start), Some(Tick { at: start, missed: 0 }));
        assert_eq!((timer.take(at(99)), timer.wait(at(99))), (None, Duration::from_millis(1)));
        // Late by 30 ms: the next is due where it would have been.
        assert_eq!(timer.take(at(130)), Some(Tick { at: at(100), missed: 0 }));
        assert_eq!(timer.take(at(200)), Some(Tick { at: at(200), missed: 0 }));
        let late = Tick { at: at(600), missed: 3 };
        assert_eq!(timer.take(at(650)), Some(late));
        assert_eq!(timer.before(late, 3), at(300));
        assert_eq!(timer.wait(at(650)), Duration::from_millis(50));
    }
}

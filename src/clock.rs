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

/// What UTC was at `moment`, by what both clocks say now. Moments keep their order and distance whatever UTC does; a jump
/// of UTC shows in what is mapped after it and in nothing else.
pub fn utc_of(clock: &dyn Clock, moment: Instant) -> Timestamp {
    let (now, utc) = (clock.monotonic(), clock.utc());
    let mapped = match now.checked_duration_since(moment) {
        Some(ago) => utc.checked_sub(ago),
        None => utc.checked_add(moment.duration_since(now)),
    };
    mapped.unwrap_or(utc)
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

/// Clocks that stand still until they are turned by hand, for tests.
#[derive(Debug, Clone, Copy)]
pub struct Turned {
    /// What the monotonic clock says.
    pub monotonic: Instant,
    /// What the wall clock says.
    pub utc: Timestamp,
}

impl Clock for Turned {
    fn utc(&self) -> Timestamp {
        self.utc
    }

    fn monotonic(&self) -> Instant {
        self.monotonic
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_moment_is_mapped_by_its_distance_from_now() {
        let noon: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let mut clock = Turned { monotonic: Instant::now() + Duration::from_secs(60), utc: noon };
        let moment = clock.monotonic - Duration::from_millis(250);
        assert_eq!(utc_of(&clock, moment).to_string(), "2026-01-02T11:59:59.75Z");
        assert_eq!(
            utc_of(&clock, clock.monotonic + Duration::from_secs(1)).to_string(),
            "2026-01-02T12:00:01Z"
        );
        // UTC is set back by an hour: only what is mapped from then on shows it, and distances stay.
        clock.utc = "2026-01-02T11:00:00Z".parse().unwrap();
        assert_eq!(utc_of(&clock, moment).to_string(), "2026-01-02T10:59:59.75Z");
        clock.utc = Timestamp::MIN;
        assert_eq!(utc_of(&clock, moment), Timestamp::MIN);
    }
}

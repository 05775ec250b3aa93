//! The camera's own clock and counter: when a frame was taken, and which frames never came.
//!
//! In: hardware time stamps and frame ids as they arrive. Out: moments on this machine's monotonic clock, and gaps. Pure:
//! nothing here reads a clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far back the least delayed frame may lie that sets the camera's clock: long enough to meet an undelayed one, short
/// enough that two crystals, which may drift by 100 parts in a million, stay within a millisecond.
const WINDOW: Duration = Duration::from_secs(10);
/// The most frames within it that are looked at.
const MOST_FRAMES: usize = 256;
/// A hardware stamp that lies further from what is expected belongs to a clock that was set anew.
const PLAUSIBLE: Duration = Duration::from_secs(5);

/// Maps a camera's time stamps to the monotonic clock. A frame arrives when it was taken plus a delay that varies; the
/// least delay of late frames is taken as the constant part, so that jitter of cable and scheduler vanishes.
#[derive(Debug, Default)]
pub(super) struct CameraClock {
    first: Option<(u64, Instant)>,
    /// Arrivals and how much more than the first frame each was delayed, in nanoseconds.
    delays: VecDeque<(Instant, i128)>,
}

impl CameraClock {
    /// When the frame that the camera stamped with `stamp` nanoseconds and that arrived at `arrived` was taken.
    pub(super) fn taken(&mut self, stamp: u64, arrived: Instant) -> Instant {
        if stamp == 0 {
            return arrived;
        }
        let (first, origin) = *self.first.get_or_insert((stamp, arrived));
        let camera = i128::from(stamp) - i128::from(first);
        let host = nanoseconds(origin, arrived);
        let delay = host - camera;
        let expected = self.delays.back().map_or(delay, |(_, last)| *last);
        if delay.abs_diff(expected) > PLAUSIBLE.as_nanos() || camera < 0 {
            (self.first, self.delays) = (Some((stamp, arrived)), VecDeque::from([(arrived, 0)]));
            return arrived;
        }
        let too_old = |at: Instant| arrived.checked_duration_since(at).is_some_and(|age| age > WINDOW);
        while self.delays.len() == MOST_FRAMES || self.delays.front().is_some_and(|(at, _)| too_old(*at)) {
            self.delays.pop_front();
        }
        self.delays.push_back((arrived, delay));
        let least = self.delays.iter().map(|(_, delay)| *delay).min().unwrap_or(delay);
        let late = u64::try_from(delay - least).unwrap_or(0);
        arrived.checked_sub(Duration::from_nanos(late)).unwrap_or(arrived)
    }
}

fn nanoseconds(from: Instant, to: Instant) -> i128 {
    match to.checked_duration_since(from) {
        Some(after) => after.as_nanos() as i128,
        None => -(from.duration_since(to).as_nanos() as i128),
    }
}

/// The last id before a 16-bit counter begins again at 1; 0 is no frame's id.
const LAST_SHORT_ID: u64 = 65_535;
/// A gap larger than this is a counter that was set anew.
const LARGEST_GAP: u64 = 10_000;

/// Notices the frames that a camera counted and nobody received.
#[derive(Debug, Default)]
pub(super) struct FrameCounter {
    last: Option<u64>,
}

impl FrameCounter {
    /// How many frames are missing between the last frame and the one with this `id`.
    pub(super) fn missed_before(&mut self, id: u64) -> u64 {
        let Some(last) = self.last.replace(id) else { return 0 };
        let gap = if id > last {
            id - last - 1
        } else if last <= LAST_SHORT_ID && id > 0 {
            LAST_SHORT_ID - last + id - 1
        } else {
            0
        };
        if gap > LARGEST_GAP { 0 } else { gap }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn jitter_vanishes_once_an_undelayed_frame_was_seen() {
        let origin = Instant::now();
        let mut clock = CameraClock::default();
        // Frames every 10 ms, delayed by 3 ms and by 0 to 7 ms more; the camera's clock began elsewhere.
        for n in 0..50u64 {
            let jitter = [4, 7, 0, 3, 5][n as usize % 5];
            let arrived = origin + Duration::from_millis(10 * n + 3 + jitter);
            let taken = clock.taken(777_000 * MS + 10 * n * MS, arrived);
            assert!(taken <= arrived);
            if n >= 2 {
                assert_eq!(taken, origin + Duration::from_millis(10 * n + 3), "{n}");
            }
        }
    }

    #[test]
    fn drifting_crystals_do_not_carry_the_stamps_away() {
        let origin = Instant::now();
        let mut clock = CameraClock::default();
        // A hundred frames a second, and one a minute, of a camera that is 100 parts in a million slow.
        for period in [10, 60_000u64] {
            let mut error = Duration::ZERO;
            for n in 0..10_000u64 {
                let arrived = origin + Duration::from_millis(period * n);
                let taken = clock.taken(MS + period * n * MS - n * period * 100, arrived);
                error = error.max(arrived - taken);
            }
            assert!(error <= Duration::from_millis(1), "{error:?}");
        }
    }

    #[test]
    fn a_clock_that_is_set_anew_or_absent_falls_back_to_arrival() {
        let origin = Instant::now();
        let at = |s: u64| origin + Duration::from_secs(s);
        let mut clock = CameraClock::default();
        assert_eq!(clock.taken(100_000 * MS, at(0)), at(0));
        assert_eq!(clock.taken(50 * MS, at(60)), at(60));
        assert_eq!(clock.taken(1_050 * MS, at(61)), at(61));
        assert_eq!(clock.taken(900_000 * MS, at(62)), at(62));
        assert_eq!(clock.taken(0, at(63)), at(63));
    }

    #[test]
    fn gaps_are_counted_across_the_counters_end() {
        let mut counter = FrameCounter::default();
        let missed: Vec<_> = [65_530, 65_531, 65_534, 65_535, 1, 2, 5, 5_000_000, 5_000_001]
            .map(|id| counter.missed_before(id))
            .into();
        assert_eq!(missed, [0, 0, 2, 0, 0, 0, 2, 0, 0]);
        let mut counter = FrameCounter { last: Some(65_534) };
        assert_eq!(counter.missed_before(2), 2);
        let mut long = FrameCounter { last: Some(1 << 40) };
        assert_eq!(long.missed_before(1), 0);
    }
}

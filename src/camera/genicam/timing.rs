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
/// A hardware stamp that lies further from what is expected belongs to a clock that was set anew; so does what this machine's
/// wall clock calls older.
const PLAUSIBLE: Duration = Duration::from_secs(5);
/// How much later than others a frame's first packet may come. One that seems to come later still has the stamp of a clock that
/// was set back.
const JITTER: Duration = Duration::from_millis(20);

/// A frame that was taken from its queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// The camera's stamp in nanoseconds, where it has a clock.
    pub(super) stamp: Option<u64>,
    /// How long before `at` its first packet came, as far as this machine's wall clock can be believed.
    pub(super) age: Option<Duration>,
    /// When it was taken.
    pub(super) at: Instant,
}

impl Arrival {
    /// An arrival at `at`, when the wall clock said `now`, of a frame with the camera's stamp and the wall clock's for its first
    /// packet; all in nanoseconds. A camera without a clock has none, or the wall clock's.
    pub(super) fn new(at: Instant, now: u64, stamp: u64, first_packet: u64) -> Self {
        let age = now.checked_sub(first_packet).map(Duration::from_nanos);
        let stamp = Some(stamp).filter(|stamp| *stamp != 0 && *stamp != first_packet);
        Self { stamp, age: age.filter(|age| first_packet != 0 && *age < PLAUSIBLE), at }
    }
}

/// Maps a camera's time stamps to the monotonic clock, as the moments at which the frames' first packets would have come without
/// delay: the end of the exposure and what camera and cable always take. A frame is in the program's hands after a delay that
/// varies; the least delay of late frames is taken as the constant part, so that jitter of cable and scheduler vanishes, and what
/// frames took at least from their first packet on is taken off.
#[derive(Debug, Default)]
pub(super) struct CameraClock {
    first: Option<(u64, Instant)>,
    seen: VecDeque<Seen>,
    last: Option<Instant>,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    /// How much more than the first frame it was delayed, in nanoseconds.
    delay: Option<i128>,
    age: Option<Duration>,
}

impl CameraClock {
    /// When the frame was taken; not before the frame that arrived before it.
    pub(super) fn taken(&mut self, arrival: Arrival) -> Instant {
        let Arrival { at, age, .. } = arrival;
        let too_old = |then: Instant| at.checked_duration_since(then).is_some_and(|past| past > WINDOW);
        while self.seen.len() == MOST_FRAMES || self.seen.front().is_some_and(|seen| too_old(seen.at)) {
            self.seen.pop_front();
        }
        let delay = arrival.stamp.map(|stamp| self.delay(stamp, arrival));
        self.seen.push_back(Seen { at, delay, age });
        let late = delay.zip(self.least()).map_or(0, |(delay, least)| delay - least);
        let late = Duration::from_nanos(u64::try_from(late).unwrap_or(0));
        let under_way = self.seen.iter().filter_map(|seen| seen.age).min().unwrap_or_default();
        let taken = at.checked_sub(late + under_way).unwrap_or(at);
        let taken = self.last.map_or(taken, |last| taken.max(last)).min(at);
        self.last = Some(taken);
        taken
    }

    /// When a frame began to arrive of which a part is missing, perhaps the one with its stamp: an old stamp may be left in its
    /// place, so that it is not believed beyond the last whole frame.
    pub(super) fn begun(&self, Arrival { age, at, .. }: Arrival) -> Instant {
        let begun = age.and_then(|age| at.checked_sub(age)).unwrap_or(at);
        self.last.map_or(begun, |last| begun.max(last))
    }

    /// The delay of a frame against the first one, with which the camera's clock begins anew where it was set.
    fn delay(&mut self, stamp: u64, Arrival { age, at, .. }: Arrival) -> i128 {
        let (first, origin) = *self.first.get_or_insert((stamp, at));
        let camera = i128::from(stamp) - i128::from(first);
        let delay = nanoseconds(origin, at) - camera;
        let last = self.seen.iter().rev().find_map(|seen| seen.delay).unwrap_or(delay);
        let jumped = delay.abs_diff(last) > PLAUSIBLE.as_nanos();
        let most = age.zip(self.least()).map(|(age, least)| least + (age + JITTER).as_nanos() as i128);
        if camera < 0 || jumped || most.is_some_and(|most| delay > most) {
            self.first = Some((stamp, at));
            self.seen.clear();
            return 0;
        }
        delay
    }

    fn least(&self) -> Option<i128> {
        self.seen.iter().filter_map(|seen| seen.delay).min()
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

    /// Frames of a camera and a machine that both began some time ago.
    struct Line {
        clock: CameraClock,
        origin: Instant,
    }

    impl Line {
        fn new() -> Self {
            Self { clock: CameraClock::default(), origin: Instant::now() }
        }

        fn at(&self, ms: u64) -> Instant {
            self.origin + Duration::from_millis(ms)
        }

        /// When the frame was taken that is stamped with `stamp`, whose first packet came at `first` and that was fetched at `at`.
        fn frame(&mut self, stamp: u64, first: u64, at: u64) -> Instant {
            let age = Some(Duration::from_millis(at - first));
            self.clock.taken(Arrival { stamp: Some(stamp * MS), age, at: self.at(at) })
        }
    }

    #[test]
    fn jitter_vanishes_once_an_undelayed_frame_was_seen() {
        let mut line = Line::new();
        // Every 10 ms, the first packet 3 ms and 0 to 7 ms later, all of them after 4 ms, fetched after 0 to 2 ms.
        for n in 0..50 {
            let first = 10 * n + 3 + [4, 7, 0, 3, 5][n as usize % 5];
            let at = first + 4 + [0, 1, 0, 2][n as usize % 4];
            let taken = line.frame(777_000 + 10 * n, first, at);
            assert!(taken <= line.at(at));
            if n > 20 {
                assert_eq!(taken, line.at(10 * n + 3), "{n}");
            }
        }
    }

    #[test]
    fn drifting_crystals_do_not_carry_the_stamps_away() {
        // A hundred frames a second, and one a minute, of a camera that is 100 parts in a million slow, and of a fast one.
        for (period, drift) in [(10, -100i64), (60_000, -100), (10, 100), (60_000, 100)] {
            let mut line = Line::new();
            let mut error = Duration::ZERO;
            for n in 0..10_000u64 {
                let stamp = (MS + period * n * MS).saturating_add_signed(n as i64 * period as i64 * drift);
                let at = line.at(period * n);
                let arrival = Arrival { stamp: Some(stamp), age: Some(Duration::ZERO), at };
                error = error.max(at - line.clock.taken(arrival));
            }
            assert!(error <= Duration::from_millis(1), "{error:?}");
        }
    }

    #[test]
    fn a_frame_that_was_left_lying_is_known_to_be_old_and_a_clock_that_was_set_back_is_not_taken_for_that() {
        let mut line = Line::new();
        for n in 0..20 {
            line.frame(100_000 + 10 * n, 10 * n + 1, 10 * n + 2);
        }
        // Nobody fetched it for two seconds.
        assert_eq!(line.frame(100_200, 201, 2_200), line.at(201));
        // Set back by two seconds: it is as old as its first packet.
        assert_eq!(line.frame(100_210, 2_211, 2_212), line.at(2_211));
        assert_eq!(line.frame(100_220, 2_225, 2_227), line.at(2_221));
        assert_eq!(line.frame(100_230, 2_231, 2_232), line.at(2_231));
        // Set forward by one.
        assert_eq!(line.frame(101_240, 2_241, 2_242), line.at(2_241));
        // Begun anew, and set forward by an hour.
        assert_eq!(line.frame(5, 2_251, 2_252), line.at(2_251));
        assert_eq!(line.frame(15, 2_267, 2_268), line.at(2_261));
        assert_eq!(line.frame(3_600_025, 2_271, 2_272), line.at(2_271));
    }

    #[test]
    fn a_wall_clock_that_is_set_moves_nothing() {
        let mut line = Line::new();
        let frame = |line: &mut Line, n: u64, now: u64| {
            let first = (1_000_000 + 10 * n) * MS;
            let arrival = Arrival::new(line.at(10 * n + 2), now * MS, (500 + 10 * n) * MS, first);
            line.clock.taken(arrival)
        };
        for n in 0..10 {
            assert_eq!(frame(&mut line, n, 1_000_002 + 10 * n), line.at(10 * n));
        }
        // Between the first packet and the last: by an hour and by a second, in either direction.
        for (n, now) in [(10, 4_600_102), (11, 1), (12, 1_001_122), (13, 999_132)] {
            assert_eq!(frame(&mut line, n, now), line.at(10 * n), "{n}");
        }
    }

    #[test]
    fn a_camera_without_a_clock_has_the_moment_of_its_first_packet() {
        let mut line = Line::new();
        let wall = 1_700_000_000_000;
        let frame = |line: &mut Line, stamp: u64, first: u64, at: u64| {
            let arrival = Arrival::new(line.at(at), (wall + at) * MS, stamp, (wall + first) * MS);
            line.clock.taken(arrival)
        };
        assert_eq!(frame(&mut line, 0, 100, 104), line.at(100));
        assert_eq!(frame(&mut line, (wall + 200) * MS, 200, 204), line.at(200));
        // What was not even stamped when it came.
        let unknown = Arrival::new(line.at(300), (wall + 300) * MS, 0, 0);
        assert_eq!((unknown.stamp, unknown.age), (None, None));
        assert_eq!(line.clock.taken(unknown), line.at(296));
    }

    #[test]
    fn a_later_frame_is_never_said_to_be_older() {
        let mut line = Line::new();
        let unknown = Arrival { stamp: Some(1_000 * MS), age: None, at: line.at(10) };
        assert_eq!(line.clock.taken(unknown), line.at(10));
        // Under way for 5 ms, which the first one must have been, too.
        assert_eq!(line.frame(1_001, 7, 12), line.at(10));
        assert_eq!(line.frame(1_012, 18, 23), line.at(17));
    }

    #[test]
    fn a_frame_that_came_in_part_is_as_old_as_its_first_packet_and_younger_than_the_last_whole_one() {
        let mut line = Line::new();
        let part = |first: u64, at: u64| Arrival {
            stamp: None,
            age: Some(Duration::from_millis(at - first)),
            at: line.at(at),
        };
        let (late, stale) = (part(301, 500), part(100, 500));
        assert_eq!(line.frame(1_200, 200, 205), line.at(200));
        assert_eq!(line.clock.begun(late), line.at(301));
        assert_eq!(line.clock.begun(stale), line.at(200));
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

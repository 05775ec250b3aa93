//! The moment by which age counts, as far as deleting goes: a clock that is set forward by years makes everything look too old,
//! and what is deleted does not come back when it is set right.
//!
//! A leap is an advance of UTC that the monotonic clock, or the newest verdict at the start, does not bear out. For a day after
//! one, age counts as if it had not been, also across restarts, or until the clock is set back. So a box that is off at night
//! keeps everything a night longer, and not for ever. Owned by the retention thread. Not here: what is deleted (`retention`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use crate::durable;
use crate::telemetry::chain;

/// Says, in the store's folder, when the clock leapt, by itself, and by how many seconds: a line for each leap.
const FILE: &str = "clock.leap";
/// How long somebody has to set the clock right.
const HELD: Duration = Duration::from_secs(24 * 3600);
/// A leap is more than this part of the time that is kept: so much may be deleted too early.
const PART: i32 = 10;
/// For so long a box may have been off, over holidays, without anybody being asked whether its clock is right.
const OFF: SignedDuration = SignedDuration::from_hours(4 * 24);

#[derive(Debug)]
struct Leap {
    at: Timestamp,
    by: SignedDuration,
    /// Until then it is not believed.
    until: Instant,
    /// Somebody should look at the clock.
    dubious: bool,
}

impl Leap {
    /// The leap that a line of the file tells of, while it counts.
    fn read(line: &str, utc: Timestamp, now: Instant) -> Option<Self> {
        let (at, by) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let at: Timestamp = at.parse().ok()?;
        let left = HELD.checked_sub(Duration::try_from(utc.duration_since(at)).ok()?)?;
        // Earlier versions did not say by how much.
        let by = by.parse().map_or(SignedDuration::MAX, SignedDuration::from_secs);
        Some(Self { at, by, until: now + left, dubious: by > OFF })
    }

    fn line(&self) -> String {
        format!("{} {}\n", self.at, self.by.as_secs())
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Calendar {
    file: PathBuf,
    least: SignedDuration,
    known: (Timestamp, Instant),
    leaps: Vec<Leap>,
}

impl Calendar {
    /// For a store that keeps what it has for `keep`, and whose newest verdict is of `newest`.
    pub(super) fn new(
        store: &Path,
        keep: SignedDuration,
        newest: Option<Timestamp>,
        (utc, now): (Timestamp, Instant),
    ) -> Self {
        let file = store.join(FILE);
        let noted = fs::read_to_string(&file).unwrap_or_default();
        let leaps = noted.lines().filter_map(|line| Leap::read(line, utc, now)).collect();
        let mut calendar = Self { file, least: keep / PART, known: (utc, now), leaps };
        let ahead = newest.map_or(SignedDuration::ZERO, |newest| utc.duration_since(newest));
        if ahead > calendar.least {
            calendar.leapt(ahead, ahead > OFF);
        } else if !noted.is_empty() {
            calendar.note();
        }
        calendar
    }

    /// The moment by which age counts, now that UTC is `utc`.
    pub(super) fn today(&mut self, utc: Timestamp, now: Instant) -> Timestamp {
        let elapsed = SignedDuration::try_from(now - self.known.1).unwrap_or(SignedDuration::MAX);
        let ahead = utc.duration_since(self.known.0).saturating_sub(elapsed);
        if ahead.abs() > self.least {
            self.known = (utc, now);
            if ahead.is_positive() {
                self.leapt(ahead, true);
            } else {
                self.leaps.clear();
                self.note();
            }
        }
        let leaps = self.leaps.len();
        self.leaps.retain(|leap| leap.until > now);
        if self.leaps.len() < leaps {
            self.note();
        }
        let by = self.leaps.iter().fold(SignedDuration::ZERO, |sum, leap| sum.saturating_add(leap.by));
        utc.checked_sub(by).unwrap_or(Timestamp::MIN)
    }

    /// Whether somebody should look at the clock.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.leaps.iter().any(|leap| leap.dubious)
    }

    /// The clock, as of `known`, is ahead `by` so much of what is borne out.
    fn leapt(&mut self, by: SignedDuration, dubious: bool) {
        let hours = by.as_hours();
        if dubious {
            warn!(
                hours,
                "the clock went forward at once: for a day age counts as if it had not; set it right if it is wrong"
            );
        } else {
            info!(hours, "the box was off, or its clock went forward: for a day age counts as if it had not");
        }
        let (at, now) = self.known;
        self.leaps.push(Leap { at, by, until: now + HELD, dubious });
        self.note();
    }

    /// Has the leaps outlive the process.
    fn note(&self) {
        if self.leaps.is_empty() {
            let _was_not_there = fs::remove_file(&self.file);
            return;
        }
        let lines: String = self.leaps.iter().map(Leap::line).collect();
        if let Err(error) = durable::replace(&self.file, lines.as_bytes()) {
            warn!(error = %chain(&error), "it cannot be noted that the clock is in doubt; a restart will believe it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn noon() -> Timestamp {
        "2026-01-02T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_clock_that_is_set_forward_is_not_believed_for_a_day() {
        let store = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let at = |hours: i32| {
            (
                noon() + SignedDuration::from_hours(hours.into()),
                start + 3600 * Duration::from_secs(1) * hours as u32,
            )
        };
        let mut calendar = Calendar::new(store.path(), 90 * DAY, Some(noon() - DAY / 2), at(0));
        let mut off_by = |ahead: SignedDuration, hours| {
            let (utc, now) = at(hours);
            let off_by = calendar.today(utc + ahead, now).duration_since(utc);
            (off_by, calendar.is_in_doubt())
        };
        const NOTHING: SignedDuration = SignedDuration::ZERO;
        assert_eq!(off_by(NOTHING, 0), (NOTHING, false));
        assert_eq!(off_by(NOTHING, 300), (NOTHING, false));
        assert_eq!(off_by(8 * DAY, 301), (8 * DAY, false), "less than a tenth of what is kept");
        assert_eq!(off_by(100 * DAY, 302), (NOTHING, true));
        assert_eq!(off_by(100 * DAY, 325), (NOTHING, true));
        assert_eq!(off_by(100 * DAY, 326), (100 * DAY, false), "nobody has set it right in a day");
        assert_eq!(off_by(300 * DAY, 327), (100 * DAY, true));
        assert_eq!(off_by(NOTHING, 328), (NOTHING, false), "somebody has");
        assert!(!store.path().join(FILE).exists());
    }

    #[test]
    fn it_stays_in_doubt_across_restarts() {
        let store = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let wrong = noon() + 4000 * DAY;
        let open = |newest, utc| Calendar::new(store.path(), 90 * DAY, Some(newest), (utc, now));
        let leapt = |newest, utc| {
            let mut calendar = open(newest, utc);
            let leapt = utc.duration_since(calendar.today(utc, now));
            assert_eq!(calendar.is_in_doubt(), leapt > OFF);
            leapt
        };
        assert_eq!(leapt(noon(), wrong), 4000 * DAY, "the newest verdict is of long ago");
        assert_eq!(leapt(wrong, noon()), SignedDuration::ZERO, "set right between two starts");
        assert!(!store.path().join(FILE).exists());
        assert_eq!(leapt(noon(), wrong), 4000 * DAY);
        // Verdicts bear the wrong time by now.
        let mut restarted = open(wrong, wrong + DAY / 2);
        assert_eq!(restarted.today(wrong + DAY / 2, now), noon() + DAY / 2);
        assert_eq!(restarted.today(wrong + DAY, now + HELD / 2), wrong + DAY);
        assert_eq!(leapt(wrong, wrong + DAY), SignedDuration::ZERO);
        // As versions noted it that did not say by how much.
        fs::write(store.path().join(FILE), wrong.to_string()).unwrap();
        assert_eq!(open(wrong, wrong).today(wrong, now), Timestamp::MIN);
    }

    #[test]
    fn a_box_that_is_off_at_night_keeps_everything_a_night_longer_and_not_for_ever() {
        let store = tempfile::tempdir().unwrap();
        let night = SignedDuration::from_hours(14);
        let mut evening = noon();
        for day in 1..30 {
            // Every third day begins before the last one's night is believed.
            let early = SignedDuration::from_mins(if day % 3 == 0 { 10 } else { 0 });
            let (morning, now) = (noon() + day * DAY - DAY + night - early, Instant::now());
            let mut calendar = Calendar::new(store.path(), 5 * DAY, Some(evening), (morning, now));
            for hour in 0..10 {
                let passed = Duration::from_secs(3600 * hour);
                let utc = morning + passed;
                let late = utc.duration_since(calendar.today(utc, now + passed));
                assert!(late >= night - early && late <= if hour == 0 { 2 * night } else { night }, "{late}");
                assert!(!calendar.is_in_doubt(), "nobody is asked every morning");
            }
            evening = noon() + day * DAY;
        }
        // The battery of the box's clock is empty.
        let (wrong, now) = (evening + 4000 * DAY, Instant::now());
        let mut calendar = Calendar::new(store.path(), 5 * DAY, Some(evening), (wrong, now));
        assert_eq!(calendar.today(wrong, now), evening);
        assert!(calendar.is_in_doubt());
    }
}

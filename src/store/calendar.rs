//! Whether the box's clock can be believed, as far as deleting by age goes: a clock that is set forward by years makes
//! everything look too old, and what is deleted does not come back when it is set right.
//!
//! A leap is an advance of UTC that the monotonic clock, or the newest verdict at the start, does not bear out. After one, age
//! counts for nothing for a day, also across restarts, or until the clock is set back. Owned by the retention thread. Not
//! here: what is deleted (`retention`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tracing::warn;

use crate::durable;
use crate::telemetry::chain;

/// Says, in the store's folder, when the clock leapt, by itself.
const FILE: &str = "clock.leap";
/// How long somebody has to set the clock right.
const HELD: Duration = Duration::from_secs(24 * 3600);
/// A leap is more than this part of the time that is kept: so much may be deleted too early.
const PART: i32 = 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Calendar {
    file: PathBuf,
    leap: SignedDuration,
    known: (Timestamp, Instant),
    until: Option<Instant>,
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
        let leapt = fs::read_to_string(&file).ok().and_then(|at| at.trim().parse::<Timestamp>().ok());
        let since = leapt.and_then(|leapt| Duration::try_from(utc.duration_since(leapt)).ok());
        let until = since.and_then(|since| HELD.checked_sub(since)).map(|left| now + left);
        let known = (newest.map_or(utc, |newest| newest.min(utc)), now);
        let calendar = Self { file, leap: keep / PART, known, until };
        if leapt.is_some() && until.is_none() {
            calendar.forget();
        }
        calendar
    }

    /// Whether age counts, now that UTC is `utc`.
    pub(super) fn is_believed(&mut self, utc: Timestamp, now: Instant) -> bool {
        let elapsed = SignedDuration::try_from(now - self.known.1).unwrap_or(SignedDuration::MAX);
        let ahead = utc.duration_since(self.known.0).saturating_sub(elapsed);
        if ahead.abs() > self.leap {
            self.known = (utc, now);
            self.until = None;
            if ahead.is_positive() {
                let days = ahead.as_hours() / 24;
                warn!(
                    days,
                    "the clock went forward at once: nothing is deleted for its age for a day; set it right if it is wrong"
                );
                self.until = Some(now + HELD);
                if let Err(error) = durable::replace(&self.file, utc.to_string().as_bytes()) {
                    warn!(error = %chain(&error), "it cannot be noted that the clock is in doubt; a restart will believe it");
                }
            } else {
                self.forget();
            }
        }
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
            self.forget();
        }
        self.until.is_none()
    }

    fn forget(&self) {
        let _was_not_there = fs::remove_file(&self.file);
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
        let mut believed = |ahead: SignedDuration, hours| {
            let (utc, now) = at(hours);
            calendar.is_believed(utc + ahead, now)
        };
        assert!(believed(SignedDuration::ZERO, 0) && believed(SignedDuration::ZERO, 300));
        assert!(believed(8 * DAY, 301), "less than a tenth of what is kept");
        assert!(!believed(100 * DAY, 302) && !believed(100 * DAY, 325));
        assert!(believed(100 * DAY, 326), "nobody has set it right in a day");
        assert!(!believed(300 * DAY, 327));
        assert!(believed(SignedDuration::ZERO, 328), "somebody has");
        assert!(!store.path().join(FILE).exists());
    }

    #[test]
    fn it_stays_in_doubt_across_restarts() {
        let store = tempfile::tempdir().unwrap();
        let now = Instant::now();
        let wrong = noon() + 4000 * DAY;
        let open = |newest, utc| Calendar::new(store.path(), 90 * DAY, Some(newest), (utc, now));
        assert!(!open(noon(), wrong).is_believed(wrong, now), "the newest verdict is of long ago");
        assert!(open(wrong, noon()).is_believed(noon(), now), "set right between two starts");
        assert!(!open(noon(), wrong).is_believed(wrong, now));
        // Verdicts bear the wrong time by now.
        let mut restarted = open(wrong, wrong + DAY / 2);
        assert!(!restarted.is_believed(wrong + DAY / 2, now));
        assert!(restarted.is_believed(wrong + DAY, now + HELD / 2));
        assert!(open(wrong, wrong + DAY).is_believed(wrong + DAY, now));
    }
}

//! The ids that verdicts get: each new, and telling when its verdict was recorded.
//!
//! UUIDs of version 7, which rise as long as the clock does. A clock that is set back counts from then on: retention and
//! whoever asks for a verdict's age read the id. That ids are new does not depend on the clock, since most of each is drawn by
//! chance. Not here: numbering (`thread`), reading the time back (`outbox`).

use jiff::{SignedDuration, Timestamp};
use uuid::{ContextV7, Uuid};

/// A clock that goes back by no more than this is being adjusted, not set; ids stay in order over it.
const ADJUSTED: SignedDuration = SignedDuration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(super) struct Ids {
    context: ContextV7,
    newest: Timestamp,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { context: ContextV7::new(), newest: Timestamp::MIN }
    }

    /// A new id for what is recorded at `now`.
    pub(super) fn next(&mut self, now: Timestamp) -> Uuid {
        if self.newest.duration_since(now) > ADJUSTED {
            // It never goes back by itself.
            self.context = ContextV7::new();
            self.newest = now;
        }
        self.newest = self.newest.max(now);
        let (seconds, nanoseconds) = (now.as_second(), now.subsec_nanosecond());
        // Ids know no time before 1970, where a box without a battery may begin.
        let since_1970 = u64::try_from(seconds).ok().zip(u32::try_from(nanoseconds).ok());
        let (seconds, nanoseconds) = since_1970.unwrap_or_default();
        Uuid::new_v7(uuid::Timestamp::from_unix(&self.context, seconds, nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::outbox::time_of;
    use super::*;

    #[test]
    fn ids_tell_the_time_also_after_the_clock_was_set_back() {
        let mut ids = Ids::new();
        let right: Timestamp = "2026-01-02T03:04:05.678Z".parse().unwrap();
        let ahead = right + SignedDuration::from_hours(24 * 365);
        let mut seen = HashSet::new();
        for now in [ahead, right, ahead, right, Timestamp::MIN, right] {
            let batch: Vec<_> = (0..1000).map(|_| ids.next(now)).collect();
            assert!(batch.is_sorted());
            let expected = now.max(Timestamp::UNIX_EPOCH);
            assert!(batch.iter().all(|id| time_of(*id) == Some(expected)), "{now}");
            seen.extend(batch);
        }
        assert_eq!(seen.len(), 6000, "an id was given twice");
    }

    #[test]
    fn ids_stay_in_order_while_the_clock_is_adjusted() {
        let mut ids = Ids::new();
        let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let given = [0, 700, 100, 900, 350].map(|ms| ids.next(start + SignedDuration::from_millis(ms)));
        assert!(given.is_sorted(), "{given:?}");
    }
}

//! When a retraining begins by itself. Pure.

use std::time::Duration;

use jiff::Timestamp;

use super::learnt::Pending;
use super::options::Options;

/// What there is to know about a camera's samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Situation {
    /// Normal samples that no retraining has seen.
    pub(super) pending: Pending,
    /// Whether a retraining was interrupted.
    pub(super) unfinished: bool,
    /// Whether one over these very samples failed since the daemon started.
    pub(super) failed: bool,
    /// Whether a command asks for one.
    pub(super) ordered: bool,
}

impl Situation {
    /// Whether it begins now.
    pub(super) fn is_due(&self, options: &Options, now: Timestamp) -> bool {
        let Self { pending, unfinished, failed, ordered } = *self;
        let enough = options.new_samples > 0 && pending.count >= options.new_samples;
        let quiet_for = pending.newest.map(|newest| now.duration_since(newest));
        let limit = Duration::from_secs(60 * options.quiet_minutes);
        let quiet = options.quiet_minutes > 0
            && pending.count > 0
            // A clock that was set back makes samples of the future; they wait for their turn.
            && quiet_for.is_some_and(|quiet| Duration::try_from(quiet).is_ok_and(|quiet| quiet >= limit));
        ordered || (!failed && (unfinished || enough || quiet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn pending(count: usize) -> Situation {
        let newest = (count > 0).then(|| at("2026-01-01T10:00:00Z"));
        Situation { pending: Pending { count, newest }, unfinished: false, failed: false, ordered: false }
    }

    #[test]
    fn it_begins_after_enough_samples_or_when_no_more_come() {
        let options = Options::default();
        let (soon, later) = (at("2026-01-01T10:09:00Z"), at("2026-01-01T10:10:00Z"));
        assert!(!pending(19).is_due(&options, soon));
        assert!(pending(20).is_due(&options, soon));
        assert!(pending(1).is_due(&options, later));
        assert!(!pending(0).is_due(&options, later));
        assert!(!pending(1).is_due(&options, at("2026-01-01T09:00:00Z")));
        let by_command = Options { new_samples: 0, quiet_minutes: 0, ..Options::default() };
        assert!(!pending(500).is_due(&by_command, later));
        assert!(Situation { ordered: true, ..pending(0) }.is_due(&by_command, soon));
    }

    #[test]
    fn an_interrupted_one_goes_on_and_a_failed_one_waits_for_somebody() {
        let options = Options::default();
        let now = at("2026-01-01T10:00:00Z");
        let unfinished = Situation { unfinished: true, ..pending(0) };
        assert!(unfinished.is_due(&options, now));
        let failed = Situation { failed: true, ..pending(40) };
        assert!(!failed.is_due(&options, now));
        assert!(!Situation { failed: true, ..unfinished }.is_due(&options, now));
        assert!(Situation { ordered: true, ..failed }.is_due(&options, now));
    }
}

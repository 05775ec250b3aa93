//! Golden parts: one known to be good and one known to be bad, shown now and then, must get their verdicts.
//!
//! Their triggers say what they are: `"golden": "good"` or `"bad"`. A wrong verdict stands among the camera's warnings
//! until the same kind of part gets the right one; so does a kind that was not shown for as long as the settings allow.
//! Pure. Not here: showing them, which is the line's business.

use std::time::{Duration, Instant};

use crate::verdict::{Decision, Judgement, Trigger};

/// What a golden part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Golden {
    Good,
    Bad,
}

impl Golden {
    /// What the trigger says of its part; nothing of an ordinary one.
    pub(crate) fn announced(trigger: Option<&Trigger>) -> Option<Self> {
        match trigger?.fields.get("golden")?.as_str()? {
            "good" => Some(Self::Good),
            "bad" => Some(Self::Bad),
            _ => None,
        }
    }

    /// What its warning goes by.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Good => "golden good",
            Self::Bad => "golden bad",
        }
    }

    /// What is wrong with its verdict.
    pub(crate) fn complaint(self, judgement: &Judgement) -> Option<String> {
        let decision = judgement.outcome.decision();
        let (kind, expected, remedy) = match self {
            Self::Good => (
                "good",
                Decision::Ok,
                "look at light, focus and position, or retrain with what is normal now",
            ),
            Self::Bad => (
                "bad",
                Decision::Anomalous,
                "do not trust `ok` until this is understood; roll the model back",
            ),
        };
        (decision != expected).then(|| {
            format!(
                "the golden {kind} part of {} was `{decision}`, not `{expected}`: {remedy}",
                judgement.captured_at
            )
        })
    }
}

/// What the warning of parts that were not shown goes by.
pub(crate) const OVERDUE: &str = "golden parts";

/// Whether golden parts are shown as often as they are to be.
#[derive(Debug)]
pub(crate) struct Schedule {
    every: Option<Duration>,
    good: Instant,
    bad: Instant,
    warned: bool,
}

impl Schedule {
    /// Both kinds are to be shown once in `every`, counted from `now`; never where it is none.
    pub(crate) fn new(every: Option<Duration>, now: Instant) -> Self {
        Self { every, good: now, bad: now, warned: false }
    }

    /// A golden part was shown.
    pub(crate) fn shown(&mut self, golden: Golden, now: Instant) {
        match golden {
            Golden::Good => self.good = now,
            Golden::Bad => self.bad = now,
        }
    }

    /// Tells when the warning changes: its words, or that it is over.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Option<String>> {
        let every = self.every?;
        let overdue = |shown: Instant| now.saturating_duration_since(shown) > every;
        let which = match (overdue(self.good), overdue(self.bad)) {
            (true, true) => "neither the golden good part nor the golden bad one was",
            (true, false) => "the golden good part was not",
            (false, true) => "the golden bad part was not",
            (false, false) => "",
        };
        let warn = !which.is_empty();
        let changed = warn != self.warned;
        self.warned = warn;
        let hours = every.as_secs_f64() / 3600.0;
        changed.then(|| {
            warn.then(|| {
                format!("{which} shown for {hours:.0} h: show it, so that the verdicts can be trusted")
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::verdict::tests::judgement;

    fn trigger(golden: serde_json::Value) -> Trigger {
        Trigger { fields: [("golden".to_owned(), golden)].into_iter().collect(), ..Trigger::default() }
    }

    #[test]
    fn a_golden_part_must_get_its_verdict() {
        let (fine, alarm) = (judgement("top", 0.1), judgement("top", 0.9));
        let golden = |text: &str| Golden::announced(Some(&trigger(json!(text)))).unwrap();
        assert_eq!(golden("good").complaint(&fine), None);
        assert_eq!(golden("bad").complaint(&alarm), None);
        assert!(golden("good").complaint(&alarm).unwrap().contains("was `anomalous`, not `ok`"));
        assert!(golden("bad").complaint(&fine).unwrap().contains("was `ok`, not `anomalous`"));
    }

    #[test]
    fn other_triggers_are_ordinary() {
        assert_eq!(Golden::announced(None), None);
        for other in [json!("great"), json!(1), json!(null)] {
            assert_eq!(Golden::announced(Some(&trigger(other))), None);
        }
        assert_eq!(Golden::announced(Some(&Trigger::default())), None);
    }

    #[test]
    fn golden_parts_that_nobody_shows_are_asked_for_once_and_until_both_were_shown() {
        let start = Instant::now();
        let (hour, at) = (Duration::from_secs(3600), |hours: u32| start + Duration::from_secs(3600) * hours);
        let mut schedule = Schedule::new(Some(8 * hour), start);
        assert_eq!(schedule.look(at(8)), None);
        assert!(schedule.look(at(9)).unwrap().unwrap().contains("neither"));
        assert_eq!(schedule.look(at(10)), None);
        schedule.shown(Golden::Good, at(10));
        assert_eq!(schedule.look(at(11)), None);
        schedule.shown(Golden::Bad, at(11));
        assert_eq!(schedule.look(at(12)), Some(None));
        assert_eq!(Schedule::new(None, start).look(at(1000)), None);
    }
}

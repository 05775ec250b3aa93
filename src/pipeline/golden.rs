//! Golden parts: one known to be good and one known to be bad, shown now and then, must get their verdicts.
//!
//! Their triggers say what they are: `"golden": "good"` or `"bad"`. A wrong verdict stands among the camera's warnings
//! until the same kind of part gets the right one; so does a kind that was not shown for as long as the settings allow.
//! Pure. Not here: showing them, which is the line's business.

use std::time::{Duration, Instant};

use crate::verdict::{Decision, Judgement, Outcome, Trigger};

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
        let at = judgement.captured_at;
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
        if let Outcome::Uninspected { reason, detail } = &judgement.outcome {
            return Some(format!(
                "the golden {kind} part of {at:.0} was not inspected, reason `{reason}`: {detail}; show it again when that is mended"
            ));
        }
        (decision != expected).then(|| {
            format!("the golden {kind} part of {at:.0} was `{decision}`, not `{expected}`: {remedy}")
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
    /// What stands in the warning.
    warned: Option<String>,
}

impl Schedule {
    /// Both kinds are to be shown once in `every`, counted from `now`; never where it is none.
    pub(crate) fn new(every: Option<Duration>, now: Instant) -> Self {
        Self { every, good: now, bad: now, warned: None }
    }

    /// A part was judged; a golden one was shown if it was inspected.
    pub(crate) fn judged(&mut self, judgement: &Judgement, now: Instant) {
        match Golden::announced(judgement.trigger.as_ref()) {
            Some(golden) if judgement.outcome.decision() != Decision::Uninspected => self.shown(golden, now),
            _ => {}
        }
    }

    fn shown(&mut self, golden: Golden, now: Instant) {
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
        let hours = every.as_secs_f64() / 3600.0;
        let warning = (!which.is_empty())
            .then(|| format!("{which} shown for {hours:.0} h: show it, so that the verdicts can be trusted"));
        (warning != self.warned).then(|| {
            self.warned.clone_from(&warning);
            warning
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::verdict::Reason;
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
    fn a_golden_part_that_was_not_inspected_says_nothing_of_the_model_and_does_not_count_as_shown() {
        let (detail, start) = ("the camera is down: no frame came".to_owned(), Instant::now());
        let mut missed = judgement("top", 0.1);
        missed.outcome = Outcome::Uninspected { reason: Reason::Camera, detail };
        missed.trigger = Some(trigger(json!("bad")));
        let complaint = Golden::Bad.complaint(&missed).unwrap();
        assert!(complaint.contains("`camera`") && complaint.contains("no frame came"), "{complaint}");
        assert!(!complaint.contains("roll the model back"), "{complaint}");
        let hour = Duration::from_secs(3600);
        let mut schedule = Schedule::new(Some(hour), start);
        schedule.judged(&missed, start + hour);
        let overdue = schedule.look(start + hour * 3 / 2).unwrap().unwrap();
        assert!(overdue.contains("neither"), "{overdue}");
        let inspected =
            |golden: &str| Judgement { trigger: Some(trigger(json!(golden))), ..judgement("top", 0.9) };
        schedule.judged(&inspected("bad"), start + hour);
        schedule.judged(&inspected("good"), start + hour);
        assert_eq!(schedule.look(start + hour * 3 / 2), Some(None));
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
        let rest = schedule.look(at(11)).unwrap().unwrap();
        assert!(rest.contains("the golden bad part was not"), "{rest}");
        assert_eq!(schedule.look(at(11)), None);
        schedule.shown(Golden::Bad, at(11));
        assert_eq!(schedule.look(at(12)), Some(None));
        assert_eq!(Schedule::new(None, start).look(at(1000)), None);
    }
}

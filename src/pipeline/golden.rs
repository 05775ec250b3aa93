//! Golden parts: one known to be good and one known to be bad, shown now and then, must get their verdicts.
//!
//! Their triggers say what they are: `"golden": "good"` or `"bad"`. A wrong verdict stands among the camera's warnings
//! until the same kind of part gets the right one. Pure. Not here: when they are shown, which is the line's business.

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
}

//! The count at the end: what was asked for, what was answered, and what does not add up.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

/// What went in and what came out.
#[derive(Debug, Default)]
pub(super) struct Balance {
    pub(super) files: usize,
    pub(super) triggers: usize,
    pub(super) verdicts: usize,
    pub(super) repeats: usize,
    pub(super) uninspected: usize,
    pub(super) refused: usize,
    /// Triggers that were on their way when the broker was killed, which may lose what it has acknowledged.
    pub(super) lost_by_broker: usize,
    pub(super) lives: usize,
    /// What should not be.
    pub(super) wrong: Vec<String>,
}

impl Balance {
    /// Adds what a subscriber got of one camera; `of` names the part that a verdict is of.
    pub(super) fn count(
        &mut self,
        camera: &str,
        verdicts: &[Value],
        of: impl Fn(&Value) -> String,
    ) -> BTreeSet<String> {
        let mut by_sequence: BTreeMap<u64, &Value> = BTreeMap::new();
        for verdict in verdicts {
            let sequence = verdict["sequence"].as_u64().unwrap_or_default();
            match by_sequence.insert(sequence, verdict) {
                Some(earlier) if earlier == verdict => self.repeats += 1,
                Some(_) => self.wrong.push(format!("{camera} {sequence} came with two contents")),
                None => {}
            }
        }
        let newest = by_sequence.keys().next_back().copied().unwrap_or(0);
        let missing: Vec<_> = (1..=newest).filter(|s| !by_sequence.contains_key(s)).take(10).collect();
        if !missing.is_empty() {
            self.wrong.push(format!("{camera} lacks {missing:?} and perhaps more of {newest}"));
        }
        let mut parts = BTreeSet::new();
        for verdict in by_sequence.values() {
            let part = of(verdict);
            if !parts.insert(part.clone()) {
                self.wrong.push(format!("{camera}: {part} has two verdicts"));
            }
            self.uninspected += usize::from(verdict["decision"] == "uninspected");
        }
        self.verdicts += by_sequence.len();
        parts
    }

    #[track_caller]
    pub(super) fn assert_nothing_lost(&self) {
        assert!(self.wrong.is_empty(), "{self}\n{:#?}", self.wrong);
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} lives of the daemon; {} files and {} triggers in; {} verdicts out, each once ({} repeats), {} of them \
             uninspected; {} triggers refused, {} lost by the broker when it was killed; {}",
            self.lives,
            self.files,
            self.triggers,
            self.verdicts,
            self.repeats,
            self.uninspected,
            self.refused,
            self.lost_by_broker,
            if self.wrong.is_empty() { "nothing is missing" } else { "NOT ALL IS WELL" },
        )
    }
}

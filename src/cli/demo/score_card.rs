//! The demo's score card: what was planted, what was caught.
//!
//! Pure counting; the truth comes from the simulated line and is never shown to the detector. Not here: the screen.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use crate::frame::Planted;
use crate::verdict::Decision;

/// How the detector did on the parts so far.
#[derive(Debug, Default)]
pub(super) struct ScoreCard {
    parts: u64,
    false_alarms: u64,
    uninspected: u64,
    defects: BTreeMap<String, Tally>,
}

#[derive(Debug, Default)]
struct Tally {
    planted: u64,
    caught: u64,
}

/// How one verdict compares with the truth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    /// A good part passed.
    Passed,
    /// A defect was caught.
    Caught(String),
    /// A defect was missed.
    Missed(String),
    /// A good part was called anomalous.
    FalseAlarm,
    /// There was no inspection.
    Uninspected,
}

impl ScoreCard {
    /// Counts one verdict.
    pub(super) fn count(&mut self, decision: Decision, truth: &Planted) -> Mark {
        self.parts += 1;
        if decision == Decision::Uninspected {
            self.uninspected += 1;
        }
        if let Planted::Defect(name) = truth {
            let tally = self.defects.entry(name.clone()).or_default();
            tally.planted += 1;
            tally.caught += u64::from(decision == Decision::Anomalous);
        }
        match (decision, truth) {
            (Decision::Uninspected, _) => Mark::Uninspected,
            (Decision::Ok, Planted::Normal) => Mark::Passed,
            (Decision::Ok, Planted::Defect(name)) => Mark::Missed(name.clone()),
            (Decision::Anomalous, Planted::Defect(name)) => Mark::Caught(name.clone()),
            (Decision::Anomalous, Planted::Normal) => {
                self.false_alarms += 1;
                Mark::FalseAlarm
            }
        }
    }

    /// Parts that got a verdict.
    pub(super) fn parts(&self) -> u64 {
        self.parts
    }

    /// Defects planted among them, and caught.
    pub(super) fn defects(&self) -> (u64, u64) {
        self.defects.values().fold((0, 0), |(planted, caught), t| (planted + t.planted, caught + t.caught))
    }
}

impl fmt::Display for ScoreCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (planted, caught) = self.defects();
        let mut missed = String::new();
        for (name, tally) in self.defects.iter().filter(|(_, t)| t.caught < t.planted) {
            let separator = if missed.is_empty() { "" } else { ", " };
            write!(missed, "{separator}{} of {} {name}", tally.planted - tally.caught, tally.planted)?;
        }
        writeln!(f, "parts inspected   {:>6}", self.parts)?;
        writeln!(f, "defects planted   {planted:>6}")?;
        writeln!(f, "defects caught    {caught:>6}")?;
        write!(f, "defects missed    {:>6}", planted - caught)?;
        writeln!(f, "{}", if missed.is_empty() { String::new() } else { format!("   {missed}") })?;
        write!(f, "false alarms      {:>6}", self.false_alarms)?;
        if self.uninspected > 0 {
            write!(f, "\nnot inspected     {:>6}", self.uninspected)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_tells_caught_from_missed_and_false_alarms() {
        let scratch = Planted::Defect("scratch".into());
        let mut card = ScoreCard::default();
        assert_eq!(card.count(Decision::Ok, &Planted::Normal), Mark::Passed);
        assert_eq!(card.count(Decision::Anomalous, &scratch), Mark::Caught("scratch".into()));
        assert_eq!(card.count(Decision::Ok, &scratch), Mark::Missed("scratch".into()));
        assert_eq!(card.count(Decision::Anomalous, &Planted::Normal), Mark::FalseAlarm);
        assert_eq!(card.count(Decision::Uninspected, &Planted::Normal), Mark::Uninspected);
        assert_eq!((card.parts(), card.defects()), (5, (2, 1)));
        let text = card.to_string();
        assert!(text.contains("1 of 2 scratch") && text.contains("not inspected          1"), "{text}");
    }
}

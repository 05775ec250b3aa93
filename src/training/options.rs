//! What a training can be told, each default here and nowhere else.

use serde::{Deserialize, Serialize};

use super::threshold::{self, FALSE_POSITIVE_RATE};
use crate::efficientad::{Architecture, PdnSize};
use crate::frame::Size;

/// The most steps a training may have: more than a hundred times the paper's.
const MOST_STEPS: u64 = 10_000_000;
/// The paper's training.
const PAPER_STEPS: u64 = 70_000;
const PAPER_RATE: f64 = 1e-4;
/// No training is so short that it does better with more.
const MOST_RATE: f64 = 1e-3;

/// How to train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The patch description network. Small is the paper's EfficientAD-S, its best accuracy for the time.
    pub size: PdnSize,
    /// Pixels that the networks read; pictures are resized to it. The paper's 256×256.
    pub input: Size,
    /// Training steps of one picture each. The paper's 70,000; on a CPU a few thousand are a night's work.
    pub steps: u64,
    /// The seed of all randomness: first weights, held-out split, order, augmentation.
    pub seed: u64,
    /// Adam's learning rate until 95 % of the steps, a tenth of it after: [`learning_rate_for`] the steps.
    pub learning_rate: f64,
    /// The share of normal parts that may be called anomalous, above 0 and at most 0.5.
    pub false_positive_rate: f64,
    /// Seconds between checkpoints: what a power cut may cost.
    pub checkpoint_seconds: u64,
    /// Mebibytes for decoded pictures and for the teacher's features, each, where so much is free; beyond, they are made anew at
    /// every use.
    pub cache_mib: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size: PdnSize::Small,
            input: Size::new(256, 256),
            steps: PAPER_STEPS,
            seed: 0,
            learning_rate: learning_rate_for(PAPER_STEPS),
            false_positive_rate: FALSE_POSITIVE_RATE,
            checkpoint_seconds: 60,
            cache_mib: 1024,
        }
    }
}

/// The learning rate that suits a training of `steps`: the paper's 1e-4 at its 70,000 steps, and more for shorter ones, which
/// have less time to get anywhere, by the square root of how much shorter they are; between 1e-4 and 1e-3.
pub fn learning_rate_for(steps: u64) -> f64 {
    let shorter = PAPER_STEPS as f64 / steps.max(1) as f64;
    (PAPER_RATE * shorter.sqrt()).clamp(PAPER_RATE, MOST_RATE)
}

impl Options {
    /// All that is wrong: key, and what to do.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, what: String| faults.push((key.to_owned(), what));
        if let Err(e) = Architecture::new(self.size, self.input) {
            fault("input", e.to_string());
        }
        if !(1..=MOST_STEPS).contains(&self.steps) {
            fault("steps", format!("{} steps: give 1 to {MOST_STEPS}", self.steps));
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            fault(
                "learning_rate",
                format!(
                    "{} is out of bounds: give more than 0 and at most 1, such as 0.0001",
                    self.learning_rate
                ),
            );
        }
        if let Err(e) = threshold::check_rate(self.false_positive_rate) {
            fault("false_positive_rate", e.to_string());
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_trainings_learn_faster_and_the_papers_as_in_the_paper() {
        assert_eq!(learning_rate_for(70_000), 1e-4);
        assert_eq!(learning_rate_for(1_000_000), 1e-4);
        assert!((learning_rate_for(2_800) - 5e-4).abs() < 1e-12);
        assert_eq!(learning_rate_for(250), 1e-3);
        assert_eq!(learning_rate_for(0), 1e-3);
    }

    #[test]
    fn defaults_are_sound_and_all_faults_are_told_at_once() {
        assert_eq!(Options::default().faults(), []);
        let wrong = Options {
            input: Size::new(100, 256),
            steps: 0,
            learning_rate: f64::NAN,
            false_positive_rate: 2.0,
            ..Options::default()
        };
        let keys: Vec<String> = wrong.faults().into_iter().map(|f| f.0).collect();
        assert_eq!(keys, ["input", "steps", "learning_rate", "false_positive_rate"]);
    }
}

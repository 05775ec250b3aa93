//! What the gate said of a version, in figures for machines and in words for engineers. Pure data.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One of the gate's questions and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Which question: `false_alarms`, `known_defects`, `planted_defects` or `shadow`.
    pub name: String,
    /// Whether the answer lets the version pass.
    pub passed: bool,
    /// Whether the question could not be put, though a version must not go live by itself without an answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untried: bool,
    /// The answer in words.
    pub words: String,
    /// What was counted.
    pub figures: serde_json::Map<String, serde_json::Value>,
}

/// `report.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The version that it is about.
    pub version: String,
    /// The version that was active, and that it was held against.
    pub against: String,
    /// The sample set that it learnt from.
    pub set: String,
    /// Normal samples of that set.
    pub normal: usize,
    /// Anomalous ones.
    pub anomalous: usize,
    /// When it was made.
    pub at: Timestamp,
    /// Seconds that it took, calibration and gate included; of one that was interrupted, since it went on last.
    pub seconds: f64,
    /// Whether it may go live.
    pub accepted: bool,
    /// The questions.
    pub checks: Vec<Check>,
}

impl Report {
    /// Whether a person has to let it go live, since the gate could not ask all that it has to.
    pub fn is_untried(&self) -> bool {
        self.checks.iter().any(|check| check.untried)
    }

    /// Why it may not go live, or not by itself, or that it may.
    pub fn words(&self) -> String {
        let of = |wanted: fn(&Check) -> bool| -> Vec<&str> {
            self.checks.iter().filter(|check| wanted(check)).map(|check| check.words.as_str()).collect()
        };
        let (failed, untried) = (of(|check| !check.passed), of(|check| check.untried));
        match (failed.as_slice(), untried.as_slice()) {
            ([], []) => "it may go live".into(),
            ([], untried) => untried.join("; "),
            (failed, _) => failed.join("; "),
        }
    }
}

impl Default for Report {
    fn default() -> Self {
        Self {
            version: String::new(),
            against: String::new(),
            set: String::new(),
            normal: 0,
            anomalous: 0,
            at: Timestamp::UNIX_EPOCH,
            seconds: 0.0,
            accepted: false,
            checks: Vec::new(),
        }
    }
}

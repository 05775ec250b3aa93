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
    /// Seconds that its training took, calibration and gate included, interruptions excluded.
    pub seconds: f64,
    /// Whether it may go live.
    pub accepted: bool,
    /// The questions.
    pub checks: Vec<Check>,
}

impl Report {
    /// Why it may not go live, or that it may.
    pub fn words(&self) -> String {
        let failed: Vec<&str> =
            self.checks.iter().filter(|check| !check.passed).map(|check| check.words.as_str()).collect();
        if failed.is_empty() { "it may go live".into() } else { failed.join("; ") }
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

//! What is told about a line's models, by whoever keeps them.
//!
//! Pure types. Not here: keeping models (`retrain`), topics (`publish`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How the retraining of a camera's model fares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Retraining {
    /// `waiting` for more samples, `training`, `calibrating`, `gate`; at last `activated`, `refused` or `failed`.
    pub phase: String,
    /// Normal samples that have come since the last one.
    pub new_samples: usize,
    /// How much of the phase is done, of `of`.
    pub done: u64,
    /// What the phase has to do.
    pub of: u64,
    /// About how long the phase will take.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds_left: Option<u64>,
    /// The version that came of it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    /// Why it was refused or failed, in words for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// What is told of a line's models.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelNews {
    /// How the retraining fares.
    pub retraining: Option<Retraining>,
    /// How far the line's pictures are from those that its model learnt, by what is off; 1 warns.
    pub drift: BTreeMap<&'static str, f32>,
    /// What somebody should look into, by what it is about.
    pub warnings: BTreeMap<&'static str, String>,
}

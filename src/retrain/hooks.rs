//! Where the keeper meets the rest of the program: what it is told, whom it tells, and what it has others do.

use std::process::Command;
use std::sync::Arc;

use crate::efficientad::CalibratedModel;
use crate::frame::CameraId;

/// What a camera's models can be told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Retrain now.
    Retrain,
    /// Run this version.
    Activate(String),
    /// Run the version before.
    Rollback,
}

/// What came of an order: the version that runs, or none where it is only taken on; or why not.
pub type Answer = Box<dyn FnOnce(Result<Option<String>, String>) + Send>;

/// How a retraining fares, for whoever shows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct News {
    /// `waiting`, `measuring`, `training`, `calibrating`, `gate`, `activated`, `accepted`, `refused` or `failed`.
    pub phase: String,
    /// Normal samples that no retraining has seen.
    pub new_samples: usize,
    /// How much of the phase is done.
    pub done: u64,
    /// What it has to do.
    pub of: u64,
    /// About how long it will take.
    pub seconds_left: Option<u64>,
    /// The version that came of it.
    pub version: Option<String>,
    /// The gate's words, or why it failed.
    pub detail: Option<String>,
}

/// Makes a model runnable and hands it to the camera's line; says why not.
pub type Swap = Arc<dyn Fn(&CameraId, CalibratedModel) -> Result<(), String> + Send + Sync>;
/// Shows how a camera's retraining fares.
pub type Tell = Arc<dyn Fn(&CameraId, News) + Send + Sync>;

/// What the keeper has others do.
#[derive(Clone)]
pub struct Hooks {
    /// Has a line run another version.
    pub swap: Swap,
    /// Told of every progress.
    pub tell: Tell,
    /// The command that retrains a camera, printing JSON lines and ending with this process.
    pub command: Arc<dyn Fn(&CameraId) -> Command + Send + Sync>,
}

pub(super) type Ordered = (CameraId, Order, Answer);

//! The seam to whoever keeps the models: what they are told to do, the frames they are shown, and their answers.
//!
//! Pure types. Not here: versions, samples, retraining (`retrain`), which the pipeline does not know.

use std::sync::Arc;

use serde_json::Value;

use crate::frame::{CameraId, Picture, Pixels};

/// What a camera's models can be told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelOrder {
    /// Train on the samples that have come in, now.
    Retrain,
    /// Run this version.
    Activate(String),
    /// Run the version that ran before.
    Rollback,
}

/// Told once what came of an order: anything worth telling, or why not, in words for people.
pub type Answer = Box<dyn FnOnce(Result<Value, String>) + Send>;
/// Takes an order on and returns at once; answers when it is carried out, or taken on for long.
pub type Orders = Arc<dyn Fn(&CameraId, ModelOrder, Answer) + Send + Sync>;
/// Shown every frame that is `ok`, on its line's dispatch thread; must return at once.
pub type FrameTap = Arc<dyn Fn(&CameraId, &Pixels, &Picture) + Send + Sync>;

/// Those who keep the models; nobody by default.
#[derive(Clone, Default)]
pub struct Keepers {
    /// Carries orders out.
    pub orders: Option<Orders>,
    /// Is shown frames that are `ok`.
    pub frames: Option<FrameTap>,
}

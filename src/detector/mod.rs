//! A calibrated model made runnable: one [`Inspector`] per engine, and the [`Detector`] that turns its map into a finding.
//!
//! Not here: training, cameras, and what happens to a finding.

use thiserror::Error;

use crate::frame::{Picture, Size};

/// A map of anomaly, row by row; higher is worse.
#[derive(Debug, Clone, PartialEq)]
pub struct AnomalyMap {
    /// Columns and rows.
    pub size: Size,
    /// `height × width` values, unbounded.
    pub values: Vec<f32>,
}

/// Why an engine gave no map.
#[derive(Debug, Error)]
pub enum InspectorError {
    /// A picture has not the size that the model reads.
    #[error("the model reads pictures of {expected}, got {got}")]
    Input {
        /// What the model reads.
        expected: Size,
        /// What it was given.
        got: Size,
    },
    /// The map holds a value that is not a finite number.
    #[error("the model's map is not finite: its weights or its input are damaged")]
    NotFinite,
    /// The device failed; another engine may still work.
    #[error("the {engine} engine failed: {message}")]
    Device {
        /// Which engine.
        engine: &'static str,
        /// What it said.
        message: String,
    },
}

/// An engine that runs a calibrated EfficientAD model.
pub trait Inspector: Send {
    /// Which engine, on what, with how many threads; for people.
    fn describe(&self) -> String;

    /// The size of the pictures that [`Inspector::infer`] takes.
    fn input(&self) -> Size;

    /// The combined, quantile-normalised map of each picture, unpadded: 56×56 at 256×256 (paper §3.4).
    fn infer(&mut self, pictures: &[&Picture]) -> Result<Vec<AnomalyMap>, InspectorError>;
}

//! Why a training, a calibration or an evaluation stopped.

use std::path::PathBuf;

use thiserror::Error;

use super::checkpoint::CheckpointError;
use super::dataset::DatasetError;
use super::threshold::ThresholdError;
use crate::efficientad::{BundleError, WeightsError};
use crate::frame::Size;
use crate::imaging::{LoadError, SightError};

/// Why a training, a calibration or an evaluation stopped.
#[derive(Debug, Error)]
pub enum TrainingError {
    /// An option makes no sense.
    #[error("{key}: {message}")]
    Option {
        /// Which.
        key: String,
        /// What is wrong, and the remedy.
        message: String,
    },
    /// The folder is no data set.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A picture cannot be read.
    #[error(transparent)]
    Picture(#[from] LoadError),
    /// A picture cannot be seen as its camera's line would see it.
    #[error("{path} cannot be seen as the camera would: {source}", path = path.display())]
    Sight {
        /// The picture.
        path: PathBuf,
        /// Why.
        source: SightError,
    },
    /// The camera's mask hides every cell of the networks' maps.
    #[error("the camera's mask hides everything that the model can see of {0}: show it more")]
    Hidden(PathBuf),
    /// A mask is not of its picture's size.
    #[error("the mask {mask} is {got} where its picture is {expected}: masks have their picture's size")]
    MaskSize {
        /// The mask.
        mask: PathBuf,
        /// The picture's size.
        expected: Size,
        /// The mask's.
        got: Size,
    },
    /// The teacher or the model cannot be read, made or written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The teacher does not fit the networks.
    #[error("the teacher is unusable: {0}")]
    Teacher(#[from] WeightsError),
    /// No threshold can be found.
    #[error(transparent)]
    Threshold(#[from] ThresholdError),
    /// The model is broken.
    #[error(
        "{path} has a score that is no finite number: train the model again", path = .0.display()
    )]
    NotFinite(PathBuf),
    /// The checkpoint cannot be written, read or used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A loss is no finite number.
    #[error(
        "training diverged at step {step}: the {loss} loss is {value}; lower the learning rate, or look for damaged \
         pictures"
    )]
    Diverged {
        /// Counted from 1.
        step: u64,
        /// Which loss.
        loss: &'static str,
        /// What it is.
        value: f32,
    },
    /// The machine has not the memory.
    #[error(
        "training needs about {needed_mib} MiB of memory and {available_mib} MiB are free: choose a smaller --size or \
         --image-size, or end other programs"
    )]
    TooLittleMemory {
        /// An estimate.
        needed_mib: u64,
        /// What the system says.
        available_mib: u64,
    },
    /// The device ran out of memory on the way.
    #[error(
        "the device ran out of memory: choose a smaller --size or --image-size, or another --device ({0})"
    )]
    OutOfMemory(String),
    /// The device cannot be used, or failed.
    #[error("{0}")]
    Device(String),
    /// Somebody asked to stop before the first step.
    #[error("stopped before the first step: start it again")]
    Unstarted,
    /// Somebody asked to stop.
    #[error("stopped after step {step}: `--resume` goes on from there")]
    Stopped {
        /// Steps done.
        step: u64,
    },
}

/// Whether a device says that it ran out of memory; each words it in its own way.
pub(super) fn is_out_of_memory(message: &str) -> bool {
    let lower = message.to_lowercase();
    lower.contains("out of memory") || lower.contains("out_of_memory")
}

impl From<candle_core::Error> for TrainingError {
    fn from(error: candle_core::Error) -> Self {
        let message = error.to_string();
        if is_out_of_memory(&message) {
            Self::OutOfMemory(message)
        } else {
            Self::Device(format!("the device failed: {message}"))
        }
    }
}

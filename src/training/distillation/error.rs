//! Why a distillation stopped.

use std::path::PathBuf;

use thiserror::Error;

use crate::efficientad::BackboneError;
use crate::training::checkpoint::CheckpointError;
use crate::training::error::is_out_of_memory;

/// Why a distillation stopped.
#[derive(Debug, Error)]
pub enum DistillationError {
    /// An option makes no sense.
    #[error("{key}: {message}")]
    Option {
        /// Which.
        key: String,
        /// What is wrong, and the remedy.
        message: String,
    },
    /// The backbone cannot be used.
    #[error(transparent)]
    Backbone(#[from] BackboneError),
    /// A file or folder cannot be read or written.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    Io {
        /// Read, write, …
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no picture.
    #[error(
        "there is no picture in {0} or below: PNG, JPEG, BMP and TIFF files are read",
        folders.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    Empty {
        /// Where it was looked for.
        folders: Vec<PathBuf>,
    },
    /// Too many pictures cannot be read.
    #[error(
        "{bad} of {pictures} pictures cannot be read, the last because {last}: remove them, or name another folder"
    )]
    Unreadable {
        /// How many could not.
        bad: usize,
        /// Of how many.
        pictures: usize,
        /// The last one's fault.
        last: String,
    },
    /// The loss is no finite number.
    #[error("the distillation diverged at step {step}: the loss is {loss}; lower the learning rate")]
    Diverged {
        /// Counted from 1.
        step: u64,
        /// The loss.
        loss: f32,
    },
    /// A checkpoint cannot be written, read or used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The device ran out of memory.
    #[error("the device ran out of memory: choose a smaller --batch or --size ({0})")]
    OutOfMemory(String),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
    /// Somebody asked to stop before the first step.
    #[error("stopped before the first step: there is nothing to resume")]
    Unstarted,
    /// Somebody asked to stop.
    #[error("stopped after step {step}: `--resume` goes on from there")]
    Stopped {
        /// Steps done.
        step: u64,
    },
}

impl From<candle_core::Error> for DistillationError {
    fn from(error: candle_core::Error) -> Self {
        let message = error.to_string();
        if is_out_of_memory(&message) { Self::OutOfMemory(message) } else { Self::Device(message) }
    }
}

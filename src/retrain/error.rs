//! Why a sample, a version or a retraining is not to be had, with the remedy.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::detector::{InspectorError, OpenError};
use crate::efficientad::BundleError;
use crate::frame::{CameraId, Size};
use crate::imaging::{LoadError, PrepareError, RegionError};
use crate::training::TrainingError;
use crate::training::dataset::DatasetError;

/// See the module.
#[derive(Debug, Error)]
pub enum RetrainError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}", path = path.display())]
    File {
        /// Read, write, …
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of ours is not what we wrote.
    #[error("{path} is damaged ({message}): {remedy}", path = path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
        /// What to do.
        remedy: &'static str,
    },
    /// There is no such version.
    #[error("camera `{camera}` has no model version `{version}`; it has {known}")]
    UnknownVersion {
        /// Whose versions.
        camera: CameraId,
        /// What was asked for.
        version: String,
        /// What there is.
        known: String,
    },
    /// The name could be of several versions.
    #[error("`{version}` could be any of {candidates}: write more of it")]
    Ambiguous {
        /// What was asked for.
        version: String,
        /// What it could be.
        candidates: String,
    },
    /// There is nothing to go back to.
    #[error(
        "camera `{0}` runs the model that its settings name, and no version that ran before it is left: name one with \
         `inspectord models activate`"
    )]
    NothingBefore(CameraId),
    /// The version reads pictures of another size than the running line prepares.
    #[error(
        "version {version} reads pictures of {got} and this camera's line prepares {expected}: name its bundle as \
         `model` in the settings and restart instead"
    )]
    InputSize {
        /// Which version.
        version: String,
        /// What the line prepares.
        expected: Size,
        /// What it reads.
        got: Size,
    },
    /// Another retraining is under way on this box.
    #[error("another retraining is under way on this box ({0}): wait for it, or stop it")]
    Busy(String),
    /// There is nothing to learn.
    #[error(
        "there are no normal samples to learn from: drop pictures into {path}, or name the folder of the first training \
         as the camera's `normals`", path = .0.display()
    )]
    NoSamples(PathBuf),
    /// Somebody asked to stop.
    #[error("stopped after step {step}; the next retraining goes on from there")]
    Stopped {
        /// Steps done.
        step: u64,
    },
    /// A bundle cannot be read or written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A picture cannot be read.
    #[error(transparent)]
    Picture(#[from] LoadError),
    /// A picture does not have the camera's region.
    #[error("{path}: {source}", path = path.display())]
    Region {
        /// Which.
        path: PathBuf,
        /// Why.
        source: RegionError,
    },
    /// A picture cannot be judged.
    #[error("{path} cannot be judged: {refusal}", path = path.display())]
    Unfit {
        /// Which.
        path: PathBuf,
        /// Why.
        refusal: Refusal,
    },
    /// The training failed.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// A model cannot be run.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A model failed while it was tried.
    #[error(transparent)]
    Inspect(#[from] InspectorError),
}

/// Why a picture cannot be judged.
#[derive(Debug, Error)]
pub enum Refusal {
    /// It cannot be prepared.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The model failed on it.
    #[error(transparent)]
    Inspect(#[from] InspectorError),
}

impl RetrainError {
    /// For `map_err`: the file system refused to `action` the file at `path`.
    pub(super) fn file(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path: path.clone(), source }
    }
}

impl From<DatasetError> for RetrainError {
    fn from(error: DatasetError) -> Self {
        Self::Training(error.into())
    }
}

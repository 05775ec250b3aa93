//! Cameras: one trait, and one file per way to get frames.
//!
//! A camera is owned by one capture thread. Not here: decoding (`imaging`), retries, queues and verdicts (`pipeline`).

mod folder;
#[cfg(feature = "genicam")]
mod genicam;
mod listing;
mod options;
mod pace;
mod simulated;
#[cfg(feature = "v4l2")]
mod v4l2;

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::frame::{CameraId, FileKey, Frame, Losses, SourceRef};

pub use folder::{may_be_a_picture, modified_ns};
pub use listing::{CameraKind, CameraListing, Mode};
pub use options::{
    Edge, Exposure, FeatureValue, Features, FolderMode, FolderOptions, GenicamOptions, Options,
    SimulatedOptions, V4l2Format, V4l2Options, WhiteBalance,
};
pub use simulated::{
    DATASET_FIRST, DatasetCounts, DatasetError, DefectKind, defective_part, normal_part, part, write_dataset,
};

/// Why a camera gave no frame.
#[derive(Debug, Error)]
pub enum CameraError {
    /// There is no such camera, now.
    #[error("there is no camera `{name}`: {hint}")]
    NotFound {
        /// What the settings call it.
        name: String,
        /// What to do, such as which cameras there are.
        hint: String,
    },
    /// It exists and cannot be used as asked.
    #[error("camera `{name}` cannot be used: {message}")]
    Unusable {
        /// What the settings call it.
        name: String,
        /// Why, and the remedy.
        message: String,
    },
    /// It stopped delivering; reopening may help.
    #[error("camera `{name}` was lost: {message}")]
    Lost {
        /// What the settings call it.
        name: String,
        /// What happened.
        message: String,
    },
    /// One frame was unusable; the next may be fine.
    #[error("camera `{name}` delivered a bad frame: {message}")]
    BadFrame {
        /// What the settings call it.
        name: String,
        /// What is wrong with it.
        message: String,
        /// When it was taken, as well as that can be told.
        taken: Instant,
        /// Set where the frame can be met again, so that its verdict settles it.
        origin: Option<SourceRef>,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What came of waiting for a frame.
#[derive(Debug)]
pub enum Next {
    /// A frame.
    Frame(Box<Frame>),
    /// None within the time given; ask again.
    Nothing,
    /// None, and none will ever come: a replay has ended.
    End,
}

/// A source of frames.
pub trait Camera: Send {
    /// What it is, for people: model, mode, address or folder.
    fn describe(&self) -> String;

    /// Waits for the next frame, at most `wait`. Frames older than the call may be delivered, the newest first where
    /// the hardware buffers.
    ///
    /// # Errors
    /// [`CameraError::BadFrame`] spoils one frame only, and that frame gets a verdict of its own; after any other
    /// error, open the camera again.
    fn next(&mut self, wait: Duration) -> Result<Next, CameraError>;

    /// Asks for an exposure now, where the camera waits to be asked; others expose by themselves.
    ///
    /// # Errors
    /// [`CameraError::Lost`] if it cannot be asked.
    fn expose(&mut self) -> Result<(), CameraError> {
        Ok(())
    }

    /// Whether it still delivers; asked now and then while nobody wants a frame, so that a camera that is lost between
    /// two triggers is opened again before the next. Frames that wait may be let go of.
    ///
    /// # Errors
    /// [`CameraError::Lost`] if it does not.
    fn check(&mut self) -> Result<(), CameraError> {
        Ok(())
    }

    /// What was lost between the sensor and this program since the camera was opened.
    fn losses(&self) -> Losses {
        Losses::default()
    }
}

/// Tells which of some files have a verdict, so that a program that was killed neither repeats one nor leaves one out. Asked
/// about those that are there, since those that were ever judged may be millions.
pub type Judged<'a> = dyn Fn(&HashSet<FileKey>) -> HashSet<FileKey> + Send + Sync + 'a;

/// The [`Judged`] of those who judge nothing.
pub fn none_judged(_: &HashSet<FileKey>) -> HashSet<FileKey> {
    HashSet::new()
}

/// Opens a line's camera; called at start and whenever the camera was lost.
pub type OpenCamera = Box<dyn FnMut(&Judged<'_>) -> Result<Box<dyn Camera>, CameraError> + Send>;

/// What opens the camera `id` as its settings say, again and again.
pub fn opener(id: CameraId, options: Options) -> OpenCamera {
    Box::new(move |judged| open(&id, &options, judged))
}

/// Opens the camera `id` as its settings say. A folder skips the files that are judged already.
///
/// # Errors
/// [`CameraError`], with the remedy.
pub fn open(id: &CameraId, options: &Options, judged: &Judged<'_>) -> Result<Box<dyn Camera>, CameraError> {
    match options {
        Options::Folder(options) => Ok(Box::new(folder::FolderCamera::open(id, options, judged)?)),
        Options::Simulated(options) => Ok(Box::new(simulated::SimulatedCamera::open(options))),
        #[cfg(feature = "v4l2")]
        Options::V4l2(options) => Ok(Box::new(v4l2::V4l2Camera::open(id, options)?)),
        #[cfg(not(feature = "v4l2"))]
        Options::V4l2(options) => Err(without(&options.device, "v4l2")),
        #[cfg(feature = "genicam")]
        Options::Genicam(options) => Ok(Box::new(genicam::GenicamCamera::open(id, options)?)),
        #[cfg(not(feature = "genicam"))]
        Options::Genicam(options) => Err(without(&options.camera, "genicam")),
    }
}

/// The cameras of this box and of its networks that this program was built for; asking networks takes a second.
pub fn list() -> Vec<CameraListing> {
    #[cfg_attr(not(any(feature = "v4l2", feature = "genicam")), expect(unused_mut))]
    let mut listings = Vec::new();
    #[cfg(feature = "v4l2")]
    listings.extend(v4l2::list());
    #[cfg(feature = "genicam")]
    listings.extend(genicam::list());
    listings
}

/// The kinds of hardware that this program was built for.
pub const HARDWARE: &[&str] = &[
    #[cfg(feature = "v4l2")]
    "v4l2",
    #[cfg(feature = "genicam")]
    "genicam",
];

#[cfg(not(all(feature = "v4l2", feature = "genicam")))]
fn without(name: &str, feature: &str) -> CameraError {
    CameraError::Unusable {
        name: name.to_owned(),
        message: format!(
            "this program was built without {feature} cameras: build it with `--features {feature}`"
        ),
    }
}

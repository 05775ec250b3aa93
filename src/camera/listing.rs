//! What can be listed of a box's cameras: their names and their modes.
//!
//! Plain data, also in builds that cannot open any. Not here: finding them (`v4l2`, `genicam`), showing them (`cli`).

use serde::Serialize;

use super::V4l2Format;
use super::options::size_text_required;
use crate::frame::Size;

/// Which kind of source a listed camera is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CameraKind {
    /// Video4Linux.
    V4l2,
    /// GigE Vision or USB3 Vision.
    Genicam,
}

/// A camera that can be opened.
#[derive(Debug, Clone, Serialize)]
pub struct CameraListing {
    /// What to write as `kind`.
    pub kind: CameraKind,
    /// What to write as `device`, or as `camera` of a genicam one: a name that stays the same when cameras are
    /// replugged, where there is one.
    pub device: String,
    /// The device file or the address behind it, now.
    pub node: String,
    /// What it calls itself.
    pub name: String,
    /// What it can deliver; not asked of genicam cameras, which must be opened for that.
    pub modes: Vec<Mode>,
    /// Why it cannot be used, if it cannot.
    pub problem: Option<String>,
}

/// One way in which a camera can deliver frames.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Mode {
    /// The layout of pixels.
    pub format: V4l2Format,
    /// The picture's size.
    #[serde(serialize_with = "size_text_required::serialize")]
    pub size: Size,
    /// Seconds per frame as a fraction, such as 1001/30000, which is 29.97 frames a second; or [`Mode::UNKNOWN_RATE`].
    pub interval: (u32, u32),
}

impl Mode {
    /// The interval of a device that tells none.
    pub const UNKNOWN_RATE: (u32, u32) = (0, 0);

    /// Frames per second; 0 where the device does not tell.
    pub fn rate(&self) -> f64 {
        f64::from(self.interval.1) / f64::from(self.interval.0.max(1))
    }
}

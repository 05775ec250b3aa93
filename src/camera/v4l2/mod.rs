//! Video4Linux cameras: webcams, capture cards, USB microscopes.
//!
//! In: a device's name and wishes. Out: frames, newest first. A camera that stalls is reported as lost after a time that
//! the settings give, and can be opened again. MJPEG is passed on as it is: a frame that lost its end on the way is
//! refused where it is decoded (`imaging`). Owned by one capture thread, beside the thread of `watched`.

mod device;
mod find;
mod modes;
mod watched;

use std::path::Path;
use std::time::{Duration, Instant};

use super::pace::Pace;
use super::{Camera, CameraError, CameraKind, CameraListing, Mode, Next, V4l2Options};
use crate::clock::{self, SystemClock};
use crate::frame::{CameraId, Frame};
use watched::{GrabError, Waited, Watched};

const DEV: &str = "/dev";

/// The cameras of this box.
pub(super) fn list() -> Vec<CameraListing> {
    let mut listings = Vec::new();
    for node in find::nodes(Path::new(DEV)) {
        let (name, modes, problem) = match device::describe(&node, None) {
            // Such as the second device file of a webcam, which has its metadata.
            Ok((_, modes)) if modes.is_empty() => continue,
            Ok((name, modes)) => (name, modes, None),
            Err(e) => (String::new(), Vec::new(), Some(format!("cannot be asked: {e}"))),
        };
        let device = find::stable_name(&node, Path::new(DEV));
        let node = node.display().to_string();
        listings.push(CameraListing { kind: CameraKind::V4l2, device, node, name, modes, problem });
    }
    listings
}

/// See the module.
pub(super) struct V4l2Camera {
    id: CameraId,
    description: String,
    watched: Watched,
    pace: Pace,
}

impl V4l2Camera {
    pub(super) fn open(id: &CameraId, options: &V4l2Options) -> Result<Self, CameraError> {
        let unusable = |message: String| CameraError::Unusable { name: id.to_string(), message };
        let node = find::find(&options.device, Path::new(DEV)).map_err(|hint| CameraError::NotFound {
            name: options.device.clone(),
            hint: format!("{hint}; `inspectord cameras` lists them"),
        })?;
        let (name, modes) = device::describe(&node, options.size)
            .map_err(|e| unusable(format!("{} cannot be asked what it can: {e}", options.device)))?;
        let mode = modes::choose(&modes, options).map_err(|why| unusable(format!("{name} {why}")))?;
        let stall = Duration::from_millis(options.stall_ms);
        let theirs = node.clone();
        let opened = Watched::open(id.as_str(), stall, move || device::open(&theirs, mode, stall));
        let watched = opened.map_err(|(GrabError::Bad(message) | GrabError::Lost(message))| {
            unusable(format!("{name} does not start: {message}"))
        })?;
        let Mode { format, size, .. } = mode;
        let rate = mode.rate();
        let format = format!("{format:?}").to_uppercase();
        let description = format!("{name} at {}, {size} {format}, {rate:.2} frames/s", options.device);
        Ok(Self { id: id.clone(), description, watched, pace: Pace::new(options.rate) })
    }
}

impl Camera for V4l2Camera {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn next(&mut self, wait: Duration) -> Result<Next, CameraError> {
        let asked = Instant::now();
        let deadline = asked + wait;
        if !self.pace.wait(deadline) {
            return Ok(Next::Nothing);
        }
        let name = self.id.to_string();
        match self.watched.next(deadline) {
            Ok(Waited::Nothing) => Ok(Next::Nothing),
            Ok(Waited::Frame(frame)) => {
                self.pace.delivered();
                let captured = frame.taken.unwrap_or(frame.arrived);
                Ok(Next::Frame(Box::new(Frame {
                    pixels: frame.pixels,
                    captured_at: clock::utc_of(&SystemClock, captured),
                    captured,
                    capture_time: asked.elapsed(),
                    source: None,
                    planted: None,
                })))
            }
            Err(GrabError::Bad(message)) => Err(CameraError::BadFrame { name, message, origin: None }),
            Err(GrabError::Lost(message)) => Err(CameraError::Lost { name, message }),
        }
    }
}

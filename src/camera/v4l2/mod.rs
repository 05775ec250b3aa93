//! Video4Linux cameras: webcams, capture cards, USB microscopes.
//!
//! In: a device's name and wishes. Out: frames, newest first. A camera that stalls is reported as lost after a time that
//! the settings give, and can be opened again. MJPEG is passed on as it is: a frame that lost its end on the way is
//! refused where it is decoded (`imaging`). Owned by one capture thread, beside the thread of `watched`.

mod device;
mod find;
mod modes;
mod tally;
mod watched;

use std::path::Path;
use std::time::{Duration, Instant};

use super::pace::Pace;
use super::{Camera, CameraError, CameraKind, CameraListing, Mode, Next, V4l2Options};
use crate::clock::{self, SystemClock};
use crate::frame::{CameraId, Frame, Losses};
use device::Opened;
use watched::{GrabError, Limits, Watched};

const DEV: &str = "/dev";
/// How long the first frame may take before a camera counts as open all the same, where its settings let it be silent for
/// longer: one that is exposed from outside may have no reason to deliver yet.
const FIRST_FRAME: Duration = Duration::from_secs(5);

/// The cameras of this box.
pub(super) fn list() -> Vec<CameraListing> {
    let mut listings = Vec::new();
    let mut cards = find::cards();
    for node in find::nodes(Path::new(DEV)) {
        let (name, modes, problem) = match device::describe(&node, None) {
            // Such as the second device file of a webcam, which has its metadata.
            Ok((_, modes)) if modes.is_empty() => continue,
            Ok((name, modes)) => (name, modes, None),
            Err(e) => {
                let card = find::number(&node).and_then(|number| cards.remove(&number));
                (card.unwrap_or_default(), Vec::new(), Some(format!("cannot be asked: {e}")))
            }
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
        let limits = Limits::of(Duration::from_millis(options.stall_ms));
        let wishes = options.clone();
        let opened = Watched::open(id.as_str(), limits, move || device::open(&node, &wishes, limits));
        let opened = opened.and_then(|(watched, opened)| {
            watched.await_sign(Instant::now() + FIRST_FRAME)?;
            Ok((watched, opened))
        });
        let (watched, Opened { card, mode }) =
            opened.map_err(|(GrabError::Bad(why, _) | GrabError::Lost(why))| {
                unusable(format!("{}: {why}", options.device))
            })?;
        let Mode { format, size, .. } = mode;
        let rate = mode.rate();
        let format = format!("{format:?}").to_uppercase();
        let description = format!("{card} at {}, {size} {format}, {rate:.2} frames/s", options.device);
        Ok(Self { id: id.clone(), description, watched, pace: Pace::new(options.rate) })
    }
}

impl V4l2Camera {
    fn error(&self, error: GrabError) -> CameraError {
        let name = self.id.to_string();
        match error {
            GrabError::Bad(message, taken) => CameraError::BadFrame { name, message, taken, origin: None },
            GrabError::Lost(message) => CameraError::Lost { name, message },
        }
    }
}

impl Camera for V4l2Camera {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn next(&mut self, wait: Duration) -> Result<Next, CameraError> {
        let deadline = Instant::now() + wait;
        if !self.pace.wait(deadline) {
            return Ok(Next::Nothing);
        }
        match self.watched.next(deadline).map_err(|error| self.error(error))? {
            None => Ok(Next::Nothing),
            Some(frame) => {
                self.pace.delivered();
                let captured = frame.taken.unwrap_or(frame.arrived);
                Ok(Next::Frame(Box::new(Frame {
                    pixels: frame.pixels,
                    captured_at: clock::utc_of(&SystemClock, captured),
                    captured,
                    source: None,
                    planted: None,
                })))
            }
        }
    }

    fn expose(&mut self) -> Result<(), CameraError> {
        self.watched.forget();
        Ok(())
    }

    fn check(&mut self) -> Result<(), CameraError> {
        self.watched.check().map_err(|error| self.error(error))
    }

    fn losses(&self) -> Losses {
        self.watched.losses()
    }
}

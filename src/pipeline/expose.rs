//! Exposing for a part: one frame, or a burst of several views, each exposed after it was due.
//!
//! In: a part that was triggered, and the camera. Out: the part with its frames, or the part concluded because they did
//! not come. What was taken before a view was due, whole or spoiled, is not for it. Runs on the capture
//! thread, which goes on showing signs of life. Not here: what triggers (`capture`).

use std::time::{Duration, Instant};

use super::delivered::Delivered;
use super::opening::TICK;
use super::options::Views;
use super::part::Part;
use crate::camera::{Camera, CameraError, Next};
use crate::frame::{Frame, SourceRef};
use crate::health::{LineHealth, Stage};
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::verdict::Reason;

/// What came of exposing.
pub(super) enum Exposed {
    /// All views are there.
    Part(Part),
    /// The part was concluded without them.
    Concluded,
    /// It was, since the replay has ended.
    Ended,
}

/// Why there is no frame for a view.
enum Missing {
    /// The time is up.
    Late,
    /// The program is being stopped.
    Stopping,
    /// The replay has ended.
    Ended,
    /// The frame that came is spoiled.
    Bad { origin: Option<SourceRef>, message: String },
    /// The camera is to be opened again.
    Failed(CameraError),
}

/// Takes parts' views.
pub(super) struct Exposure<'a> {
    pub(super) views: Views,
    pub(super) health: &'a LineHealth,
    pub(super) shutdown: &'a Shutdown,
}

impl Exposure<'_> {
    /// Takes the part's views; where it has no deadline, the last is given up `patience` after it was due.
    ///
    /// # Errors
    /// The camera must be opened again; the part was concluded.
    pub(super) fn take(
        &self,
        mut part: Part,
        camera: &mut dyn Camera,
        patience: Duration,
        delivered: &mut Delivered,
    ) -> Result<Exposed, CameraError> {
        part.asked(Instant::now());
        let (began, views) = (part.began(), self.views);
        let last = began + views.every * views.count.saturating_sub(1);
        let give_up_at = part.core().deadline().unwrap_or(last + patience);
        for view in 0..views.count {
            let due = began + views.every * view;
            let missing = match self.frame_after(due, give_up_at, &part, camera) {
                Ok(frame) => {
                    delivered.remember(frame.source.as_ref());
                    part = part.with_frame(*frame);
                    continue;
                }
                Err(missing) => missing,
            };
            let of = if views.count > 1 {
                format!(", view {} of {}", view + 1, views.count)
            } else {
                String::new()
            };
            part.timings.capture += part.lap();
            match missing {
                Missing::Late => {
                    part.give_up(
                        Reason::Camera,
                        format!("the camera gave no frame in time for the trigger{of}"),
                    );
                }
                Missing::Stopping => {
                    let detail =
                        format!("the program was being stopped while the part waited for its picture{of}");
                    part.give_up(Reason::Internal, detail);
                }
                Missing::Ended => {
                    part.give_up(Reason::Camera, format!("the camera's replay has ended{of}"));
                    return Ok(Exposed::Ended);
                }
                Missing::Bad { origin, message } => {
                    delivered.remember(origin.as_ref());
                    part.give_up_on(origin, format!("{message}{of}"));
                }
                Missing::Failed(failure) => {
                    part.give_up(Reason::Camera, format!("{}{of}", telemetry::chain(&failure)));
                    return Err(failure);
                }
            }
            return Ok(Exposed::Concluded);
        }
        Ok(Exposed::Part(part))
    }

    /// The first frame that was exposed at `due` or after it.
    fn frame_after(
        &self,
        due: Instant,
        give_up_at: Instant,
        part: &Part,
        camera: &mut dyn Camera,
    ) -> Result<Box<Frame>, Missing> {
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let over = || part.is_settled() || self.shutdown.requested() || left(give_up_at).is_zero();
        while !left(due).is_zero() && !over() {
            self.health.beat(Stage::Capture);
            self.shutdown.sleep(left(due).min(TICK));
        }
        if !over() {
            camera.expose().map_err(Missing::Failed)?;
        }
        loop {
            self.health.beat(Stage::Capture);
            if over() {
                let stopping = self.shutdown.requested() && !left(give_up_at).is_zero();
                return Err(if stopping { Missing::Stopping } else { Missing::Late });
            }
            match camera.next(left(give_up_at).min(TICK)) {
                Ok(Next::Frame(frame)) if frame.captured < due => {}
                Ok(Next::Frame(frame)) => return Ok(frame),
                Ok(Next::Nothing) => {}
                Ok(Next::End) => return Err(Missing::Ended),
                Err(CameraError::BadFrame { taken, .. }) if taken < due => {}
                Err(CameraError::BadFrame { origin, name, message, .. }) => {
                    let message = format!("camera `{name}` delivered a bad frame: {message}");
                    return Err(Missing::Bad { origin, message });
                }
                Err(failure) => return Err(Missing::Failed(failure)),
            }
        }
    }
}

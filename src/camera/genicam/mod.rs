//! GigE Vision and USB3 Vision cameras, through Aravis.
//!
//! In: a camera's name and what to write into it. Out: frames with the camera's own time stamps. Free-running, the newest
//! frame is delivered and older ones are let go, also while nobody asks; exposing by a line of its own, every frame is a part,
//! delivered in order, and one that never arrived is reported as a bad frame in its place, so that its part gets a verdict. A camera that goes
//! silent or away is lost, and opened and set up again by whoever asked. Owned by one capture thread; Aravis' receiving
//! thread fills buffers beside it, and when the capture thread leaves them unread, further frames are missed and counted.

mod find;
mod pixels;
mod setup;
mod timing;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use aravis::prelude::*;
use aravis::{Buffer, BufferStatus, GvStream, Stream};
use glib::prelude::Cast as _;
use tracing::warn;

use super::{Camera, CameraError, CameraListing, Exposure, GenicamOptions, Next};
use crate::clock::{self, SystemClock};
use crate::frame::{CameraId, Frame, Losses, Pixels, Size, check_picture_size};
use timing::{Arrival, CameraClock, FrameCounter};

/// Frames that may wait to be taken, at most: a quarter of a second at 60 a second.
const MOST_BUFFERS: u32 = 16;
/// And at least: one that is filled, one that is looked at, and some to bridge a pause.
const LEAST_BUFFERS: u32 = 4;
/// What all of them may take where more than the least would take more.
const BUFFER_BYTES: u32 = 256 << 20;
/// Missed frames of a camera with a trigger line that get a verdict each; of more, the rest is only counted.
const MOST_OWED: u64 = 256;
/// How far the camera's clock may be off.
const CLOCK_ERROR: Duration = Duration::from_millis(5);
/// The largest frame that memory is taken for.
const MAX_FRAME_BYTES: u32 = 256 << 20;

/// The cameras that can be reached now.
pub(super) fn list() -> Vec<CameraListing> {
    find::list()
}

fn buffers_for(frame_bytes: u32) -> u32 {
    (BUFFER_BYTES / frame_bytes.max(1)).clamp(LEAST_BUFFERS, MOST_BUFFERS)
}

/// See the module.
pub(super) struct GenicamCamera {
    id: CameraId,
    description: String,
    camera: aravis::Camera,
    stream: Stream,
    buffers: u32,
    expose: Exposure,
    stall: Duration,
    control_lost: Arc<AtomicBool>,
    /// When the last exposure was asked for.
    requested: Option<Instant>,
    /// Since when a frame has been due.
    waiting_since: Instant,
    clock: CameraClock,
    counter: FrameCounter,
    losses: Losses,
    /// A frame that has arrived and is delivered next.
    held: Option<Held>,
}

/// A frame, and how many before it never arrived and are to be reported first.
struct Held {
    buffer: Buffer,
    taken: Instant,
    owed: u64,
}

impl GenicamCamera {
    pub(super) fn open(id: &CameraId, options: &GenicamOptions) -> Result<Self, CameraError> {
        let camera = find::open(&options.camera)?;
        let unusable = |message: String| CameraError::Unusable { name: id.to_string(), message };
        let failed = |e: glib::Error| unusable(format!("it does not start: {}", e.message()));
        let known_as =
            |text: Result<glib::GString, glib::Error>| text.map_or_else(|_| "?".into(), String::from);
        let name = format!("{} {}", known_as(camera.vendor_name()), known_as(camera.model_name()));
        let format = setup::write(&camera, options).map_err(|why| unusable(format!("{name} {why}")))?;
        let stream = camera.create_stream().map_err(failed)?;
        let payload = camera.payload().map_err(failed)?;
        if payload > MAX_FRAME_BYTES {
            return Err(unusable(format!("{name} wants to send frames of {payload} bytes: lower `sensor`")));
        }
        let buffers = buffers_for(payload);
        for _ in 0..buffers {
            stream.push_buffer(Buffer::new_allocate(payload as usize));
        }
        let control_lost = Arc::new(AtomicBool::new(false));
        if let Some(device) = camera.device() {
            let lost = control_lost.clone();
            device.connect_control_lost(move |_| lost.store(true, Ordering::Release));
        }
        camera.start_acquisition().map_err(failed)?;
        let (.., width, height) = camera.region().unwrap_or_default();
        let expose = match &options.expose {
            Exposure::Free => "free-running".to_owned(),
            Exposure::Software => "exposing on request".to_owned(),
            Exposure::Line(line) => format!("exposing by {line}"),
        };
        Ok(Self {
            id: id.clone(),
            description: format!("{name} at {}, {width}x{height} {format}, {expose}", options.camera),
            camera,
            stream,
            buffers,
            expose: options.expose.clone(),
            stall: Duration::from_millis(options.stall_ms),
            control_lost,
            requested: None,
            waiting_since: Instant::now(),
            clock: CameraClock::default(),
            counter: FrameCounter::default(),
            losses: Losses::default(),
            held: None,
        })
    }

    fn lost(&self, message: impl Into<String>) -> CameraError {
        CameraError::Lost { name: self.id.to_string(), message: message.into() }
    }

    fn bad(&self, message: impl Into<String>, taken: Instant) -> CameraError {
        CameraError::BadFrame { name: self.id.to_string(), message: message.into(), taken, origin: None }
    }

    fn check_control(&self) -> Result<(), CameraError> {
        if self.control_lost.load(Ordering::Acquire) {
            return Err(self.lost("it no longer answers: look at its power and cable"));
        }
        Ok(())
    }

    /// Whether the camera should have delivered long ago. One that waits for its line may wait for ever.
    fn check_alive(&self) -> Result<(), CameraError> {
        self.check_control()?;
        let silent = self.waiting_since.elapsed();
        if self.expose == Exposure::Free && silent >= self.stall {
            return Err(self.lost(format!("no frame came for {} ms", silent.as_millis())));
        }
        Ok(())
    }

    /// Counts a buffer that arrived, whatever becomes of it; tells when it was taken, and what is to be reported before it.
    fn note(&mut self, buffer: Buffer) -> Held {
        let now = Instant::now();
        self.waiting_since = now;
        let missed = self.counter.missed_before(buffer.frame_id());
        if missed > 0 {
            self.losses.missed_frames += missed;
            warn!(camera = %self.id, missed, before = buffer.frame_id(), "frames of the camera never arrived");
        }
        let owed = if matches!(self.expose, Exposure::Line(_)) { missed.min(MOST_OWED) } else { 0 };
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall = u64::try_from(wall.as_nanos()).unwrap_or(0);
        let arrival = Arrival::new(now, wall, buffer.timestamp(), buffer.system_timestamp());
        let taken = if buffer.status() == BufferStatus::Success {
            self.clock.taken(arrival)
        } else {
            self.losses.incomplete_frames += 1;
            self.clock.begun(arrival)
        };
        // An exposure on request cannot have begun before it, and a trigger refuses what seems older than itself.
        let taken = match self.requested {
            Some(requested) if taken < requested && requested - taken < CLOCK_ERROR => requested,
            _ => taken,
        };
        Held { buffer, taken, owed }
    }

    /// Lets go of the frames that wait, unless each of them is a part.
    fn let_go(&mut self) {
        if matches!(self.expose, Exposure::Line(_)) {
            return;
        }
        let mut waited = 0;
        while let Some(buffer) = self.stream.try_pop_buffer() {
            let Held { buffer, .. } = self.note(buffer);
            self.stream.push_buffer(buffer);
            waited += 1;
        }
        // With no buffer left to fill, frames were missed that nobody wanted.
        if waited + 1 >= self.buffers {
            self.counter = FrameCounter::default();
        }
    }

    /// The frame in `buffer`, which was taken then; the buffer goes back to be filled again.
    fn take(&mut self, buffer: Buffer, taken: Instant) -> Result<Next, CameraError> {
        let frame = match buffer.status() {
            BufferStatus::Success => self.frame(&buffer, taken),
            BufferStatus::SizeMismatch => Err(self.lost("its frames have another size than was agreed upon")),
            BufferStatus::MissingPackets | BufferStatus::Timeout => {
                Err(self
                    .bad("parts of it were lost on the way: look at packet_size, cable and switch", taken))
            }
            other => Err(self.bad(format!("it was not received as a whole ({other:?})"), taken)),
        };
        self.stream.push_buffer(buffer);
        frame
    }

    fn frame(&self, buffer: &Buffer, captured: Instant) -> Result<Next, CameraError> {
        let number = buffer.image_pixel_format().raw();
        let Some(format) = pixels::layout(number) else {
            return Err(self.lost(format!("its pixel format changed to {number:#010x}, which is not read")));
        };
        let side = |v: i32| u32::try_from(v).unwrap_or(0);
        let size = Size::new(side(buffer.image_width()), side(buffer.image_height()));
        check_picture_size(size).map_err(|e| self.bad(e.to_string(), captured))?;
        let Some(row) = format.row_bytes(size.width as usize) else {
            return Err(self.lost(format!("rows of {size} do not fill whole bytes: change `sensor`")));
        };
        let stride = row + usize::try_from(buffer.image_padding().0).unwrap_or(0);
        Ok(Next::Frame(Box::new(Frame {
            pixels: Pixels::Raw { size, format, stride, bytes: buffer.image_data() },
            captured_at: clock::utc_of(&SystemClock, captured),
            captured,
            source: None,
            planted: None,
        })))
    }
}

impl Camera for GenicamCamera {
    fn describe(&self) -> String {
        self.description.clone()
    }

    fn next(&mut self, wait: Duration) -> Result<Next, CameraError> {
        // Not yet whether it is silent: frames may wait that nobody has asked for.
        self.check_control()?;
        let mut held = match self.held.take() {
            Some(held) => held,
            None => {
                let wait = wait.as_micros().try_into().unwrap_or(u64::MAX);
                let Some(buffer) = self.stream.timeout_pop_buffer(wait) else {
                    return self.check_alive().map(|()| Next::Nothing);
                };
                self.note(buffer)
            }
        };
        while self.expose == Exposure::Free
            && let Some(newer) = self.stream.try_pop_buffer()
        {
            let newer = self.note(newer);
            self.stream.push_buffer(std::mem::replace(&mut held, newer).buffer);
        }
        if held.owed == 0 {
            return self.take(held.buffer, held.taken);
        }
        // Whoever counts parts must not get this frame for one that came before it.
        let taken = held.taken.checked_sub(Duration::from_micros(held.owed)).unwrap_or(held.taken);
        held.owed -= 1;
        self.held = Some(held);
        Err(self.bad(
            "the camera exposed it and it never arrived: look at cable, switch and processor load",
            taken,
        ))
    }

    fn expose(&mut self) -> Result<(), CameraError> {
        self.let_go();
        if self.expose != Exposure::Software {
            return Ok(());
        }
        self.requested = Some(Instant::now());
        self.camera
            .software_trigger()
            .map_err(|e| self.lost(format!("it takes no software trigger: {}", e.message())))
    }

    fn check(&mut self) -> Result<(), CameraError> {
        self.let_go();
        self.check_alive()
    }

    fn losses(&self) -> Losses {
        let packets = self.stream.downcast_ref::<GvStream>().map_or(0, |stream| stream.statistics().1);
        Losses { missing_packets: packets, ..self.losses }
    }
}

impl Drop for GenicamCamera {
    fn drop(&mut self) {
        // Asking a camera that is gone would take as long as all its retries.
        if !self.control_lost.load(Ordering::Acquire) {
            let _may_be_gone = self.camera.stop_acquisition();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_frames_get_fewer_buffers() {
        let bytes = [0, 5_000_000, 20_000_000, 65_000_000, MAX_FRAME_BYTES];
        assert_eq!(bytes.map(buffers_for), [16, 16, 13, 4, 4]);
    }
}

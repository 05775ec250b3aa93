//! The hardware: V4L2 devices, asked what they can and told what to do, through the `v4l` bindings.
//!
//! In: a device file and wishes. Out: modes, and frames. Runs on the thread of `watched`, since each call may hang with
//! the driver. Not here: decisions (`modes`, `find`), counting (`tally`), waiting (`watched`).

use std::io;
use std::mem::ManuallyDrop;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tracing::warn;
use v4l::buffer::{Flags, Metadata, Type};
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::io::traits::{CaptureStream, Stream as _};
use v4l::prelude::MmapStream;
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Device, Format, FourCC, Fraction};

use super::modes;
use super::tally::Tally;
use super::watched::{GrabError, Grabbed, Grabber, Limits};
use crate::camera::{Mode, V4l2Format, V4l2Options};
use crate::frame::{Losses, Mosaic, PixelFormat, Pixels, Range, Samples, Size};

/// Each code that can be read, what the settings call it, and its layout; none for MJPEG. Of several codes for one name
/// the first that a device offers is taken.
const FORMATS: [(&[u8; 4], V4l2Format, Option<PixelFormat>); 24] = [
    (b"RGB3", V4l2Format::Rgb, Some(PixelFormat::Rgb8)),
    (b"BGR3", V4l2Format::Bgr, Some(PixelFormat::Bgr8)),
    (b"YUYV", V4l2Format::Yuyv, Some(PixelFormat::Yuyv(Range::Limited))),
    (b"UYVY", V4l2Format::Uyvy, Some(PixelFormat::Uyvy(Range::Limited))),
    (b"NV12", V4l2Format::Nv12, Some(PixelFormat::Nv12)),
    (b"MJPG", V4l2Format::Mjpeg, None),
    (b"JPEG", V4l2Format::Mjpeg, None),
    (b"GREY", V4l2Format::Grey, mono(Samples::U8)),
    (b"Y800", V4l2Format::Grey, mono(Samples::U8)),
    (b"Y10 ", V4l2Format::Grey, mono(Samples::U10)),
    (b"Y12 ", V4l2Format::Grey, mono(Samples::U12)),
    (b"Y16 ", V4l2Format::Grey, mono(Samples::U16)),
    (b"RGGB", V4l2Format::Bayer, bayer(Mosaic::RgGb, Samples::U8)),
    (b"BA81", V4l2Format::Bayer, bayer(Mosaic::BgGr, Samples::U8)),
    (b"GRBG", V4l2Format::Bayer, bayer(Mosaic::GrBg, Samples::U8)),
    (b"GBRG", V4l2Format::Bayer, bayer(Mosaic::GbRg, Samples::U8)),
    (b"RG10", V4l2Format::Bayer, bayer(Mosaic::RgGb, Samples::U10)),
    (b"BG10", V4l2Format::Bayer, bayer(Mosaic::BgGr, Samples::U10)),
    (b"BA10", V4l2Format::Bayer, bayer(Mosaic::GrBg, Samples::U10)),
    (b"GB10", V4l2Format::Bayer, bayer(Mosaic::GbRg, Samples::U10)),
    (b"RG12", V4l2Format::Bayer, bayer(Mosaic::RgGb, Samples::U12)),
    (b"BG12", V4l2Format::Bayer, bayer(Mosaic::BgGr, Samples::U12)),
    (b"BA12", V4l2Format::Bayer, bayer(Mosaic::GrBg, Samples::U12)),
    (b"GB12", V4l2Format::Bayer, bayer(Mosaic::GbRg, Samples::U12)),
];

const fn mono(samples: Samples) -> Option<PixelFormat> {
    Some(PixelFormat::Mono(samples))
}

const fn bayer(mosaic: Mosaic, samples: Samples) -> Option<PixelFormat> {
    Some(PixelFormat::Bayer(mosaic, samples))
}

/// Frames that the driver may have ready; more would only grow old.
const BUFFERS: u32 = 4;
/// The most sizes and rates that are asked for; some drivers list endlessly.
const MAX_LISTED: usize = 512;

/// What a device calls itself, and its modes; those that depend on wishes are listed as far as `wished` goes. A device
/// that delivers no pictures, such as a camera's metadata, has none.
pub(super) fn describe(node: &Path, wished: Option<Size>) -> io::Result<(String, Vec<Mode>)> {
    let device = Device::with_path(node)?;
    let capabilities = device.query_caps()?;
    if !capabilities.capabilities.contains(v4l::capability::Flags::VIDEO_CAPTURE) {
        return Ok((capabilities.card, Vec::new()));
    }
    let mut modes = Vec::new();
    for description in device.enum_formats()? {
        let Some((_, format, _)) = FORMATS.iter().find(|(code, ..)| **code == description.fourcc.repr) else {
            continue;
        };
        for size in sizes(&device, description.fourcc, wished) {
            for interval in intervals(&device, description.fourcc, size) {
                let mode = Mode { format: *format, size, interval };
                // Several codes may mean one format.
                if modes.len() < MAX_LISTED && !modes.contains(&mode) {
                    modes.push(mode);
                }
            }
        }
    }
    Ok((capabilities.card, modes))
}

/// A device that does not list sizes, such as a capture card, is taken at the one that it is set to, or at the wished one.
fn sizes(device: &Device, fourcc: FourCC, wished: Option<Size>) -> Vec<Size> {
    let mut sizes = Vec::new();
    for item in device.enum_framesizes(fourcc).unwrap_or_default().into_iter().take(MAX_LISTED) {
        match item.size {
            FrameSizeEnum::Discrete(d) => sizes.push(Size::new(d.width, d.height)),
            FrameSizeEnum::Stepwise(s) => {
                sizes.push(Size::new(s.max_width, s.max_height));
                let on_grid = |v: u32, min: u32, max: u32, step: u32| {
                    (min..=max).contains(&v) && (v - min).is_multiple_of(step.max(1))
                };
                sizes.extend(wished.filter(|w| {
                    on_grid(w.width, s.min_width, s.max_width, s.step_width)
                        && on_grid(w.height, s.min_height, s.max_height, s.step_height)
                }));
            }
        }
    }
    if sizes.is_empty() {
        sizes.extend(device.format().map(|now| Size::new(now.width, now.height)).ok());
        sizes.extend(wished);
    }
    sizes
}

/// A device that does not list rates is taken at the one that it is set to, or at [`Mode::UNKNOWN_RATE`].
fn intervals(device: &Device, fourcc: FourCC, size: Size) -> Vec<(u32, u32)> {
    let pair = |f: Fraction| (f.numerator, f.denominator);
    let listed = device.enum_frameintervals(fourcc, size.width, size.height).unwrap_or_default();
    let listed: Vec<_> = listed
        .into_iter()
        .take(MAX_LISTED)
        .map(|item| match item.interval {
            FrameIntervalEnum::Discrete(fraction) => pair(fraction),
            FrameIntervalEnum::Stepwise(range) => pair(range.min),
        })
        .collect();
    if listed.is_empty() {
        let now = device.params().map(|p| pair(p.interval)).ok();
        vec![now.filter(|(seconds, frames)| *seconds > 0 && *frames > 0).unwrap_or(Mode::UNKNOWN_RATE)]
    } else {
        listed
    }
}

/// What was opened.
pub(super) struct Opened {
    /// What the device calls itself.
    pub(super) card: String,
    pub(super) mode: Mode,
}

/// Starts the device behind `node` in the mode that suits `wishes` best.
pub(super) fn open(
    node: &Path,
    wishes: &V4l2Options,
    limits: Limits,
) -> Result<(Box<dyn Grabber>, Opened), GrabError> {
    let (card, modes) = describe(node, wishes.size).map_err(|e| refused(&e))?;
    let unsuited = |why: String| GrabError::Lost(format!("{card} {why}"));
    let mode = modes::choose(&modes, wishes).map_err(unsuited)?;
    let stream = Stream::open(node, mode, limits).map_err(|e| refused(&e))?;
    Ok((Box::new(stream), Opened { card, mode }))
}

/// Why a device cannot be opened, and the remedy.
fn refused(error: &io::Error) -> GrabError {
    GrabError::Lost(match Errno::from_io_error(error) {
        Some(Errno::BUSY) => "another program uses it: close that program".into(),
        Some(Errno::ACCESS) => "it may not be opened: add the user to the group `video`".into(),
        Some(Errno::NODEV) => "it was unplugged, or its driver is gone".into(),
        Some(Errno::PERM) => "it may not be opened: allow the service its device (DeviceAllow=)".into(),
        _ => error.to_string(),
    })
}

/// Why a device that was streaming gives no more frames.
fn lost(error: &io::Error, stall: Duration) -> GrabError {
    GrabError::Lost(match (error.kind(), Errno::from_io_error(error)) {
        (io::ErrorKind::TimedOut, _) => format!("no frame came for {} ms", stall.as_millis()),
        (_, Some(Errno::NODEV)) => "it was unplugged".into(),
        (_, Some(Errno::IO)) => "its driver reports a failed transfer: look at cable and power".into(),
        _ => error.to_string(),
    })
}

/// A stream of memory-mapped buffers.
struct Stream {
    /// Dropped by [`Stream::drop`] alone.
    stream: ManuallyDrop<MmapStream<'static>>,
    format: Format,
    layout: Option<PixelFormat>,
    limits: Limits,
    /// Whether a frame has come.
    delivers: bool,
    tally: Tally,
    // Behind the stream, so that it is closed after it.
    _device: Device,
}

impl Stream {
    fn open(node: &Path, mode: Mode, limits: Limits) -> io::Result<Self> {
        let device = Device::with_path(node)?;
        let codes = FORMATS.iter().filter(|(_, format, _)| *format == mode.format);
        let listed = device.enum_formats()?;
        let (code, layout) = codes
            .map(|(code, _, layout)| (FourCC::new(code), *layout))
            .find(|(code, _)| listed.iter().any(|description| description.fourcc == *code))
            .ok_or_else(|| io::Error::other("it no longer offers this format"))?;
        let format = device.set_format(&Format::new(mode.size.width, mode.size.height, code))?;
        if (format.width, format.height, format.fourcc) != (mode.size.width, mode.size.height, code) {
            let got = Size::new(format.width, format.height);
            return Err(io::Error::other(format!("it delivers {got} {} instead", format.fourcc)));
        }
        // Some drivers have one rate only and refuse to be told.
        let (seconds, frames) = mode.interval;
        if mode.interval != Mode::UNKNOWN_RATE {
            let _keeps_its_own = device.set_params(&Parameters::new(Fraction::new(seconds, frames)));
        }
        let stream = ManuallyDrop::new(MmapStream::with_buffers(&device, Type::VideoCapture, BUFFERS)?);
        Ok(Self { stream, format, layout, limits, delivers: false, tally: Tally::default(), _device: device })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // The bindings panic where stopping fails, and once more where giving back the buffers then fails, which would end the
        // whole program.
        if let Err(e) = self.stream.stop()
            && Errno::from_io_error(&e) != Some(Errno::NODEV)
        {
            warn!(error = %e, "the camera's driver refuses to stop; its buffers are left behind until the program ends");
            return;
        }
        // SAFETY: nobody uses it after this, and this is done once.
        unsafe { ManuallyDrop::drop(&mut self.stream) };
    }
}

impl Grabber for Stream {
    fn grab(&mut self) -> Result<Grabbed, GrabError> {
        let waited = if self.delivers { self.limits.stall } else { self.limits.first };
        self.stream.set_timeout(waited);
        let (bytes, meta) = self.stream.next().map_err(|e| lost(&e, waited))?;
        let arrived = Instant::now();
        let taken = taken(meta, arrived);
        self.delivers = true;
        let damaged = meta.flags.contains(Flags::ERROR);
        self.tally.note(meta.sequence, damaged);
        if damaged {
            let why = "the driver marked it as damaged".into();
            return Err(GrabError::Bad(why, taken.unwrap_or(arrived)));
        }
        let bytes = bytes.get(..meta.bytesused as usize).unwrap_or(bytes).to_vec();
        let pixels = match self.layout {
            None => Pixels::Encoded(bytes),
            Some(format) => Pixels::Raw {
                size: Size::new(self.format.width, self.format.height),
                format,
                stride: self.format.stride as usize,
                bytes,
            },
        };
        Ok(Grabbed { pixels, taken, arrived })
    }

    fn losses(&self) -> Losses {
        self.tally.losses()
    }
}

/// When the driver says that a frame was taken, if it says so by this program's clock.
fn taken(meta: &Metadata, arrived: Instant) -> Option<Instant> {
    let monotonic = meta.flags & Flags::TIMESTAMP_MASK == Flags::TIMESTAMP_MONOTONIC;
    let age = monotonic.then(|| since_boot()?.checked_sub(meta.timestamp.into())).flatten();
    age.and_then(|age: Duration| Instant::now().checked_sub(age)).map(|t| t.min(arrived))
}

/// The clock that drivers stamp frames with.
fn since_boot() -> Option<Duration> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Some(Duration::new(now.tv_sec.try_into().ok()?, now.tv_nsec.try_into().ok()?))
}

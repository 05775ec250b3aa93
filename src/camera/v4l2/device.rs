//! The hardware: V4L2 devices, asked what they can and told what to do.
//!
//! In: a device file and a mode. Out: frames. [`Stream`] speaks V4L2 through the `v4l` bindings, [`Webcam`] through nokhwa,
//! which stands on the same bindings and is tried first for what it knows: whole rates, and no GREY or UYVY. Not here:
//! decisions (`modes`, `find`), waiting (`watched`).

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nokhwa::Camera as Nokhwa;
use nokhwa::utils::{
    ApiBackend, CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType, Resolution,
};
use v4l::buffer::{Flags, Type};
use v4l::frameinterval::FrameIntervalEnum;
use v4l::framesize::FrameSizeEnum;
use v4l::io::traits::CaptureStream;
use v4l::prelude::MmapStream;
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Device, Format, FourCC, Fraction};

use super::find::number;
use super::modes::whole_rate;
use super::watched::{GrabError, Grabbed, Grabber};
use crate::camera::{Mode, V4l2Format};
use crate::frame::{Mosaic, PixelFormat, Pixels, Samples, Size};

/// Each code that can be read, what the settings call it, and its layout; none for MJPEG. Of several codes for one name
/// the first that a device offers is taken.
const FORMATS: [(&[u8; 4], V4l2Format, Option<PixelFormat>); 24] = [
    (b"RGB3", V4l2Format::Rgb, Some(PixelFormat::Rgb8)),
    (b"BGR3", V4l2Format::Bgr, Some(PixelFormat::Bgr8)),
    (b"YUYV", V4l2Format::Yuyv, Some(PixelFormat::Yuyv)),
    (b"UYVY", V4l2Format::Uyvy, Some(PixelFormat::Uyvy)),
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
        for size in sizes(&device, description.fourcc, wished)? {
            for interval in intervals(&device, description.fourcc, size) {
                modes.push(Mode { format: *format, size, interval });
            }
        }
    }
    modes.truncate(MAX_LISTED);
    Ok((capabilities.card, modes))
}

fn sizes(device: &Device, fourcc: FourCC, wished: Option<Size>) -> io::Result<Vec<Size>> {
    let mut sizes = Vec::new();
    for item in device.enum_framesizes(fourcc)?.into_iter().take(MAX_LISTED) {
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
    Ok(sizes)
}

/// A device that does not list rates is taken at the one that it is set to.
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
        device.params().map(|p| vec![pair(p.interval)]).unwrap_or_default()
    } else {
        listed
    }
}

/// Starts `mode` on the device behind `node`.
pub(super) fn open(node: &Path, mode: Mode, stall: Duration) -> Result<Box<dyn Grabber>, GrabError> {
    if let Some(webcam) = Webcam::open(node, mode) {
        return Ok(Box::new(webcam));
    }
    let failed = |e: io::Error| {
        GrabError::Lost(match e.raw_os_error() {
            Some(16) => "another program uses it: close that program".into(),
            Some(13) => "it may not be opened: add the user to the group `video`".into(),
            _ => e.to_string(),
        })
    };
    Stream::open(node, mode, stall).map(|stream| Box::new(stream) as Box<dyn Grabber>).map_err(failed)
}

/// A stream of memory-mapped buffers.
struct Stream {
    stream: MmapStream<'static>,
    format: Format,
    layout: Option<PixelFormat>,
    // Behind the stream, so that it is closed after it.
    _device: Device,
}

impl Stream {
    fn open(node: &Path, mode: Mode, stall: Duration) -> io::Result<Self> {
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
        let _keeps_its_own =
            device.set_params(&Parameters::new(Fraction::new(mode.interval.0, mode.interval.1)));
        let mut stream = MmapStream::with_buffers(&device, Type::VideoCapture, 4)?;
        stream.set_timeout(stall);
        Ok(Self { stream, format, layout, _device: device })
    }
}

impl Grabber for Stream {
    fn grab(&mut self) -> Result<Grabbed, GrabError> {
        let (bytes, meta) = self.stream.next().map_err(|e| GrabError::Lost(e.to_string()))?;
        let arrived = Instant::now();
        if meta.flags.contains(Flags::ERROR) {
            return Err(GrabError::Bad("the driver marked it as damaged".into()));
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
        let monotonic = meta.flags & Flags::TIMESTAMP_MASK == Flags::TIMESTAMP_MONOTONIC;
        let age = monotonic.then(|| since_boot()?.checked_sub(meta.timestamp.into())).flatten();
        let taken = age.and_then(|age: Duration| Timestamp::now().checked_sub(age).ok());
        Ok(Grabbed { pixels, taken, arrived })
    }
}

/// The clock that drivers stamp frames with.
fn since_boot() -> Option<Duration> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Some(Duration::new(now.tv_sec.try_into().ok()?, now.tv_nsec.try_into().ok()?))
}

/// A camera behind nokhwa.
struct Webcam {
    camera: Nokhwa,
    mode: Mode,
}

impl Webcam {
    /// None where nokhwa does not know the mode or does not get on with the camera.
    fn open(node: &Path, mode: Mode) -> Option<Self> {
        let format = match mode.format {
            V4l2Format::Rgb => FrameFormat::RAWRGB,
            V4l2Format::Bgr => FrameFormat::RAWBGR,
            V4l2Format::Yuyv => FrameFormat::YUYV,
            V4l2Format::Nv12 => FrameFormat::NV12,
            V4l2Format::Mjpeg => FrameFormat::MJPEG,
            V4l2Format::Uyvy | V4l2Format::Grey | V4l2Format::Bayer | V4l2Format::Auto => return None,
        };
        let resolution = Resolution::new(mode.size.width, mode.size.height);
        let wanted = CameraFormat::new(resolution, format, whole_rate(&mode)?);
        let formats = [format];
        let request = RequestedFormat::with_formats(RequestedFormatType::Exact(wanted), &formats);
        let index = CameraIndex::Index(number(node)?);
        let mut camera = Nokhwa::with_backend(index, request, ApiBackend::Video4Linux).ok()?;
        camera.open_stream().ok()?;
        Some(Self { camera, mode })
    }
}

impl Grabber for Webcam {
    fn grab(&mut self) -> Result<Grabbed, GrabError> {
        let frame = self.camera.frame().map_err(|e| GrabError::Lost(e.to_string()))?;
        let arrived = Instant::now();
        let taken = frame
            .capture_timestamp()
            .and_then(|t| Timestamp::from_nanosecond(t.as_nanos().try_into().ok()?).ok());
        let size = self.mode.size;
        let bytes = frame.buffer().to_vec();
        let layout = FORMATS.iter().find(|(_, format, _)| *format == self.mode.format).and_then(|f| f.2);
        let pixels = match layout {
            None => Pixels::Encoded(bytes),
            // nokhwa does not tell the stride; webcams leave no gaps.
            Some(format) => {
                let stride = format.row_bytes(size.width as usize).unwrap_or_default();
                Pixels::Raw { size, format, stride, bytes }
            }
        };
        Ok(Grabbed { pixels, taken, arrived })
    }
}

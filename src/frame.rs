//! Frames: what a camera hands to the pipeline, and the picture that comes out of decoding.
//!
//! Pure data with its invariants; no decoding (`imaging`), no hardware (`camera`), no clocks.

mod format;
mod source;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use format::{Mosaic, PixelFormat, Range, Samples};
pub use source::{FileKey, SourceRef};

/// The longest side a picture may have, in pixels; larger ones are refused before memory is taken.
pub const MAX_PICTURE_SIDE: u32 = 16_384;
/// The most pixels a picture may have (64 MiPx, 192 MiB as RGB8).
pub const MAX_PICTURE_PIXELS: u64 = 64 << 20;
/// The most bytes an encoded picture may have.
pub const MAX_ENCODED_BYTES: u64 = 256 << 20;

/// The name of a camera: 1–64 of `a–z A–Z 0–9 _ -`, so that it is safe as a topic level and as a folder name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CameraId(Arc<str>);

/// A name that cannot be a camera's.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` cannot name a camera: use 1 to 64 of the characters a-z A-Z 0-9 _ -")]
pub struct InvalidCameraId(String);

impl CameraId {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CameraId {
    type Err = InvalidCameraId;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if (1..=64).contains(&name.len()) && name.bytes().all(legal) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidCameraId(name.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for CameraId {
    type Error = InvalidCameraId;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<CameraId> for String {
    fn from(id: CameraId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for CameraId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CameraId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Width and height in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Size {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Size {
    /// A size; zero sides are legal here and refused where they matter.
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// Columns times rows.
    pub const fn pixels(self) -> u64 {
        self.width as u64 * self.height as u64
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// A size that is not written `WIDTHxHEIGHT`.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("`{0}` is no size: write WIDTHxHEIGHT in pixels, for example 256x256")]
pub struct InvalidSize(String);

impl FromStr for Size {
    type Err = InvalidSize;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidSize(text.chars().take(40).collect());
        let (width, height) = text.split_once(['x', 'X']).ok_or_else(invalid)?;
        let side = |s: &str| s.trim().parse().map_err(|_| invalid());
        Ok(Self { width: side(width)?, height: side(height)? })
    }
}

/// A rectangle inside a picture, in pixels from its upper left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// A decoded picture: RGB, 8 bits a channel, interleaved, rows without padding.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    size: Size,
    rgb: Vec<u8>,
}

/// Pixels that do not make a picture.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InvalidPicture {
    /// A side is zero, or beyond the limits.
    #[error(
        "a picture of {0} is refused: sides must be 1 to {MAX_PICTURE_SIDE} and at most {MAX_PICTURE_PIXELS} pixels in all"
    )]
    Size(Size),
    /// The number of bytes is not what the size needs.
    #[error("a picture of {size} needs {expected} bytes, got {got}")]
    Bytes {
        /// The size that was claimed.
        size: Size,
        /// Bytes that it needs.
        expected: u64,
        /// Bytes that were there.
        got: u64,
    },
}

/// Whether a picture of `size` is within the limits; to be asked before any memory is taken for it.
pub fn check_picture_size(size: Size) -> Result<(), InvalidPicture> {
    let side = |s| (1..=MAX_PICTURE_SIDE).contains(&s);
    if side(size.width) && side(size.height) && size.pixels() <= MAX_PICTURE_PIXELS {
        Ok(())
    } else {
        Err(InvalidPicture::Size(size))
    }
}

impl Picture {
    /// A picture from interleaved RGB8 rows.
    pub fn new(size: Size, rgb: Vec<u8>) -> Result<Self, InvalidPicture> {
        check_picture_size(size)?;
        let expected = size.pixels() * 3;
        if rgb.len() as u64 == expected {
            Ok(Self { size, rgb })
        } else {
            Err(InvalidPicture::Bytes { size, expected, got: rgb.len() as u64 })
        }
    }

    /// Its size.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Its pixels: `height × width × 3`, row by row, R G B.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// Its pixels, to be drawn upon.
    pub fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }

    /// Its pixels, given up.
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({})", self.size)
    }
}

/// What a camera delivered, as it delivered it.
#[derive(Clone)]
pub enum Pixels {
    /// A PNG, JPEG, BMP or TIFF file, or one MJPEG frame.
    Encoded(Vec<u8>),
    /// Plain rows.
    Raw {
        /// Columns and rows.
        size: Size,
        /// Their layout.
        format: PixelFormat,
        /// Bytes from one row's start to the next (of the first plane).
        stride: usize,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

impl fmt::Debug for Pixels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoded(bytes) => write!(f, "Encoded({} bytes)", bytes.len()),
            Self::Raw { size, format, bytes, .. } => {
                write!(f, "Raw({size} {format:?}, {} bytes)", bytes.len())
            }
        }
    }
}

/// One exposure, as the camera delivered it.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its pixels.
    pub pixels: Pixels,
    /// When the exposure was taken, as well as the source can tell, in UTC.
    pub captured_at: Timestamp,
    /// The same moment on the monotonic clock, from which latencies are measured.
    pub captured: Instant,
    /// Set where the frame can be met again after a restart.
    pub source: Option<SourceRef>,
    /// What the simulated line planted; never known to the detector, only to the demo's score card.
    pub planted: Option<Planted>,
}

/// What a camera sent, or counted, and nobody received as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Frames that the camera counted and that never arrived.
    pub missed_frames: u64,
    /// Frames that arrived in part.
    pub incomplete_frames: u64,
    /// Network packets that never arrived, not even when they were asked for again.
    pub missing_packets: u64,
}

/// The truth about a simulated part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Planted {
    /// Nothing is wrong with it.
    Normal,
    /// It has this defect.
    Defect(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_name_is_safe_as_topic_and_folder() {
        for bad in ["", "a/b", "..", "a b", "ä", "+", "#", &"x".repeat(65)] {
            assert!(bad.parse::<CameraId>().is_err(), "{bad}");
        }
        assert_eq!("top-cam_1".parse::<CameraId>().unwrap().as_str(), "top-cam_1");
    }

    #[test]
    fn a_picture_holds_exactly_its_pixels() {
        assert!(Picture::new(Size::new(2, 3), vec![0; 18]).is_ok());
        assert!(matches!(
            Picture::new(Size::new(2, 3), vec![0; 17]),
            Err(InvalidPicture::Bytes { expected: 18, got: 17, .. })
        ));
        assert!(matches!(Picture::new(Size::new(30_000, 30_000), vec![]), Err(InvalidPicture::Size(_))));
        assert!(matches!(Picture::new(Size::new(0, 3), vec![]), Err(InvalidPicture::Size(_))));
    }

    #[test]
    fn a_size_is_written_width_x_height() {
        assert_eq!("320x240".parse(), Ok(Size::new(320, 240)));
        assert!("320".parse::<Size>().is_err());
        assert!("-1x5".parse::<Size>().is_err());
    }
}

//! Why a picture is not there, in words that name what was wrong with it.

use std::path::PathBuf;

use thiserror::Error;

use super::format::Format;
use crate::frame::{InvalidPicture, MAX_ENCODED_BYTES, PixelFormat, Size};

/// The most bytes that a PNG, BMP or TIFF may take while it is decoded: 64 MiPx of RGB at 8 bits fit, at 16 bits 42 MiPx do.
/// A JPEG, of 8 bits always, is bounded by its pixels.
pub(super) const MAX_DECODED_BYTES: u64 = 256 << 20;

/// Why bytes did not become a picture.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// They are something else.
    #[error("this is no PNG, JPEG, BMP or TIFF picture but {0}")]
    NotAPicture(&'static str),
    /// A kind of picture that is not read.
    #[error("this {format} holds {what}, which is not read: save it as 8- or 16-bit grey or RGB", format = format.name())]
    Unsupported {
        /// What it is.
        format: Format,
        /// What it holds.
        what: String,
    },
    /// It claims to be larger than any camera's.
    #[error(transparent)]
    TooLarge(#[from] InvalidPicture),
    /// It would take too much memory.
    #[error(
        "a picture of {size} with {bytes} bytes is refused: at most {MAX_DECODED_BYTES} are taken for one"
    )]
    TooManyBytes {
        /// Its size.
        size: Size,
        /// What it would take.
        bytes: u64,
    },
    /// Decoding it would take too much memory.
    #[error(
        "decoding the {format} would take more than {MAX_DECODED_BYTES} bytes: save it smaller, or with 8 bits a channel",
        format = format.name()
    )]
    TooMuchToDecode {
        /// What it is.
        format: Format,
    },
    /// Damage of such a picture would not show.
    #[error("this is JPEG inside TIFF, which is not read: save it uncompressed, or with LZW or Deflate")]
    JpegInTiff,
    /// It is damaged or cut off.
    #[error("the {format} is damaged or cut off: {message}", format = format.name())]
    Damaged {
        /// What it is.
        format: Format,
        /// What is wrong.
        message: String,
    },
    /// A raw frame does not fit its own description.
    #[error("a raw {format:?} frame of {size} is malformed: {message}")]
    Raw {
        /// Its layout.
        format: PixelFormat,
        /// Its size.
        size: Size,
        /// What does not fit.
        message: String,
    },
}

/// Why a file did not become a picture.
#[derive(Debug, Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}", path = path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is a folder, a pipe or a device.
    #[error("{path} is not a file", path = .0.display())]
    NotAFile(PathBuf),
    /// It is larger than any picture.
    #[error("{path} has {bytes} bytes: pictures of more than {MAX_ENCODED_BYTES} are not read", path = path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// Its content does not decode.
    #[error("{path} cannot be decoded: {source}", path = path.display())]
    Decode {
        /// Which.
        path: PathBuf,
        /// Why.
        source: DecodeError,
    },
}

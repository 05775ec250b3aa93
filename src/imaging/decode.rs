//! Decoding: PNG, JPEG, BMP and TIFF by content, and the raw layouts of cameras, to RGB8.
//!
//! In: bytes from cameras, folders and datasets, all of them hostile. Out: a [`Picture`] that is complete, or an error
//! that says why not: a picture that is damaged anywhere is refused, since a detector would take the damage for a
//! defect or, worse, the grey filling for a good part. Sizes are checked on the header, before memory is taken.
//!
//! Read as Pillow's `convert("RGB")` reads: grey is repeated, palettes of PNG and BMP are looked up, alpha is dropped. 16 bits
//! a channel are rounded to 8. Deliberately not applied: EXIF orientation and colour profiles, because a fixed camera
//! must show a part the same way whatever its metadata says. CMYK, floating point and, of TIFF, palettes and JPEG
//! inside are refused by name.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::codecs::{bmp::BmpDecoder, png::PngDecoder, tiff::TiffDecoder};
use image::{ColorType, ExtendedColorType, ImageDecoder, ImageError, Limits};
use tiff::TiffError;
use tiff::decoder::Decoder as TiffTags;
use tiff::tags::{CompressionMethod, PhotometricInterpretation, Tag};

use super::error::{DecodeError, LoadError, MAX_DECODED_BYTES};
use super::format::Format;
use super::{jpeg, raw};
use crate::frame::{MAX_ENCODED_BYTES, Picture, Pixels, Size, check_picture_size};

/// The picture that a camera delivered.
///
/// # Errors
/// [`DecodeError`] for anything but a complete picture within the limits of [`crate::frame`].
pub fn decode(pixels: &Pixels) -> Result<Picture, DecodeError> {
    match pixels {
        Pixels::Encoded(bytes) => decode_bytes(bytes),
        Pixels::Raw { size, format, stride, bytes } => raw::decode(*size, *format, *stride, bytes),
    }
}

/// The picture in an encoded file's bytes.
///
/// # Errors
/// As [`decode`].
pub fn decode_bytes(bytes: &[u8]) -> Result<Picture, DecodeError> {
    let format = Format::of(bytes).ok_or_else(|| DecodeError::NotAPicture(looks_like(bytes)))?;
    let cursor = Cursor::new(bytes);
    let refused = |e: ImageError| refusal(format, &e);
    match format {
        Format::Jpeg => jpeg::decode(bytes),
        Format::Png => {
            check_png_end(bytes)?;
            let limits = limits();
            rasterise(format, PngDecoder::with_limits(cursor, limits).map_err(refused)?)
        }
        Format::Bmp => rasterise(format, BmpDecoder::new(cursor).map_err(refused)?),
        Format::Tiff => {
            check_tiff(bytes)?;
            rasterise(format, TiffDecoder::new(cursor).map_err(refused)?)
        }
    }
}

/// The picture in the file at `path`.
///
/// # Errors
/// [`LoadError`], which names the file.
pub fn load(path: &Path) -> Result<Picture, LoadError> {
    let failed = |source| LoadError::File { path: path.to_owned(), source };
    // Asked before opening, because opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(LoadError::NotAFile(path.to_owned()));
    }
    if metadata.len() > MAX_ENCODED_BYTES {
        return Err(LoadError::TooLarge { path: path.to_owned(), bytes: metadata.len() });
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_ENCODED_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    decode_bytes(&bytes).map_err(|source| LoadError::Decode { path: path.to_owned(), source })
}

/// Whether the last bytes are there of what the first bytes promise; for files that may still be being written. A
/// picture that looks complete may be damaged all the same.
pub fn looks_complete(bytes: &[u8]) -> bool {
    let u32_at = |at: usize, from: fn([u8; 4]) -> u32| {
        bytes.get(at..at + 4).map_or(u32::MAX, |b| from([b[0], b[1], b[2], b[3]])) as usize
    };
    match Format::of(bytes) {
        None => false,
        Some(Format::Png) => check_png_end(bytes).is_ok(),
        // Cameras pad their frames with zeros.
        Some(Format::Jpeg) => {
            bytes.iter().rposition(|&b| b != 0).is_some_and(|end| bytes[..=end].ends_with(&[0xff, 0xd9]))
        }
        Some(Format::Bmp) => u32_at(2, u32::from_le_bytes) <= bytes.len(),
        Some(Format::Tiff) if bytes.starts_with(b"II") => u32_at(4, u32::from_le_bytes) < bytes.len(),
        Some(Format::Tiff) => u32_at(4, u32::from_be_bytes) < bytes.len(),
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    limits
}

fn rasterise(format: Format, mut decoder: impl ImageDecoder) -> Result<Picture, DecodeError> {
    let (width, height) = decoder.dimensions();
    let size = Size::new(width, height);
    check_picture_size(size)?;
    if matches!(decoder.original_color_type(), ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16) {
        return Err(DecodeError::Unsupported { format, what: "CMYK colours".into() });
    }
    let color = decoder.color_type();
    let bytes = decoder.total_bytes();
    if bytes > MAX_DECODED_BYTES {
        return Err(DecodeError::TooManyBytes { size, bytes });
    }
    let to_rgb: fn(Vec<u8>) -> Vec<u8> = match color {
        ColorType::Rgb8 => |b| b,
        ColorType::L8 => |b| b.iter().flat_map(|&v| [v; 3]).collect(),
        ColorType::La8 => |b| b.chunks_exact(2).flat_map(|p| [p[0]; 3]).collect(),
        ColorType::Rgba8 => |b| b.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect(),
        ColorType::L16 => |b| deep(&b, 1).flat_map(|p| [p(0); 3]).collect(),
        ColorType::La16 => |b| deep(&b, 2).flat_map(|p| [p(0); 3]).collect(),
        ColorType::Rgb16 => |b| deep(&b, 3).flat_map(|p| [p(0), p(1), p(2)]).collect(),
        ColorType::Rgba16 => |b| deep(&b, 4).flat_map(|p| [p(0), p(1), p(2)]).collect(),
        other => {
            return Err(DecodeError::Unsupported { format, what: format!("{other:?} samples") });
        }
    };
    let refused = |e: ImageError| refusal(format, &e);
    decoder.set_limits(limits()).map_err(refused)?;
    let mut samples = vec![0; bytes as usize];
    decoder.read_image(&mut samples).map_err(refused)?;
    Ok(Picture::new(size, to_rgb(samples))?)
}

/// Native-endian 16-bit samples of `channels` a pixel, each pixel as a way to ask for a channel rounded to 8 bits.
fn deep(bytes: &[u8], channels: usize) -> impl Iterator<Item = impl Fn(usize) -> u8> {
    bytes.chunks_exact(2 * channels).map(|pixel| {
        move |channel: usize| {
            let sample = u16::from_ne_bytes([pixel[2 * channel], pixel[2 * channel + 1]]);
            ((u32::from(sample) + 128) / 257) as u8
        }
    })
}

fn refusal(format: Format, error: &ImageError) -> DecodeError {
    match error {
        ImageError::Unsupported(e) => DecodeError::Unsupported { format, what: e.to_string() },
        ImageError::Limits(_) => DecodeError::TooMuchToDecode { format },
        e => DecodeError::Damaged { format, message: e.to_string() },
    }
}

/// The decoder stops at the last pixel; a file that was cut off behind it lost its end all the same.
fn check_png_end(bytes: &[u8]) -> Result<(), DecodeError> {
    let damaged = |message: &str| DecodeError::Damaged { format: Format::Png, message: message.into() };
    let mut at = 8;
    loop {
        let head = bytes.get(at..at + 8).ok_or_else(|| damaged("its end is missing"))?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if at == 8 && &head[4..] == b"IHDR" && length == 13 {
            let side =
                |i: usize| bytes.get(i..i + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
            check_picture_size(Size::new(side(16), side(20)))?;
        }
        at = at.saturating_add(length).saturating_add(12);
        if at > bytes.len() {
            return Err(damaged("its end is missing"));
        }
        if &head[4..] == b"IEND" {
            return Ok(());
        }
    }
}

/// Refuses what the decoder would let pass, and names what it would name by numbers. Of a JPEG inside, it fills with grey what
/// is damaged.
fn check_tiff(bytes: &[u8]) -> Result<(), DecodeError> {
    let format = Format::Tiff;
    let refused = |e| match e {
        TiffError::UnsupportedError(e) => DecodeError::Unsupported { format, what: e.to_string() },
        e => DecodeError::Damaged { format, message: e.to_string() },
    };
    let mut tags = TiffTags::new(Cursor::new(bytes)).map_err(refused)?;
    let mut first = |tag| -> Result<Option<u16>, TiffError> {
        Ok(tags.find_tag_unsigned_vec(tag)?.and_then(|values: Vec<u16>| values.first().copied()))
    };
    let compression = first(Tag::Compression).map_err(refused)?;
    let jpegs = [CompressionMethod::JPEG, CompressionMethod::ModernJPEG];
    if jpegs.iter().any(|jpeg| compression == Some(jpeg.to_u16())) {
        return Err(DecodeError::JpegInTiff);
    }
    let colours = first(Tag::PhotometricInterpretation).map_err(refused)?;
    let what = match first(Tag::BitsPerSample).map_err(refused)? {
        _ if colours == Some(PhotometricInterpretation::RGBPalette.to_u16()) => "a palette".into(),
        Some(bits @ (2..=7 | 9..=15)) => format!("samples of {bits} bits"),
        _ => return Ok(()),
    };
    Err(DecodeError::Unsupported { format, what })
}

/// What bytes that are no picture seem to be, for the person who put them there.
fn looks_like(bytes: &[u8]) -> &'static str {
    let starts = |magic: &[u8]| bytes.starts_with(magic);
    let head = &bytes[..bytes.len().min(512)];
    let is_text = |b: &u8| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..);
    if bytes.is_empty() {
        "an empty file"
    } else if starts(b"version https://git-lfs") {
        "a Git LFS pointer: fetch the picture itself with `git lfs pull`"
    } else if starts(b"GIF8") {
        "a GIF"
    } else if starts(b"RIFF") && head.get(8..12) == Some(b"WEBP") {
        "a WebP"
    } else if starts(b"%PDF") {
        "a PDF"
    } else if starts(b"PK\x03\x04") {
        "a ZIP archive"
    } else if starts(&[0x1f, 0x8b]) {
        "a gzip archive"
    } else if head.iter().all(|&b| b == 0) {
        "zero bytes only, as an interrupted copy leaves"
    } else if head.iter().all(is_text)
        && std::str::from_utf8(&head[..head.len().min(400)])
            .map_or_else(|e| e.error_len().is_none(), |_| true)
    {
        "a text file"
    } else {
        "something unknown"
    }
}

#[cfg(test)]
mod tests;

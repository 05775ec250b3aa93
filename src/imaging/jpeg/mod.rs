//! JPEG, strictly.
//!
//! In: a file's or an MJPEG frame's bytes. Out: RGB8, or an error. zune-jpeg decodes; as it accepts streams with
//! pieces missing even in its strict mode, `complete` measures the stream first. Not here: other formats (`decode`).

mod complete;
mod huffman;
mod scan;

use std::borrow::Cow;

use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::error::DecodeError;
use super::format::Format;
use crate::frame::Picture;

pub(super) fn decode(bytes: &[u8]) -> Result<Picture, DecodeError> {
    let header = complete::check(bytes)?;
    let bytes = if header.has_tables { Cow::Borrowed(bytes) } else { Cow::Owned(with_tables(bytes)) };
    // The size was checked; zune's own limits would only be smaller.
    let any = u16::MAX.into();
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(any)
        .set_max_height(any)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&bytes), options);
    decoder.decode_headers().map_err(refusal)?;
    let mut rgb = vec![0; header.size.pixels() as usize * 3];
    if decoder.output_buffer_size() != Some(rgb.len()) {
        return Err(damaged("it contradicts its own size"));
    }
    decoder.decode_into(&mut rgb).map_err(refusal)?;
    Ok(Picture::new(header.size, rgb)?)
}

/// `bytes` with the standard Huffman tables behind the start marker.
fn with_tables(bytes: &[u8]) -> Vec<u8> {
    let tables = huffman::standard_tables();
    let [high, low] = (tables.len() as u16 + 2).to_be_bytes();
    [&bytes[..2], &[0xff, 0xc4, high, low], &tables, &bytes[2..]].concat()
}

fn damaged(message: impl Into<String>) -> DecodeError {
    DecodeError::Damaged { format: Format::Jpeg, message: message.into() }
}

fn refusal(error: DecodeErrors) -> DecodeError {
    match error {
        DecodeErrors::Unsupported(what) => {
            DecodeError::Unsupported { format: Format::Jpeg, what: format!("{what:?}") }
        }
        error => damaged(format!("{error:?}")),
    }
}

#[cfg(test)]
mod tests {
    use image::codecs::jpeg::JpegEncoder;

    use super::*;

    /// A picture with texture everywhere, so that every byte of its scan carries something.
    fn jpeg() -> Vec<u8> {
        let (width, height) = (200u32, 150u32);
        let mut noise = 1u32;
        let mut sample = |x: u32, y: u32, c: u32| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((x * 3 + y * 2 + c * 40) % 256 / 2 + (noise >> 27)) as u8
        };
        let mut rgb = Vec::new();
        for y in 0..height {
            for x in 0..width {
                rgb.extend([0, 1, 2].map(|c| sample(x, y, c)));
            }
        }
        let mut bytes = Vec::new();
        JpegEncoder::new_with_quality(&mut bytes, 85)
            .encode(&rgb, width, height, image::ExtendedColorType::Rgb8)
            .unwrap();
        bytes
    }

    fn scan_start(jpeg: &[u8]) -> usize {
        jpeg.windows(2).position(|w| w == [0xff, 0xda]).unwrap() + 14
    }

    #[test]
    fn a_scan_that_was_cut_is_refused_whatever_follows() {
        let whole = jpeg();
        assert!(decode(&whole).is_ok());
        let zeros = [0; 500];
        let noise: Vec<u8> = (0..3000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let closed = |tail: &[u8]| [tail, &[0xff, 0xd9]].concat();
        let tails = [vec![], closed(&[]), zeros.to_vec(), closed(&zeros), noise.clone(), closed(&noise)];
        for cut in (scan_start(&whole)..whole.len() - 40).step_by(61) {
            for (i, tail) in tails.iter().enumerate() {
                let cut_off = [&whole[..cut], tail].concat();
                assert!(decode(&cut_off).is_err(), "cut at {cut}, tail {i}");
            }
        }
    }

    // What a lost or a repeated USB packet does: decoders resynchronise and shift the rest of the picture.
    #[test]
    fn a_scan_with_a_piece_lost_or_repeated_is_refused() {
        let whole = jpeg();
        for at in (scan_start(&whole) + 700..whole.len() - 700).step_by(37) {
            let lost = [&whole[..at], &whole[at + 500..]].concat();
            let repeated = [&whole[..at], &whole[at - 500..]].concat();
            assert!(decode(&lost).is_err(), "lost at {at}");
            assert!(decode(&repeated).is_err(), "repeated at {at}");
        }
    }

    #[test]
    fn frames_of_webcams_are_taken() {
        let whole = jpeg();
        let picture = decode(&whole).unwrap();
        let padded = [&whole[..], &[0; 300]].concat();
        assert_eq!(decode(&padded).unwrap(), picture, "padding behind the end");
        let (body, end) = whole.split_at(whole.len() - 2);
        assert_eq!(decode(&[body, &[0; 3], end].concat()).unwrap(), picture, "padding before the end");

        let mut without_tables = whole.clone();
        while let Some(at) = without_tables.windows(2).position(|w| w == [0xff, 0xc4]) {
            let length = u16::from_be_bytes([without_tables[at + 2], without_tables[at + 3]]);
            without_tables.drain(at..at + 2 + usize::from(length));
        }
        assert_eq!(decode(&without_tables).unwrap(), picture, "MJPEG leaves the standard tables out");
    }
}

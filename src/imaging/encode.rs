//! Encoding: evidence and heat maps as files.
//!
//! In: a [`Picture`], or a camera's [`Pixels`]. Out: bytes and the extension they should have. Not here: writing them
//! (`store`).

use std::borrow::Cow;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder};

use super::decode::decode;
use super::format::Format;
use crate::frame::{Picture, Pixels};

/// `picture` as a PNG, losslessly; grey pictures take a third of the room. Fast rather than small.
pub fn png(picture: &Picture) -> Vec<u8> {
    let size = picture.size();
    let rgb = picture.rgb();
    let is_grey = rgb.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]);
    let (samples, color) = if is_grey {
        (Cow::Owned(rgb.iter().step_by(3).copied().collect::<Vec<_>>()), ExtendedColorType::L8)
    } else {
        (Cow::Borrowed(rgb), ExtendedColorType::Rgb8)
    };
    let mut bytes = Vec::with_capacity(samples.len() / 2);
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Fast, FilterType::Adaptive)
        .write_image(&samples, size.width, size.height, color)
        .expect("a picture within the limits is a PNG in memory: this is a bug");
    bytes
}

/// What to keep of a frame, and under which extension: encoded bytes as they are, raw ones as a PNG, and what cannot
/// be decoded as it is, for whoever looks for the reason.
pub fn evidence_bytes(pixels: &Pixels) -> (Cow<'_, [u8]>, &'static str) {
    match pixels {
        Pixels::Encoded(bytes) => (Cow::Borrowed(bytes), Format::of(bytes).map_or("bin", Format::extension)),
        Pixels::Raw { bytes, .. } => match decode(pixels) {
            Ok(picture) => (Cow::Owned(png(&picture)), Format::Png.extension()),
            Err(_) => (Cow::Borrowed(bytes), "raw"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{PixelFormat, Samples, Size};
    use crate::imaging::decode_bytes;

    #[test]
    fn a_picture_survives_png() {
        let size = Size::new(5, 4);
        let colour = Picture::new(size, (0..60).map(|i| i * 4).collect()).unwrap();
        let grey = Picture::new(size, (0..20u8).flat_map(|v| [v; 3]).collect()).unwrap();
        for picture in [colour, grey] {
            assert_eq!(decode_bytes(&png(&picture)).unwrap(), picture);
        }
    }

    #[test]
    fn evidence_is_what_the_camera_delivered() {
        let jpeg = Pixels::Encoded(vec![0xff, 0xd8, 0xff, 0xe0]);
        assert_eq!(evidence_bytes(&jpeg), (Cow::Borrowed(&[0xff, 0xd8, 0xff, 0xe0][..]), "jpg"));
        let text = Pixels::Encoded(b"hello".to_vec());
        assert_eq!(evidence_bytes(&text), (Cow::Borrowed(&b"hello"[..]), "bin"));
        let format = PixelFormat::Mono(Samples::U8);
        let raw = |bytes| Pixels::Raw { size: Size::new(2, 2), format, stride: 2, bytes };
        let whole = raw(vec![1, 2, 3, 4]);
        let (png, extension) = evidence_bytes(&whole);
        assert_eq!((decode_bytes(&png).unwrap(), extension), (decode(&whole).unwrap(), "png"));
        assert_eq!(evidence_bytes(&raw(vec![1, 2, 3])).1, "raw");
    }
}

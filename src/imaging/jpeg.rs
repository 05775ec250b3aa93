//! JPEG, strictly.
//!
//! In: a file's or an MJPEG frame's bytes. Out: RGB8, or an error. Not here: other formats (`decode`).

use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::decode::{DecodeError, Format, MAX_SIDE};
use crate::frame::{Picture, Size, check_picture_size};

pub(super) fn decode(bytes: &[u8]) -> Result<Picture, DecodeError> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(MAX_SIDE)
        .set_max_height(MAX_SIDE)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(refusal)?;
    let info = decoder.info().ok_or_else(|| damaged("it has no header"))?;
    let size = Size::new(info.width.into(), info.height.into());
    check_picture_size(size)?;
    if info.components == 4 {
        return Err(DecodeError::Unsupported { format: Format::Jpeg, what: "CMYK colours".into() });
    }
    let mut rgb = vec![0; size.pixels() as usize * 3];
    decoder.decode_into(&mut rgb).map_err(refusal)?;
    Ok(Picture::new(size, rgb)?)
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

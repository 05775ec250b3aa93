//! Raw camera layouts to RGB8.
//!
//! YUV is read as V4L2 defines its default for webcams (UVC, sRGB): ITU-R BT.601 with limited range, black at 16 and
//! white at 235. Chroma is repeated, not interpolated. Not here: sample depths (`samples`), Bayer patterns (`bayer`).

use std::borrow::Cow;

use super::decode::DecodeError;
use super::{bayer, samples};
use crate::frame::{Picture, PixelFormat, Size, check_picture_size};

pub(super) fn decode(
    size: Size,
    format: PixelFormat,
    stride: usize,
    bytes: &[u8],
) -> Result<Picture, DecodeError> {
    check_picture_size(size)?;
    let malformed = |message| DecodeError::Raw { format, size, message };
    let row = check_layout(size, format, stride, bytes.len()).map_err(malformed)?;
    let (width, height) = (size.width as usize, size.height as usize);
    let line = |y: usize| &bytes[y * stride..y * stride + row];
    let bytes_of_rgb = size.pixels() as usize * 3;
    if let PixelFormat::Bayer(mosaic, samples) = format {
        let mut rgb = Vec::with_capacity(bytes_of_rgb);
        bayer::demosaic(size, mosaic, samples, line, &mut rgb);
        return Ok(Picture::new(size, rgb)?);
    }
    let (mut rgb, processor) = (vec![0; bytes_of_rgb], pulp::Arch::new());
    for (y, out) in rgb.chunks_exact_mut(3 * width).enumerate() {
        let line = match format {
            PixelFormat::Mono(samples) => samples::row(line(y), samples),
            _ => Cow::Borrowed(line(y)),
        };
        let chroma = match format {
            PixelFormat::Nv12 => &bytes[(height + y / 2) * stride..][..width],
            _ => &[],
        };
        processor.dispatch(Row { format, line: &line, chroma, out });
    }
    Ok(Picture::new(size, rgb)?)
}

/// One row to be written as RGB; loops without branches, of which the compiler makes vector instructions.
struct Row<'a> {
    format: PixelFormat,
    line: &'a [u8],
    /// The row of colours that goes with it, where they have a plane of their own.
    chroma: &'a [u8],
    out: &'a mut [u8],
}

impl pulp::NullaryFnOnce for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { format, line, chroma, out } = self;
        match format {
            PixelFormat::Mono(_) => {
                out.chunks_exact_mut(3).zip(line).for_each(|(to, &v)| to.copy_from_slice(&[v; 3]));
            }
            // Has been demosaiced already.
            PixelFormat::Bayer(..) => {}
            PixelFormat::Rgb8 => out.copy_from_slice(line),
            PixelFormat::Bgr8 => {
                let pixels = out.chunks_exact_mut(3).zip(line.chunks_exact(3));
                pixels.for_each(|(to, p)| to.copy_from_slice(&[p[2], p[1], p[0]]));
            }
            PixelFormat::Yuyv => {
                let pairs = out.chunks_exact_mut(6).zip(line.chunks_exact(4));
                pairs.for_each(|(to, p)| to.copy_from_slice(&yuv_pair([p[0], p[2]], p[1], p[3])));
            }
            PixelFormat::Uyvy => {
                let pairs = out.chunks_exact_mut(6).zip(line.chunks_exact(4));
                pairs.for_each(|(to, p)| to.copy_from_slice(&yuv_pair([p[1], p[3]], p[0], p[2])));
            }
            PixelFormat::Nv12 => {
                let pairs = out.chunks_exact_mut(6).zip(line.chunks_exact(2)).zip(chroma.chunks_exact(2));
                pairs.for_each(|((to, l), c)| to.copy_from_slice(&yuv_pair([l[0], l[1]], c[0], c[1])));
            }
        }
    }
}

/// The bytes of a row, if `got` bytes hold the whole frame.
fn check_layout(size: Size, format: PixelFormat, stride: usize, got: usize) -> Result<usize, String> {
    let (width, height) = (size.width as usize, size.height as usize);
    let Some(row) = format.row_bytes(width) else {
        return Err("its pixels share bytes in groups that its width does not fill".into());
    };
    let rows = match format {
        PixelFormat::Nv12 if !height.is_multiple_of(2) => {
            return Err("its two rows a colour sample need an even height".into());
        }
        PixelFormat::Bayer(..) if width < 2 || height < 2 => {
            return Err("a Bayer pattern needs two rows and columns".into());
        }
        PixelFormat::Nv12 => height + height / 2,
        _ => height,
    };
    if stride < row {
        return Err(format!("its rows start every {stride} bytes and need {row}"));
    }
    // The last row need not be padded to the stride.
    let expected = stride.checked_mul(rows - 1).and_then(|n| n.checked_add(row));
    match expected {
        Some(expected) if got >= expected => Ok(row),
        Some(expected) => Err(format!("it needs {expected} bytes and has {got}")),
        None => Err(format!("its rows start every {stride} bytes, beyond any memory")),
    }
}

/// Two pixels that share their chroma, in 16-bit fixed point.
#[inline(always)]
fn yuv_pair(luma: [u8; 2], u: u8, v: u8) -> [u8; 6] {
    let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
    let (red, green, blue) = (104_597 * v, -25_675 * u - 53_279 * v, 132_201 * u);
    let [a, b] = luma.map(|y| 76_309 * (i32::from(y) - 16) + (1 << 15));
    let clip = |value: i32| (value >> 16).clamp(0, 255) as u8;
    [clip(a + red), clip(a + green), clip(a + blue), clip(b + red), clip(b + green), clip(b + blue)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Mosaic, Samples};

    const MONO8: PixelFormat = PixelFormat::Mono(Samples::U8);

    fn rgb(size: Size, format: PixelFormat, stride: usize, bytes: &[u8]) -> Vec<u8> {
        decode(size, format, stride, bytes).unwrap().into_rgb()
    }

    #[test]
    fn every_layout_finds_its_channels() {
        let size = Size::new(2, 2);
        assert_eq!(rgb(size, MONO8, 3, &[1, 2, 99, 3, 4]), [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]);
        let six: Vec<u8> = (0..12).collect();
        assert_eq!(rgb(size, PixelFormat::Rgb8, 6, &six), six);
        assert_eq!(rgb(size, PixelFormat::Bgr8, 6, &six)[..6], [2, 1, 0, 5, 4, 3]);
        // BT.601, limited range: pure red is Y 81, U 90, V 240; white is Y 235.
        let red_white = [254, 0, 0, 254, 0, 0, 255, 255, 255, 255, 255, 255];
        let close = |got: Vec<u8>| {
            let far = got.iter().zip(red_white).map(|(a, b)| a.abs_diff(b)).max();
            assert!(far <= Some(1), "{got:?}");
        };
        close(rgb(size, PixelFormat::Yuyv, 4, &[81, 90, 81, 240, 235, 128, 235, 128]));
        close(rgb(size, PixelFormat::Uyvy, 4, &[90, 81, 240, 81, 128, 235, 128, 235]));
        let nv12 = rgb(
            Size::new(2, 4),
            PixelFormat::Nv12,
            2,
            &[81, 81, 81, 81, 235, 235, 16, 16, 90, 240, 128, 128],
        );
        assert_eq!(nv12[..3], nv12[9..12]);
        assert_eq!((&nv12[12..15], &nv12[18..21]), (&[255, 255, 255][..], &[0, 0, 0][..]));
    }

    #[test]
    fn a_frame_that_contradicts_its_description_is_refused() {
        let refused = |width, height, format, stride, bytes: usize| {
            let result = decode(Size::new(width, height), format, stride, &vec![0; bytes]);
            assert!(result.is_err(), "{width}x{height} {format:?} stride {stride} bytes {bytes}");
        };
        refused(2, 2, MONO8, 2, 3);
        refused(2, 2, MONO8, 1, 100);
        refused(3, 2, PixelFormat::Yuyv, 8, 100);
        refused(2, 3, PixelFormat::Nv12, 2, 100);
        refused(2, 2, PixelFormat::Rgb8, usize::MAX, 100);
        refused(0, 2, PixelFormat::Rgb8, 6, 100);
        refused(3, 2, PixelFormat::Mono(Samples::U12Packed), 8, 100);
        refused(6, 2, PixelFormat::Mono(Samples::U10p), 8, 100);
        refused(1, 2, PixelFormat::Bayer(Mosaic::RgGb, Samples::U8), 8, 100);
        refused(30_000, 30_000, MONO8, 30_000, 100);
    }
}

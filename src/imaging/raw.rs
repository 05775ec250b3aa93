//! Raw camera layouts to RGB8.
//!
//! YUV has the weights of ITU-R BT.601, in the range that the layout names: limited is what V4L2 defines as the default for
//! webcams (UVC, sRGB). Chroma is repeated, not interpolated. Not here: sample depths (`samples`), Bayer patterns (`bayer`).

use super::blocks::{self, BLOCK, Kernel, interleave};
use super::error::DecodeError;
use super::{bayer, samples};
use crate::frame::{Picture, PixelFormat, Range, Size, check_picture_size};

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
    let mut rgb = vec![0; size.pixels() as usize * 3];
    let rows = rgb.chunks_exact_mut(3 * width).enumerate();
    match format {
        PixelFormat::Bayer(mosaic, samples) => bayer::demosaic(size, mosaic, samples, line, &mut rgb),
        PixelFormat::Mono(samples) => {
            let mut grey = vec![0; width];
            rows.for_each(|(y, out)| {
                samples::unpack(line(y), samples, &mut grey);
                blocks::each(&grey, out, Grey);
            });
        }
        PixelFormat::Rgb8 => rows.for_each(|(y, out)| out.copy_from_slice(line(y))),
        PixelFormat::Bgr8 => rows.for_each(|(y, out)| blocks::each(line(y), out, Bgr)),
        PixelFormat::Yuyv(range) => {
            rows.for_each(|(y, out)| blocks::each(line(y), out, Yuyv(Matrix::of(range))));
        }
        PixelFormat::Uyvy(range) => {
            rows.for_each(|(y, out)| blocks::each(line(y), out, Uyvy(Matrix::of(range))));
        }
        PixelFormat::Nv12 => rows.for_each(|(y, out)| {
            let chroma = &bytes[(height + y / 2) * stride..][..width];
            blocks::each(line(y), out, Nv12 { chroma });
        }),
    }
    Ok(Picture::new(size, rgb)?)
}

struct Grey;

impl Kernel<BLOCK, { 3 * BLOCK }> for Grey {
    #[inline(always)]
    fn block(&mut self, grey: &[u8; BLOCK], out: &mut [u8; 3 * BLOCK]) {
        interleave([grey; 3], out);
    }
}

struct Bgr;

impl Kernel<{ 3 * BLOCK }, { 3 * BLOCK }> for Bgr {
    #[inline(always)]
    fn block(&mut self, from: &[u8; 3 * BLOCK], out: &mut [u8; 3 * BLOCK]) {
        for (to, [b, g, r]) in out.as_chunks_mut().0.iter_mut().zip(from.as_chunks().0) {
            *to = [*r, *g, *b];
        }
    }
}

struct Yuyv(Matrix);

impl Kernel<{ 2 * BLOCK }, { 3 * BLOCK }> for Yuyv {
    #[inline(always)]
    fn block(&mut self, from: &[u8; 2 * BLOCK], out: &mut [u8; 3 * BLOCK]) {
        let [luma, chroma] = halves(from);
        self.0.block(&luma, &chroma, out);
    }
}

struct Uyvy(Matrix);

impl Kernel<{ 2 * BLOCK }, { 3 * BLOCK }> for Uyvy {
    #[inline(always)]
    fn block(&mut self, from: &[u8; 2 * BLOCK], out: &mut [u8; 3 * BLOCK]) {
        let [chroma, luma] = halves(from);
        self.0.block(&luma, &chroma, out);
    }
}

struct Nv12<'a> {
    /// The colours that go with the rest of the row.
    chroma: &'a [u8],
}

impl Kernel<BLOCK, { 3 * BLOCK }> for Nv12<'_> {
    #[inline(always)]
    fn block(&mut self, luma: &[u8; BLOCK], out: &mut [u8; 3 * BLOCK]) {
        let (next, rest) = self.chroma.split_at(BLOCK.min(self.chroma.len()));
        self.chroma = rest;
        let mut chroma = [0; BLOCK];
        chroma[..next.len()].copy_from_slice(next);
        Matrix::LIMITED.block(luma, &chroma, out);
    }
}

/// The bytes at even and at odd places.
#[inline(always)]
fn halves(bytes: &[u8; 2 * BLOCK]) -> [[u8; BLOCK]; 2] {
    let mut halves = [[0; BLOCK]; 2];
    for (x, pair) in bytes.as_chunks::<2>().0.iter().enumerate() {
        (halves[0][x], halves[1][x]) = (pair[0], pair[1]);
    }
    halves
}

#[inline(always)]
fn clip(value: i32) -> u8 {
    (value >> 16).clamp(0, 255) as u8
}

/// What brightness and colours count, in 16-bit fixed point.
#[derive(Clone, Copy)]
struct Matrix {
    black: i32,
    luma: i32,
    red_v: i32,
    green_u: i32,
    green_v: i32,
    blue_u: i32,
}

impl Matrix {
    const FULL: Self =
        Self { black: 0, luma: 65_536, red_v: 91_881, green_u: 22_553, green_v: 46_802, blue_u: 116_130 };
    const LIMITED: Self =
        Self { black: 16, luma: 76_309, red_v: 104_597, green_u: 25_675, green_v: 53_279, blue_u: 132_201 };

    fn of(range: Range) -> Self {
        match range {
            Range::Full => Self::FULL,
            Range::Limited => Self::LIMITED,
        }
    }

    /// A block whose pixels share their chroma, U V, in pairs.
    #[inline(always)]
    fn block(self, luma: &[u8; BLOCK], chroma: &[u8; BLOCK], out: &mut [u8; 3 * BLOCK]) {
        let (mut u, mut v) = ([0; BLOCK], [0; BLOCK]);
        for (x, pair) in chroma.as_chunks::<2>().0.iter().enumerate() {
            [u[2 * x], u[2 * x + 1]] = [pair[0]; 2];
            [v[2 * x], v[2 * x + 1]] = [pair[1]; 2];
        }
        let (mut red, mut green, mut blue) = ([0; BLOCK], [0; BLOCK], [0; BLOCK]);
        for x in 0..BLOCK {
            let (u, v) = (i32::from(u[x]) - 128, i32::from(v[x]) - 128);
            let luma = self.luma * (i32::from(luma[x]) - self.black) + (1 << 15);
            red[x] = clip(luma + self.red_v * v);
            green[x] = clip(luma - self.green_u * u - self.green_v * v);
            blue[x] = clip(luma + self.blue_u * u);
        }
        interleave([&red, &green, &blue], out);
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
        close(rgb(size, PixelFormat::Yuyv(Range::Limited), 4, &[81, 90, 81, 240, 235, 128, 235, 128]));
        close(rgb(size, PixelFormat::Uyvy(Range::Limited), 4, &[90, 81, 240, 81, 128, 235, 128, 235]));
        let nv12 = rgb(
            Size::new(2, 4),
            PixelFormat::Nv12,
            2,
            &[81, 81, 81, 81, 235, 235, 16, 16, 90, 240, 128, 128],
        );
        assert_eq!(nv12[..3], nv12[9..12]);
        assert_eq!((&nv12[12..15], &nv12[18..21]), (&[255, 255, 255][..], &[0, 0, 0][..]));
    }

    /// The definition: BT.601.
    fn colour(range: Range, luma: u8, u: u8, v: u8) -> [u8; 3] {
        let (y, u, v) = (f64::from(luma), f64::from(u) - 128.0, f64::from(v) - 128.0);
        let (y, u, v) = match range {
            Range::Full => (y, u, v),
            Range::Limited => ((y - 16.0) * 255.0 / 219.0, u * 255.0 / 224.0, v * 255.0 / 224.0),
        };
        [y + 1.402 * v, y - (0.114 * 1.772 * u + 0.299 * 1.402 * v) / 0.587, y + 1.772 * u]
            .map(|c| c.round().clamp(0.0, 255.0) as u8)
    }

    #[test]
    fn in_full_range_black_is_0_and_white_is_255_and_in_limited_range_they_are_16_and_235() {
        for (range, black, white, [u, v], near_black) in
            [(Range::Full, 0, 255, [85, 255], 16), (Range::Limited, 16, 235, [90, 240], 0)]
        {
            let grey = |luma| rgb(Size::new(2, 1), PixelFormat::Yuyv(range), 4, &[luma, 128, luma, 128])[0];
            assert_eq!([grey(black), grey(white), grey(16)], [0, 255, near_black], "{range:?}");
            let luma = if range == Range::Full { 76 } else { 81 };
            let red = rgb(Size::new(2, 1), PixelFormat::Uyvy(range), 4, &[u, luma, v, luma]);
            assert!(red[0] >= 253 && red[1] <= 2 && red[2] <= 2, "{range:?}: {red:?}");
        }
    }

    #[test]
    fn rows_of_any_length_have_each_pixel_its_own_colour() {
        let noise = |i: usize| (i.wrapping_mul(2_654_435_761) >> 9) as u8;
        for width in [2, 62, 64, 66, 190] {
            let luma: Vec<u8> = (0..width).map(noise).collect();
            let chroma: Vec<u8> = (500..500 + width).map(noise).collect();
            let mixed = |first: &[u8], second: &[u8]| -> Vec<u8> {
                first.iter().zip(second).flat_map(|(a, b)| [*a, *b]).collect()
            };
            let one = Size::new(width as u32, 1);
            let [_, yuyv] = [Range::Full, Range::Limited].map(|range| {
                let pixel = |x: usize| colour(range, luma[x], chroma[x & !1], chroma[x | 1]);
                let expected: Vec<u8> = (0..width).flat_map(pixel).collect();
                let yuyv = rgb(one, PixelFormat::Yuyv(range), 2 * width, &mixed(&luma, &chroma));
                let far = yuyv.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(far <= Some(1), "{width} {range:?}: {far:?}");
                let uyvy = rgb(one, PixelFormat::Uyvy(range), 2 * width, &mixed(&chroma, &luma));
                assert_eq!(uyvy, yuyv, "{width} {range:?}");
                yuyv
            });
            let planes = [&*luma, &luma, &chroma].concat();
            let nv12 = rgb(Size::new(width as u32, 2), PixelFormat::Nv12, width, &planes);
            assert_eq!(nv12, yuyv.repeat(2), "{width}");
            let grey: Vec<u8> = luma.iter().flat_map(|v| [*v; 3]).collect();
            assert_eq!(rgb(one, MONO8, width, &luma), grey, "{width}");
            let turned: Vec<u8> = grey.iter().zip(0..).map(|(v, i)| v.wrapping_add(i as u8)).collect();
            let bgr = rgb(one, PixelFormat::Bgr8, 3 * width, &turned);
            assert!(bgr.chunks_exact(3).zip(turned.chunks_exact(3)).all(|(a, b)| a == [b[2], b[1], b[0]]));
        }
    }

    #[test]
    fn a_frame_that_contradicts_its_description_is_refused() {
        let refused = |width, height, format, stride, bytes: usize| {
            let result = decode(Size::new(width, height), format, stride, &vec![0; bytes]);
            assert!(result.is_err(), "{width}x{height} {format:?} stride {stride} bytes {bytes}");
        };
        refused(2, 2, MONO8, 2, 3);
        refused(2, 2, MONO8, 1, 100);
        refused(3, 2, PixelFormat::Yuyv(Range::Full), 8, 100);
        refused(2, 3, PixelFormat::Nv12, 2, 100);
        refused(2, 2, PixelFormat::Rgb8, usize::MAX, 100);
        refused(0, 2, PixelFormat::Rgb8, 6, 100);
        refused(3, 2, PixelFormat::Mono(Samples::U12Packed), 8, 100);
        refused(6, 2, PixelFormat::Mono(Samples::U10p), 8, 100);
        refused(1, 2, PixelFormat::Bayer(Mosaic::RgGb, Samples::U8), 8, 100);
        refused(30_000, 30_000, MONO8, 30_000, 100);
    }
}

//! Bayer patterns to RGB: each missing colour is the mean of its nearest samples (bilinear), and the border is mirrored.
//!
//! In: rows of 8-bit samples. Out: interleaved RGB rows. Bilinear because it invents no detail: sharper methods draw
//! false edges where a part has none, and the networks would learn them. White balance is the camera's.
//!
//! Rows are mixed in blocks without a branch inside: twenty times as fast as pixel by pixel.

use super::blocks::{BLOCK, interleave};
use super::samples;
use crate::frame::{Mosaic, Samples, Size};

/// Writes the picture of `size` whose rows `line` delivers to `rgb`.
pub(super) fn demosaic<'a>(
    size: Size,
    mosaic: Mosaic,
    samples: Samples,
    line: impl Fn(usize) -> &'a [u8],
    rgb: &mut [u8],
) {
    let (width, height) = (size.width as usize, size.height as usize);
    let mut rows = Rows { rows: [(); 3].map(|()| vec![0; width + 2]), samples, width };
    let mirrored = |y: usize| if y < height { y } else { (2 * height).saturating_sub(y + 2) };
    rows.load(0, line(mirrored(height.min(2) - 1)));
    rows.load(1, line(0));
    let processor = pulp::Arch::new();
    for (y, out) in rgb.chunks_exact_mut(3 * width).enumerate() {
        rows.load(2, line(mirrored(y + 1)));
        // Odd rows have the pattern's second row.
        let odd = y % 2 == 1;
        let [above, here, below] = rows.rows.each_ref().map(Vec::as_slice);
        let (green_first, red) = (mosaic.green_first() != odd, mosaic.red_first() != odd);
        processor.dispatch(Mix { above, here, below, green_first, red, out });
        rows.rows.rotate_left(1);
    }
}

/// The row above, the row itself and the row below, each with a mirrored sample at either end.
struct Rows {
    rows: [Vec<u8>; 3],
    samples: Samples,
    width: usize,
}

impl Rows {
    fn load(&mut self, at: usize, line: &[u8]) {
        let row = &mut self.rows[at];
        let width = self.width;
        samples::unpack(line, self.samples, &mut row[1..=width]);
        // The neighbour's mirror image has the colour of the missing sample.
        row[0] = row[width.min(2)];
        row[width + 1] = row[width.max(2) - 1];
    }
}

/// One row to be mixed into `out`.
struct Mix<'a> {
    above: &'a [u8],
    here: &'a [u8],
    below: &'a [u8],
    /// Whether the row's first pixel is green.
    green_first: bool,
    /// Whether its other pixels are red.
    red: bool,
    out: &'a mut [u8],
}

/// Of a row, a block's samples to the left of its pixels, at them, and to the right of them.
type Part<'a> = [&'a [u8; BLOCK]; 3];

impl pulp::NullaryFnOnce for Mix<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { above, here, below, green_first, red, out } = self;
        let mut green = [0; BLOCK];
        for (x, green) in green.iter_mut().enumerate() {
            *green = if (x % 2 == 0) == green_first { 0xff } else { 0 };
        }
        let (blocks, rest) = out.as_chunks_mut();
        let mut at = 0;
        for block in blocks {
            mix([part(&above[at..]), part(&here[at..]), part(&below[at..])], (&green, red), block);
            at += BLOCK;
        }
        if !rest.is_empty() {
            let mut padded = [[0; BLOCK + 2]; 3];
            for (to, row) in padded.iter_mut().zip([above, here, below]) {
                to[..row.len() - at].copy_from_slice(&row[at..]);
            }
            let mut block = [0; 3 * BLOCK];
            let [above, here, below] = &padded;
            mix([part(above), part(here), part(below)], (&green, red), &mut block);
            rest.copy_from_slice(&block[..rest.len()]);
        }
    }
}

/// The samples of the block that `row` begins with.
#[inline(always)]
fn part(row: &[u8]) -> Part<'_> {
    const SHORT: &str = "a row is two longer than its blocks: this is a bug";
    [
        row.first_chunk().expect(SHORT),
        row[1..].first_chunk().expect(SHORT),
        row[2..].first_chunk().expect(SHORT),
    ]
}

#[inline(always)]
fn mean(a: u8, b: u8) -> u8 {
    ((u16::from(a) + u16::from(b) + 1) >> 1) as u8
}

#[inline(always)]
fn mean4(a: u8, b: u8, c: u8, d: u8) -> u8 {
    ((u16::from(a) + u16::from(b) + u16::from(c) + u16::from(d) + 2) >> 2) as u8
}

/// The first where the mask is set, and the second elsewhere.
#[inline(always)]
fn pick(mask: u8, set: u8, unset: u8) -> u8 {
    set & mask | unset & !mask
}

/// Mixes one block.
#[inline(always)]
fn mix([above, here, below]: [Part; 3], (green, red): (&[u8; BLOCK], bool), out: &mut [u8; 3 * BLOCK]) {
    // The row's own other colour, green, and the colour of the rows above and below.
    let (mut own, mut middle, mut opposite) = ([0; BLOCK], [0; BLOCK], [0; BLOCK]);
    for x in 0..BLOCK {
        let green = green[x];
        own[x] = pick(green, mean(here[0][x], here[2][x]), here[1][x]);
        middle[x] = pick(green, here[1][x], mean4(above[1][x], below[1][x], here[0][x], here[2][x]));
        let corners = mean4(above[0][x], above[2][x], below[0][x], below[2][x]);
        opposite[x] = pick(green, mean(above[1][x], below[1][x]), corners);
    }
    let (first, last) = if red { (&own, &opposite) } else { (&opposite, &own) };
    interleave([first, &middle, last], out);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOSAICS: [Mosaic; 4] = [Mosaic::RgGb, Mosaic::BgGr, Mosaic::GrBg, Mosaic::GbRg];

    /// 0 red, 1 green, 2 blue.
    fn colour(mosaic: Mosaic, x: i64, y: i64) -> usize {
        let pattern = match mosaic {
            Mosaic::RgGb => [[0, 1], [1, 2]],
            Mosaic::BgGr => [[2, 1], [1, 0]],
            Mosaic::GrBg => [[1, 0], [2, 1]],
            Mosaic::GbRg => [[1, 2], [0, 1]],
        };
        pattern[(y & 1) as usize][(x & 1) as usize]
    }

    /// The definition, pixel by pixel: a colour is its own sample where there is one, else the mean of the samples of
    /// that colour among the eight neighbours; of diagonal and straight ones, green takes the straight.
    fn slow(size: Size, mosaic: Mosaic, samples: &[u8]) -> Vec<u8> {
        let (width, height) = (i64::from(size.width), i64::from(size.height));
        let mirror = |v: i64, side: i64| {
            if v < 0 {
                -v
            } else if v >= side {
                2 * side - 2 - v
            } else {
                v
            }
        };
        let mut rgb = Vec::new();
        for y in 0..height {
            for x in 0..width {
                for wanted in 0..3 {
                    let mut found = Vec::new();
                    for (dx, dy) in (-1..=1).flat_map(|dy| (-1..=1).map(move |dx| (dx, dy))) {
                        let own = colour(mosaic, x, y) == wanted;
                        let corner = dx != 0 && dy != 0 && wanted == 1;
                        let fits = colour(mosaic, x + dx, y + dy) == wanted;
                        if fits && !corner && (!own || (dx, dy) == (0, 0)) {
                            let at = mirror(y + dy, height) * width + mirror(x + dx, width);
                            found.push(u32::from(samples[at as usize]));
                        }
                    }
                    let count = found.len() as u32;
                    rgb.push(((found.iter().sum::<u32>() + count / 2) / count) as u8);
                }
            }
        }
        rgb
    }

    #[test]
    fn every_mosaic_is_the_slow_definition_to_the_last_bit() {
        for (width, height) in [(2, 2), (3, 2), (2, 5), (7, 6), (16, 9), (64, 3), (65, 4), (131, 6)] {
            let size = Size::new(width, height);
            let samples: Vec<u8> = (0..size.pixels()).map(|i| (i * 97 % 251) as u8).collect();
            for mosaic in MOSAICS {
                let mut rgb = vec![0; samples.len() * 3];
                let row = |y: usize| &samples[y * width as usize..][..width as usize];
                demosaic(size, mosaic, Samples::U8, row, &mut rgb);
                assert_eq!(rgb, slow(size, mosaic, &samples), "{size} {mosaic:?}");
            }
        }
    }

    #[test]
    fn an_even_colour_stays_that_colour() {
        let size = Size::new(6, 4);
        for mosaic in MOSAICS {
            let of = |i: i64| [200, 120, 40][colour(mosaic, i % 6, i / 6)];
            let samples: Vec<u8> = (0..24).map(of).collect();
            let mut rgb = vec![0; 24 * 3];
            demosaic(size, mosaic, Samples::U8, |y| &samples[6 * y..][..6], &mut rgb);
            assert!(rgb.chunks_exact(3).all(|p| p == [200, 120, 40]), "{mosaic:?}");
        }
    }
}

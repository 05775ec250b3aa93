//! Planted defects: a normal picture with something in it that does not belong there, drawn from a seed.
//!
//! Two kinds, as the literature has them: a piece of the picture pasted where it does not belong (CutPaste, Li et al.,
//! CVPR 2021), and a texture blended in where gradient noise is high (DRAEM, Zavrtanik et al., ICCV 2021), with the
//! picture itself, turned and in other colours, as the texture. They are no likeness of real defects; two versions
//! that are held against each other on the same ones are compared fairly. Pure.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::frame::{Picture, Region, Size};
use crate::imaging::crop;

/// Sides of a pasted piece, as shares of the picture's.
const PIECE: std::ops::Range<f64> = 0.06..0.16;
/// Of so many places to paste to, the one that differs most is taken: a piece of background on background is no defect.
const PLACES: usize = 12;
/// Cells of the noise along the picture's shorter side.
const CELLS: std::ops::Range<u32> = 4..9;
/// The share of a texture's pixel in the blend.
const OPACITY: std::ops::Range<f32> = 0.35..0.8;
/// The largest part of the picture that a texture may cover; the noise's threshold follows from it.
const COVERED: std::ops::Range<f64> = 0.01..0.06;

/// `picture` with the defect number `number`; even ones are pasted, odd ones blended.
pub(super) fn plant(picture: &Picture, seed: u64, number: u64) -> Picture {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(number);
    if number.is_multiple_of(2) { paste(picture, &mut rng) } else { blend(picture, &mut rng) }
}

fn paste(picture: &Picture, rng: &mut ChaCha8Rng) -> Picture {
    let size = picture.size();
    let side = |length: u32, rng: &mut ChaCha8Rng| {
        ((f64::from(length) * rng.random_range(PIECE)) as u32).clamp(1, length)
    };
    let (width, height) = (side(size.width, rng), side(size.height, rng));
    let place = |rng: &mut ChaCha8Rng| Region {
        x: rng.random_range(0..=size.width - width),
        y: rng.random_range(0..=size.height - height),
        width,
        height,
    };
    let piece = crop(picture, place(rng)).expect("the piece lies inside: this is a bug");
    let brighter = rng.random_range(-20i16..=20);
    let differs = |to: &Region| -> u64 {
        rows(size, *to)
            .zip(piece.rgb().chunks_exact(width as usize * 3))
            .flat_map(|(row, new)| picture.rgb()[row].iter().zip(new))
            .map(|(old, new)| u64::from(old.abs_diff(*new)))
            .sum()
    };
    let places: Vec<Region> = (0..PLACES).map(|_| place(rng)).collect();
    let to = places.into_iter().max_by_key(differs).expect("there are places: this is a bug");
    let mut planted = picture.clone();
    for (row, new) in rows(size, to).zip(piece.rgb().chunks_exact(width as usize * 3)) {
        for (old, new) in planted.rgb_mut()[row].iter_mut().zip(new) {
            *old = (i16::from(*new) + brighter).clamp(0, 255) as u8;
        }
    }
    planted
}

/// The bytes of each row of `region`.
fn rows(size: Size, region: Region) -> impl Iterator<Item = std::ops::Range<usize>> {
    (region.y..region.y + region.height).map(move |y| {
        let start = (y as usize * size.width as usize + region.x as usize) * 3;
        start..start + region.width as usize * 3
    })
}

fn blend(picture: &Picture, rng: &mut ChaCha8Rng) -> Picture {
    let size = picture.size();
    let noise = Noise::draw(size, rng);
    let mut values: Vec<f32> = (0..size.height)
        .flat_map(|y| (0..size.width).map(move |x| (x, y)))
        .map(|(x, y)| noise.at(x, y))
        .collect();
    let map = values.clone();
    let covered = (values.len() as f64 * rng.random_range(COVERED)) as usize;
    let rank = values.len() - 1 - covered.min(values.len() - 1);
    let (_, limit, _) = values.select_nth_unstable_by(rank, f32::total_cmp);
    let (limit, opacity) = (*limit, rng.random_range(OPACITY));
    let turn = rng.random_range(1..3);
    let pixels = map.len();
    let mut planted = picture.clone();
    for (at, value) in map.iter().enumerate() {
        if *value < limit {
            continue;
        }
        // The picture upside down, its colours changed about and inverted: texture of this line, in the wrong place.
        let texture = (pixels - 1 - at) * 3;
        for channel in 0..3 {
            let new = 255.0 - f32::from(picture.rgb()[texture + (channel + turn) % 3]);
            let old = &mut planted.rgb_mut()[at * 3 + channel];
            *old = (f32::from(*old) * (1.0 - opacity) + new * opacity) as u8;
        }
    }
    planted
}

/// Gradient noise (Perlin, 1985) on a grid over the picture.
struct Noise {
    cell: f32,
    columns: usize,
    gradients: Vec<[f32; 2]>,
}

impl Noise {
    fn draw(size: Size, rng: &mut ChaCha8Rng) -> Self {
        let cell = (size.width.min(size.height) as f32 / rng.random_range(CELLS) as f32).max(1.0);
        let columns = (size.width as f32 / cell) as usize + 2;
        let grid_rows = (size.height as f32 / cell) as usize + 2;
        let gradients = (0..columns * grid_rows)
            .map(|_| {
                let angle = rng.random_range(0.0..std::f32::consts::TAU);
                [angle.cos(), angle.sin()]
            })
            .collect();
        Self { cell, columns, gradients }
    }

    fn at(&self, x: u32, y: u32) -> f32 {
        let (x, y) = (x as f32 / self.cell, y as f32 / self.cell);
        let (column, row) = (x as usize, y as usize);
        let (dx, dy) = (x.fract(), y.fract());
        let corner = |right: usize, down: usize| {
            let [gx, gy] = self.gradients[(row + down) * self.columns + column + right];
            gx * (dx - right as f32) + gy * (dy - down as f32)
        };
        let fade = |t: f32| t * t * t * (t * (t * 6.0 - 15.0) + 10.0);
        let mix = |a: f32, b: f32, t: f32| a + (b - a) * t;
        mix(mix(corner(0, 0), corner(1, 0), fade(dx)), mix(corner(0, 1), corner(1, 1), fade(dx)), fade(dy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::normal_part;

    #[test]
    fn a_planted_defect_is_small_plain_to_see_and_the_same_for_the_same_seed() {
        let part = normal_part(1, 3, Size::new(160, 120));
        for number in 0..20 {
            let planted = plant(&part, 7, number);
            assert_eq!(planted, plant(&part, 7, number));
            assert_ne!(planted, plant(&part, 8, number));
            let changed = |limit: u8| {
                let pixels = part.rgb().chunks_exact(3).zip(planted.rgb().chunks_exact(3));
                pixels.filter(|(a, b)| a.iter().zip(*b).any(|(a, b)| a.abs_diff(*b) > limit)).count()
            };
            assert!(changed(0) < 160 * 120 / 10, "{number}: {}", changed(0));
            assert!(changed(20) > 20, "{number}: {}", changed(20));
        }
    }

    #[test]
    fn the_smallest_picture_can_be_spoiled() {
        let dot = Picture::new(Size::new(1, 1), vec![9, 9, 9]).unwrap();
        for number in 0..4 {
            assert_eq!(plant(&dot, 1, number).size(), dot.size());
        }
    }
}

//! Made-up pictures of anything else, for boxes without a folder of photographs of it.
//!
//! In: pictures of the line, for some of the colours. Out: pictures that show no part: leaves of all sizes that lie on each
//! other, striped, shaded and rough, which share photographs' statistics (dead leaves: Lee, Mumford, Huang, IJCV 2001;
//! that networks learn much from such pictures: Baradad et al., NeurIPS 2021). A student that need not stay quiet on
//! anything else learns to describe it as the teacher does, and no longer finds defects (EfficientAD, §3.2). Not what
//! the gate plants: what is learnt must not be what is asked.

use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::error::RetrainError;
use super::files;
use crate::frame::{Picture, Size};
use crate::imaging::{self, Resizer, png};
use crate::training::dataset::evenly;

/// How many are made.
const PICTURES: u64 = 64;
/// Leaves on one picture.
const LEAVES: std::ops::Range<u32> = 80..250;
/// The smallest leaf's radius in pixels, and the largest's as a share of the picture's shorter side.
const SMALLEST: f32 = 4.0;
const LARGEST: std::ops::Range<f32> = 0.2..0.8;
/// Pictures of the line whose colours are taken.
const PALETTES: usize = 20;

type Colour = [u8; 3];

/// Makes them for networks that read `size`, or finds those of an interrupted retraining; gives their folder too.
pub(super) fn make_up(
    line: &[PathBuf],
    size: Size,
    seed: u64,
    work: &Path,
) -> Result<(PathBuf, Vec<PathBuf>), RetrainError> {
    let folder = work.join("made-up");
    files::make_folder(&folder).map_err(RetrainError::file("make", &folder))?;
    let paths: Vec<PathBuf> = (0..PICTURES).map(|n| folder.join(format!("{n:03}.png"))).collect();
    if paths.iter().all(|path| path.is_file()) {
        return Ok((folder, paths));
    }
    let palette = palette(line)?;
    for (number, path) in (0..).zip(&paths) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(number);
        let picture = framed(&leaves(size, &palette, &mut rng));
        files::replace(path, &png(&picture)).map_err(RetrainError::file("write", path))?;
    }
    Ok((folder, paths))
}

/// In the middle of twice its size, which is what training takes of a penalty picture.
fn framed(picture: &Picture) -> Picture {
    let size = picture.size();
    let twice = Size::new(2 * size.width, 2 * size.height);
    let black = vec![0; 3 * twice.pixels() as usize];
    let mut framed = Picture::new(twice, black).expect("as many bytes as pixels: this is a bug");
    let (width, left) = (size.width as usize * 3, size.width as usize / 2 * 3);
    for (y, row) in picture.rgb().chunks_exact(width).enumerate() {
        let start = (y + size.height as usize / 2) * 2 * width + left;
        framed.rgb_mut()[start..start + width].copy_from_slice(row);
    }
    framed
}

fn palette(line: &[PathBuf]) -> Result<Vec<Colour>, RetrainError> {
    let (mut resizer, mut palette) = (Resizer::new(), Vec::new());
    for (_, path) in evenly(line, PALETTES) {
        let small = resizer.resize(&imaging::load(path)?, Size::new(8, 8));
        let small = small.expect("a small size is legal: this is a bug");
        palette.extend(small.rgb().chunks_exact(3).map(|p| [p[0], p[1], p[2]]));
    }
    Ok(palette)
}

fn colour(palette: &[Colour], rng: &mut ChaCha8Rng) -> Colour {
    if palette.is_empty() || rng.random() {
        rng.random()
    } else {
        palette[rng.random_range(0..palette.len())]
    }
}

/// One leaf: an ellipse or a box, turned, in one colour or striped.
struct Leaf {
    centre: [f32; 2],
    radii: [f32; 2],
    turn: [f32; 2],
    round: bool,
    colours: [Colour; 2],
    /// Radians for a pixel; 0 leaves it plain.
    stripes: f32,
}

impl Leaf {
    fn draw(size: Size, largest: f32, palette: &[Colour], rng: &mut ChaCha8Rng) -> Self {
        // Areas spread alike over all sizes, as far as a density of r⁻³ goes.
        let share = 1.0 - (SMALLEST / largest).powi(2);
        let radius = SMALLEST / (1.0 - rng.random_range(0.0..1.0) * share).sqrt();
        let angle = rng.random_range(0.0..std::f32::consts::TAU);
        Self {
            centre: [rng.random_range(0.0..size.width as f32), rng.random_range(0.0..size.height as f32)],
            radii: [radius, radius * rng.random_range(0.3..1.0)],
            turn: [angle.cos(), angle.sin()],
            round: rng.random(),
            colours: [colour(palette, rng), colour(palette, rng)],
            stripes: if rng.random_bool(0.3) { rng.random_range(0.2..1.2) } else { 0.0 },
        }
    }

    /// Its colour at a pixel, where it covers it.
    fn at(&self, x: u32, y: u32) -> Option<Colour> {
        let (dx, dy) = (x as f32 - self.centre[0], y as f32 - self.centre[1]);
        let (along, across) = (dx * self.turn[0] + dy * self.turn[1], dy * self.turn[0] - dx * self.turn[1]);
        let (u, v) = (along / self.radii[0], across / self.radii[1]);
        let covered = if self.round { u * u + v * v <= 1.0 } else { u.abs() <= 1.0 && v.abs() <= 1.0 };
        covered.then(|| self.colours[usize::from((across * self.stripes).sin() > 0.5)])
    }
}

fn leaves(size: Size, palette: &[Colour], rng: &mut ChaCha8Rng) -> Picture {
    let ground = colour(palette, rng);
    let mut picture = Picture::new(size, ground.repeat(size.pixels() as usize))
        .expect("as many bytes as pixels: this is a bug");
    let largest = (size.width.min(size.height) as f32 * rng.random_range(LARGEST)).max(2.0 * SMALLEST);
    for _ in 0..rng.random_range(LEAVES) {
        let leaf = Leaf::draw(size, largest, palette, rng);
        let reach = 1.5 * leaf.radii[0].max(leaf.radii[1]);
        let range = |centre: f32, side: u32| {
            (centre - reach).max(0.0) as u32..((centre + reach) as u32).saturating_add(1).min(side)
        };
        for y in range(leaf.centre[1], size.height) {
            for x in range(leaf.centre[0], size.width) {
                if let Some(colour) = leaf.at(x, y) {
                    let at = (y as usize * size.width as usize + x as usize) * 3;
                    picture.rgb_mut()[at..at + 3].copy_from_slice(&colour);
                }
            }
        }
    }
    roughen(&mut picture, rng);
    picture
}

/// Shades it from one side to the other and makes it rough, as surfaces and sensors do.
fn roughen(picture: &mut Picture, rng: &mut ChaCha8Rng) {
    let size = picture.size();
    let slope = rng.random_range(-60.0..60.0f32) / size.width as f32;
    let rough = rng.random_range(0.0..12.0f32);
    for (at, pixel) in picture.rgb_mut().chunks_exact_mut(3).enumerate() {
        let shade = slope * ((at % size.width as usize) as f32 - size.width as f32 / 2.0);
        let grain = rng.random_range(-1.0..1.0f32) * rough;
        pixel
            .iter_mut()
            .for_each(|value| *value = (f32::from(*value) + shade + grain).clamp(0.0, 255.0) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Region;
    use crate::imaging::crop;

    #[test]
    fn they_show_many_things_differ_and_are_made_once() {
        let root = tempfile::tempdir().unwrap();
        let size = Size::new(32, 24);
        let (folder, paths) = make_up(&[], size, 3, root.path()).unwrap();
        assert_eq!((paths.len() as u64, folder.is_dir()), (PICTURES, true));
        let first = imaging::load(&paths[0]).unwrap();
        assert_eq!(first.size(), Size::new(64, 48));
        let middle = Region { x: 16, y: 12, width: 32, height: 24 };
        let first = crop(&first, middle).unwrap();
        assert_ne!(first, crop(&imaging::load(&paths[1]).unwrap(), middle).unwrap());
        let mut colours: Vec<_> =
            first.rgb().chunks_exact(3).map(|p| [p[0] / 32, p[1] / 32, p[2] / 32]).collect();
        colours.sort_unstable();
        colours.dedup();
        assert!(colours.len() > 20, "{}", colours.len());
        std::fs::write(&paths[0], "kept").unwrap();
        make_up(&[], size, 3, root.path()).unwrap();
        assert_eq!(std::fs::read(&paths[0]).unwrap(), b"kept");
    }
}

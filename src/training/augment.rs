//! What training does to pictures: colour jitter for the autoencoder (paper §3.3), and the penalty's preparation (§3.2).
//!
//! In and out: RGB8 pictures of one size. Arithmetic is Pillow's on 8 bits, as torchvision calls it, truncation
//! included. Not here: resizing (`imaging`), which step draws which change (`schedule`).

use rand::Rng;

use crate::frame::Picture;

/// Jitter scales by a factor between 1 − this and 1 + this.
const JITTER: f32 = 0.2;
/// Share of penalty pictures that lose their colour.
const GREY_SHARE: f64 = 0.3;

/// One change of colour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Jitter {
    /// Towards or away from black.
    Brightness(f32),
    /// Towards or away from the picture's mean brightness.
    Contrast(f32),
    /// Towards or away from grey.
    Saturation(f32),
}

impl Jitter {
    /// One of the three with a factor in 0.8–1.2, each equally likely.
    pub fn draw(rng: &mut impl Rng) -> Self {
        let kind = rng.random_range(0..3);
        let factor = rng.random_range(1.0 - JITTER..=1.0 + JITTER);
        match kind {
            0 => Self::Brightness(factor),
            1 => Self::Contrast(factor),
            _ => Self::Saturation(factor),
        }
    }

    /// The picture with its colours changed.
    pub fn apply(self, picture: &Picture) -> Picture {
        let mut changed = picture.clone();
        let pixels = changed.rgb_mut().chunks_exact_mut(3);
        match self {
            Self::Brightness(factor) => pixels.for_each(|p| blend(p, 0, factor)),
            Self::Contrast(factor) => {
                let mean = mean_brightness(picture);
                pixels.for_each(|p| blend(p, mean, factor));
            }
            Self::Saturation(factor) => pixels.for_each(|p| blend(p, brightness(p), factor)),
        }
        changed
    }
}

/// Whether this penalty picture loses its colour.
pub fn draw_grey(rng: &mut impl Rng) -> bool {
    rng.random_bool(GREY_SHARE)
}

/// The picture without its colour.
pub fn greyscale(picture: &Picture) -> Picture {
    let mut grey = picture.clone();
    for pixel in grey.rgb_mut().chunks_exact_mut(3) {
        pixel.fill(brightness(pixel));
    }
    grey
}

fn blend(pixel: &mut [u8], base: u8, factor: f32) {
    for value in pixel {
        let from = f32::from(base);
        // `as` truncates and saturates, which is what Pillow does.
        *value = (from + factor * (f32::from(*value) - from)) as u8;
    }
}

/// ITU-R 601 in 16-bit fixed point, as Pillow's mode `L`.
fn brightness(pixel: &[u8]) -> u8 {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16) as u8
}

fn mean_brightness(picture: &Picture) -> u8 {
    let sum: u64 = picture.rgb().chunks_exact(3).map(|p| u64::from(brightness(p))).sum();
    (sum as f64 / picture.size().pixels() as f64 + 0.5) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Size;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    fn picture() -> Picture {
        let rgb = vec![0, 128, 255, 250, 10, 60, 33, 34, 35, 200, 220, 240, 7, 77, 177, 99, 1, 0];
        Picture::new(Size::new(3, 2), rgb).unwrap()
    }

    /// The numbers are Pillow's: `ImageEnhance.{Brightness,Contrast,Color}(picture).enhance(factor)`.
    #[test]
    fn jitter_is_pillows_to_the_bit() {
        for (jitter, expected) in GOLDEN {
            assert_eq!(jitter.apply(&picture()).rgb(), expected, "{jitter:?}");
        }
    }

    #[test]
    fn grey_has_equal_channels_and_pillows_brightness() {
        assert_eq!(greyscale(&picture()).rgb(), GREY);
    }

    #[test]
    fn every_kind_is_drawn_within_its_range() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut kinds = [0; 3];
        for _ in 0..600 {
            let (kind, factor) = match Jitter::draw(&mut rng) {
                Jitter::Brightness(f) => (0, f),
                Jitter::Contrast(f) => (1, f),
                Jitter::Saturation(f) => (2, f),
            };
            kinds[kind] += 1;
            assert!((0.8..=1.2).contains(&factor));
        }
        assert!(kinds.iter().all(|&k| k > 150), "{kinds:?}");
    }

    const GOLDEN: [(Jitter, [u8; 18]); 6] = [
        (
            Jitter::Brightness(0.85),
            [0, 108, 216, 212, 8, 51, 28, 28, 29, 170, 187, 204, 5, 65, 150, 84, 0, 0],
        ),
        (
            Jitter::Brightness(1.17),
            [0, 149, 255, 255, 11, 70, 38, 39, 40, 233, 255, 255, 8, 90, 207, 115, 1, 0],
        ),
        (
            Jitter::Contrast(0.85),
            [13, 122, 230, 226, 22, 64, 41, 42, 43, 183, 200, 217, 19, 78, 163, 97, 14, 13],
        ),
        (Jitter::Contrast(1.17), [0, 134, 255, 255, 0, 54, 23, 24, 25, 218, 242, 255, 0, 74, 191, 100, 0, 0]),
        (
            Jitter::Saturation(0.85),
            [15, 124, 232, 225, 21, 64, 33, 34, 34, 202, 219, 236, 16, 75, 160, 88, 5, 4],
        ),
        (
            Jitter::Saturation(1.17),
            [0, 132, 255, 255, 0, 55, 32, 34, 35, 197, 220, 244, 0, 78, 195, 110, 0, 0],
        ),
    ];
    const GREY: [u8; 18] = [104, 104, 104, 87, 87, 87, 34, 34, 34, 216, 216, 216, 67, 67, 67, 30, 30, 30];
}

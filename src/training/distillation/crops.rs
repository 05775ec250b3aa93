//! What one sample shows: a random part of a picture, large for the backbone and half as large for the network.
//!
//! In: a picture and a generator. Out: the same view twice. Not here: which picture (`samples`).

use rand::Rng;

use super::options::Options;
use crate::frame::{Picture, Region, Size};
use crate::imaging::Resizer;
use crate::training::augment::greyscale;

/// One view of a picture.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    /// For the backbone.
    pub(super) large: Picture,
    /// For the network: the same at half the side.
    pub(super) small: Picture,
}

impl View {
    /// Draws a view of `picture`.
    pub(super) fn draw(
        picture: &Picture,
        options: &Options,
        rng: &mut impl Rng,
        resizer: &mut Resizer,
    ) -> Self {
        let region = region(picture.size(), options, rng);
        let grey = rng.random_bool(options.grey);
        let mirrored = options.flips && rng.random_bool(0.5);
        let upside_down = options.flips && rng.random_bool(0.5);
        let mut at = |side: u32| {
            let mut view = resizer
                .resize_region(picture, region, Size::new(side, side))
                .expect("the region lies inside the picture and the side is legal: this is a bug");
            if grey {
                view = greyscale(&view);
            }
            if mirrored {
                mirror(&mut view);
            }
            if upside_down {
                turn_over(&mut view);
            }
            view
        };
        Self { large: at(options.side), small: at(options.side / 2) }
    }
}

fn region(size: Size, options: &Options, rng: &mut impl Rng) -> Region {
    let shorter = f64::from(size.width.min(size.height));
    let side = shorter * rng.random_range(options.smallest_crop..=options.largest_crop);
    let limit = options.stretch.ln() / 2.0;
    let stretch = rng.random_range(-limit..=limit).exp();
    let within = |length: f64, of: u32| (length.round() as u32).clamp(1, of);
    let (width, height) = (within(side * stretch, size.width), within(side / stretch, size.height));
    let x = rng.random_range(0..=size.width - width);
    let y = rng.random_range(0..=size.height - height);
    Region { x, y, width, height }
}

fn mirror(picture: &mut Picture) {
    let width = picture.size().width as usize;
    for row in picture.rgb_mut().chunks_exact_mut(3 * width) {
        for x in 0..width / 2 {
            for channel in 0..3 {
                row.swap(3 * x + channel, 3 * (width - 1 - x) + channel);
            }
        }
    }
}

fn turn_over(picture: &mut Picture) {
    let bytes = 3 * picture.size().width as usize;
    let rows = picture.size().height as usize;
    let (upper, lower) = picture.rgb_mut().split_at_mut(rows / 2 * bytes);
    for (a, b) in upper.chunks_exact_mut(bytes).zip(lower.rchunks_exact_mut(bytes)) {
        a.swap_with_slice(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn flips_move_every_pixel_to_the_other_side() {
        let pixel = |v: u8| [v, v + 50, v + 100];
        let rows: Vec<u8> = [1, 2, 3, 4, 5, 6, 7, 8, 9].into_iter().flat_map(pixel).collect();
        let mut picture = Picture::new(Size::new(3, 3), rows).unwrap();
        mirror(&mut picture);
        assert_eq!(picture.rgb()[..9], [3, 2, 1].map(pixel).concat());
        turn_over(&mut picture);
        assert_eq!(picture.rgb()[..9], [9, 8, 7].map(pixel).concat());
        assert_eq!(picture.rgb()[9..18], [6, 5, 4].map(pixel).concat());
    }

    #[test]
    fn crops_stay_inside_and_keep_their_bounds() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let options = Options::default();
        for size in [Size::new(1, 1), Size::new(640, 480), Size::new(30, 2000)] {
            for _ in 0..500 {
                let r = region(size, &options, &mut rng);
                assert!(r.width >= 1 && r.height >= 1);
                assert!(r.x + r.width <= size.width && r.y + r.height <= size.height);
                let shorter = f64::from(size.width.min(size.height));
                assert!(f64::from(r.width) >= 0.5 * shorter / 1.3 - 1.0);
                assert!(f64::from(r.width) <= 1.3 * shorter + 1.0);
            }
        }
    }

    #[test]
    fn both_sizes_show_the_same_view() {
        let pixels = (0..64 * 48 * 3).map(|i| (i / 3 % 64 * 3) as u8).collect();
        let picture = Picture::new(Size::new(64, 48), pixels).unwrap();
        let options = Options { side: 128, ..Options::default() };
        for seed in 0..8 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let view = View::draw(&picture, &options, &mut rng, &mut Resizer::new());
            assert_eq!((view.large.size(), view.small.size()), (Size::new(128, 128), Size::new(64, 64)));
            let mean =
                |p: &Picture| p.rgb().iter().map(|&v| f64::from(v)).sum::<f64>() / p.rgb().len() as f64;
            assert!((mean(&view.large) - mean(&view.small)).abs() < 1.0);
        }
    }
}

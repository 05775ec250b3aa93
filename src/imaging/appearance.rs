//! Appearance: what a picture is like as a whole, so that a line can be told to have changed before it is told wrong.
//!
//! Measured at the networks' size and without a mask, as training sees its pictures. Pure.

use super::fitness::{Measured, measure};
use crate::frame::Picture;

/// What a picture is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Appearance {
    /// The mean of its brightness, 0 to 255.
    pub brightness: f32,
    /// The root mean square of the Laplacian of its brightness.
    pub sharpness: f32,
    /// The share of red in its light, in percent; 33 in grey pictures.
    pub red: f32,
    /// The share of blue.
    pub blue: f32,
}

/// Measures `picture`.
pub fn appearance(picture: &Picture) -> Appearance {
    let Measured { brightness, sharpness } = measure(picture, None);
    let mut sums = [0u64; 3];
    for pixel in picture.rgb().chunks_exact(3) {
        for (sum, &value) in sums.iter_mut().zip(pixel) {
            *sum += u64::from(value);
        }
    }
    let light = sums.iter().sum::<u64>();
    let share = |sum: u64| if light == 0 { 100.0 / 3.0 } else { (sum as f64 * 100.0 / light as f64) as f32 };
    Appearance { brightness, sharpness, red: share(sums[0]), blue: share(sums[2]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Size;

    #[test]
    fn a_colour_cast_shows_in_its_shares() {
        let flat = |rgb: [u8; 3]| appearance(&Picture::new(Size::new(4, 4), rgb.repeat(16)).unwrap());
        let grey = flat([90, 90, 90]);
        assert_eq!((grey.red.round(), grey.blue.round(), grey.sharpness), (33.0, 33.0, 0.0));
        let warm = flat([120, 60, 20]);
        assert_eq!((warm.red, warm.blue), (60.0, 10.0));
        assert_eq!(flat([0, 0, 0]).red.round(), 33.0);
    }
}

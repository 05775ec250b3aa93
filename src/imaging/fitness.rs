//! Fitness: whether a picture shows enough to be judged at all.
//!
//! In: the picture that the networks would see, and the bytes that the camera delivered. Out: what was measured, and
//! why the picture is unfit. A detector calls a black picture anomalous and a blurred one perhaps good; both are the
//! camera's fault and no verdict on the part. Measured at the networks' size, where a check costs little and finer
//! blur than they can see does not count.

use thiserror::Error;

use crate::frame::{Picture, Pixels};

/// What a picture must keep within, as the settings say it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// The least mean brightness, 0 to 255.
    pub min_brightness: f32,
    /// The greatest.
    pub max_brightness: f32,
    /// The least sharpness.
    pub min_sharpness: f32,
    /// Whether the same picture twice in a row is refused.
    pub frozen: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { min_brightness: 0.0, max_brightness: 255.0, min_sharpness: 0.0, frozen: false }
    }
}

/// What a picture is like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// The mean of its brightness, 0 to 255.
    pub brightness: f32,
    /// How much neighbouring pixels differ: the root mean square of the Laplacian of its brightness.
    pub sharpness: f32,
}

/// Why a picture is not judged.
#[derive(Debug, Error, PartialEq)]
pub enum Unfit {
    /// It shows too little.
    #[error(
        "the picture is too dark: its mean brightness is {brightness:.1}, at least {bound:.1} is asked for; look at \
         lamp, exposure time and lens cap"
    )]
    TooDark {
        /// What it has.
        brightness: f32,
        /// What it should have.
        bound: f32,
    },
    /// It is washed out.
    #[error(
        "the picture is too bright: its mean brightness is {brightness:.1}, at most {bound:.1} is allowed; look at \
         exposure time, gain and stray light"
    )]
    TooBright {
        /// What it has.
        brightness: f32,
        /// What it may have.
        bound: f32,
    },
    /// It has no detail.
    #[error(
        "the picture is blurred: its sharpness is {sharpness:.2}, at least {bound:.2} is asked for; look at focus, \
         motion and a dirty lens"
    )]
    Blurred {
        /// What it has.
        sharpness: f32,
        /// What it should have.
        bound: f32,
    },
    /// A live camera never delivers the same bytes twice, since its sensor is never without noise.
    #[error(
        "the camera delivered the very same picture twice: it is frozen; power it off and on, or set \
         picture.frozen = false where pictures may be alike"
    )]
    Frozen,
}

/// Measures `picture`, leaving out what is `hidden`.
pub(super) fn measure(picture: &Picture, hidden: Option<&[bool]>) -> Measured {
    let (width, height) = (picture.size().width as usize, picture.size().height as usize);
    let luma: Vec<u8> = picture
        .rgb()
        .chunks_exact(3)
        .map(|p| ((77 * u32::from(p[0]) + 150 * u32::from(p[1]) + 29 * u32::from(p[2])) >> 8) as u8)
        .collect();
    let counts = |i: usize| hidden.is_none_or(|hidden| !hidden[i]);
    let (mut sum, mut pixels) = (0u64, 0u64);
    for (i, &value) in luma.iter().enumerate() {
        if counts(i) {
            sum += u64::from(value);
            pixels += 1;
        }
    }
    let (mut squares, mut inner) = (0u64, 0u64);
    for y in 1..height.saturating_sub(1) {
        for i in y * width + 1..(y + 1) * width - 1 {
            if counts(i) {
                let at = |i: usize| i64::from(luma[i]);
                let laplacian = 4 * at(i) - at(i - 1) - at(i + 1) - at(i - width) - at(i + width);
                squares += (laplacian * laplacian) as u64;
                inner += 1;
            }
        }
    }
    Measured {
        brightness: sum as f32 / pixels.max(1) as f32,
        sharpness: (squares as f32 / inner.max(1) as f32).sqrt(),
    }
}

impl Bounds {
    /// Whether what was measured can be judged.
    ///
    /// # Errors
    /// [`Unfit`], with what to look at.
    pub fn check(&self, measured: Measured) -> Result<(), Unfit> {
        let Measured { brightness, sharpness } = measured;
        if brightness < self.min_brightness {
            return Err(Unfit::TooDark { brightness, bound: self.min_brightness });
        }
        if brightness > self.max_brightness {
            return Err(Unfit::TooBright { brightness, bound: self.max_brightness });
        }
        if sharpness < self.min_sharpness {
            return Err(Unfit::Blurred { sharpness, bound: self.min_sharpness });
        }
        Ok(())
    }
}

/// What identifies a camera's bytes: two checksums, of either half, and their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(u32, u32, usize);

impl Fingerprint {
    pub(super) fn of(pixels: &Pixels) -> Self {
        let (Pixels::Encoded(bytes) | Pixels::Raw { bytes, .. }) = pixels;
        let (first, second) = bytes.split_at(bytes.len() / 2);
        Self(crc32c::crc32c(first), crc32c::crc32c(second), bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Size;

    fn checks(contrast: u8, mean: u8) -> Picture {
        let shade = |i: u32| {
            if (i % 16 / 2 + i / 16 / 2).is_multiple_of(2) { mean - contrast } else { mean + contrast }
        };
        Picture::new(Size::new(16, 16), (0..256).flat_map(|i| [shade(i); 3]).collect()).unwrap()
    }

    #[test]
    fn a_picture_is_refused_for_what_is_wrong_with_it() {
        let bounds = Bounds { min_brightness: 20.0, max_brightness: 230.0, min_sharpness: 5.0, frozen: true };
        let check = |picture: &Picture| bounds.check(measure(picture, None));
        assert_eq!(check(&checks(40, 128)), Ok(()));
        assert!(matches!(check(&checks(5, 8)), Err(Unfit::TooDark { .. })));
        assert!(matches!(check(&checks(5, 240)), Err(Unfit::TooBright { .. })));
        let blurred = check(&checks(1, 128)).unwrap_err();
        assert!(blurred.to_string().contains("focus"), "{blurred}");
        assert_eq!(Bounds::default().check(measure(&checks(0, 0), None)), Ok(()));
    }

    #[test]
    fn what_is_hidden_is_not_measured() {
        let picture = checks(40, 128);
        let bright: Vec<bool> = picture.rgb().chunks_exact(3).map(|p| p[0] > 128).collect();
        assert_eq!(measure(&picture, Some(&bright)).brightness, 88.0);
        assert_eq!(measure(&picture, None).brightness, 128.0);
    }

    #[test]
    fn a_flipped_byte_makes_another_fingerprint() {
        let bytes: Vec<u8> = (0..99).collect();
        let of = |bytes: Vec<u8>| Fingerprint::of(&Pixels::Encoded(bytes));
        for at in [0, 48, 49, 98] {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(of(other), of(bytes.clone()));
        }
        assert_eq!(of(bytes.clone()), of(bytes));
    }
}

//! Whether two pictures are the same picture: saved anew, in another format or size, or taken twice of a part at rest.
//!
//! A fingerprint of eleven bytes finds candidates without opening files, on a line of look-alikes most of what there is; the
//! pictures decide, reduced to 27 kB. Parts that
//! merely look alike differ by more, since no two lie, shine and wear the same to one grey level.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::frame::{Picture, Size};
use crate::imaging::Resizer;

/// Bits of the hash that recompression and resizing may turn.
const BITS: u32 = 10;
/// Grey levels by which they may shift the mean of a colour.
const SHIFT: u8 = 3;
/// The size at which two pictures are held against each other.
pub(super) const REDUCED: Size = Size::new(96, 96);
/// Grey levels by which the same picture differs from itself, on average and at its worst pixel.
const MEAN_DIFFERENCE: f64 = 0.8;
const WORST_DIFFERENCE: u8 = 16;

/// A picture in eleven bytes; written `0123456789abcdef:rrggbb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Print {
    /// Whether each of 8×8 fields is brighter than its right neighbour.
    gradients: u64,
    mean: [u8; 3],
}

impl Print {
    pub(super) fn of(picture: &Picture, resizer: &mut Resizer) -> Self {
        let small = |width, height, resizer: &mut Resizer| {
            resizer.resize(picture, Size::new(width, height)).expect("a tiny size is legal: this is a bug")
        };
        let grid = small(9, 8, resizer);
        let grey: Vec<u32> =
            grid.rgb().chunks_exact(3).map(|p| p.iter().map(|&v| u32::from(v)).sum()).collect();
        let bits = grey.chunks_exact(9).flat_map(|row| row.windows(2).map(|pair| pair[0] > pair[1]));
        let gradients = bits.fold(0, |hash, bit| hash << 1 | u64::from(bit));
        let one = small(1, 1, resizer);
        Self { gradients, mean: [one.rgb()[0], one.rgb()[1], one.rgb()[2]] }
    }

    /// Whether the pictures may be the same.
    pub(super) fn resembles(&self, other: &Self) -> bool {
        (self.gradients ^ other.gradients).count_ones() <= BITS
            && self.mean.iter().zip(other.mean).all(|(a, b)| a.abs_diff(b) <= SHIFT)
    }
}

/// A picture at the size at which two are held against each other.
pub(super) fn reduced(picture: &Picture, resizer: &mut Resizer) -> Picture {
    resizer.resize(picture, REDUCED).expect("a small size is legal: this is a bug")
}

/// Whether two pictures that were reduced are the same.
pub(super) fn same(a: &Picture, b: &Picture) -> bool {
    let differences = || a.rgb().iter().zip(b.rgb()).map(|(a, b)| a.abs_diff(*b));
    let mean = differences().map(f64::from).sum::<f64>() / a.rgb().len() as f64;
    mean <= MEAN_DIFFERENCE && differences().max().unwrap_or(0) <= WORST_DIFFERENCE
}

impl fmt::Display for Print {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [r, g, b] = self.mean;
        write!(f, "{:016x}:{r:02x}{g:02x}{b:02x}", self.gradients)
    }
}

impl FromStr for Print {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text:.40}` is no fingerprint");
        let (gradients, mean) = text.split_once(':').ok_or_else(wrong)?;
        let gradients = u64::from_str_radix(gradients, 16).map_err(|_| wrong())?;
        let mean = u32::from_str_radix(mean, 16).map_err(|_| wrong())?;
        let [_, r, g, b] = mean.to_be_bytes();
        Ok(Self { gradients, mean: [r, g, b] })
    }
}

impl TryFrom<String> for Print {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Print> for String {
    fn from(print: Print) -> Self {
        print.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::normal_part;
    use crate::detector::untrained;
    use crate::imaging;

    fn alike(a: &Picture, b: &Picture) -> bool {
        let mut resizer = Resizer::new();
        let resembles = Print::of(a, &mut resizer).resembles(&Print::of(b, &mut resizer));
        resembles && same(&reduced(a, &mut resizer), &reduced(b, &mut resizer))
    }

    #[test]
    fn a_picture_is_known_again_in_another_format_and_size() {
        let part = normal_part(1, 7, Size::new(320, 320));
        let mut jpeg = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 85)
            .encode(part.rgb(), 320, 320, image::ExtendedColorType::Rgb8)
            .unwrap();
        assert!(alike(&part, &imaging::decode_bytes(&jpeg).unwrap()));
        let larger = Resizer::new().resize(&part, Size::new(640, 640)).unwrap();
        assert!(alike(&part, &larger));
    }

    #[test]
    fn another_part_or_another_light_is_another_picture() {
        let parts: Vec<_> = (0..12).map(|n| normal_part(1, n, Size::new(160, 160))).collect();
        for (i, a) in parts.iter().enumerate() {
            for b in &parts[..i] {
                assert!(!alike(a, b));
            }
        }
        let mut dimmer = parts[0].clone();
        dimmer.rgb_mut().iter_mut().for_each(|v| *v = (u16::from(*v) * 19 / 20) as u8);
        assert!(!alike(&parts[0], &dimmer));
        let noise = |seed| untrained::picture(Size::new(96, 80), seed);
        assert!(!alike(&noise(1), &noise(2)));
    }

    #[test]
    fn a_fingerprint_is_read_as_it_is_written() {
        let print = Print { gradients: 0xfe, mean: [1, 2, 255] };
        assert_eq!(print.to_string().parse(), Ok(print));
        for bad in ["", "1", "x:000000", "1:zz"] {
            assert!(bad.parse::<Print>().is_err(), "{bad}");
        }
    }
}

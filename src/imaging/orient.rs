//! Orientation: turning and mirroring pictures of cameras that hang sideways, upside down or behind a mirror.
//!
//! In: a decoded picture. Out: the picture as people want to see it; every coordinate in settings and verdicts is one of
//! this picture. Evidence keeps what the camera delivered.

use serde::{Deserialize, Serialize};

use crate::frame::{Picture, Size};

/// How a camera's picture is brought upright: turned first, then mirrored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orientation {
    /// How far it is turned, clockwise.
    pub rotate: Rotation,
    /// Along which axis it is mirrored.
    pub flip: Flip,
}

/// A clockwise turn, in degrees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub enum Rotation {
    /// 0.
    #[default]
    None,
    /// 90.
    Right,
    /// 180.
    Half,
    /// 270.
    Left,
}

impl TryFrom<u16> for Rotation {
    type Error = String;

    fn try_from(degrees: u16) -> Result<Self, Self::Error> {
        match degrees {
            0 => Ok(Self::None),
            90 => Ok(Self::Right),
            180 => Ok(Self::Half),
            270 => Ok(Self::Left),
            other => Err(format!("{other} is not possible here: give 0, 90, 180 or 270 degrees, clockwise")),
        }
    }
}

impl From<Rotation> for u16 {
    fn from(rotation: Rotation) -> Self {
        match rotation {
            Rotation::None => 0,
            Rotation::Right => 90,
            Rotation::Half => 180,
            Rotation::Left => 270,
        }
    }
}

/// A mirror.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flip {
    /// None.
    #[default]
    None,
    /// Left becomes right.
    Horizontal,
    /// Up becomes down.
    Vertical,
}

/// Columns and rows that are turned at once.
const TILE: usize = 32;

impl Orientation {
    /// The upright size of a picture that is delivered with `size`.
    pub fn upright(self, size: Size) -> Size {
        match self.rotate {
            Rotation::Right | Rotation::Left => Size::new(size.height, size.width),
            Rotation::None | Rotation::Half => size,
        }
    }

    /// The picture, upright.
    pub fn apply(self, picture: Picture) -> Picture {
        if self == Self::default() {
            return picture;
        }
        let Size { width, height } = picture.size();
        let (w, h) = (width as usize, height as usize);
        // A step to the right and a step down in the upright picture, as steps in the captured one.
        let (mut start, mut right, mut down) = match self.rotate {
            Rotation::None => ((0, 0), (1, 0), (0, 1)),
            Rotation::Right => ((0, h - 1), (0, -1), (1, 0)),
            Rotation::Half => ((w - 1, h - 1), (-1, 0), (0, -1)),
            Rotation::Left => ((w - 1, 0), (0, 1), (-1, 0)),
        };
        let upright = self.upright(picture.size());
        let (columns, rows) = (upright.width as usize, upright.height as usize);
        let last = |from: (usize, usize), step: (isize, isize), count: usize| {
            let end = |at: usize, by: isize| at.wrapping_add_signed(by * (count as isize - 1));
            (end(from.0, step.0), end(from.1, step.1))
        };
        match self.flip {
            Flip::None => {}
            Flip::Horizontal => {
                start = last(start, right, columns);
                right = (-right.0, -right.1);
            }
            Flip::Vertical => {
                start = last(start, down, rows);
                down = (-down.0, -down.1);
            }
        }
        let offset = |(x, y): (isize, isize)| (y * w as isize + x) * 3;
        let (right, down) = (offset(right), offset(down));
        let captured = picture.rgb();
        let mut rgb = vec![0; captured.len()];
        // Turned by a quarter, neighbours come from far apart: tiles keep both sides' lines in the cache.
        let turned = matches!(self.rotate, Rotation::Right | Rotation::Left);
        let (across, downwards) = if turned { (TILE, TILE) } else { (columns, 1) };
        let mut first = (start.1 * w + start.0) * 3;
        for strip in rgb.chunks_mut(3 * columns * downwards) {
            for left in (0..columns).step_by(across) {
                let tile = 3 * left..3 * columns.min(left + across);
                let mut row = first.wrapping_add_signed(right * left as isize);
                for out in strip.chunks_exact_mut(3 * columns) {
                    let mut at = row;
                    for pixel in out[tile.clone()].as_chunks_mut::<3>().0 {
                        pixel.copy_from_slice(&captured[at..at + 3]);
                        at = at.wrapping_add_signed(right);
                    }
                    row = row.wrapping_add_signed(down);
                }
            }
            first = first.wrapping_add_signed(down * downwards as isize);
        }
        Picture::new(upright, rgb).expect("turning keeps the number of pixels: this is a bug")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters in place of pixels.
    fn turned(rows: &[&str], rotate: Rotation, flip: Flip) -> Vec<String> {
        let rgb = rows.iter().flat_map(|row| row.bytes().flat_map(|b| [b; 3])).collect();
        let size = Size::new(rows[0].len() as u32, rows.len() as u32);
        let upright = Orientation { rotate, flip }.apply(Picture::new(size, rgb).unwrap());
        let letters: Vec<u8> = upright.rgb().iter().step_by(3).copied().collect();
        let width = upright.size().width as usize;
        letters.chunks(width).map(|row| String::from_utf8(row.to_vec()).unwrap()).collect()
    }

    #[test]
    fn every_turn_and_mirror_puts_each_pixel_where_it_belongs() {
        let rows = ["abc", "def"];
        assert_eq!(turned(&rows, Rotation::None, Flip::None), ["abc", "def"]);
        assert_eq!(turned(&rows, Rotation::Right, Flip::None), ["da", "eb", "fc"]);
        assert_eq!(turned(&rows, Rotation::Half, Flip::None), ["fed", "cba"]);
        assert_eq!(turned(&rows, Rotation::Left, Flip::None), ["cf", "be", "ad"]);
        assert_eq!(turned(&rows, Rotation::None, Flip::Horizontal), ["cba", "fed"]);
        assert_eq!(turned(&rows, Rotation::None, Flip::Vertical), ["def", "abc"]);
        assert_eq!(turned(&rows, Rotation::Right, Flip::Horizontal), ["ad", "be", "cf"]);
        assert_eq!(turned(&rows, Rotation::Left, Flip::Vertical), ["ad", "be", "cf"]);
    }

    #[test]
    fn a_picture_of_several_tiles_is_turned_as_one() {
        // Each pixel says where it was.
        let (width, height) = (70, 45);
        let rgb = (0..width * height).flat_map(|i| [(i % width) as u8, (i / width) as u8, 7]).collect();
        let captured = Picture::new(Size::new(width, height), rgb).unwrap();
        for rotate in [Rotation::Right, Rotation::Left] {
            let upright = Orientation { rotate, flip: Flip::None }.apply(captured.clone());
            assert_eq!(upright.size(), Size::new(height, width));
            for (i, pixel) in upright.rgb().chunks_exact(3).enumerate() {
                let (x, y) = (i as u32 % height, i as u32 / height);
                let was = match rotate {
                    Rotation::Right => [y, height - 1 - x],
                    _ => [width - 1 - y, x],
                };
                assert_eq!(pixel, [was[0] as u8, was[1] as u8, 7], "{rotate:?} ({x}, {y})");
            }
        }
    }
}

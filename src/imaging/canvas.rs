//! A picture to draw upon: blended rectangles, brackets and text.
//!
//! In: shapes in pixels, which may lie outside. Out: a [`Picture`]. Not here: what is drawn where (`heatmap`).

use super::font;
use crate::frame::Picture;

pub(super) type Colour = [u8; 3];

/// A rectangle; its corners may lie outside the canvas.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rect {
    pub(super) left: i32,
    pub(super) top: i32,
    pub(super) width: i32,
    pub(super) height: i32,
}

impl Rect {
    pub(super) fn new(left: i32, top: i32, width: i32, height: i32) -> Self {
        Self { left, top, width, height }
    }

    /// Larger by `by` at each side.
    pub(super) fn grown(self, by: i32) -> Self {
        Self::new(self.left - by, self.top - by, self.width + 2 * by, self.height + 2 * by)
    }
}

/// See the module.
pub(super) struct Canvas {
    picture: Picture,
}

impl Canvas {
    pub(super) fn new(picture: Picture) -> Self {
        Self { picture }
    }

    pub(super) fn into_picture(self) -> Picture {
        self.picture
    }

    pub(super) fn width(&self) -> i32 {
        self.picture.size().width as i32
    }

    pub(super) fn height(&self) -> i32 {
        self.picture.size().height as i32
    }

    /// The pixel at (`x`, `y`), or none outside.
    pub(super) fn pixel(&mut self, x: i32, y: i32) -> Option<&mut [u8]> {
        if !(0..self.width()).contains(&x) || !(0..self.height()).contains(&y) {
            return None;
        }
        let at = (y as usize * self.width() as usize + x as usize) * 3;
        self.picture.rgb_mut().get_mut(at..at + 3)
    }

    /// Lays `colour` over a pixel; `alpha` 1 covers it.
    pub(super) fn blend(&mut self, x: i32, y: i32, colour: Colour, alpha: f32) {
        let Some(pixel) = self.pixel(x, y) else { return };
        for (below, above) in pixel.iter_mut().zip(colour) {
            let mixed = f32::from(*below) + (f32::from(above) - f32::from(*below)) * alpha.clamp(0.0, 1.0);
            *below = mixed.round() as u8;
        }
    }

    pub(super) fn fill(&mut self, rect: Rect, colour: Colour, alpha: f32) {
        for y in rect.top.max(0)..(rect.top + rect.height).min(self.height()) {
            for x in rect.left.max(0)..(rect.left + rect.width).min(self.width()) {
                self.blend(x, y, colour, alpha);
            }
        }
    }

    /// The outline of `rect`, `thick` pixels wide to its inside.
    pub(super) fn outline(&mut self, rect: Rect, thick: i32, colour: Colour, alpha: f32) {
        let Rect { left, top, width, height } = rect;
        self.fill(Rect::new(left, top, width, thick), colour, alpha);
        self.fill(Rect::new(left, top + height - thick, width, thick), colour, alpha);
        self.fill(Rect::new(left, top + thick, thick, height - 2 * thick), colour, alpha);
        self.fill(Rect::new(left + width - thick, top + thick, thick, height - 2 * thick), colour, alpha);
    }

    /// The corners of `rect`, as view-finders draw them: they name a place without covering it.
    pub(super) fn brackets(&mut self, rect: Rect, thick: i32, colour: Colour) {
        let arm = (rect.width.min(rect.height) / 3).clamp(3 * thick, 12 * thick);
        let right = rect.left + rect.width;
        let bottom = rect.top + rect.height;
        for (shade, grow) in [([0, 0, 0], 1), (colour, 0)] {
            let alpha = if grow > 0 { 0.55 } else { 1.0 };
            for (x, along) in [(rect.left, 0), (right - thick, arm - thick)] {
                for (y, down) in [(rect.top, 0), (bottom - thick, arm - thick)] {
                    self.fill(Rect::new(x - along, y, arm, thick).grown(grow), shade, alpha);
                    self.fill(Rect::new(x, y - down, thick, arm).grown(grow), shade, alpha);
                }
            }
        }
    }

    /// Writes `text` with its upper left corner at (`x`, `y`), a dot of the font being `dot` pixels wide.
    pub(super) fn text(&mut self, [x, y]: [i32; 2], dot: f32, colour: Colour, text: &str) {
        for (i, character) in text.chars().enumerate() {
            let left = x as f32 + i as f32 * font::ADVANCE * dot;
            for row in 0..(font::HEIGHT * dot).ceil() as i32 {
                for column in left.floor() as i32..(left + font::ADVANCE * dot).ceil() as i32 {
                    let (u, v) = ((column as f32 + 0.5 - left) / dot, (row as f32 + 0.5) / dot);
                    let alpha = font::coverage(character, u, v, dot);
                    if alpha > 0.0 {
                        self.blend(column, y + row, colour, alpha);
                    }
                }
            }
        }
    }
}

/// How wide `text` is.
pub(super) fn text_width(text: &str, dot: f32) -> i32 {
    ((text.chars().count() as f32 * font::ADVANCE - 1.0) * dot).ceil() as i32
}

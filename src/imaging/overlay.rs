//! The view as people check it: the upright picture with the inspected region outlined and shade over what is hidden.
//!
//! In: a prepared picture. Out: a picture of the same size, so that places in it can be written into the settings as they
//! are read off. Not here: heat maps (`heatmap`).

use super::canvas::{Canvas, Rect};
use super::prepare::Prepared;
use crate::frame::Picture;

const LINE: [u8; 3] = [64, 220, 120];
const SHADE: [u8; 3] = [200, 40, 60];

/// Draws region and mask over the picture.
pub fn overlay(prepared: &Prepared) -> Picture {
    let Prepared { captured, viewed, mask, .. } = prepared;
    let mut canvas = Canvas::new(captured.clone());
    let (left, top) = (viewed.x as i32, viewed.y as i32);
    let view = Rect::new(left, top, viewed.width as i32, viewed.height as i32);
    for y in 0..canvas.height() {
        for x in 0..canvas.width() {
            let inside = (left..left + view.width).contains(&x) && (top..top + view.height).contains(&y);
            let hidden =
                inside && mask.as_ref().is_some_and(|m| m.hides((x - left) as u32, (y - top) as u32));
            if !inside {
                canvas.blend(x, y, [0, 0, 0], 0.6);
            } else if hidden {
                // Hatched, so that what lies below can still be seen.
                canvas.blend(x, y, SHADE, if (x + y).rem_euclid(8) < 3 { 0.75 } else { 0.35 });
            }
        }
    }
    let thick = (canvas.width().max(canvas.height()) / 640).max(1);
    canvas.outline(view.grown(thick), thick, LINE, 1.0);
    canvas.into_picture()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{PixelFormat, Pixels, Region, Samples, Size};
    use crate::imaging::{Areas, Preparation, View};

    #[test]
    fn what_counts_is_left_as_it_is() {
        let view = View {
            region: Some(Region { x: 4, y: 4, width: 10, height: 10 }),
            areas: Areas { ignore: vec![vec![[4, 4], [8, 4], [8, 8], [4, 8]]], ..Areas::default() },
            ..View::default()
        };
        let format = PixelFormat::Mono(Samples::U8);
        let pixels = Pixels::Raw { size: Size::new(20, 20), format, stride: 20, bytes: vec![100; 400] };
        let prepared = Preparation::open(&view, Size::new(8, 8)).unwrap().look(&pixels).unwrap();
        let drawn = overlay(&prepared);
        let pixel = |x: usize, y: usize| drawn.rgb()[(y * 20 + x) * 3..][..3].to_vec();
        assert_eq!((pixel(10, 10), pixel(3, 10)), (vec![100; 3], LINE.to_vec()));
        assert!(pixel(5, 5)[0] > 120 && pixel(0, 0)[0] < 60, "{:?} {:?}", pixel(5, 5), pixel(0, 0));
    }
}

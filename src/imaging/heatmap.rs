//! Heat maps: a picture with what the detector saw in it.
//!
//! In: the captured picture, the anomaly map and the finding. Out: a picture of a size fit for a screen. The part stays
//! visible: below half the threshold nothing is tinted, the line runs where the map crosses the threshold, brackets
//! hold the regions, and a strip below says the score, the threshold and what the colours mean. The colour scale is
//! tied to the threshold, so that two heat maps of one model can be compared. Not here: encoding (`encode`).

use thiserror::Error;

use super::canvas::{Canvas, Rect, text_width};
use super::palette::inferno;
use super::region::{RegionError, check_region, whole};
use super::resize::Resizer;
use crate::frame::{InvalidPicture, Picture, Region, Size};
use crate::verdict::Finding;

/// The longer side of a heat map: small pictures are enlarged to the first, large ones reduced to the second.
const LONGER_SIDE: (u32, u32) = (640, 1280);
/// Regions that get brackets, worst first; more would hide the part.
const SHOWN_REGIONS: usize = 12;

const INK: [u8; 3] = [236, 238, 241];
const MUTED: [u8; 3] = [150, 156, 166];
const STRIP: [u8; 3] = [20, 22, 27];
const ALARM: [u8; 3] = [214, 64, 69];
const FINE: [u8; 3] = [38, 146, 98];

/// What to draw.
#[derive(Debug, Clone, Copy)]
pub struct Heat<'a> {
    /// The anomaly map, row by row; it covers `viewed`.
    pub values: &'a [f32],
    /// The map's columns and rows; any, such as those of `viewed`.
    pub size: Size,
    /// The part of the captured picture that the map covers.
    pub viewed: Region,
    /// What came of it, in pixels of the captured picture.
    pub finding: &'a Finding,
}

/// Why there is no heat map.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HeatmapError {
    /// The map has not as many values as its size says.
    #[error("an anomaly map of {size} needs {expected} values, got {got}", expected = size.pixels())]
    Values {
        /// Its size.
        size: Size,
        /// The values there are.
        got: usize,
    },
    /// The viewed region is not in the picture.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The picture has extreme proportions.
    #[error(transparent)]
    Size(#[from] InvalidPicture),
}

/// Draws the map over the picture.
///
/// # Errors
/// [`HeatmapError`] where map, region and picture do not belong together.
pub fn heatmap(captured: &Picture, heat: &Heat<'_>) -> Result<Picture, HeatmapError> {
    if heat.size.pixels() == 0 || heat.values.len() as u64 != heat.size.pixels() {
        return Err(HeatmapError::Values { size: heat.size, got: heat.values.len() });
    }
    check_region(heat.viewed, captured.size())?;
    let sheet = Sheet::new(captured.size());
    let picture = Resizer::new().resize(captured, sheet.picture)?;
    let mut canvas = sheet.canvas(&picture)?;
    let scale = Scale::new(heat.finding);
    sheet.tint(&mut canvas, heat, &scale);
    sheet.regions(&mut canvas, heat);
    sheet.strip(&mut canvas, heat.finding, &scale);
    Ok(canvas.into_picture())
}

/// From map values to places on the colour scale.
struct Scale {
    threshold: f32,
    below: f32,
    above: f32,
}

impl Scale {
    /// 0 at no anomaly, 0.5 at the threshold, 1 at twice the threshold or at a higher score.
    fn new(finding: &Finding) -> Self {
        let threshold = finding.threshold.0;
        let span = threshold.abs().max(1e-3);
        let above = if finding.score.0.is_finite() { finding.score.0 - threshold } else { span };
        Self { threshold, below: span, above: above.max(span) }
    }

    fn place(&self, value: f32) -> f32 {
        if value.is_nan() {
            return 1.0;
        }
        let beyond = value - self.threshold;
        (0.5 + 0.5 * beyond / if beyond < 0.0 { self.below } else { self.above }).clamp(0.0, 1.0)
    }

    fn top(&self) -> f32 {
        self.threshold + self.above
    }
}

fn ramp(from: f32, to: f32, t: f32) -> f32 {
    ((t - from) / (to - from)).clamp(0.0, 1.0)
}

/// The sheet's measures.
struct Sheet {
    captured: Size,
    /// The picture's size on the sheet.
    picture: Size,
    /// The strip's height.
    strip: u32,
    /// A line's width, and half a dot of the font.
    unit: i32,
}

impl Sheet {
    fn new(captured: Size) -> Self {
        let longer = captured.width.max(captured.height);
        let wanted = longer.clamp(LONGER_SIDE.0, LONGER_SIDE.1);
        let scaled = |side: u32| {
            ((u64::from(side) * u64::from(wanted) + u64::from(longer) / 2) / u64::from(longer)).max(1) as u32
        };
        let unit = if wanted >= 1000 { 2 } else { 1 };
        let picture = Size::new(scaled(captured.width), scaled(captured.height));
        Self { captured, picture, strip: 30 * unit as u32, unit }
    }

    /// The picture, paled so that colours stand out, above an empty strip.
    fn canvas(&self, picture: &Picture) -> Result<Canvas, InvalidPicture> {
        let Size { width, height } = self.picture;
        let mut rgb = Vec::with_capacity((width * (height + self.strip) * 3) as usize);
        for pixel in picture.rgb().chunks_exact(3) {
            let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(f32::from);
            let grey = 0.299 * r + 0.587 * g + 0.114 * b;
            rgb.extend([r, g, b].map(|c| (0.92 * (0.6 * c + 0.4 * grey)) as u8));
        }
        rgb.extend((0..width * self.strip).flat_map(|_| STRIP));
        Ok(Canvas::new(Picture::new(Size::new(width, height + self.strip), rgb)?))
    }

    fn x(&self, captured: f32) -> f32 {
        captured * self.picture.width as f32 / self.captured.width as f32
    }

    fn y(&self, captured: f32) -> f32 {
        captured * self.picture.height as f32 / self.captured.height as f32
    }

    fn rect(&self, region: Region) -> Rect {
        let (left, top) = (self.x(region.x as f32), self.y(region.y as f32));
        let (right, bottom) =
            (self.x((region.x + region.width) as f32), self.y((region.y + region.height) as f32));
        let round = |v: f32| v.round() as i32;
        Rect::new(round(left), round(top), round(right - left).max(1), round(bottom - top).max(1))
    }

    /// Colours where the map is high, the line along the threshold, and shade over what was not viewed.
    fn tint(&self, canvas: &mut Canvas, heat: &Heat<'_>, scale: &Scale) {
        let view = self.rect(heat.viewed);
        if heat.viewed != whole(self.captured) {
            self.shade_around(canvas, view);
        }
        let map = Sampled::new(heat, view);
        let mut above = vec![false; (view.width * view.height) as usize];
        for y in 0..view.height {
            for x in 0..view.width {
                let value = map.at(x, y);
                let t = scale.place(value);
                above[(y * view.width + x) as usize] = t > 0.5;
                let alpha = 0.46 * ramp(0.25, 0.5, t) + 0.22 * ramp(0.5, 1.0, t);
                if alpha > 0.0 {
                    canvas.blend(view.left + x, view.top + y, inferno(0.12 + 0.88 * t), alpha);
                }
            }
        }
        self.contour(canvas, view, &above);
    }

    fn shade_around(&self, canvas: &mut Canvas, view: Rect) {
        let (width, height) = (self.picture.width as i32, self.picture.height as i32);
        let (right, bottom) = (view.left + view.width, view.top + view.height);
        for shaded in [
            Rect::new(0, 0, width, view.top),
            Rect::new(0, bottom, width, height - bottom),
            Rect::new(0, view.top, view.left, view.height),
            Rect::new(right, view.top, width - right, view.height),
        ] {
            canvas.fill(shaded, [0, 0, 0], 0.55);
        }
        canvas.outline(view, self.unit, MUTED, 0.8);
    }

    /// A bright line just outside what is above the threshold, with a dark one around it for bright parts.
    fn contour(&self, canvas: &mut Canvas, view: Rect, above: &[bool]) {
        let place = |x: i32, y: i32| {
            let inside = (0..view.width).contains(&x) && (0..view.height).contains(&y);
            inside.then_some((y * view.width + x) as usize)
        };
        let is_above = |x: i32, y: i32| place(x, y).is_some_and(|i| above[i]);
        let near = |x: i32, y: i32| if x * x + y * y <= self.unit * self.unit + 1 { 2 } else { 1 };
        let reach = 2 * self.unit;
        // 2 under the bright line, 1 under the dark one; stamped along the edge, which is short.
        let mut line = vec![0u8; above.len()];
        for y in 0..view.height {
            for x in 0..view.width {
                let inner =
                    is_above(x - 1, y) && is_above(x + 1, y) && is_above(x, y - 1) && is_above(x, y + 1);
                if !is_above(x, y) || inner {
                    continue;
                }
                for dy in -reach..=reach {
                    for dx in -reach..=reach {
                        if let Some(i) = place(x + dx, y + dy).filter(|&i| !above[i]) {
                            line[i] = line[i].max(near(dx, dy));
                        }
                    }
                }
            }
        }
        for (i, depth) in (0..).zip(line).filter(|(_, depth)| *depth > 0) {
            let (x, y) = (view.left + i % view.width, view.top + i / view.width);
            let (colour, alpha) = if depth == 2 { (INK, 0.95) } else { ([0, 0, 0], 0.45) };
            canvas.blend(x, y, colour, alpha);
        }
    }

    /// Brackets around the regions, each with its score.
    fn regions(&self, canvas: &mut Canvas, heat: &Heat<'_>) {
        let unit = self.unit;
        let dot = 1.5 * unit as f32;
        let floor = self.picture.height as i32;
        for region in heat.finding.regions.iter().take(SHOWN_REGIONS) {
            let (x, y, width, height) = (region.x, region.y, region.width, region.height);
            if check_region(Region { x, y, width, height }, self.captured).is_err() {
                continue;
            }
            let rect = self.rect(Region { x, y, width, height }).grown(6 * unit);
            canvas.brackets(rect, 2 * unit, INK);
            let label = format!("{:.2}", region.score.0);
            let plate = [text_width(&label, dot) + 8 * unit, (7.0 * dot) as i32 + 7 * unit];
            let above = rect.top - plate[1] - 3 * unit;
            let top =
                if above >= 0 { above } else { (rect.top + rect.height + 3 * unit).min(floor - plate[1]) };
            let left = rect.left.clamp(0, (canvas.width() - plate[0]).max(0));
            canvas.fill(Rect::new(left, top, plate[0], plate[1]), [0, 0, 0], 0.72);
            canvas.text([left + 4 * unit, top + 4 * unit], dot, INK, &label);
        }
    }

    /// Decision, score and threshold at the left; the colour scale at the right where there is room.
    fn strip(&self, canvas: &mut Canvas, finding: &Finding, scale: &Scale) {
        let (unit, dot) = (self.unit, 1.5 * self.unit as f32);
        let top = self.picture.height as i32;
        let baseline = top + 10 * unit;
        let (word, colour) = match finding.score.0 <= finding.threshold.0 {
            true => ("OK", FINE),
            false => ("ANOMALOUS", ALARM),
        };
        let chip = Rect::new(6 * unit, top + 5 * unit, text_width(word, dot) + 14 * unit, 20 * unit);
        canvas.fill(chip, colour, 1.0);
        canvas.text([chip.left + 7 * unit, baseline], dot, [255, 255, 255], word);
        let mut x = chip.left + chip.width + 12 * unit;
        for (name, value) in [("score", finding.score.0), ("threshold", finding.threshold.0)] {
            let value = format!("{value:.3}");
            canvas.text([x, baseline], dot, MUTED, name);
            x += text_width(name, dot) + 6 * unit;
            canvas.text([x, baseline], dot, INK, &value);
            x += text_width(&value, dot) + 14 * unit;
        }
        self.legend(canvas, scale, x);
    }

    fn legend(&self, canvas: &mut Canvas, scale: &Scale, from: i32) {
        let (unit, dot) = (self.unit, self.unit as f32);
        let top = self.picture.height as i32;
        let width = 132 * unit;
        let right = canvas.width() - 12 * unit;
        let left = right - width;
        if left < from + 8 * unit {
            return;
        }
        for x in 0..width {
            let colour = inferno(0.12 + 0.88 * x as f32 / width as f32);
            canvas.fill(Rect::new(left + x, top + 6 * unit, 1, 8 * unit), colour, 1.0);
        }
        canvas.fill(Rect::new(left + width / 2 - unit, top + 4 * unit, 2 * unit, 12 * unit), INK, 1.0);
        let labels = [(0.0, scale.threshold - scale.below), (0.5, scale.threshold), (1.0, scale.top())];
        for (place, value) in labels {
            let label = format!("{value:.2}");
            let size = text_width(&label, dot) as f32;
            let x = left as f32 + place * (width as f32 - size);
            canvas.text([x as i32, top + 18 * unit], dot, MUTED, &label);
        }
    }
}

/// The map, interpolated at the pixels of its place on the sheet.
struct Sampled<'a> {
    heat: &'a Heat<'a>,
    step: [f32; 2],
}

impl<'a> Sampled<'a> {
    fn new(heat: &'a Heat<'a>, view: Rect) -> Self {
        let step = [heat.size.width as f32 / view.width as f32, heat.size.height as f32 / view.height as f32];
        Self { heat, step }
    }

    fn at(&self, x: i32, y: i32) -> f32 {
        let Size { width, height } = self.heat.size;
        let place = |at: i32, step: f32, side: u32| {
            let p = ((at as f32 + 0.5) * step - 0.5).clamp(0.0, (side - 1) as f32);
            let low = (p as u32).min(side - 1);
            (low as usize, (low + 1).min(side - 1) as usize, p - low as f32)
        };
        let (left, right, across) = place(x, self.step[0], width);
        let (up, low, down) = place(y, self.step[1], height);
        let value = |column: usize, row: usize| self.heat.values[row * width as usize + column];
        let upper = value(left, up) + (value(right, up) - value(left, up)) * across;
        let lower = value(left, low) + (value(right, low) - value(left, low)) * across;
        upper + (lower - upper) * down
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{AnomalousRegion, ModelRef, Score, Threshold};

    fn finding(score: f32) -> Finding {
        let region = AnomalousRegion { x: 20, y: 20, width: 20, height: 20, score: Score(score) };
        Finding {
            score: Score(score),
            threshold: Threshold(0.5),
            peak: [30, 30],
            regions: if score > 0.5 { vec![region] } else { vec![] },
            model: ModelRef { name: "m".into(), version: "v".into() },
        }
    }

    fn grey(size: Size) -> Picture {
        Picture::new(size, vec![128; size.pixels() as usize * 3]).unwrap()
    }

    #[test]
    fn what_is_hot_is_tinted_and_what_is_not_stays_grey() {
        let size = Size::new(80, 60);
        let hot = |i: u32| (20..40).contains(&(i % 80)) && (20..40).contains(&(i / 80));
        let values: Vec<f32> = (0..80 * 60).map(|i| if hot(i) { 0.9 } else { 0.05 }).collect();
        let finding = finding(0.9);
        let heat = Heat { values: &values, size, viewed: whole(size), finding: &finding };
        let drawn = heatmap(&grey(size), &heat).unwrap();
        assert_eq!(drawn.size(), Size::new(640, 510));
        let pixel = |x: usize, y: usize| drawn.rgb()[(y * 640 + x) * 3..][..3].to_vec();
        let (inside, outside) = (pixel(240, 240), pixel(500, 100));
        assert!(inside[0] > inside[2].saturating_add(40), "{inside:?}");
        assert!(outside.iter().all(|&c| c == outside[0]), "{outside:?}");
    }

    #[test]
    fn strange_maps_are_drawn_or_refused_and_never_panic() {
        for (width, height) in [(1, 1), (1, 900), (16_000, 3), (3, 3)] {
            let size = Size::new(width, height);
            for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -3.0] {
                for threshold in [0.0, -1.0, f32::NAN] {
                    let mut finding = finding(value);
                    finding.threshold = Threshold(threshold);
                    let heat = Heat {
                        values: &[value; 4],
                        size: Size::new(2, 2),
                        viewed: whole(size),
                        finding: &finding,
                    };
                    assert!(heatmap(&grey(size), &heat).is_ok());
                }
            }
        }
        let size = Size::new(8, 8);
        let finding = finding(0.1);
        let short = Heat { values: &[0.0; 3], size: Size::new(2, 2), viewed: whole(size), finding: &finding };
        assert!(matches!(heatmap(&grey(size), &short), Err(HeatmapError::Values { .. })));
        let viewed = Region { x: 4, y: 4, width: 5, height: 1 };
        let outside = Heat { values: &[0.0; 4], size: Size::new(2, 2), viewed, finding: &finding };
        assert!(matches!(heatmap(&grey(size), &outside), Err(HeatmapError::Region(_))));
    }
}

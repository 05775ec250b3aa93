//! Draws a [`Scene`] as an industrial camera would see it.
//!
//! Each pixel is shaded on its own from distances to the part's edges, which smooths edges without oversampling: belt and
//! shadow, the turned face with the bow-tie shine that concentric grooves have, the sealing ring, the bevelled bores, the
//! engraved code; then exposure, vignetting and the sensor's noise. Not here: what is drawn (`scene`, `defect`).

use super::belt::Belt;
use super::defect::{Defect, hole};
use super::flange::{BORE, HOLE, HOLE_CIRCLE, HOLES, RADIUS, RING, RING_HALF_WIDTH};
use super::noise::{along, grain, hash, over, step};
use super::scene::Scene;
use crate::frame::{Picture, Size};

type Rgb = [f32; 3];

/// The width of bevels.
const BEVEL: f32 = 0.011;
/// The lamp's height over the horizon, as the sine.
const LAMP_HEIGHT: f32 = 0.66;
/// The engraved code: cells a side, a cell's size, where its middle lies.
const CODE_CELLS: i32 = 10;
const CODE_CELL: f32 = 0.0078;
const CODE_AT: [f32; 2] = [HOLE_CIRCLE, 0.0];
/// The code's content; the same on every part.
const CODE: u32 = 0x51ab_1e5d;

fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    [a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t]
}

fn lit(colour: Rgb, light: f32) -> Rgb {
    [colour[0] * light, colour[1] * light, colour[2] * light]
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// The picture of `scene`.
pub(super) fn draw(scene: &Scene, size: Size) -> Picture {
    let side = size.width.min(size.height) as f32;
    let painter = Painter::new(scene, 1.0 / side);
    let along = |i: u32, length: u32| (i as f32 + 0.5 - length as f32 / 2.0) / side;
    let xs: Vec<_> = (0..size.width).map(|i| along(i, size.width)).collect();
    let mut belt = Belt::new(scene, &xs);
    let mut rgb = Vec::with_capacity(size.pixels() as usize * 3);
    for row in 0..size.height {
        let y = along(row, size.height);
        for ((index, x), belt) in (row * size.width..).zip(&xs).zip(belt.row(y)) {
            let colour = painter.pixel(Place { x: *x, y, belt: *belt });
            rgb.extend_from_slice(&painter.sense(colour, index));
        }
    }
    Picture::new(size, rgb).expect("three bytes a pixel were drawn: this is a bug")
}

/// A point of the picture.
#[derive(Clone, Copy)]
struct Place {
    x: f32,
    y: f32,
    /// The belt's brightness there.
    belt: f32,
}

impl Place {
    fn belt(self) -> Rgb {
        lit([0.085, 0.205, 0.185], self.belt)
    }
}

/// What the lathe left at one radius.
#[derive(Clone, Copy)]
struct Turning {
    fine: f32,
    coarse: f32,
    groove: f32,
}

/// Samples of the turning marks per pixel of radius.
const MARKS_PER_PIXEL: f32 = 6.0;

struct Painter<'a> {
    scene: &'a Scene,
    /// A pixel's width.
    pixel: f32,
    /// The lamp's direction, in the part's coordinates.
    lamp: [f32; 2],
    /// A second, weaker lamp, nearly square to the first.
    second_lamp: [f32; 2],
    holes: Vec<[f32; 2]>,
    /// The turning marks by radius.
    turning: Vec<Turning>,
}

impl<'a> Painter<'a> {
    fn new(scene: &'a Scene, pixel: f32) -> Self {
        let [c, s] = scene.turn;
        let [x, y] = scene.lamp;
        let drilled =
            |k: &usize| !matches!(scene.defect, Some(Defect::MissingHole(missing)) if missing == *k);
        let holes = (0..HOLES).filter(drilled).map(hole).collect();
        let lamp = [c * x + s * y, c * y - s * x];
        let second_lamp = [-lamp[1] * 0.96 + lamp[0] * 0.28, lamp[0] * 0.96 + lamp[1] * 0.28];
        let last = (RADIUS / pixel * MARKS_PER_PIXEL) as u32 + 2;
        let turning = (0..=last).map(|i| Self::turning(scene, i as f32 * pixel / MARKS_PER_PIXEL)).collect();
        Self { scene, pixel, lamp, second_lamp, holes, turning }
    }

    fn turning(scene: &Scene, r: f32) -> Turning {
        let groove = |at: f32| step(0.0055, 0.0015, (r - at).abs());
        Turning {
            fine: along(scene.surface, r * 430.0) * 0.6 + along(scene.surface ^ 0x55, r * 170.0) * 0.4,
            coarse: along(901, r * 36.0),
            groove: 1.0 - 0.38 * groove(0.228) - 0.38 * groove(0.362),
        }
    }

    /// The light that reaches one pixel, before the sensor.
    fn pixel(&self, place: Place) -> Rgb {
        let Place { x, y, .. } = place;
        let scene = self.scene;
        let (dx, dy) = ((x - scene.centre[0]) / scene.scale, (y - scene.centre[1]) / scene.scale);
        let [c, s] = scene.turn;
        let (u, v) = (c * dx + s * dy, c * dy - s * dx);
        let r = length(u, v);
        let outside = self.outside(u, v, r);
        let cover = step(0.6, -0.6, outside / self.pixel);
        let mut colour = [0.0; 3];
        if cover < 1.0 {
            let shadow = length(dx + 0.022 * scene.lamp[0], dy + 0.022 * scene.lamp[1]) - RADIUS;
            let light = 1.0 - 0.62 * step(0.035, -0.02, shadow);
            colour = lit(place.belt(), light);
        }
        if cover > 0.0 {
            colour = mix(colour, self.part(place, [u, v, r], outside), cover);
        }
        if let Some(Defect::Burr { .. }) = scene.defect {
            colour = self.burr(colour, u, v);
        }
        let fall_off = 1.0 - 0.22 * (x * x + y * y) - 0.10 * (x * -scene.lamp[0] + y * -scene.lamp[1]);
        lit(colour, fall_off * scene.exposure)
    }

    /// How far outside the part's rim a point is; negative inside.
    fn outside(&self, u: f32, v: f32, r: f32) -> f32 {
        let rim = r - RADIUS;
        match &self.scene.defect {
            Some(Defect::Chip { bites }) => bites.iter().fold(rim, |rim, [x, y, size]| {
                let ragged = 0.005 * over(77, u * 75.0, v * 75.0);
                rim.max(size + ragged - length(u - x, v - y))
            }),
            _ => rim,
        }
    }

    /// The part's own light, inside its rim.
    fn part(&self, place: Place, [u, v, r]: [f32; 3], outside: f32) -> Rgb {
        let towards_hole = self.nearest_hole(u, v, r);
        let (hole_depth, hole_u, hole_v) = towards_hole;
        let bore_depth = BORE - r;
        let open = bore_depth.max(hole_depth);
        let through = step(-0.6, 0.6, open / self.pixel);
        let inside = || self.through_hole(place, [u, v], bore_depth, hole_depth);
        if through >= 1.0 {
            return inside();
        }
        let mut colour = self.face(u, v, r);
        let (radial_u, radial_v) = (u / r.max(1e-6), v / r.max(1e-6));
        // Bevels look outwards at the rim and inwards at bores.
        for (distance, out_u, out_v) in [
            (-outside, radial_u, radial_v),
            (-bore_depth, -radial_u, -radial_v),
            (-hole_depth, -hole_u, -hole_v),
        ] {
            if distance < BEVEL + self.pixel {
                let facing = out_u * self.lamp[0] + out_v * self.lamp[1];
                let edge = lit([0.80, 0.81, 0.83], (0.50 + 0.62 * facing).max(0.10));
                colour = mix(colour, edge, step(BEVEL + self.pixel, BEVEL - self.pixel, distance));
            }
        }
        if through <= 0.0 {
            return colour;
        }
        mix(colour, inside(), through)
    }

    /// How deep inside the nearest bolt hole a point is, negative outside, and the direction from its centre.
    fn nearest_hole(&self, u: f32, v: f32, r: f32) -> (f32, f32, f32) {
        if (r - HOLE_CIRCLE).abs() > HOLE + 2.0 * BEVEL {
            return (-1.0, 0.0, 0.0);
        }
        let mut nearest = (-1.0f32, 0.0, 0.0);
        for [x, y] in &self.holes {
            let (du, dv) = (u - x, v - y);
            let distance = length(du, dv).max(1e-6);
            if HOLE - distance > nearest.0 {
                nearest = (HOLE - distance, du / distance, dv / distance);
            }
        }
        nearest
    }

    /// The belt deep under a bore, with the wall's shadow on the lamp's side.
    fn through_hole(&self, place: Place, [u, v]: [f32; 2], bore_depth: f32, hole_depth: f32) -> Rgb {
        let in_bore = bore_depth > hole_depth;
        let depth = if in_bore { bore_depth } else { hole_depth };
        let belt = place.belt();
        let wall = step(0.016, 0.004, depth) * 0.85;
        if !in_bore {
            return mix(lit(belt, 0.26), [0.05, 0.05, 0.06], wall);
        }
        let facing = -(u * self.lamp[0] + v * self.lamp[1]) / BORE;
        mix(lit(belt, 0.42), lit([0.36, 0.37, 0.39], 0.12 + 0.88 * step(-0.35, 0.9, facing)), wall)
    }

    /// The face between the edges: turned metal, sealing ring, grooves, code, and what spoils it.
    fn face(&self, u: f32, v: f32, r: f32) -> Rgb {
        let radius = r.max(1e-6);
        let (radial_u, radial_v) = (u / radius, v / radius);
        let mut colour = self.turned(radial_u, radial_v, r);
        colour = self.code(colour, u, v);
        if let Some(defect) = &self.scene.defect {
            colour = self.spoil(colour, defect, u, v);
        }
        let from_ring = (r - RING).abs();
        let seat = step(RING_HALF_WIDTH + 0.007, RING_HALF_WIDTH + 0.001, from_ring);
        colour = mix(colour, [0.10, 0.10, 0.11], seat * 0.85);
        let cover = step(self.pixel * 0.7, -self.pixel * 0.7, from_ring - RING_HALF_WIDTH);
        if cover > 0.0 {
            colour = mix(colour, self.ring(radial_u, radial_v, r), cover);
        }
        if let Some(Defect::Contamination { drops, seed }) = &self.scene.defect {
            colour = self.stain(colour, drops, *seed, u, v);
        }
        colour
    }

    /// Metal with concentric grooves: they shine where they run across the light.
    fn turned(&self, radial_u: f32, radial_v: f32, r: f32) -> Rgb {
        let across = |a: [f32; 2]| {
            let tangent = a[1] * radial_u - a[0] * radial_v;
            let facing = 1.0 - tangent * tangent;
            facing * facing * facing
        };
        let (first, second) = (across(self.lamp), across(self.second_lamp));
        let place = (r / self.pixel * MARKS_PER_PIXEL) as usize;
        let Turning { fine, coarse, groove } = self.turning[place.min(self.turning.len() - 1)];
        let shine = 0.30 * first * first + 0.10 * second * second * second;
        let light = 0.50 + shine + (0.035 + 0.10 * shine) * fine + 0.018 * coarse;
        lit([0.985, 1.0, 1.03], light * groove)
    }

    fn ring(&self, radial_u: f32, radial_v: f32, r: f32) -> Rgb {
        let colour = match self.scene.defect {
            Some(Defect::WrongColor(colour)) => colour,
            _ => self.scene.ring,
        };
        let across = ((r - RING) / RING_HALF_WIDTH).clamp(-1.0, 1.0);
        let up = (1.0 - across * across).sqrt();
        let towards = across * (radial_u * self.lamp[0] + radial_v * self.lamp[1]);
        let light = 0.34 + 0.62 * (up * LAMP_HEIGHT + towards * 0.75).max(0.0);
        let gloss = (up * 0.80 + towards * 0.60).max(0.0).powi(24) * 0.38;
        lit(colour, light).map(|c| c + gloss)
    }

    /// A square code, as lasers engrave it.
    fn code(&self, colour: Rgb, u: f32, v: f32) -> Rgb {
        let (x, y) = ((u - CODE_AT[0]) / CODE_CELL, (v - CODE_AT[1]) / CODE_CELL);
        let half = CODE_CELLS as f32 / 2.0;
        if x.abs() > half + 1.0 || y.abs() > half + 1.0 {
            return colour;
        }
        let soft = self.pixel / CODE_CELL * 0.5;
        // A cell's share of this pixel, from its own and its neighbours' edges.
        let mut dark = 0.0;
        let (column, row) = ((x + half + 2.0) as i32 - 2, (y + half + 2.0) as i32 - 2);
        for (i, j) in [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)].map(|(i, j)| (column + i, row + j)) {
            if is_engraved(i, j) {
                let (cx, cy) = (i as f32 + 0.5 - half, j as f32 + 0.5 - half);
                let beyond = (x - cx).abs().max((y - cy).abs()) - 0.5;
                dark += step(soft, -soft, beyond);
            }
        }
        mix(colour, [0.20, 0.20, 0.21], dark.min(1.0) * 0.62)
    }

    fn spoil(&self, colour: Rgb, defect: &Defect, u: f32, v: f32) -> Rgb {
        match defect {
            Defect::Scratch { points: [a, b, c], width } => {
                // A groove: one flank catches the light, the other lies in its own shadow.
                let groove = |u: f32, v: f32| {
                    let (first, second) = (from_segment(u, v, *a, *b), from_segment(u, v, *b, *c));
                    let (distance, along) = if first.0 < second.0 {
                        (first.0, first.1 / 2.0)
                    } else {
                        (second.0, 0.5 + second.1 / 2.0)
                    };
                    let width = width * step(0.0, 0.25, along.min(1.0 - along)).max(0.3);
                    step(width, width * 0.25, distance)
                };
                let aside = 1.3 * width;
                let dark = groove(u - aside * self.lamp[0], v - aside * self.lamp[1]);
                mix(mix(colour, [0.13, 0.13, 0.14], dark * 0.75), [0.97, 0.98, 1.0], groove(u, v) * 0.92)
            }
            Defect::Dent { centre, radius } => {
                let (du, dv) = ((u - centre[0]) / radius, (v - centre[1]) / radius);
                if du.abs() > 1.5 || dv.abs() > 1.5 {
                    return colour;
                }
                let from = length(du, dv) * (1.0 + 0.10 * over(31, u * 60.0, v * 60.0));
                let bowl = step(1.15, 0.80, from);
                let slope = -(du * self.lamp[0] + dv * self.lamp[1]);
                let dented = lit(colour, (0.80 + 0.85 * slope).clamp(0.16, 1.6));
                let lip = step(0.16, 0.03, (from - 1.08).abs()) * (0.28 - 0.2 * slope).clamp(0.0, 0.5);
                mix(mix(colour, dented, bowl), [1.0, 1.0, 1.0], lip)
            }
            _ => colour,
        }
    }

    /// A film of oil and dirt: dark and brown, thicker at its edge, with a glint.
    fn stain(&self, colour: Rgb, drops: &[[f32; 3]; 5], seed: u32, u: f32, v: f32) -> Rgb {
        let mut field = 0.0;
        for [x, y, radius] in drops {
            let (du, dv) = (u - x, v - y);
            field += radius * radius / (du * du + dv * dv + 1e-6);
        }
        if field < 0.5 {
            return colour;
        }
        let field = field + 0.22 * over(seed, u * 70.0, v * 70.0);
        let film = step(0.85, 1.1, field);
        let rim = film * step(1.9, 1.1, field);
        let tint = [0.40, 0.28, 0.15];
        let stained = [0, 1, 2].map(|i| colour[i] * tint[i] * (1.15 - 0.35 * rim) + 0.015);
        let glint = step(0.75, 0.95, over(seed ^ 9, u * 45.0 + 3.0, v * 45.0)) * film * 0.28;
        mix(colour, stained, film * 0.93).map(|c| c + glint)
    }

    /// A ragged lip of bright metal that stands into an opening.
    fn burr(&self, colour: Rgb, u: f32, v: f32) -> Rgb {
        let Some(Defect::Burr { centre, radius, towards, height, seed }) = &self.scene.defect else {
            return colour;
        };
        let (du, dv) = (u - centre[0], v - centre[1]);
        let from = length(du, dv).max(1e-6);
        let along_edge = (du * towards[1] - dv * towards[0]) / from;
        if du * towards[0] + dv * towards[1] < 0.0 || from > radius + 0.01 {
            return colour;
        }
        let spread = step(0.62, 0.15, along_edge.abs());
        let ragged = 0.70 + 0.30 * along(*seed, along_edge * 11.0);
        let reach = height * spread * ragged;
        let cover = step(-self.pixel * 0.6, self.pixel * 0.6, from - (radius - reach))
            * step(0.008, 0.0, from - radius);
        let light = 0.70 + 0.26 * along(seed ^ 5, along_edge * 17.0);
        mix(colour, lit([0.98, 0.97, 0.94], light), cover * step(0.0, 0.1, spread))
    }

    /// What the sensor makes of the light: shot noise, read noise, and its own idea of white.
    fn sense(&self, colour: Rgb, index: u32) -> [u8; 3] {
        // Luminance noise is shared by the channels, as demosaicing shares it.
        let [shared, own @ ..] = grain(self.scene.sensor, index);
        let sigma = 0.0045 + 0.0085 * colour[1].max(0.0).sqrt();
        let channel = |i: usize| (colour[i] + sigma * (0.75 * shared + 0.55 * own[i])) * 255.0 + 0.5;
        [channel(0) as u8, channel(1) as u8, channel(2) as u8]
    }
}

/// The distance from a segment, and where along it the nearest point is, 0 to 1.
fn from_segment(u: f32, v: f32, a: [f32; 2], b: [f32; 2]) -> (f32, f32) {
    let (x, y) = (b[0] - a[0], b[1] - a[1]);
    let (du, dv) = (u - a[0], v - a[1]);
    let t = ((du * x + dv * y) / (x * x + y * y)).clamp(0.0, 1.0);
    (length(du - t * x, dv - t * y), t)
}

/// Whether the code has a dark cell here: an L along two sides, dashes along the others, bits between.
fn is_engraved(column: i32, row: i32) -> bool {
    let last = CODE_CELLS - 1;
    if !(0..=last).contains(&column) || !(0..=last).contains(&row) {
        return false;
    }
    match (column, row) {
        (0, _) => true,
        (_, row) if row == last => true,
        (column, 0) => column % 2 == 0,
        (column, row) if column == last => row % 2 == 1,
        _ => hash(CODE ^ (column * 16 + row) as u32) & 1 == 1,
    }
}

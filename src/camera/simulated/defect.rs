//! What can be wrong with a simulated part.
//!
//! A [`Defect`] is a shape in the part's own coordinates: origin at its centre, unturned, unscaled. Not here: how it
//! looks (`draw`).

use std::f32::consts::TAU;
use std::ops::Range;

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::flange::{BORE, HOLE, HOLE_CIRCLE, HOLES, RADIUS, RING};

/// A kind of defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefectKind {
    /// A line cut into the face.
    Scratch,
    /// A place hit by something hard.
    Dent,
    /// A bolt hole that was not drilled.
    MissingHole,
    /// Oil or dirt on the face.
    Contamination,
    /// A sealing ring of another batch.
    WrongColor,
    /// Metal left standing at an edge.
    Burr,
    /// A piece broken out of the rim.
    Chip,
}

impl DefectKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Scratch,
        Self::Dent,
        Self::MissingHole,
        Self::Contamination,
        Self::WrongColor,
        Self::Burr,
        Self::Chip,
    ];

    /// Its name, as in labels and folder names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scratch => "scratch",
            Self::Dent => "dent",
            Self::MissingHole => "missing_hole",
            Self::Contamination => "contamination",
            Self::WrongColor => "wrong_color",
            Self::Burr => "burr",
            Self::Chip => "chip",
        }
    }
}

/// One defect, with its shape.
#[derive(Debug, Clone)]
pub(super) enum Defect {
    /// From one point to another over a third; half as wide as `width`.
    Scratch { points: [[f32; 2]; 3], width: f32 },
    /// A shallow bowl.
    Dent { centre: [f32; 2], radius: f32 },
    /// Which hole is missing.
    MissingHole(usize),
    /// Drops that run together.
    Contamination { drops: [[f32; 3]; 5], seed: u32 },
    /// The ring's colour.
    WrongColor([f32; 3]),
    /// Along an edge of radius `radius` around `centre`, from the direction `towards`, to both sides.
    Burr { centre: [f32; 2], radius: f32, towards: [f32; 2], height: f32, seed: u32 },
    /// Bites at the rim.
    Chip { bites: [[f32; 3]; 3] },
}

fn polar(radius: f32, angle: f32) -> [f32; 2] {
    [radius * angle.cos(), radius * angle.sin()]
}

/// Where hole `k` is.
pub(super) fn hole(k: usize) -> [f32; 2] {
    polar(HOLE_CIRCLE, TAU * (k as f32 + 0.5) / HOLES as f32)
}

/// A place on the face, at `radii` from the centre and off the bolt holes, which would swallow a defect.
fn on_face(rng: &mut ChaCha8Rng, radii: Range<f32>) -> [f32; 2] {
    loop {
        let place = polar(rng.random_range(radii.clone()), rng.random_range(0.0..TAU));
        let clear = |[x, y]: [f32; 2]| (place[0] - x).hypot(place[1] - y) > HOLE + 0.024;
        if (0..HOLES).map(hole).all(clear) {
            return place;
        }
    }
}

impl Defect {
    pub(super) fn new(kind: DefectKind, rng: &mut ChaCha8Rng) -> Self {
        let angle = rng.random_range(0.0..TAU);
        match kind {
            DefectKind::Scratch => {
                // Its middle lies on the face and it is short enough to stay there.
                let middle = on_face(rng, 0.25..0.33);
                let heading = middle[1].atan2(middle[0]) + TAU / 4.0 + rng.random_range(-0.8..0.8);
                let half = polar(rng.random_range(0.065..0.1), heading);
                let bend = polar(rng.random_range(-0.015..0.015), heading + TAU / 4.0);
                let from = [middle[0] - half[0], middle[1] - half[1]];
                let to = [middle[0] + half[0], middle[1] + half[1]];
                let middle = [middle[0] + bend[0], middle[1] + bend[1]];
                Self::Scratch { points: [from, middle, to], width: rng.random_range(0.0055..0.008) }
            }
            DefectKind::Dent => {
                Self::Dent { centre: on_face(rng, 0.25..0.355), radius: rng.random_range(0.022..0.038) }
            }
            DefectKind::MissingHole => Self::MissingHole(rng.random_range(0..HOLES)),
            DefectKind::Contamination => Self::contamination(rng),
            DefectKind::WrongColor => {
                let colours =
                    [[0.16, 0.34, 0.62], [0.12, 0.12, 0.13], [0.70, 0.66, 0.20], [0.55, 0.10, 0.12]];
                Self::WrongColor(colours[rng.random_range(0..colours.len())])
            }
            DefectKind::Burr => {
                let at_bore = rng.random_bool(0.5);
                let (centre, radius) =
                    if at_bore { ([0.0; 2], BORE) } else { (hole(rng.random_range(0..HOLES)), HOLE) };
                let height = rng.random_range(0.022..0.030) * if at_bore { 1.5 } else { 1.0 };
                Self::Burr { centre, radius, towards: polar(1.0, angle), height, seed: rng.random() }
            }
            DefectKind::Chip => {
                let mut bite = |spread: f32, size: f32| {
                    let [x, y] = polar(RADIUS + 0.004, angle + spread);
                    [x, y, size * rng.random_range(0.8..1.25)]
                };
                Self::Chip { bites: [bite(0.0, 0.034), bite(0.09, 0.022), bite(-0.07, 0.017)] }
            }
        }
    }

    fn contamination(rng: &mut ChaCha8Rng) -> Self {
        let [x, y] = on_face(rng, RING + 0.05..0.35);
        let size = rng.random_range(0.7..1.25f32);
        let drops = std::array::from_fn(|i| {
            let radius = if i == 0 { 0.034 } else { rng.random_range(0.010..0.024) } * size;
            let [dx, dy] = if i == 0 { [0.0; 2] } else { polar(0.036 * size, rng.random_range(0.0..TAU)) };
            [x + dx, y + dy, radius]
        });
        Self::Contamination { drops, seed: rng.random() }
    }
}

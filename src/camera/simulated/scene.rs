//! What lies under the simulated camera: one part's pose, light and surface, decided by the line's seed and its number.
//!
//! Lengths are in units of the picture's shorter side. Not here: pixels (`draw`).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::defect::{Defect, DefectKind};

/// One part on the belt.
#[derive(Debug, Clone)]
pub(super) struct Scene {
    /// The part's centre, from the picture's.
    pub(super) centre: [f32; 2],
    /// Cosine and sine of its turn.
    pub(super) turn: [f32; 2],
    /// Its size, about 1.
    pub(super) scale: f32,
    /// The lamp's direction in the picture's plane, of unit length.
    pub(super) lamp: [f32; 2],
    /// The exposure, about 1.
    pub(super) exposure: f32,
    /// Which way the belt has run.
    pub(super) belt: [f32; 2],
    /// Chooses the turning marks.
    pub(super) surface: u32,
    /// Chooses the sensor's noise.
    pub(super) sensor: u32,
    /// The sealing ring's colour.
    pub(super) ring: [f32; 3],
    /// What is wrong with it.
    pub(super) defect: Option<Defect>,
    /// Decides the defect's shape.
    whim: ChaCha8Rng,
}

/// Randomness for one purpose of one part: what one purpose draws does not shift another's.
fn chance(seed: u64, n: u64, purpose: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(n.wrapping_mul(4).wrapping_add(purpose));
    rng
}

/// Whether the line plants a defect into part `n`, and which.
pub(super) fn planted(seed: u64, n: u64, rate: f64) -> Option<DefectKind> {
    let mut rng = chance(seed, n, 1);
    let (draw, kind) = (rng.random::<f64>(), rng.random_range(0..DefectKind::ALL.len()));
    (draw < rate).then(|| DefectKind::ALL[kind])
}

impl Scene {
    /// Part `n` of line `seed`, without a defect.
    pub(super) fn new(seed: u64, n: u64) -> Self {
        let mut rng = chance(seed, n, 0);
        let mut around = |middle: f32, spread: f32| middle + spread * rng.random_range(-1.0f32..1.0);
        let turn = around(0.0, 2.5f32.to_radians());
        let lamp = around(-2.25, 0.06);
        Self {
            centre: [around(0.0, 0.012), around(0.0, 0.012)],
            turn: [turn.cos(), turn.sin()],
            scale: around(1.0, 0.008),
            lamp: [lamp.cos(), lamp.sin()],
            exposure: around(1.0, 0.035),
            belt: [around(0.0, 0.01), around(0.0, 40.0)],
            ring: [around(0.86, 0.015), around(0.40, 0.015), around(0.13, 0.01)],
            surface: rng.random(),
            sensor: rng.random(),
            defect: None,
            whim: chance(seed, n, 2),
        }
    }

    /// The same part, spoiled.
    pub(super) fn with(&self, kind: DefectKind) -> Self {
        let defect = Some(Defect::new(kind, &mut self.whim.clone()));
        Self { defect, ..self.clone() }
    }
}

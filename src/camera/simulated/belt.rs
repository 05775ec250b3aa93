//! The conveyor belt: woven, worn, and drawn row by row, because its noise changes slowly from row to row.
//!
//! In: where the belt has run. Out: its brightness at each pixel of a row. Not here: shadows (`draw`).

use super::noise::{along, ease, floor, hash};
use super::scene::Scene;

/// Waves of the weave per unit length, times 2π.
const WEAVE: f32 = 300.0;

/// Smooth noise over a plane, kept for the two lines of its grid that the current row lies between.
struct Rows {
    seed: u32,
    frequency: [f32; 2],
    line: Option<i32>,
    upper: Vec<f32>,
    lower: Vec<f32>,
}

impl Rows {
    fn new(seed: u32, frequency: [f32; 2]) -> Self {
        Self { seed, frequency, line: None, upper: Vec::new(), lower: Vec::new() }
    }

    /// Moves to the row at `y`; tells how far it is from the upper line to the lower.
    fn go_to(&mut self, xs: &[f32], y: f32) -> f32 {
        let y = y * self.frequency[1];
        let line = floor(y);
        if self.line != Some(line) {
            let values = |line: i32| {
                let seed = hash(self.seed ^ (line as u32).wrapping_mul(0x9e37_79b9));
                xs.iter().map(|x| along(seed, x * self.frequency[0])).collect()
            };
            (self.upper, self.lower) = (values(line), values(line + 1));
            self.line = Some(line);
        }
        ease(y - line as f32)
    }

    fn at(&self, column: usize, down: f32) -> f32 {
        self.upper[column] + (self.lower[column] - self.upper[column]) * down
    }
}

/// See the module.
pub(super) struct Belt {
    /// Each column's place on the belt, and the weave's wave there.
    xs: Vec<f32>,
    waves: Vec<f32>,
    run: f32,
    broad: Rows,
    fine: Rows,
    row: Vec<f32>,
}

impl Belt {
    /// The belt under `scene`, at columns that lie at `xs`.
    pub(super) fn new(scene: &Scene, xs: &[f32]) -> Self {
        let xs: Vec<_> = xs.iter().map(|x| x + scene.belt[0]).collect();
        Self {
            waves: xs.iter().map(|x| (x * WEAVE).sin()).collect(),
            row: vec![0.0; xs.len()],
            xs,
            run: scene.belt[1],
            broad: Rows::new(11, [5.0, 1.6]),
            fine: Rows::new(12, [38.0, 9.0]),
        }
    }

    /// The belt's brightness along the row at `y`, about 1.
    pub(super) fn row(&mut self, y: f32) -> &[f32] {
        let y = y + self.run;
        let wave = (y * WEAVE).sin();
        let (broad, fine) = (self.broad.go_to(&self.xs, y), self.fine.go_to(&self.xs, y));
        for (i, brightness) in self.row.iter_mut().enumerate() {
            let worn = self.broad.at(i, broad) * 0.5 + self.fine.at(i, fine) * 0.3;
            *brightness = 1.0 + 0.16 * self.waves[i] * wave + 0.20 * worn;
        }
        &self.row
    }
}

//! A production line that is drawn: turned aluminium flanges on a conveyor, a few of them with a planted defect.
//!
//! In: a seed and a part's number, which decide everything. Out: frames as a camera would deliver them, each with the
//! truth about its part. Owned by one capture thread. Not here: opinions about what the detector should find.

mod belt;
mod dataset;
mod defect;
mod draw;
mod flange;
mod noise;
mod scene;

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::pace::Pace;
use super::{Camera, CameraError, Next, SimulatedOptions};
use crate::frame::{Frame, Picture, PixelFormat, Pixels, Planted, Size};
pub use dataset::{DATASET_FIRST, DatasetCounts, DatasetError, write_dataset};
pub use defect::DefectKind;
use scene::Scene;

/// See the module.
pub(super) struct SimulatedCamera {
    options: SimulatedOptions,
    part: u64,
    pace: Pace,
}

impl SimulatedCamera {
    pub(super) fn open(options: &SimulatedOptions) -> Self {
        Self { options: options.clone(), part: options.first, pace: Pace::new(options.rate) }
    }
}

impl Camera for SimulatedCamera {
    fn describe(&self) -> String {
        let SimulatedOptions { seed, size, defect_rate, .. } = &self.options;
        format!("simulated line, seed {seed}, {size}, {:.1} % defects", defect_rate * 100.0)
    }

    fn next(&mut self, wait: Duration) -> Result<Next, CameraError> {
        let SimulatedOptions { seed, defect_rate, size, first, parts, .. } = self.options;
        if parts > 0 && self.part - first >= parts {
            return Ok(Next::End);
        }
        if !self.pace.wait(Instant::now() + wait) {
            return Ok(Next::Nothing);
        }
        let captured = Instant::now();
        let (picture, planted) = part(seed, self.part, size, defect_rate);
        self.part += 1;
        self.pace.delivered();
        Ok(Next::Frame(Box::new(Frame {
            pixels: Pixels::Raw {
                size,
                format: PixelFormat::Rgb8,
                stride: size.width as usize * 3,
                bytes: picture.into_rgb(),
            },
            captured_at: Timestamp::now(),
            captured,
            source: None,
            planted: Some(planted),
        })))
    }
}

/// The part numbered `n` on the line `seed`, defective with probability `defect_rate`, and the truth about it.
pub fn part(seed: u64, n: u64, size: Size, defect_rate: f64) -> (Picture, Planted) {
    let scene = Scene::new(seed, n);
    match scene::planted(seed, n, defect_rate) {
        None => (draw::draw(&scene, size), Planted::Normal),
        Some(kind) => (draw::draw(&scene.with(kind), size), Planted::Defect(kind.name().into())),
    }
}

/// The part numbered `n` on the line `seed` as it should be.
///
/// Sides of `size` are 64 to 4,096, as in [`SimulatedOptions`].
pub fn normal_part(seed: u64, n: u64, size: Size) -> Picture {
    draw::draw(&Scene::new(seed, n), size)
}

/// The part numbered `n` on the line `seed` with a defect of this kind, and where it shows: white in a picture of the
/// same size.
pub fn defective_part(seed: u64, n: u64, size: Size, kind: DefectKind) -> (Picture, Picture) {
    let scene = Scene::new(seed, n);
    let normal = draw::draw(&scene, size);
    let defective = draw::draw(&scene.with(kind), size);
    let mask = dataset::mask(&normal, &defective);
    (defective, mask)
}

#[cfg(test)]
mod tests;

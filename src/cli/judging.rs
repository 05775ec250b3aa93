//! What `evaluate` and `inspect` share: a detector and the way of one picture through it.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

use crate::detector::{self, Detector, Inspection, options::Device};
use crate::efficientad::CalibratedModel;
use crate::frame::Picture;
use crate::imaging::{self, Resizer};
use crate::verdict::Timings;

/// A model made runnable, and what prepares pictures for it.
pub(super) struct Judge {
    detector: Detector,
    resizer: Resizer,
}

impl Judge {
    pub(super) fn open(bundle: &Path, device: Device) -> anyhow::Result<Self> {
        let model = CalibratedModel::load(bundle)?;
        let options = detector::Options { device, ..detector::Options::default() };
        Ok(Self { detector: Detector::open(model, &options)?, resizer: Resizer::new() })
    }

    pub(super) fn threshold(&self) -> f32 {
        self.detector.threshold().0
    }

    /// Judges the whole of `picture`; the times are those of preparing and inferring.
    pub(super) fn inspect(&mut self, picture: &Picture) -> anyhow::Result<(Inspection, Timings)> {
        let viewed = imaging::whole(picture.size());
        let began = Instant::now();
        let input = self.resizer.resize(picture, self.detector.input())?;
        let prepare = milliseconds(began);
        let began = Instant::now();
        let inspection = self.detector.inspect(&input, viewed)?;
        let infer = milliseconds(began);
        let timings = Timings { prepare, infer, total: prepare + infer, ..Timings::default() };
        Ok((inspection, timings))
    }
}

fn milliseconds(since: Instant) -> f32 {
    since.elapsed().as_secs_f32() * 1e3
}

/// Writes what people look at: the map over its picture.
pub(super) fn write_heatmap(path: &Path, picture: &Picture, inspection: &Inspection) -> anyhow::Result<()> {
    let drawn = draw(picture, inspection);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    std::fs::write(path, imaging::png(&drawn)).with_context(|| format!("cannot write {}", path.display()))
}

fn draw(picture: &Picture, inspection: &Inspection) -> Picture {
    let mut drawn = picture.clone();
    let threshold = inspection.finding.threshold.0.max(f32::MIN_POSITIVE);
    for (pixel, value) in drawn.rgb_mut().chunks_exact_mut(3).zip(&inspection.map.values) {
        let heat = (value / (2.0 * threshold)).clamp(0.0, 1.0);
        for (channel, hot) in pixel.iter_mut().zip([255.0, 40.0, 0.0]) {
            *channel = (f32::from(*channel) * (1.0 - 0.7 * heat) + hot * 0.7 * heat) as u8;
        }
    }
    drawn
}

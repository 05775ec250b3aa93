//! What `evaluate` and `inspect` share: a detector and the way of one picture through it.

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

use crate::detector::options::{Device, Engine};
use crate::detector::{self, Detector, Inspection};
use crate::efficientad::CalibratedModel;
use crate::imaging::{self, Heat, Resizer, Seen};
use crate::verdict::Timings;

/// What to run a model on, and with.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Runner {
    /// The device to run on: auto, cpu or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Auto)]
    device: Device,
    /// The engine: auto, cpu, cuda, or reference, the slow yardstick.
    #[arg(long, value_name = "ENGINE", default_value_t = Engine::Auto)]
    engine: Engine,
}

/// A model made runnable, and what prepares pictures for it.
pub(super) struct Judge {
    detector: Detector,
    resizer: Resizer,
}

impl Judge {
    pub(super) fn open(bundle: &Path, Runner { device, engine }: Runner) -> anyhow::Result<Self> {
        let model = CalibratedModel::load(bundle)?;
        let options = detector::Options { device, engine, ..detector::Options::default() };
        Ok(Self { detector: Detector::open(model, &options)?, resizer: Resizer::new() })
    }

    pub(super) fn threshold(&self) -> f32 {
        self.detector.threshold().0
    }

    /// Judges what is `seen`; the times are those of preparing and inferring.
    pub(super) fn inspect(&mut self, seen: &Seen) -> anyhow::Result<(Inspection, Timings)> {
        let began = Instant::now();
        let input = self.resizer.resize_region(&seen.picture, seen.viewed, self.detector.input())?;
        let prepare = milliseconds(began);
        let began = Instant::now();
        let inspection = self.detector.inspect_visible(&input, seen.viewed, seen.mask.as_deref())?;
        let infer = milliseconds(began);
        let timings = Timings { prepare, infer, total: prepare + infer, ..Timings::default() };
        Ok((inspection, timings))
    }
}

fn milliseconds(since: Instant) -> f32 {
    since.elapsed().as_secs_f32() * 1e3
}

/// Writes what people look at: the map over its picture.
pub(super) fn write_heatmap(path: &Path, seen: &Seen, inspection: &Inspection) -> anyhow::Result<()> {
    let heat = Heat {
        values: &inspection.map.values,
        size: inspection.map.size,
        viewed: seen.viewed,
        finding: &inspection.finding,
    };
    let drawn = imaging::heatmap(&seen.picture, &heat)?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    std::fs::write(path, imaging::png(&drawn)).with_context(|| format!("cannot write {}", path.display()))
}

//! From a trained model to one that can judge: map quantiles and threshold, from held-out normal pictures alone.
//!
//! Not here: which pictures are held out (`dataset`), how a threshold follows from scores (`threshold`).

use std::path::{Path, PathBuf};

use candle_core::Device;

use super::error::TrainingError;
use super::threshold::{self, ThresholdError};
use crate::efficientad::maps::{self, QuantilePair};
use crate::efficientad::{
    CalibratedModel, Calibration, Look, MapQuantiles, Networks, Spread, TrainedModel, input,
};
use crate::frame::Size;
use crate::imaging::{self, Appearance, Resizer};

/// The raw maps of one picture, and the size at which it is scored.
struct RawMaps {
    student_teacher: Vec<f32>,
    autoencoder_student: Vec<f32>,
    picture: Size,
    appearance: Appearance,
}

/// Calibrates `model` on `held_out` normal pictures for a false-positive `rate` (0–0.5); `tell` hears how many are
/// done.
pub fn calibrate(
    model: TrainedModel,
    held_out: &[PathBuf],
    rate: f64,
    device: &Device,
    tell: &mut dyn FnMut(usize),
) -> Result<CalibratedModel, TrainingError> {
    threshold::check_rate(rate)?;
    let networks = model.networks(device)?;
    let (mut resizer, mut all) = (Resizer::new(), Vec::with_capacity(held_out.len()));
    for (index, path) in held_out.iter().enumerate() {
        tell(index);
        let maps = raw_maps(&networks, path, model.architecture().input, &mut resizer, device)?;
        if !maps.student_teacher.iter().chain(&maps.autoencoder_student).all(|v| v.is_finite()) {
            return Err(ThresholdError::NotFinite { index: index + 1, count: held_out.len() }.into());
        }
        all.push(maps);
    }
    tell(held_out.len());
    let quantiles = quantiles(&all).ok_or(ThresholdError::NoScores)?;
    let [rows, columns] = model.architecture().map_size();
    let scores: Vec<f32> = all.iter().map(|m| score(m, quantiles, rows, columns)).collect();
    let calibration = Calibration { look: look(&all), ..threshold::find(&scores, rate)? };
    Ok(model.calibrate(quantiles, calibration)?)
}

fn raw_maps(
    networks: &Networks,
    path: &Path,
    input: Size,
    resizer: &mut Resizer,
    device: &Device,
) -> Result<RawMaps, TrainingError> {
    let picture = imaging::load(path)?;
    let resized =
        resizer.resize(&picture, input).expect("the networks' input is a legal size: this is a bug");
    let (student_teacher, autoencoder_student) =
        networks.raw_maps(&input::normalise(&[&resized], device)?)?;
    Ok(RawMaps {
        student_teacher: student_teacher.flatten_all()?.to_vec1()?,
        autoencoder_student: autoencoder_student.flatten_all()?.to_vec1()?,
        picture: picture.size(),
        appearance: imaging::appearance(&resized),
    })
}

/// Over all pixels of all maps, as the paper has it.
fn quantiles(all: &[RawMaps]) -> Option<MapQuantiles> {
    let pair = |pixels: fn(&RawMaps) -> &Vec<f32>| {
        let mut pixels: Vec<f32> = all.iter().flat_map(pixels).copied().collect();
        QuantilePair::of(&mut pixels)
    };
    Some(MapQuantiles {
        student_teacher: pair(|m| &m.student_teacher)?,
        autoencoder_student: pair(|m| &m.autoencoder_student)?,
    })
}

/// What the pictures look like, on the whole.
fn look(all: &[RawMaps]) -> Option<Look> {
    let spread = |value: fn(&Appearance) -> f32| {
        let values = || all.iter().map(|maps| value(&maps.appearance));
        let mean = values().sum::<f32>() / all.len() as f32;
        let variance = values().map(|v| (v - mean).powi(2)).sum::<f32>() / all.len() as f32;
        Spread { mean, std: variance.sqrt() }
    };
    (!all.is_empty()).then(|| Look {
        brightness: spread(|a| a.brightness),
        sharpness: spread(|a| a.sharpness),
        red: spread(|a| a.red),
        blue: spread(|a| a.blue),
    })
}

/// As the detector scores: the maximum of the combined map at the picture's own size.
fn score(maps: &RawMaps, quantiles: MapQuantiles, rows: usize, columns: usize) -> f32 {
    let combined = quantiles.combine(&maps.student_teacher, &maps.autoencoder_student);
    let full = maps::full_size(&combined, rows, columns, maps.picture);
    full.into_iter().fold(f32::NEG_INFINITY, f32::max)
}

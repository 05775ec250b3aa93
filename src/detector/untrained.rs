//! Models with random weights: as fast as trained ones of their shape, for measuring and for holding engines against
//! each other. Their verdicts mean nothing.

use crate::efficientad::maps::QuantilePair;
use crate::efficientad::{
    Architecture, CalibratedModel, Calibration, HeldOut, MapQuantiles, Normalisation, PictureSet,
    ThresholdMethod, TrainedModel, TrainingRecord, UsualMaps, Weight, Weights, initialise,
};
use crate::frame::{Picture, Size};
use crate::verdict::Threshold;

/// A model of this shape with weights drawn from `seed`, scaled such that features neither vanish nor grow from layer
/// to layer.
pub fn model(architecture: &Architecture, seed: u64) -> CalibratedModel {
    let drawn = initialise::draw(&architecture.model_tensors(), seed);
    let mut weights = Weights::new();
    for (name, weight) in drawn.iter() {
        let values = weight.values.iter().map(|v| match name {
            "teacher_mean" => *v,
            "teacher_std" => 0.5 + v.abs(),
            _ if name.ends_with(".bias") => *v,
            // From ±1/√fan_in to He's bound, ±√(6/fan_in).
            _ => v * 6f32.sqrt(),
        });
        weights.insert(name, Weight { dims: weight.dims.clone(), values: values.collect() });
    }
    let unit = QuantilePair { a: 0.0, b: 1.0 };
    let quantiles = MapQuantiles { student_teacher: unit, autoencoder_student: unit };
    let [rows, columns] = architecture.map_size();
    let wave =
        |step: usize| (0..rows * columns).map(|cell| (cell % step) as f32 / (10 * step) as f32).collect();
    let usual = UsualMaps { student_teacher: wave(17), autoencoder_student: wave(29) };
    let normalisation = Normalisation { quantiles, usual: Some(usual) };
    TrainedModel::new(architecture.clone(), weights, record(seed))
        .map(|trained| trained.calibrate(normalisation, calibration()))
        .expect("the architecture's own tensors fit it: this is a bug")
        .expect("the quantiles are in order: this is a bug")
}

fn record(seed: u64) -> TrainingRecord {
    TrainingRecord {
        name: "untrained".into(),
        pictures: PictureSet { name: "none".into(), count: 0, digest: String::new() },
        penalty: None,
        teacher: "none".into(),
        seed,
        steps: 0,
        parent: None,
        view: None,
    }
}

fn calibration() -> Calibration {
    let held_out = HeldOut { mean: 0.0, std: 0.0, min: 0.0, median: 0.0, max: 0.0, false_positive_rate: 0.0 };
    Calibration {
        threshold: Threshold(1.0),
        method: ThresholdMethod::Given,
        false_positive_rate: 0.001,
        count: 0,
        confidence: 0.0,
        held_out,
        learnt: None,
        look: None,
    }
}

/// A picture with something to see everywhere.
pub fn picture(size: Size, seed: u64) -> Picture {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut noise = || {
        // Marsaglia's xorshift: any spread of values will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 56) as u32 & 0x3F
    };
    let mut rgb = Vec::with_capacity(size.pixels() as usize * 3);
    for y in 0..size.height {
        for x in 0..size.width {
            for c in 0..3 {
                let wave = (x * (c + 1) / 3 + y * (3 - c) / 2) % 192;
                rgb.push((wave + noise()) as u8);
            }
        }
    }
    Picture::new(size, rgb).expect("the networks' sizes are pictures': this is a bug")
}

//! What a model bundle says about itself: `manifest.json`.
//!
//! Pure data. Not here: reading and writing (`bundle`).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::architecture::Architecture;
use super::maps::MapQuantiles;
use crate::verdict::{ModelRef, Threshold};

/// The version of the bundle's form that this program writes; it reads all up to it. Bundles of the first have no
/// tensor `usual_maps`.
pub const FORMAT: u32 = 2;

/// A set of pictures that took part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureSet {
    /// Where it was, or what it is called; for people.
    pub name: String,
    /// How many pictures.
    pub count: u64,
    /// SHA-256 over the pictures, in hexadecimal.
    pub digest: String,
}

/// How a model was trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingRecord {
    /// The model's name; for people, and in verdicts.
    pub name: String,
    /// The normal pictures trained on, without the held-out ones.
    pub pictures: PictureSet,
    /// The pictures of anything else, if there were any.
    pub penalty: Option<PictureSet>,
    /// SHA-256 of the teacher's file, in hexadecimal, or what else it came from.
    pub teacher: String,
    /// The seed of all randomness.
    pub seed: u64,
    /// Training steps taken.
    pub steps: u64,
    /// The version of the model that this one is to replace.
    pub parent: Option<String>,
    /// How its pictures were looked at, in words: turned, which region, which mask; none where they were seen whole and as
    /// they were, and in bundles of earlier programs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub view: Option<String>,
}

/// How a threshold was found from normal scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdMethod {
    /// The empirical quantile of the held-out scores.
    Quantile,
    /// A tail fitted to the held-out scores, and to those of learnt pictures, where they are too few for the quantile.
    FittedTail,
    /// Stated by a person.
    Given,
}

/// What the held-out normal scores looked like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOut {
    /// Their mean.
    pub mean: f32,
    /// Their standard deviation.
    pub std: f32,
    /// The lowest.
    pub min: f32,
    /// Their median.
    pub median: f32,
    /// The highest.
    pub max: f32,
    /// The share of them above the threshold, 0–1.
    pub false_positive_rate: f32,
}

/// What the scores of learnt pictures looked like that helped to find the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learnt {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean: f32,
    /// What they were multiplied by to lie where held-out ones do, 1 or more: how far the model knows its pictures by heart.
    pub stretch: f32,
}

/// Mean and standard deviation of something measured on pictures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The mean.
    pub mean: f32,
    /// The standard deviation.
    pub std: f32,
}

/// What held-out normal pictures look like as a whole, at the networks' size.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// Their brightness, 0–255.
    pub brightness: Spread,
    /// Their sharpness.
    pub sharpness: Spread,
    /// The share of red in their light, in percent.
    pub red: Spread,
    /// The share of blue.
    pub blue: Spread,
}

/// A threshold, and what stands behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Scores above it are anomalous.
    pub threshold: Threshold,
    /// How it was found.
    pub method: ThresholdMethod,
    /// The expected share of normal parts above it that was asked for, 0–1.
    pub false_positive_rate: f64,
    /// From how many held-out normal scores.
    pub count: u64,
    /// Confidence, 0–1, that the true false-positive rate is no higher than asked for, if the scores are of one origin.
    pub confidence: f64,
    /// Those scores, summed up.
    pub held_out: HeldOut,
    /// The scores of learnt pictures that say with them how scores spread; none where those held out suffice or the model
    /// knows its pictures by heart.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub learnt: Option<Learnt>,
    /// The held-out pictures, summed up; bundles of earlier programs do not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub look: Option<Look>,
}

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The form of the bundle, up to [`FORMAT`].
    pub format: u32,
    /// The networks' shape.
    pub architecture: Architecture,
    /// The maps' normalisation, as in the tensor `quantiles`.
    pub quantiles: MapQuantiles,
    /// The threshold and how it was found.
    pub calibration: Calibration,
    /// How the networks were trained.
    pub training: TrainingRecord,
    /// When the bundle was made.
    pub created_at: Timestamp,
    /// The version of the program that made it.
    pub program: String,
    /// SHA-256 of `model.safetensors`, in hexadecimal.
    pub tensors_sha256: String,
}

impl Manifest {
    /// The model's name and version as verdicts carry them.
    pub fn model_ref(&self) -> ModelRef {
        let version = self.tensors_sha256.chars().take(12).collect();
        ModelRef { name: self.training.name.clone(), version }
    }
}

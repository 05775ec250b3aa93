//! Models through their life: trained, then calibrated, then a folder on disk that is complete or absent.
//!
//! A bundle is `model.safetensors` and `manifest.json`. What is read is bounded and checked before it is believed.
//! Not here: what is in the manifest (`manifest`), how a threshold is found (`training`).

use std::io;
use std::path::{Path, PathBuf};

use candle_core::Device;
use jiff::Timestamp;
use thiserror::Error;

use super::architecture::Architecture;
use super::manifest::{Calibration, FORMAT, Manifest, TrainingRecord};
use super::maps::MapQuantiles;
use super::networks::Networks;
use super::normalisation::{Combination, Normalisation, UsualMaps};
use super::weights::{Weight, Weights, WeightsError};
use crate::verdict::{ModelRef, Threshold};

mod read;
mod write;

pub(crate) use read::sha256;
pub use read::{load_manifest, parse_teacher, read_teacher};

/// The tensors' file in a bundle.
pub const TENSORS_FILE: &str = "model.safetensors";
/// The manifest's file in a bundle.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Why a model cannot be read, made or written.
#[derive(Debug, Error)]
pub enum BundleError {
    /// The bundle's folder, or a file of it, is not there.
    #[error("there is no {what} at {path}: give the folder that `inspectord train` wrote")]
    Missing {
        /// Folder or file.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// Read, write, rename, …
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than any model of its kind.
    #[error("{path} has {bytes} bytes, and no such file needs more than {limit}: this is not a model's")]
    TooLarge {
        /// Which file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The manifest is not one.
    #[error("{path} is not a model's manifest: {message}")]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The bundle was made by a program of another time.
    #[error(
        "the bundle {path} has format {got}, and this program reads formats up to {expected}: \
         train it again, or use the program version that made it"
    )]
    Format {
        /// Which bundle.
        path: PathBuf,
        /// What this program reads.
        expected: u32,
        /// What it has.
        got: u64,
    },
    /// The tensors are not those that the manifest was written for.
    #[error(
        "{path} is not the file that its manifest describes: its SHA-256 is {got} instead of {expected}; \
         it was truncated, damaged or exchanged: copy the bundle again"
    )]
    Digest {
        /// Which file.
        path: PathBuf,
        /// What the manifest says.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A tensors file is not one, or is cut short.
    #[error("{path} is not a safetensors file, or is truncated: {message}")]
    Tensors {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The tensors do not make the networks.
    #[error("{path} does not fit the networks: {source}")]
    Weights {
        /// Which file.
        path: PathBuf,
        /// Which tensor, and how.
        source: WeightsError,
    },
    /// The model itself is unusable.
    #[error("the model is unusable: {0}")]
    Invalid(String),
}

/// A model whose networks are trained and which cannot judge yet.
#[derive(Debug, Clone)]
pub struct TrainedModel {
    architecture: Architecture,
    weights: Weights,
    training: TrainingRecord,
}

impl TrainedModel {
    /// A model of `weights` with all of [`Architecture::model_tensors`]; others are left out.
    ///
    /// # Errors
    /// A tensor is missing, of another shape, or not finite.
    pub fn new(
        architecture: Architecture,
        weights: Weights,
        training: TrainingRecord,
    ) -> Result<Self, WeightsError> {
        let weights = weights.select(&architecture.model_tensors())?;
        Ok(Self { architecture, weights, training })
    }

    /// The networks' shape.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// All of [`Architecture::model_tensors`].
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// How it was trained.
    pub fn training(&self) -> &TrainingRecord {
        &self.training
    }

    /// The reference networks on `device`.
    ///
    /// # Errors
    /// The device has no room for them.
    pub fn networks(&self, device: &Device) -> candle_core::Result<Networks> {
        Networks::new(&self.architecture, &self.weights, device)
    }

    /// The model with what lets it judge.
    ///
    /// # Errors
    /// A number is not finite, quantiles are in the wrong order, or what is usual is of another size than the maps.
    pub fn calibrate(
        self,
        normalisation: Normalisation,
        calibration: Calibration,
    ) -> Result<CalibratedModel, BundleError> {
        CalibratedModel::assemble(self, normalisation, calibration)
    }
}

/// A model that can judge: what a detector takes and a bundle holds.
#[derive(Debug, Clone)]
pub struct CalibratedModel {
    trained: TrainedModel,
    usual: Option<UsualMaps>,
    manifest: Manifest,
    /// The tensors' file, byte for byte: its digest is the model's version.
    file: std::sync::Arc<[u8]>,
}

impl CalibratedModel {
    /// Reads the bundle in the folder `path`.
    ///
    /// # Errors
    /// Anything is missing, too large, of another format, damaged, or does not fit the networks.
    pub fn load(path: &Path) -> Result<Self, BundleError> {
        read::load(path)
    }

    /// The bundle whose two files have these contents; errors call its folder `name`.
    ///
    /// # Errors
    /// As of [`Self::load`].
    pub fn from_bytes(name: &Path, manifest: &[u8], tensors: &[u8]) -> Result<Self, BundleError> {
        read::parse(name, manifest, tensors.to_vec())
    }

    /// Writes the bundle as the folder `path`, in place of any bundle there: whoever looks sees the old one or the
    /// new one, whole. Parent folders are made.
    ///
    /// # Errors
    /// The file system refuses; `path` exists and is no bundle.
    pub fn save(&self, path: &Path) -> Result<(), BundleError> {
        write::save(self, path)
    }

    /// Whether [`save`](Self::save) would find what is at `path` in its way: asked before a training, not after it.
    ///
    /// # Errors
    /// `path` exists and is no bundle.
    pub fn can_be_saved(path: &Path) -> Result<(), BundleError> {
        write::check_replaceable(path)
    }

    fn assemble(
        trained: TrainedModel,
        normalisation: Normalisation,
        calibration: Calibration,
    ) -> Result<Self, BundleError> {
        let quantiles = normalisation.quantiles;
        check_numbers(&quantiles, &calibration)?;
        check_usual(&trained.architecture, normalisation.usual.as_ref())?;
        let file = write::tensors_file(&trained, &normalisation)?;
        let manifest = Manifest {
            format: FORMAT,
            architecture: trained.architecture.clone(),
            quantiles,
            calibration,
            training: trained.training.clone(),
            created_at: Timestamp::now(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            tensors_sha256: sha256(&file),
        };
        Ok(Self { trained, usual: normalisation.usual, manifest, file: file.into() })
    }

    /// The networks' shape.
    pub fn architecture(&self) -> &Architecture {
        &self.trained.architecture
    }

    /// All of [`Architecture::model_tensors`].
    pub fn weights(&self) -> &Weights {
        &self.trained.weights
    }

    /// One of [`Architecture::model_tensors`].
    pub fn tensor(&self, name: &str) -> &Weight {
        self.trained
            .weights
            .get(name)
            .expect("every tensor of the architecture is there since it was checked: this is a bug")
    }

    /// What the raw maps are combined by.
    pub fn normalisation(&self) -> Normalisation {
        Normalisation { quantiles: self.manifest.quantiles, usual: self.usual.clone() }
    }

    /// The same as an engine takes it.
    pub fn combination(&self) -> Combination {
        let [rows, columns] = self.architecture().map_size();
        self.normalisation().combination(rows * columns)
    }

    /// The threshold that calibration found.
    pub fn threshold(&self) -> Threshold {
        self.manifest.calibration.threshold
    }

    /// All that the bundle says about itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The name and version that verdicts carry.
    pub fn model_ref(&self) -> ModelRef {
        self.manifest.model_ref()
    }

    /// The reference networks on `device`.
    ///
    /// # Errors
    /// The device has no room for them.
    pub fn networks(&self, device: &Device) -> candle_core::Result<Networks> {
        self.trained.networks(device)
    }

    /// The model without its calibration, to be calibrated anew.
    pub fn into_trained(self) -> TrainedModel {
        self.trained
    }
}

fn check_usual(architecture: &Architecture, usual: Option<&UsualMaps>) -> Result<(), BundleError> {
    let Some(usual) = usual else { return Ok(()) };
    let [rows, columns] = architecture.map_size();
    for map in [&usual.student_teacher, &usual.autoencoder_student] {
        if map.len() != rows * columns || !map.iter().all(|value| value.is_finite()) {
            let message =
                format!("what is usual on its maps is not {rows} rows of {columns} numbers: train it again");
            return Err(BundleError::Invalid(message));
        }
    }
    Ok(())
}

fn check_numbers(quantiles: &MapQuantiles, calibration: &Calibration) -> Result<(), BundleError> {
    let invalid = |what: String| Err(BundleError::Invalid(what));
    for (map, q) in [
        ("student-teacher", quantiles.student_teacher),
        ("autoencoder-student", quantiles.autoencoder_student),
    ] {
        if !(q.a.is_finite() && q.b.is_finite()) || q.b < q.a {
            return invalid(format!("the {map} map's quantiles are {} and {}", q.a, q.b));
        }
    }
    if !calibration.threshold.0.is_finite() {
        return invalid(format!("its threshold is {}", calibration.threshold.0));
    }
    Ok(())
}

//! EfficientAD (Batzner, Heckler, König, WACV 2024, arXiv 2303.14535): the networks, their maps, and the model on disk.
//!
//! Runs on any candle device. Not here: losses and training loops (`training`), engines made for speed (`detector`),
//! pictures (`imaging`).

pub mod architecture;
pub mod autoencoder;
pub mod backbone;
pub mod bundle;
pub mod initialise;
pub mod input;
pub mod manifest;
pub mod maps;
pub mod networks;
pub mod normalisation;
pub mod ops;
pub mod pdn;
pub mod statistics;
pub mod weights;

pub use architecture::{Architecture, PdnSize};
pub use autoencoder::Autoencoder;
pub use backbone::{Backbone, BackboneError, BackboneKind, Describer};
pub(crate) use bundle::sha256;
pub use bundle::{BundleError, CalibratedModel, TrainedModel, parse_teacher, read_teacher};
pub use manifest::{
    Calibration, HeldOut, Learnt, Look, Manifest, PictureSet, Spread, ThresholdMethod, TrainingRecord,
};
pub use maps::MapQuantiles;
pub use networks::Networks;
pub use normalisation::{Combination, Normalisation, UsualMaps};
pub use pdn::Pdn;
pub use weights::{Weight, Weights, WeightsError};

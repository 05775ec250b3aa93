//! From normal pictures to a calibrated model, and how good it is.
//!
//! A training is `session::train`; `calibrate` and `evaluate` work on finished models. Not here: the networks
//! (`efficientad`), engines for inspection (`detector`), command lines (`cli`).

pub mod adam;
pub mod augment;
pub mod calibrate;
pub mod checkpoint;
pub mod dataset;
pub mod distillation;
pub mod error;
pub mod evaluate;
pub mod loss;
mod memory;
pub mod metrics;
pub mod options;
pub mod pictures;
pub mod schedule;
pub mod session;
mod tail;
pub mod teacher;
pub mod threshold;
mod trainer;

pub use error::TrainingError;
pub use options::{Options, learning_rate_for};

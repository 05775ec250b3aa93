//! From normal pictures to a calibrated model, and how good it is.
//!
//! Not here: the networks (`efficientad`), engines for inspection (`detector`), command lines (`cli`).

pub mod augment;
pub mod dataset;
pub mod metrics;
pub mod schedule;
mod tail;
pub mod threshold;

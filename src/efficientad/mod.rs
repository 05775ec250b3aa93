//! EfficientAD (Batzner, Heckler, König, WACV 2024, arXiv 2303.14535): the networks, their maps, and the model on disk.
//!
//! Runs on any candle device. Not here: losses and training loops (`training`), engines made for speed (`detector`),
//! pictures (`imaging`).

pub mod architecture;

pub use architecture::{Architecture, PdnSize};

//! inspectord: cameras in, EfficientAD verdicts out, none lost.

mod backoff;
pub mod camera;
pub mod cli;
pub mod clock;
pub mod delivery;
pub mod detector;
mod durable;
pub mod efficientad;
pub mod frame;
pub mod health;
pub mod imaging;
mod lockfile;
pub mod pipeline;
pub mod publish;
pub mod retrain;
mod runtime;
pub mod settings;
pub mod shutdown;
pub mod store;
pub mod systemd;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod training;
pub mod verdict;
pub mod web;

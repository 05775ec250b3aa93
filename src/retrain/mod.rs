//! Retraining: from pictures that somebody drops in to a new model version that runs, if it deserves to.
//!
//! ```text
//! samples/normal, samples/anomalous ─▶ intake ─▶ set ─▶ training ─▶ gate ─▶ version ─▶ active.json ─▶ the line
//! ```
//!
//! A retraining is a process of its own, `inspectord retrain`, so that it can be slow, lowly and killed. Not here: the
//! training itself (`training`), swapping the detector between two frames (`pipeline`), who is told (`publish`).

mod child;
mod due;
mod error;
mod files;
mod gate;
mod hard;
mod home;
mod hooks;
mod intake;
mod keeper;
mod kind;
mod learnt;
mod lesson;
mod options;
mod others;
mod planted;
mod print;
mod recent;
mod registry;
mod relight;
mod report;
mod retraining;
mod school;
mod set;
mod sight;
mod subject;
mod trial;
mod tries;
mod underway;
mod waiting;

#[cfg(test)]
mod registry_tests;

pub use error::RetrainError;
pub use home::Home;
pub use hooks::{Answer, Hooks, News, Order, Swap, Tell};
pub use intake::{Intake, Taken};
pub use keeper::{Keeper, Keeping, Orders};
pub use kind::Kind;
pub use learnt::{Ending, Learnt};
pub use options::Options;
pub use recent::Recent;
pub use registry::{Listed, Place, Registry, Standing};
pub use report::{Check, Report};
pub use retraining::{Job, Outcome, run};
pub use set::{Sample, SampleSet};
pub use subject::Subject;
pub use underway::{Progress, Underway};

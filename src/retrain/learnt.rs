//! What the last retraining had seen and what came of it: `learnt.json`. Decides what counts as new.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::RetrainError;
use super::files;
use super::home::Home;
use super::kind::Kind;
use super::set::SampleSet;

/// How a retraining ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// The gate let it pass, and it runs.
    Activated,
    /// The gate let it pass, but could not ask all that it has to, or somebody had activated another version meanwhile.
    Accepted,
    /// The gate refused it.
    Refused,
}

/// `learnt.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Learnt {
    /// When.
    pub at: Timestamp,
    /// How it ended.
    pub ending: Ending,
    /// The version that came of it.
    pub version: String,
    /// The gate's words.
    pub words: String,
    /// The normal samples that it had seen.
    samples: BTreeSet<String>,
}

impl Learnt {
    pub(super) fn new(ending: Ending, version: String, words: String, set: &SampleSet) -> Self {
        let samples = set.of(Kind::Normal).map(|sample| sample.sha256.clone()).collect();
        Self { at: Timestamp::now(), ending, version, words, samples }
    }

    /// What the last retraining of `home` left, if there was one.
    pub fn read(home: &Home) -> Option<Self> {
        serde_json::from_slice(&fs::read(home.learnt()).ok()?).ok()
    }

    pub(super) fn write(&self, home: &Home) -> Result<(), RetrainError> {
        let path = home.learnt();
        let text = serde_json::to_vec_pretty(self).expect("it is plain data: this is a bug");
        files::replace(&path, &text).map_err(RetrainError::file("write", &path))
    }
}

/// Normal samples that no retraining has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) count: usize,
    /// When the newest of them came.
    pub(super) newest: Option<Timestamp>,
}

impl Pending {
    pub(super) fn of(set: &SampleSet, learnt: Option<&Learnt>) -> Self {
        let new = set.of(Kind::Normal).filter(|s| learnt.is_none_or(|l| !l.samples.contains(&s.sha256)));
        new.fold(Self::default(), |sum, sample| Self {
            count: sum.count + 1,
            newest: sum.newest.max(Some(sample.at)),
        })
    }
}

/// Removes what an interrupted retraining left.
pub(super) fn clear_work(home: &Home) -> Result<(), RetrainError> {
    let work = home.work();
    match files::remove_folder(&work) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(RetrainError::file("delete", &work)(e)),
        _ => Ok(()),
    }
}

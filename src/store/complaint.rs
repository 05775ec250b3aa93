//! What is the matter with the store, for people: since when, and why.
//!
//! Set and taken back by whichever thread notices, read by whoever asks how the store fares. Not here: what is noticed
//! (`shared`), what the thread that writes does about a disk that fails (`thread`).

use std::sync::Mutex;

use jiff::Timestamp;
use serde::Serialize;

use super::lock;

/// Something does not work as it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failing {
    /// Since when.
    pub since: Timestamp,
    /// What the disk said, or what is the matter.
    pub error: String,
}

/// One thing that may be the matter, because of a `C`.
#[derive(Debug)]
pub(super) struct Complaint<C>(Mutex<Option<(C, Failing)>>);

impl<C> Default for Complaint<C> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<C: Copy> Complaint<C> {
    /// Something is the matter; tells whether that is news. While it is, the first reason stands.
    pub(super) fn set(&self, cause: C, error: &str) -> bool {
        let mut standing = lock(&self.0);
        let news = standing.is_none();
        standing.get_or_insert_with(|| (cause, Failing { since: Timestamp::now(), error: error.to_owned() }));
        news
    }

    /// It no longer is; tells since when it was.
    pub(super) fn clear(&self) -> Option<Timestamp> {
        lock(&self.0).take().map(|(_, failing)| failing.since)
    }

    pub(super) fn get(&self) -> Option<Failing> {
        lock(&self.0).as_ref().map(|(_, failing)| failing.clone())
    }

    pub(super) fn cause(&self) -> Option<C> {
        lock(&self.0).as_ref().map(|(cause, _)| *cause)
    }
}

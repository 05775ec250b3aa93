//! Where the open index is, for whoever asks it. Not here: filling it (`indexer`), what it holds (`index`).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;

use super::index::{Fault, Index};
use super::{Position, lock};
use crate::telemetry::Counter;

/// How the index fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexHealth {
    /// Whether queries use it; otherwise they read the journal, which is slower and as right.
    pub ready: bool,
    /// Everything up to it is indexed.
    pub upto: Position,
    /// Times that it was damaged and put aside, since the start.
    pub damaged: u64,
    /// What was wrong last.
    pub fault: Option<String>,
}

/// The open index, as far as there is one.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub(super) open: Mutex<Option<Index>>,
    pub(super) upto: AtomicU64,
    pub(super) ready: AtomicBool,
    pub(super) damaged: Counter,
    /// Found by a query, to be seen to by the index thread.
    pub(super) broken: Mutex<Option<Fault>>,
    pub(super) last_fault: Mutex<Option<Fault>>,
}

impl Slot {
    /// What the index answers, and up to which position it knows; `None` where there is no index to answer.
    pub(super) fn ask<T>(&self, question: impl FnOnce(&Index) -> Result<T, Fault>) -> Option<(T, Position)> {
        let index = lock(&self.open).clone()?;
        // Before asking: what is added meanwhile may be answered twice, but nothing is left out.
        let upto = Position(self.upto.load(Ordering::Acquire));
        match question(&index) {
            Ok(answer) => Some((answer, upto)),
            Err(fault) => {
                self.is_broken(fault);
                None
            }
        }
    }

    /// Notes that the index is wrong.
    pub(super) fn is_broken(&self, fault: Fault) {
        *lock(&self.open) = None;
        *lock(&self.broken) = Some(fault);
    }

    pub(super) fn health(&self) -> IndexHealth {
        IndexHealth {
            ready: self.ready.load(Ordering::Relaxed),
            upto: Position(self.upto.load(Ordering::Relaxed)),
            damaged: self.damaged.get(),
            fault: lock(&self.last_fault).clone(),
        }
    }

    pub(super) fn put(&self, index: Option<Index>, upto: Position) {
        self.ready.store(false, Ordering::Relaxed);
        *lock(&self.broken) = None;
        self.upto.store(upto.0, Ordering::Release);
        *lock(&self.open) = index;
    }
}

//! What retention has done and knows, for whoever asks. Not here: retention itself.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::telemetry::Counter;

/// What retention has done and knows.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Bytes of all evidence, about.
    evidence_bytes: AtomicI64,
    pub(super) deleted_evidence: Counter,
    pub(super) deleted_segments: Counter,
}

impl Kept {
    /// Counts evidence that was written or, if negative, deleted.
    pub(super) fn add_evidence(&self, bytes: i64) {
        self.evidence_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn evidence_bytes(&self) -> u64 {
        self.evidence_bytes.load(Ordering::Relaxed).max(0).cast_unsigned()
    }
}

//! The evidence thread: writes pictures and heat maps beside the store thread, so that other cameras' verdicts need not
//! wait for them.
//!
//! In: [`Job`]s, bounded by the bytes that may wait. Out: [`Done`], unless the verdict has gone on without. Not here:
//! what the files are (`evidence`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};

use super::evidence::Evidence;
use super::shared::Shared;
use crate::verdict::Verdict;

/// Work for the evidence thread.
pub(super) struct Job {
    pub(super) verdict: Box<Verdict>,
    pub(super) evidence: Evidence,
    pub(super) claim: Claim,
}

/// Decides, once, whether a verdict gets its evidence or goes without: whichever thread takes it first.
#[derive(Clone, Default)]
pub(super) struct Claim(Arc<AtomicBool>);

impl Claim {
    pub(super) fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }

    fn is_taken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A job's end: the verdict, with its evidence or without.
pub(super) struct Done(pub(super) Box<Verdict>);

/// Writes evidence until there is no more to come; the evidence thread.
pub(super) fn write_evidence(jobs: &Receiver<Job>, done: &Sender<Done>, shared: &Shared) {
    for Job { mut verdict, evidence, claim } in jobs {
        let kept = if claim.is_taken() { Ok(()) } else { shared.keep_evidence(&verdict, &evidence) };
        shared.evidence_waits(-evidence.bytes().cast_signed());
        if !claim.take() {
            shared.drop_evidence(&verdict);
            continue;
        }
        match kept {
            Ok(()) => shared.evidence_is_kept(),
            Err((cause, reason)) => {
                verdict.evidence = None;
                shared.evidence_lost(1, cause, &reason);
            }
        }
        if done.send(Done(verdict)).is_err() {
            break;
        }
    }
}

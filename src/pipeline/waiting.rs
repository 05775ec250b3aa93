//! Triggers that wait for the camera, in the order in which they came: a part does not wait with them.
//!
//! In: parts that were triggered. Out: the next one whose picture can still be its own; one that has waited longer than that
//! allows is concluded, also while the line is busy. Owned by the capture thread. Not here: what becomes of the others
//! (`capture`), deadlines (`deadline`).

use std::cell::Cell;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::part::Part;
use crate::verdict::Reason;

/// See the module.
pub(crate) struct Waiting {
    queue: Receiver<Part>,
    /// The one that was looked at and may wait on.
    oldest: Cell<Option<Part>>,
    /// How long after its trigger a part may still be exposed.
    within: Duration,
}

impl Waiting {
    pub(crate) fn new(queue: Receiver<Part>, within: Duration) -> Self {
        Self { queue, oldest: Cell::new(None), within }
    }

    /// The queue that they come by, the oldest left out where it was looked at.
    pub(super) fn queue(&self) -> &Receiver<Part> {
        &self.queue
    }

    /// The oldest, if there is one.
    pub(super) fn take(&self) -> Option<Part> {
        self.oldest.take().or_else(|| self.queue.try_recv().ok())
    }

    /// The oldest, however long it has waited; `wait` for one at most.
    pub(super) fn wait(&self, wait: Duration) -> Result<Part, RecvTimeoutError> {
        self.oldest.take().map_or_else(|| self.queue.recv_timeout(wait), Ok)
    }

    /// The oldest that may still be exposed; `wait` for one at most.
    pub(super) fn fresh(&self, wait: Duration) -> Result<Part, RecvTimeoutError> {
        self.give_up_late();
        let part = self.wait(wait)?;
        self.oldest.set(Some(part));
        self.give_up_late();
        self.oldest.take().ok_or(RecvTimeoutError::Timeout)
    }

    /// Concludes those that the line's other parts have kept waiting for too long.
    pub(super) fn give_up_late(&self) {
        self.give_up_later_than(Reason::Overload, |ms| {
            format!("the trigger had waited {ms} ms for the line, which was busy: its part has moved on")
        });
    }

    /// Concludes those that have waited for the camera's first opening for too long.
    pub(super) fn give_up_before_opening(&self) {
        self.give_up_later_than(Reason::Camera, |ms| {
            format!("the camera is being opened, for which the trigger has waited {ms} ms")
        });
    }

    fn give_up_later_than(&self, reason: Reason, words: impl Fn(u128) -> String) {
        while let Some(part) = self.take() {
            let waited = part.began().elapsed();
            if waited <= self.within {
                return self.oldest.set(Some(part));
            }
            part.give_up(reason, words(waited.as_millis()));
        }
    }
}

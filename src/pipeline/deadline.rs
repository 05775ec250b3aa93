//! The deadline keeper: answers for parts whose verdict did not come in time.
//!
//! Owns one thread per line. In: parts with deadlines. Out: `uninspected` verdicts with reason `deadline`, at the
//! deadline, while the late inspection goes on and its result is void. When its queue is full the registering stage
//! waits; it stops when the line takes no more parts and the last one, in the infer stage, has concluded.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::part::Core;
use crate::verdict::Reason;

/// Parts that may await the keeper's attention at once.
const CAPACITY: usize = 64;

struct Due(Instant, Arc<Core>);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

/// Where parts with a deadline are registered; the keeper ends when every clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct DeadlineKeeper(Sender<Arc<Core>>);

impl DeadlineKeeper {
    /// A keeper and the loop its thread is to run.
    pub(crate) fn new() -> (Self, impl FnOnce() + Send + 'static) {
        let (sender, receiver) = bounded(CAPACITY);
        (Self(sender), move || keep(&receiver))
    }

    /// From now on, the part gets a verdict by its deadline, if it has one.
    pub(crate) fn watch(&self, core: &Arc<Core>) {
        if core.deadline().is_some() {
            // The keeper outlives its senders, so this fails only after it panicked; the part then still concludes.
            let _gone = self.0.send(core.clone());
        }
    }
}

fn keep(registered: &Receiver<Arc<Core>>) {
    let mut due: BinaryHeap<Reverse<Due>> = BinaryHeap::new();
    loop {
        let wait = due.peek().map_or(Duration::from_secs(3600), |Reverse(next)| {
            next.0.saturating_duration_since(Instant::now())
        });
        match registered.recv_timeout(wait) {
            Ok(core) => {
                if let Some(deadline) = core.deadline() {
                    due.push(Reverse(Due(deadline, core)));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            // The stages have gone and with them the parts: what is left has been concluded.
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        while due.peek().is_some_and(|Reverse(next)| next.0 <= now) {
            if let Some(Reverse(Due(_, core))) = due.pop() {
                core.give_up(None, Reason::Deadline, "the deadline passed before the inspection was done");
            }
        }
    }
}

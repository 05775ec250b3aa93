//! The store: verdicts on disk before they are on the wire, evidence files beside them, and what is still to be sent.
//!
//! In: judgements through a [`StoreHandle`]; out: numbered [`Verdict`](crate::verdict::Verdict)s once they are durable,
//! the outbox, history. The journal (append-only segments) is the truth; sled is an index over it that can be lost at
//! any time. One thread writes the journal, one writes evidence, one keeps the index, one makes room; queries run on
//! their callers' threads. Not here: MQTT (`publish`), what becomes a judgement (`pipeline`).
//!
//! | file | holds |
//! |---|---|
//! | `open` | opening and closing: the lock, recovery, the threads |
//! | `handle`, `command`, `thread` | who asks, what is asked, and the thread that obeys |
//! | `ids` | what verdicts are known by |
//! | `record`, `segment`, `state` | a record in bytes, a segment file, the sum of all records |
//! | `journal`, `recovery`, `reader` | writing, opening after a crash, reading |
//! | `history`, `queries` | past verdicts by camera, time and decision, from the journal alone or helped by the index |
//! | `index`, `slot`, `indexer` | the sled index, where it is to be found, and the thread that keeps and renews it |
//! | `evidence`, `evidence_thread` | pictures and heat maps, and the thread that writes them |
//! | `retention`, `calendar`, `reserve` | making room, on a thread of its own; whether the clock may tell what is old; room that only verdicts may use |
//! | `shared`, `kept`, `complaint` | what threads and handles share: counters, what retention has done, what is the matter |
//! | `options`, `error` | the settings and their defaults, what can go wrong |
//! | `judged` | the files whose verdicts retention has deleted |
//! | `outbox` | what is recorded and not yet published |

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

mod calendar;
mod command;
mod complaint;
mod error;
mod evidence;
mod evidence_thread;
mod handle;
mod history;
mod ids;
mod index;
mod indexer;
mod journal;
mod judged;
mod kept;
mod open;
mod options;
mod outbox;
mod queries;
mod reader;
mod record;
mod recovery;
mod reserve;
mod retention;
mod segment;
mod shared;
mod slot;
mod state;
mod thread;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod index_tests;
#[cfg(test)]
mod retention_tests;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod thread_tests;

pub use complaint::Failing;
pub use error::StoreError;
pub use evidence::{Evidence, evidence_folder};
pub use handle::{Arrival, Pending, RecordRequest, StoreHandle};
pub use history::{MAX_LIMIT, Query, Reader};
pub(crate) use open::holder;
pub use open::{Store, StoreThread};
pub use options::Options;
pub use shared::Health;
pub use slot::IndexHealth;

/// The store's folder of segments.
const JOURNAL_FOLDER: &str = "journal";

/// A verdict's place in the order in which all cameras' verdicts were recorded: from 1, without gaps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Position(pub u64);

impl Position {
    /// Before the first verdict.
    pub const START: Self = Self(0);
}

/// A trigger's claim to a verdict: given when it was accepted, redeemed with the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Locks `mutex`, also after a panic under it: the store goes on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! What the store thread is asked to do, and how it answers. Not here: asking (`handle`), doing (`thread`).

use super::record::Accepted;
use super::{Evidence, StoreError, Ticket};
use crate::verdict::{Judgement, Verdict};

/// Called on the store thread when a record is durable, or never will be; must return at once.
pub(super) type Reply = Box<dyn FnOnce(Result<Verdict, StoreError>) + Send>;
/// Called on the store thread when a note is durable, dropped if it never will be; must return at once.
pub(super) type Noted = Box<dyn FnOnce() + Send>;

/// What the store thread is asked to do.
pub(super) enum Command {
    Accept {
        ticket: Ticket,
        accepted: Box<Accepted>,
        noted: Noted,
    },
    Record {
        judgement: Box<Judgement>,
        evidence: Option<Evidence>,
        ticket: Option<Ticket>,
        reply: Reply,
    },
    /// Wakes the thread, which sees by itself that it is time to close, should this find no room.
    Close,
}

//! The outbox: durable verdicts in order of position, and how far the broker has acknowledged them.
//!
//! Written by the store thread, read on its callers' threads. Recent verdicts come from memory, older ones from the
//! journal, so that hours without a broker cost disk and not memory. Not here: sending (`publish`).

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::error;
use uuid::Uuid;

use super::complaint::{Complaint, Failing};
use super::reader::{Cursor, Journal};
use super::state::State;
use super::{Position, StoreError, lock};
use crate::telemetry::Counter;
use crate::verdict::Verdict;

/// About how many bytes of recent verdicts are kept in memory.
const TAIL_BYTES: usize = 16 << 20;
/// The most verdicts that one call reads.
const MAX_READ: usize = 10_000;
/// How long a disk that cannot read what is to be sent is asked again, before the rest is sent without it.
#[cfg(not(test))]
const GIVE_UP: Duration = Duration::from_secs(120);
#[cfg(test)]
const GIVE_UP: Duration = Duration::from_millis(20);

/// What is recorded and may still have to be sent.
#[derive(Debug)]
pub(super) struct Outbox {
    tail: Mutex<Tail>,
    /// Where the last read of older verdicts ended; the next most likely goes on there.
    cursor: Mutex<Option<Cursor>>,
    journal: Journal,
    tip: watch::Sender<Position>,
    published: AtomicU64,
    /// From the newest verdict that could be read at the start to the tip of then lies what was lost in damage.
    lost: (Position, Position),
    /// Where the disk cannot read a verdict that is to be sent, and since when.
    stuck: Mutex<Option<(Position, Instant)>>,
    /// At most so many verdicts could not be read, and so were not sent, since the start.
    unsent: Counter,
    gaps: Complaint<()>,
}

#[derive(Debug, Default)]
struct Tail {
    verdicts: VecDeque<(Position, usize, Verdict)>,
    bytes: usize,
}

impl Outbox {
    /// The outbox over `journal`, which adds up to `state`.
    pub(super) fn new(journal: Journal, state: &State) -> Self {
        let (tip, published) = (state.checkpoint.tip, state.checkpoint.published);
        Self {
            tail: Mutex::default(),
            cursor: Mutex::default(),
            journal,
            tip: watch::Sender::new(tip),
            published: AtomicU64::new(published.0),
            lost: (state.last, tip),
            stuck: Mutex::default(),
            unsent: Counter::default(),
            gaps: Complaint::default(),
        }
    }

    /// Adds verdicts that have just become durable, and tells whoever waits for them.
    pub(super) fn push(&self, verdicts: impl Iterator<Item = (Position, usize, Verdict)>) {
        let mut newest = None;
        let mut tail = lock(&self.tail);
        for (position, bytes, verdict) in verdicts {
            tail.bytes += bytes;
            tail.verdicts.push_back((position, bytes, verdict));
            newest = Some(position);
        }
        while tail.bytes > TAIL_BYTES {
            let Some((_, bytes, _)) = tail.verdicts.pop_front() else { break };
            tail.bytes -= bytes;
        }
        drop(tail);
        if let Some(newest) = newest {
            self.tip.send_replace(newest);
        }
    }

    /// At most `limit` durable verdicts after `after`, in order.
    pub(super) fn read(&self, after: Position, limit: usize) -> Result<Vec<(Position, Verdict)>, StoreError> {
        let limit = limit.min(MAX_READ);
        let tip = *self.tip.borrow();
        if after >= tip || limit == 0 {
            return Ok(Vec::new());
        }
        if let Some(recent) = self.read_tail(after, limit) {
            return Ok(recent);
        }
        let mut held = lock(&self.cursor);
        let mut cursor = match held.take() {
            Some(cursor) if cursor.wants().0 == after.0 + 1 => cursor,
            _ => self.journal.after(after),
        };
        let mut verdicts = Vec::new();
        while verdicts.len() < limit && cursor.wants() <= tip {
            let Some(found) = cursor.next_upto(tip)? else { break };
            if let Some(damage) = cursor.take_damage() {
                // Without the cursor, so that the disk is asked anew.
                if damage.unreadable && self.is_to_be_asked_again(damage.from) {
                    return if verdicts.is_empty() { Err(StoreError::Unreadable) } else { Ok(verdicts) };
                }
                self.passed_over(damage.from, found.position);
            }
            verdicts.push((found.position, found.verdict));
        }
        *held = Some(cursor);
        Ok(verdicts)
    }

    /// Whether a disk that cannot read what begins at `from` may yet do so.
    fn is_to_be_asked_again(&self, from: Position) -> bool {
        let mut stuck = lock(&self.stuck);
        let (_, since) = *match &mut *stuck {
            Some(known) if known.0 == from => known,
            other => other.insert((from, Instant::now())),
        };
        since.elapsed() < GIVE_UP
    }

    /// Verdicts from `from` to before `to` are not sent.
    fn passed_over(&self, from: Position, to: Position) {
        *lock(&self.stuck) = None;
        let verdicts = to.0 - from.0;
        if verdicts > 0 {
            self.unsent.add(verdicts);
            error!(at_most = verdicts, from = from.0, "verdicts that the disk has lost cannot be published");
            self.gaps.set((), "the disk has lost them; the log says how many");
        }
    }

    /// How many verdicts at most could not be read, and so were not sent, since the start.
    pub(super) fn unsent(&self) -> u64 {
        self.unsent.get()
    }

    /// Set once there are any.
    pub(super) fn gaps(&self) -> Option<Failing> {
        self.gaps.get()
    }

    fn read_tail(&self, after: Position, limit: usize) -> Option<Vec<(Position, Verdict)>> {
        let tail = lock(&self.tail);
        let first = tail.verdicts.front()?.0;
        let skip = (after.0 + 1).checked_sub(first.0)?;
        let skip = usize::try_from(skip).ok()?;
        let wanted = tail.verdicts.iter().skip(skip).take(limit);
        Some(wanted.map(|(position, _, verdict)| (*position, verdict.clone())).collect())
    }

    /// The newest durable position, and every newer one.
    pub(super) fn tip(&self) -> watch::Receiver<Position> {
        self.tip.subscribe()
    }

    /// The newest durable position.
    pub(super) fn newest(&self) -> Position {
        *self.tip.borrow()
    }

    /// Notes that everything up to `upto` was acknowledged; never goes back, never beyond what exists.
    pub(super) fn acknowledge(&self, upto: Position) {
        let (last, tip) = self.lost;
        let upto = if (last..tip).contains(&upto) { tip } else { upto };
        self.published.fetch_max(upto.min(self.newest()).0, Ordering::Relaxed);
    }

    /// Everything up to it was acknowledged.
    pub(super) fn published(&self) -> Position {
        Position(self.published.load(Ordering::Relaxed))
    }

    /// How many verdicts are recorded and not acknowledged.
    pub(super) fn unpublished(&self) -> u64 {
        self.newest().0.saturating_sub(self.published().0)
    }

    /// When the oldest verdict that is not acknowledged was recorded.
    pub(super) fn oldest_unpublished(&self) -> Result<Option<Timestamp>, StoreError> {
        let after = self.published();
        if after >= self.newest() {
            return Ok(None);
        }
        let oldest = match self.read_tail(after, 1) {
            Some(recent) => recent.into_iter().next().map(|(_, verdict)| verdict),
            // Not through the held cursor, which is the publisher's.
            None => self.journal.after(after).next()?.map(|found| found.verdict),
        };
        Ok(oldest.and_then(|verdict| time_of(verdict.id)))
    }
}

/// When a verdict was recorded, to the millisecond: its id tells.
pub(super) fn time_of(id: Uuid) -> Option<Timestamp> {
    let (seconds, nanoseconds) = id.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, nanoseconds.cast_signed()).ok()
}

//! The handle: how other rooms record verdicts, read the outbox and ask how the store fares.
//!
//! Commands go to the store thread over a bounded queue; queries run on the caller's thread. Not here: the threads
//! (`open`, `thread`).

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, SendTimeoutError, Sender, bounded};
use jiff::Timestamp;
use tokio::sync::watch;

use super::command::Command;
use super::evidence::evidence_folder;
use super::history::Query;
use super::record::Accepted;
use super::shared::{Health, Lost, Shared};
use super::{Evidence, Position, StoreError, Ticket};
use crate::delivery::{Deliveries, Delivery};
use crate::frame::{CameraId, FileKey};
use crate::telemetry::chain;
use crate::verdict::{Judgement, Trigger, Verdict};

/// The most triggers that may be accepted and without a verdict.
const MAX_OPEN: usize = 1024;
/// The most bytes of JSON that a trigger may have; half as much again as arrives over MQTT.
const MAX_TRIGGER: usize = 96 << 10;
/// How long accepting a trigger waits for room in the queue.
const ACCEPT_WAIT: Duration = Duration::from_secs(1);
/// How often whoever waits for room in the queue shows that it lives, and looks whether it is to wait on.
const SLICE: Duration = Duration::from_millis(500);

/// A trigger to be noted.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Whose.
    pub camera: CameraId,
    /// What it said.
    pub trigger: Trigger,
    /// When it came; a verdict that a crash interrupts is dated so.
    pub at: Timestamp,
    /// The message that it came in, by which it is known when it comes again.
    pub delivery: Option<Delivery>,
}

/// A judgement to be recorded.
#[derive(Debug, Clone)]
pub struct RecordRequest {
    /// What was concluded.
    pub judgement: Judgement,
    /// What is to be kept of it besides.
    pub evidence: Option<Evidence>,
    /// What [`StoreHandle::accept`] gave for it.
    pub ticket: Option<Ticket>,
}

/// A record on its way to the disk.
#[derive(Debug)]
#[must_use = "a verdict may be told to others only when it is durable"]
pub struct Pending(Receiver<Result<Verdict, StoreError>>);

impl Pending {
    /// Blocks until the verdict is durable.
    ///
    /// # Errors
    /// [`StoreError::Closed`] if the store was closed before it could be written.
    pub fn wait(self) -> Result<Verdict, StoreError> {
        self.0.recv().unwrap_or(Err(StoreError::Closed))
    }

    /// The verdict if it is durable by now.
    pub fn poll(&self) -> Option<Result<Verdict, StoreError>> {
        match self.0.try_recv() {
            Ok(answer) => Some(answer),
            Err(crossbeam_channel::TryRecvError::Empty) => None,
            Err(crossbeam_channel::TryRecvError::Disconnected) => Some(Err(StoreError::Closed)),
        }
    }
}

/// Counts a judgement that was handed over and is not durable, as long as it exists.
struct Waiting(Arc<Shared>);

impl Waiting {
    fn one_more(shared: &Arc<Shared>) -> Self {
        shared.waiting.fetch_add(1, Ordering::Relaxed);
        Self(shared.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A handle on the store; clones share it.
#[derive(Debug, Clone)]
pub struct StoreHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: Sender<Command>,
}

impl StoreHandle {
    /// Notes that a trigger was accepted, so that it gets a verdict even if the program is killed from then on. Does not
    /// wait for the disk; `noted` is called on the store thread once the note is durable, and must return at once. The
    /// note is durable before the trigger's verdict is.
    ///
    /// # Errors
    /// [`StoreError::TooLarge`] when the trigger is, or when 1024 wait for their verdicts; [`StoreError::Busy`] when the
    /// queue stays full for a second.
    pub fn accept_then(
        &self,
        arrival: Arrival,
        noted: impl FnOnce() + Send + 'static,
    ) -> Result<Ticket, StoreError> {
        let bytes = serde_json::to_vec(&arrival.trigger).map_or(usize::MAX, |json| json.len());
        if bytes > MAX_TRIGGER {
            let (what, remedy) = ("a trigger's JSON", "send less with it");
            return Err(StoreError::TooLarge { what, got: bytes, limit: MAX_TRIGGER, remedy });
        }
        let open = self.shared.open.load(Ordering::Relaxed);
        if open >= MAX_OPEN {
            let (what, remedy) = ("the number of open triggers", "send on when verdicts have come");
            return Err(StoreError::TooLarge { what, got: open + 1, limit: MAX_OPEN, remedy });
        }
        let ticket = Ticket(self.shared.tickets.fetch_add(1, Ordering::Relaxed));
        let Arrival { camera, trigger, at, delivery } = arrival;
        let accepted = Box::new(Accepted { camera, trigger, captured_at: at, delivery });
        let command = Command::Accept { ticket, accepted, noted: Box::new(noted) };
        self.commands.send_timeout(command, ACCEPT_WAIT).map_err(|error| match error {
            SendTimeoutError::Timeout(_) => StoreError::Busy { waiting: self.commands.len() },
            SendTimeoutError::Disconnected(_) => StoreError::Closed,
        })?;
        Ok(ticket)
    }

    /// Like [`StoreHandle::accept_then`], of a trigger that came in no message and whose note nobody waits for.
    ///
    /// # Errors
    /// As there.
    pub fn accept(&self, camera: &CameraId, trigger: &Trigger, at: Timestamp) -> Result<Ticket, StoreError> {
        let (camera, trigger) = (camera.clone(), trigger.clone());
        self.accept_then(Arrival { camera, trigger, at, delivery: None }, || {})
    }

    /// The messages that triggers had come in before this start.
    pub fn deliveries(&self) -> &Deliveries {
        &self.shared.deliveries
    }

    /// Records a judgement: it gets its `id` and its camera's next `sequence`, in the order of calls. Waits while the
    /// queue is full. Evidence that there is no room for is left out, and counted.
    pub fn record(&self, request: RecordRequest) -> Pending {
        let (answer, pending) = bounded(1);
        self.record_then(request, move |verdict| {
            let _nobody_may_wait = answer.send(verdict);
        });
        Pending(pending)
    }

    /// Like [`StoreHandle::record`]; `then` is called on the store thread once the verdict is durable, and must return
    /// at once.
    pub fn record_then(
        &self,
        request: RecordRequest,
        then: impl FnOnce(Result<Verdict, StoreError>) + Send + 'static,
    ) {
        self.record_alive(request, || {}, then);
    }

    /// Like [`StoreHandle::record_then`]; calls `alive` again and again while the queue is full, for a watchdog that would
    /// take who waits for the disk for one that hangs.
    pub fn record_alive(
        &self,
        request: RecordRequest,
        alive: impl Fn(),
        then: impl FnOnce(Result<Verdict, StoreError>) + Send + 'static,
    ) {
        if self.shared.is_closing() {
            return then(Err(StoreError::Closed));
        }
        let RecordRequest { judgement, evidence, ticket } = request;
        let evidence = evidence.filter(|evidence| {
            let room = self.shared.evidence_may_wait(evidence.bytes());
            if !room {
                self.shared.evidence_lost(
                    1,
                    Lost::Late,
                    "more evidence waits to be written than [store] evidence_queue_megabytes",
                );
            }
            room
        });
        let waiting = Waiting::one_more(&self.shared);
        let reply = Box::new(move |verdict| {
            then(verdict);
            drop(waiting);
        });
        let command = Command::Record { judgement: Box::new(judgement), evidence, ticket, reply };
        if let Some((Command::Record { reply, .. }, why)) = self.hand_over(command, alive) {
            reply(Err(why));
        }
    }

    /// Gives back what was refused, and why.
    fn hand_over(&self, mut command: Command, alive: impl Fn()) -> Option<(Command, StoreError)> {
        loop {
            alive();
            let left = self.shared.patience();
            match self.commands.send_timeout(command, left.map_or(SLICE, |left| left.min(SLICE))) {
                Ok(()) => return None,
                Err(SendTimeoutError::Disconnected(refused)) => return Some((refused, StoreError::Closed)),
                Err(SendTimeoutError::Timeout(refused)) if left.is_some_and(|left| left.is_zero()) => {
                    return Some((refused, StoreError::Busy { waiting: self.commands.len() }));
                }
                Err(SendTimeoutError::Timeout(refused)) => command = refused,
            }
        }
    }

    /// From `moment` on nobody waits for room in the queue any more: what finds none gets [`StoreError::Busy`]. For a stop,
    /// which a disk that takes nothing must not hold up for ever. The first such moment counts.
    pub fn wait_until(&self, moment: Instant) {
        self.shared.wait_until(moment);
    }

    /// How much longer whoever records may wait for the disk, once [`StoreHandle::wait_until`] has set an end to that.
    pub fn patience(&self) -> Option<Duration> {
        self.shared.patience()
    }

    /// At most `limit` (and 10,000) durable verdicts after position `after`, in order.
    ///
    /// # Errors
    /// When older ones cannot be read from the journal.
    pub fn outbox(&self, after: Position, limit: usize) -> Result<Vec<(Position, Verdict)>, StoreError> {
        let read = self.shared.outbox.read(after, limit);
        match &read {
            Ok(_) => drop(self.shared.unread.clear()),
            Err(error) => drop(self.shared.unread.set((), &chain(error))),
        }
        read
    }

    /// The newest durable position, and a way to wait for newer ones.
    pub fn tip(&self) -> watch::Receiver<Position> {
        self.shared.outbox.tip()
    }

    /// Notes that the broker has acknowledged everything up to `upto`. Written down within about a second: after a crash
    /// some may be sent again, none is left out.
    pub fn published(&self, upto: Position) {
        self.shared.outbox.acknowledge(upto);
    }

    /// Everything up to it was acknowledged; sending goes on after it.
    pub fn published_upto(&self) -> Position {
        self.shared.outbox.published()
    }

    /// How many durable verdicts the broker has not acknowledged.
    pub fn unpublished(&self) -> u64 {
        self.shared.outbox.unpublished()
    }

    /// When the oldest verdict that the broker has not acknowledged was recorded.
    ///
    /// # Errors
    /// When it cannot be read from the journal.
    pub fn oldest_unpublished(&self) -> Result<Option<Timestamp>, StoreError> {
        self.shared.outbox.oldest_unpublished()
    }

    /// How the store fares.
    pub fn health(&self) -> Health {
        self.shared.health()
    }

    /// Hands verdicts `from` to `to` of `camera`, by sequence, to `each` until it returns `false`; those that retention
    /// has deleted are missing. One verdict is in memory at a time.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn replay_each(
        &self,
        camera: &CameraId,
        (from, to): (u64, u64),
        each: impl FnMut(Verdict) -> bool,
    ) -> Result<(), StoreError> {
        self.shared.replay_each(camera, (from, to), each)
    }

    /// Verdicts `from` to `to` of `camera`, by sequence, at most `limit`, which should be few; those that retention has deleted are missing.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn replay(
        &self,
        camera: &CameraId,
        (from, to): (u64, u64),
        limit: usize,
    ) -> Result<Vec<Verdict>, StoreError> {
        self.shared.replay(camera, (from, to), limit)
    }

    /// The verdicts that `query` wants, the newest first.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub fn history(&self, query: &Query) -> Result<Vec<Verdict>, StoreError> {
        self.shared.history(query)
    }

    /// Those of `files` that `camera` has judged already, whether or not their verdicts are still kept: all that the journal
    /// holds, and the newest four million of those it held. What cannot be read is logged and left out, so that such a file is
    /// judged again rather than never.
    pub fn judged(&self, camera: &CameraId, files: &HashSet<FileKey>) -> HashSet<FileKey> {
        self.shared.judged(camera, files)
    }

    /// The folder of a verdict's evidence, if it is still there.
    pub fn evidence(&self, verdict: &Verdict) -> Option<PathBuf> {
        evidence_folder(&self.shared.path, verdict)
    }
}

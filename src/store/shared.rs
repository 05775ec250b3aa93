//! What the store's threads and handles share: counters, the disk's state, and when it is time to close.
//!
//! Every notable event has one function here, which writes the log line and moves the counter. Not here: the threads'
//! own state (`thread`, `indexer`, `retention`).

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use tracing::{error, info, warn};

use super::complaint::{Complaint, Failing};
use super::evidence::{self, Evidence};
use super::kept::Kept;
use super::outbox::Outbox;
use super::reader::Journal;
use super::reserve::Reserve;
use super::slot::{IndexHealth, Slot};
use super::state::State;
use super::{Position, lock};
use crate::delivery::Deliveries;
use crate::shutdown::Shutdown;
use crate::telemetry::{Counter, chain};
use crate::verdict::Verdict;

/// A disk that takes longer to confirm what was written is called slow.
const SLOW: Duration = Duration::from_millis(500);
/// How often a failure that lasts is logged again.
const REMIND: Duration = Duration::from_secs(60);

/// For so long less than wanted may be kept free for verdicts before people are told.
const UNRESERVED: Duration = Duration::from_secs(60);

/// How the store fares.
#[derive(Debug, Clone, Serialize)]
pub struct Health {
    /// Set while verdicts cannot be written; they wait, and are tried again.
    pub failing: Option<Failing>,
    /// Set while evidence is not kept, with the reason of the first that was not; verdicts are.
    pub thinning: Option<Failing>,
    /// Set while the disk takes long to confirm what is written.
    pub slow: Option<Failing>,
    /// Set while verdicts are written to what was kept free for them, with what is left of that.
    pub pressed: Option<Failing>,
    /// Set while less is kept free for verdicts than is wanted, for want of room.
    pub unreserved: Option<Failing>,
    /// Set while the limits cannot be kept to, though nothing is left that may be deleted.
    pub crowded: Option<Failing>,
    /// Set while age is not counted by the clock, because that is in doubt.
    pub undated: Option<Failing>,
    /// Set while recorded verdicts cannot be read back to be published; it is tried again.
    pub unread: Option<Failing>,
    /// Set once recorded verdicts could not be read, and so were not published.
    pub gaps: Option<Failing>,
    /// How many those are at most, since the start.
    pub unsent: u64,
    /// Judgements that were handed over and are not durable yet.
    pub waiting: usize,
    /// The newest durable verdict.
    pub newest: Position,
    /// Durable verdicts that the broker has not acknowledged.
    pub unpublished: u64,
    /// Accepted triggers without a verdict.
    pub open_triggers: usize,
    /// Verdicts whose evidence was not kept, since the start.
    pub evidence_lost: u64,
    /// Bytes of evidence that wait to be written.
    pub evidence_waiting: u64,
    /// Bytes of evidence on disk, about.
    pub evidence_bytes: u64,
    /// Evidence folders that retention has deleted, since the start.
    pub evidence_deleted: u64,
    /// Journal segments that retention has deleted, since the start.
    pub segments_deleted: u64,
    /// Failed attempts to write, since the start.
    pub write_failures: u64,
    /// Damaged places found in the journal when it was opened.
    pub damaged: u64,
    /// The index.
    pub index: IndexHealth,
    /// Bytes free on the store's disk, if that can be told.
    pub free_bytes: Option<u64>,
    /// Bytes that the store's disk has altogether, if that can be told.
    pub disk_bytes: Option<u64>,
}

/// Why evidence is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// There is no room for it besides verdicts.
    Room,
    /// More waits to be written than may, or for longer than a verdict may wait.
    Late,
    /// Writing it failed.
    Failed,
}

#[derive(Debug)]
struct Trouble {
    failing: Failing,
    reminded: Instant,
}

/// What the threads and handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) path: PathBuf,
    pub(super) outbox: Outbox,
    pub(super) reader: Journal,
    pub(super) index: Slot,
    pub(super) kept: Kept,
    /// Given when the store has closed; threads that make room or keep the index stop then.
    pub(super) closed: Shutdown,
    /// Accepted triggers without a verdict.
    pub(super) open: AtomicUsize,
    /// When the newest picture of all was taken, as of the start.
    pub(super) latest: Option<Timestamp>,
    pub(super) tickets: AtomicU64,
    /// The messages that triggers had come in before this start.
    pub(super) deliveries: Deliveries,
    /// Judgements that were handed over and are not durable yet.
    pub(super) waiting: AtomicUsize,
    min_free_bytes: u64,
    max_evidence_waiting: u64,
    evidence_waiting: AtomicI64,
    evidence_lost: Counter,
    thinning: Complaint<Lost>,
    slow: Complaint<()>,
    unreserved: Complaint<()>,
    pub(super) crowded: Complaint<()>,
    pub(super) undated: Complaint<()>,
    pub(super) unread: Complaint<()>,
    /// Since when the disk has been asked to take verdicts, and has not answered.
    asked: Mutex<Option<(Instant, Timestamp)>>,
    /// What [`Reserve::in_use`] said last: whoever asks must not wait for a disk that hangs.
    pressed: Mutex<Option<(Timestamp, u64)>>,
    reserve: Mutex<Reserve>,
    write_failures: Counter,
    damaged: u64,
    trouble: Mutex<Option<Trouble>>,
    close_by: Mutex<Option<Instant>>,
    wait_until: Mutex<Option<Instant>>,
    closing: Shutdown,
}

/// The bounds that [`Shared`] keeps.
pub(super) struct Bounds {
    pub(super) min_free_bytes: u64,
    pub(super) reserve_bytes: u64,
    pub(super) max_evidence_waiting: u64,
}

impl Shared {
    pub(super) fn new(path: PathBuf, state: &State, damaged: u64, bounds: &Bounds) -> Self {
        let sum = &state.checkpoint;
        let reader = Journal::new(&path.join(super::JOURNAL_FOLDER));
        let disk = disk_bytes(&path).unwrap_or(u64::MAX);
        let reserve = Mutex::new(Reserve::new(&path, bounds.reserve_bytes, disk));
        Self {
            path,
            outbox: Outbox::new(reader.clone(), state),
            reader,
            index: Slot::default(),
            kept: Kept::default(),
            closed: Shutdown::new(),
            open: AtomicUsize::new(state.open.len()),
            latest: sum.latest,
            tickets: AtomicU64::new(sum.ticket + 1),
            deliveries: sum.deliveries.clone(),
            waiting: AtomicUsize::new(0),
            min_free_bytes: bounds.min_free_bytes,
            max_evidence_waiting: bounds.max_evidence_waiting,
            evidence_waiting: AtomicI64::new(0),
            evidence_lost: Counter::default(),
            thinning: Complaint::default(),
            slow: Complaint::default(),
            unreserved: Complaint::default(),
            crowded: Complaint::default(),
            undated: Complaint::default(),
            unread: Complaint::default(),
            asked: Mutex::default(),
            pressed: Mutex::default(),
            reserve,
            write_failures: Counter::default(),
            damaged,
            trouble: Mutex::default(),
            close_by: Mutex::default(),
            wait_until: Mutex::default(),
            closing: Shutdown::new(),
        }
    }

    pub(super) fn health(&self) -> Health {
        Health {
            failing: lock(&self.trouble).as_ref().map(|trouble| trouble.failing.clone()),
            thinning: self.thinning.get(),
            slow: self.slow(),
            pressed: self.pressed(),
            unreserved: self.unreserved.get(),
            crowded: self.crowded.get(),
            undated: self.undated.get(),
            unread: self.unread.get(),
            gaps: self.outbox.gaps(),
            unsent: self.outbox.unsent(),
            waiting: self.waiting.load(Ordering::Relaxed),
            newest: self.outbox.newest(),
            unpublished: self.outbox.unpublished(),
            open_triggers: self.open.load(Ordering::Relaxed),
            evidence_lost: self.evidence_lost.get(),
            evidence_waiting: self.evidence_waiting.load(Ordering::Relaxed).max(0).cast_unsigned(),
            evidence_bytes: self.kept.evidence_bytes(),
            evidence_deleted: self.kept.deleted_evidence.get(),
            segments_deleted: self.kept.deleted_segments.get(),
            write_failures: self.write_failures.get(),
            damaged: self.damaged,
            index: self.index.health(),
            free_bytes: free_bytes(&self.path).ok(),
            disk_bytes: disk_bytes(&self.path).ok(),
        }
    }

    /// Verdicts could not be written.
    pub(super) fn disk_fails(&self, error: &io::Error, records: usize) {
        self.write_failures.increment();
        let mut trouble = lock(&self.trouble);
        let now = Instant::now();
        let remind = trouble.as_ref().is_none_or(|trouble| now - trouble.reminded >= REMIND);
        let since = trouble.as_ref().map_or_else(Timestamp::now, |trouble| trouble.failing.since);
        let reminded = if remind { now } else { trouble.as_ref().map_or(now, |trouble| trouble.reminded) };
        *trouble = Some(Trouble { failing: Failing { since, error: error.to_string() }, reminded });
        if remind {
            error!(error = %chain(error), records, store = %self.path.display(), "verdicts cannot be written; they wait");
        }
    }

    /// Verdicts were written.
    pub(super) fn disk_works(&self, state: &State) {
        self.open.store(state.open.len(), Ordering::Relaxed);
        if let Some(trouble) = lock(&self.trouble).take() {
            let since = trouble.failing.since;
            info!(%since, "verdicts can be written again; none was lost");
        }
    }

    /// Makes room for verdicts on a full disk; `false` when there is none to be had.
    pub(super) fn use_reserve(&self) -> bool {
        let mut reserve = lock(&self.reserve);
        let made_room = reserve.give_up();
        *lock(&self.pressed) = reserve.in_use();
        made_room
    }

    /// Keeps room for verdicts, where so much is free that the disk has it; tells what must be free beside the limit to be kept.
    pub(super) fn refill_reserve(&self, free: u64) -> u64 {
        let mut reserve = lock(&self.reserve);
        reserve.refill(free, self.min_free_bytes);
        *lock(&self.pressed) = reserve.in_use();
        match reserve.lacks_for(UNRESERVED) {
            None => drop(self.unreserved.clear()),
            Some(error) => {
                if self.unreserved.set((), &error) {
                    warn!(error, "little room is kept free for verdicts, should the disk fill up");
                }
            }
        }
        reserve.claims()
    }

    fn pressed(&self) -> Option<Failing> {
        let (since, left) = (*lock(&self.pressed))?;
        Some(Failing { since, error: format!("{} MiB of [store] reserve_megabytes are left", left >> 20) })
    }

    /// The disk is asked to take verdicts, from now on until it answers.
    pub(super) fn disk_is_asked(&self) -> Instant {
        let now = Instant::now();
        *lock(&self.asked) = Some((now, Timestamp::now()));
        now
    }

    /// The disk has taken them or refused to.
    pub(super) fn disk_has_answered(&self) {
        *lock(&self.asked) = None;
    }

    /// Whether the disk was slow when last it answered, or lets wait for its answer.
    fn slow(&self) -> Option<Failing> {
        let asked = *lock(&self.asked);
        self.slow.get().or_else(|| {
            let (_, since) = asked.filter(|(asked, _)| asked.elapsed() > SLOW)?;
            Some(Failing { since, error: "it has not confirmed yet what was written".into() })
        })
    }

    /// Verdicts were written, and that took so long.
    pub(super) fn wrote_in(&self, time: Duration) {
        if time > SLOW {
            let error = format!("confirming verdicts took it {:.1} s", time.as_secs_f64());
            if self.slow.set((), &error) {
                warn!(error, store = %self.path.display(), "the disk is slow");
            }
        } else if time < SLOW / 2
            && let Some(since) = self.slow.clear()
        {
            info!(%since, "the disk is no longer slow");
        }
    }

    /// Writes a verdict's evidence, where the disk has room for it besides verdicts.
    pub(super) fn keep_evidence(&self, verdict: &Verdict, evidence: &Evidence) -> Result<(), (Lost, String)> {
        self.has_room_for_evidence().map_err(|why| (Lost::Room, why))?;
        let written = evidence::write(&self.path, verdict, evidence);
        let bytes = written.map_err(|error| (Lost::Failed, chain(&error)))?;
        self.kept.add_evidence(bytes.cast_signed());
        Ok(())
    }

    fn has_room_for_evidence(&self) -> Result<(), String> {
        if self.pressed().is_some() {
            return Err("the disk is full, and what is left is for verdicts".into());
        }
        let free = free_bytes(&self.path).unwrap_or(u64::MAX);
        if free < self.min_free_bytes / 2 {
            return Err(format!("only {} MiB are free, which verdicts may need", free >> 20));
        }
        Ok(())
    }

    /// A verdict has got its evidence.
    pub(super) fn evidence_is_kept(&self) {
        if let Some(since) = self.thinning.clear() {
            info!(%since, "evidence can be kept again");
        }
    }

    /// Takes back that evidence is not kept, where what was in its way has gone. Of what failed only the next attempt tells.
    pub(super) fn look_for_room_for_evidence(&self) {
        let gone = match self.thinning.cause() {
            Some(Lost::Room) => self.has_room_for_evidence().is_ok(),
            Some(Lost::Late) => self.evidence_waiting.load(Ordering::Relaxed) <= 0 && self.slow().is_none(),
            Some(Lost::Failed) | None => false,
        };
        if gone {
            self.evidence_is_kept();
        }
    }

    /// Removes evidence that was written too late for its verdict.
    pub(super) fn drop_evidence(&self, verdict: &Verdict) {
        let Some(folder) = evidence::evidence_folder(&self.path, verdict) else { return };
        let bytes = evidence::bytes_below(&folder);
        match std::fs::remove_dir_all(&folder) {
            Ok(()) => self.kept.add_evidence(-bytes.cast_signed()),
            Err(error) => {
                warn!(folder = %folder.display(), error = %chain(&error), "evidence without a verdict stays");
            }
        }
    }

    /// Verdicts are recorded without their evidence.
    pub(super) fn evidence_lost(&self, verdicts: u64, cause: Lost, reason: &str) {
        self.evidence_lost.add(verdicts);
        if self.thinning.set(cause, reason) {
            warn!(verdicts, reason, "evidence is not kept; verdicts are");
        }
    }

    /// Whether `bytes` more of evidence may wait; if so they are counted.
    pub(super) fn evidence_may_wait(&self, bytes: u64) -> bool {
        let before = self.evidence_waiting.load(Ordering::Relaxed).max(0).cast_unsigned();
        // One that is larger than the whole queue is let in when nothing else waits.
        let room = before == 0 || before + bytes <= self.max_evidence_waiting;
        if room {
            self.evidence_waits(bytes.cast_signed());
        }
        room
    }

    /// Counts bytes of evidence that wait, or no longer do.
    pub(super) fn evidence_waits(&self, bytes: i64) {
        self.evidence_waiting.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Sets the moment from which on nobody waits for room in the queue.
    pub(super) fn wait_until(&self, moment: Instant) {
        lock(&self.wait_until).get_or_insert(moment);
    }

    /// What is left until then, once it is set.
    pub(super) fn patience(&self) -> Option<Duration> {
        lock(&self.wait_until).map(|moment| moment.saturating_duration_since(Instant::now()))
    }

    /// Sets how long the store may take to close.
    pub(super) fn close_within(&self, time: Duration) {
        lock(&self.close_by).get_or_insert(Instant::now() + time);
        self.closing.request();
    }

    /// Whether the store was asked to close.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.requested()
    }

    /// What is left of the time to close, once it was asked to.
    pub(super) fn time_to_close(&self) -> Option<Duration> {
        lock(&self.close_by).map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Waits before another attempt; tells whether there is time for one.
    pub(super) fn pause(&self, time: Duration) -> bool {
        if !self.closing.sleep(time) {
            return true;
        }
        let left = self.time_to_close().unwrap_or_default();
        std::thread::sleep(left.min(Duration::from_millis(100)));
        !left.is_zero()
    }
}

/// Bytes that this user may still write on the disk of `path`.
pub(super) fn free_bytes(path: &std::path::Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail * disk.f_frsize)
}

/// Bytes that the disk of `path` has altogether.
fn disk_bytes(path: &std::path::Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_blocks * disk.f_frsize)
}

//! The journal: appends records to the newest segment and makes them durable, several at a time.
//!
//! Owned by the store thread. In: batches of records. Out: where they lie, once they are on disk. What was promised
//! durable is never overwritten; bytes after a failed sync are never trusted, because the kernel may have dropped them
//! and call the next sync a success: a new segment is begun and the batch written again. Not here: retries and
//! waiting (`thread`), opening after a crash (`recovery`), reading (`reader`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use uuid::Uuid;

use super::record::{RECORD_HEADER, Record, SegmentHeader, frame};
use super::state::State;
use super::{Position, segment};
use crate::durable;

/// Where records are written; the tests have one that loses power.
pub(super) trait Medium: Send {
    /// An empty file at `path`.
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn Appendable>>;
    /// Makes durable what an earlier process wrote to the file at `path`.
    fn settle(&mut self, path: &Path) -> io::Result<()>;
}

/// A segment being written.
pub(super) trait Appendable: Send {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes all that was written durable, the file's length included.
    fn sync(&mut self) -> io::Result<()>;
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// The machine's disk.
pub(super) struct Disk;

impl Medium for Disk {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn Appendable>> {
        Ok(Box::new(File::create(path)?))
    }

    fn settle(&mut self, path: &Path) -> io::Result<()> {
        // Nothing is going to be believed of one that cannot be opened.
        let Some(file) = segment::open(path)? else { return Ok(()) };
        match file.sync_all() {
            Ok(()) => Ok(()),
            // Asked again, the kernel would call it a success. What it still has in memory is written anew.
            Err(_) => durable::replace(path, &segment::all_that_can_be_read(path)?),
        }
    }
}

impl Appendable for File {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// The segment being written.
struct Active {
    file: Box<dyn Appendable>,
    number: u64,
    /// Bytes that are on disk for certain.
    durable: u64,
    /// Whether anything but the preamble is among them.
    used: bool,
}

/// The writing end of the journal.
pub(super) struct Journal {
    folder: PathBuf,
    medium: Box<dyn Medium>,
    store: Uuid,
    state: State,
    active: Option<Active>,
    next_number: u64,
    segment_bytes: u64,
    buffer: Vec<u8>,
}

impl Journal {
    /// A journal in `folder` that goes on from `state`, in a new segment with a number from `next_number` on.
    pub(super) fn new(
        folder: PathBuf,
        medium: Box<dyn Medium>,
        segment_bytes: u64,
        (store, state, next_number): (Uuid, State, u64),
    ) -> Self {
        Self { folder, medium, store, state, active: None, next_number, segment_bytes, buffer: Vec::new() }
    }

    /// The sum of everything durable.
    pub(super) fn state(&self) -> &State {
        &self.state
    }

    /// Makes `records` durable, in order, all or none as far as [`Journal::state`] is concerned.
    ///
    /// # Errors
    /// Whatever the disk says. The same batch may be given again.
    pub(super) fn commit(&mut self, records: &[Record]) -> io::Result<()> {
        let full = self.active.as_ref().is_some_and(|a| a.used && a.durable >= self.segment_bytes);
        if full {
            self.active = None;
        }
        if self.active.is_none() {
            self.active = Some(self.begin()?);
        }
        let active = self.active.as_mut().expect("a segment was begun: this is a bug");
        self.buffer.clear();
        frame_all(&mut self.buffer, records, active.durable);
        if let Err(error) = active.file.write_at(&self.buffer, active.durable) {
            // A full disk is not the segment's fault, and writing again at the same place is safe.
            if !is_full(&error) {
                self.abandon();
            }
            return Err(error);
        }
        if let Err(error) = active.file.sync() {
            self.abandon();
            return Err(error);
        }
        active.durable += self.buffer.len() as u64;
        active.used = true;
        for record in records {
            self.state.apply(record);
        }
        Ok(())
    }

    /// Begins the next segment: header, checkpoint and open triggers, durable before anything relies on them.
    /// It gets its name last, so that whatever has a segment's name is whole.
    fn begin(&mut self) -> io::Result<Active> {
        let number = self.next_number;
        let unfinished = segment::unfinished(&self.folder, number);
        let named = self.write_preamble(&unfinished, number).and_then(|active| {
            fs::rename(&unfinished, segment::path(&self.folder, number))?;
            self.next_number += 1;
            segment::sync_folder(&self.folder)?;
            Ok(active)
        });
        if named.is_err() {
            let _best_effort = fs::remove_file(&unfinished);
        }
        named
    }

    fn write_preamble(&mut self, path: &Path, number: u64) -> io::Result<Active> {
        let header = SegmentHeader {
            number,
            store: self.store,
            first: Position(self.state.checkpoint.tip.0 + 1),
            created_ns: i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
        };
        self.buffer.clear();
        self.buffer.extend(header.encode());
        frame_all(&mut self.buffer, &self.state.preamble(), 0);
        let mut file = self.medium.create(path)?;
        file.write_at(&self.buffer, 0)?;
        file.sync()?;
        Ok(Active { file, number, durable: self.buffer.len() as u64, used: false })
    }

    /// Begins a segment now, so that faults of the folder show early. A full disk is left for later.
    pub(super) fn begin_early(&mut self) -> io::Result<()> {
        match self.begin() {
            Ok(active) => self.active = Some(active),
            Err(error) if is_full(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Gives up on the segment being written, after a failure that leaves its end in doubt.
    fn abandon(&mut self) {
        let Some(mut active) = self.active.take() else { return };
        if active.used {
            // Readers pass over what stays: the next segment's header says from which position on it counts.
            let _best_effort = active.file.truncate(active.durable);
        } else {
            let _best_effort = fs::remove_file(segment::path(&self.folder, active.number));
        }
    }

    /// Removes the segment being written if it holds nothing new, so that restarts do not pile up files.
    pub(super) fn close(mut self) {
        if self.active.as_ref().is_some_and(|active| !active.used) {
            self.abandon();
        }
    }
}

/// Whether the disk, or this user's share of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn frame_all(buffer: &mut Vec<u8>, records: &[Record], durable: u64) {
    debug_assert!(buffer.len() + records.len() * RECORD_HEADER < u32::MAX as usize);
    let durable = u32::try_from(durable).unwrap_or(u32::MAX);
    for record in records {
        frame(buffer, &record.encode(), durable);
    }
}

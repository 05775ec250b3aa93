//! Reading the journal: verdicts in order of position, from any position on.
//!
//! Needs neither the lock nor the index, so that it works beside a running daemon; tolerates segments that grow, roll
//! over or are deleted meanwhile. Runs on its caller's thread. Not here: the index (`index`), writing (`journal`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tracing::warn;
use uuid::Uuid;

use super::record::{Checkpoint, Record, SegmentHeader, position_of};
use super::segment::{self, Scanner, Step};
use super::{Position, StoreError};
use crate::frame::CameraId;
use crate::verdict::Verdict;

/// Stands for when a segment was begun where its header is damaged.
const UNKNOWN: i64 = i64::MIN;

/// Where a record lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// A verdict as read back.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) position: Position,
    pub(super) location: Location,
    pub(super) verdict: Verdict,
}

/// What is known of a segment without reading it through.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    pub(super) number: u64,
    pub(super) header: SegmentHeader,
    /// The sum of everything before it, unless damaged.
    pub(super) before: Option<Checkpoint>,
}

impl Segment {
    /// When it was begun, unless its header is damaged.
    pub(super) fn begun(&self) -> Option<Timestamp> {
        let known = self.header.created_ns != UNKNOWN;
        known.then(|| Timestamp::from_nanosecond(self.header.created_ns.into()).ok()).flatten()
    }
}

/// The reading end of a journal.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    folder: PathBuf,
    /// Headers never change once a segment has its name.
    known: Arc<Mutex<BTreeMap<u64, Option<Segment>>>>,
}

impl Journal {
    /// The journal in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), known: Arc::default() }
    }

    /// Its segments, oldest first, without those in which nothing can be read.
    pub(super) fn segments(&self) -> Result<Vec<Segment>, StoreError> {
        let numbers = segment::list(&self.folder)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|number, _| numbers.binary_search(number).is_ok());
        for number in &numbers {
            if known.contains_key(number) {
                continue;
            }
            match self.look_at(*number) {
                Ok(segment) => drop(known.insert(*number, segment)),
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(known.values().flatten().cloned().collect())
    }

    fn look_at(&self, number: u64) -> Result<Option<Segment>, StoreError> {
        let mut scanner = Scanner::open(&self.folder, number)?;
        let Some(header) = scanner.header().copied() else {
            warn!(segment = number, "a journal segment has a damaged header");
            return Ok(first_position(&mut scanner)?.map(|first| Segment {
                number,
                header: SegmentHeader { number, store: Uuid::nil(), first, created_ns: UNKNOWN },
                before: None,
            }));
        };
        let before = match scanner.next()? {
            Step::Record { payload, .. } => match Record::decode(&payload) {
                Ok(Record::Checkpoint(before)) => Some(before),
                _ => None,
            },
            _ => None,
        };
        Ok(Some(Segment { number, header, before }))
    }

    /// Reads on from the verdict after `after`.
    pub(super) fn after(&self, after: Position) -> Cursor {
        Cursor { journal: self.clone(), next: Position(after.0 + 1), current: None }
    }

    /// The verdict at `location`, if one is there.
    pub(super) fn at(&self, location: Location) -> Result<Option<Found>, StoreError> {
        match segment::read_record(&self.folder, location.segment, location.offset) {
            Ok(payload) => Ok(payload.and_then(|payload| found(location, &payload))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                Err(StoreError::file("read", &segment::path(&self.folder, location.segment))(error))
            }
        }
    }

    /// Whether segment `number` is there.
    pub(super) fn has(&self, number: u64) -> Result<bool, StoreError> {
        Ok(self.segments()?.iter().any(|segment| segment.number == number))
    }

    /// Reads on from where `camera`'s verdict number `sequence` can first be.
    pub(super) fn before_sequence(&self, camera: &CameraId, sequence: u64) -> Result<Cursor, StoreError> {
        let segments = self.segments()?;
        let starts_before = |segment: &&Segment| {
            let before = segment.before.as_ref().and_then(|before| before.sequences.get(camera));
            before.is_none_or(|last| *last < sequence)
        };
        let start = segments.iter().rev().find(starts_before).or(segments.first());
        Ok(self.after(start.map_or(Position(0), |s| Position(s.header.first.0.saturating_sub(1)))))
    }
}

fn first_position(scanner: &mut Scanner) -> Result<Option<Position>, StoreError> {
    loop {
        match scanner.next()? {
            Step::Record { payload, .. } => {
                if let Some(position) = position_of(&payload) {
                    return Ok(Some(position));
                }
            }
            Step::Damage { .. } => {}
            Step::Tail { .. } | Step::End => return Ok(None),
        }
    }
}

fn found(location: Location, payload: &[u8]) -> Option<Found> {
    match Record::decode(payload) {
        Ok(Record::Verdict { position, verdict, .. }) => {
            Some(Found { position, location, verdict: *verdict })
        }
        Ok(_) => None,
        Err(reason) => {
            warn!(
                segment = location.segment,
                offset = location.offset,
                reason,
                "a journal record is passed over"
            );
            None
        }
    }
}

fn is_gone(error: &StoreError) -> bool {
    matches!(error, StoreError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

/// Reads verdicts in order of position. At the end it may be asked again.
#[derive(Debug)]
pub(super) struct Cursor {
    journal: Journal,
    /// The least position that is wanted.
    next: Position,
    current: Option<Open>,
}

#[derive(Debug)]
struct Open {
    number: u64,
    scanner: Scanner,
    /// Where the next segment takes over, if there was one when this was opened: what lies beyond are leftovers of a
    /// failed sync.
    end: Option<Position>,
}

impl Cursor {
    /// The next position that it will look for.
    pub(super) fn wants(&self) -> Position {
        self.next
    }

    /// The next verdict, or `None` at the end of what is there now.
    pub(super) fn next(&mut self) -> Result<Option<Found>, StoreError> {
        loop {
            if self.current.is_none() && !self.enter()? {
                return Ok(None);
            }
            if let Some(found) = self.next_in_segment()? {
                return Ok(Some(found));
            }
            let Some(follower) = self.follower()? else { return Ok(None) };
            // The segment may have grown before its follower was begun; now it is final.
            let end = follower.header.first;
            match self.next_in_segment()? {
                Some(found) if found.position < end => return Ok(Some(found)),
                _ => {
                    self.next = self.next.max(end);
                    self.current = None;
                }
            }
        }
    }

    /// Opens the segment in which the wanted position lies or would lie.
    fn enter(&mut self) -> Result<bool, StoreError> {
        loop {
            let segments = self.journal.segments()?;
            let at = segments.iter().rposition(|s| s.header.first <= self.next).unwrap_or(0);
            let Some(segment) = segments.get(at) else { return Ok(false) };
            let end = segments.get(at + 1).map(|next| next.header.first);
            self.next = self.next.max(segment.header.first);
            match Scanner::open(&self.journal.folder, segment.number) {
                Ok(scanner) => {
                    self.current = Some(Open { number: segment.number, scanner, end });
                    return Ok(true);
                }
                // Deleted by retention between listing and opening.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn next_in_segment(&mut self) -> Result<Option<Found>, StoreError> {
        let Some(Open { number, scanner, end }) = self.current.as_mut() else { return Ok(None) };
        loop {
            match scanner.next()? {
                Step::Record { offset, payload, .. } => {
                    let Some(position) = position_of(&payload) else { continue };
                    if position < self.next || end.is_some_and(|end| position >= end) {
                        continue;
                    }
                    let location = Location { segment: *number, offset };
                    if let Some(found) = found(location, &payload) {
                        self.next = Position(found.position.0 + 1);
                        return Ok(Some(found));
                    }
                }
                Step::Damage { from, to, .. } => {
                    warn!(segment = *number, from, to, "damage in the journal is passed over");
                }
                Step::Tail { .. } | Step::End => return Ok(None),
            }
        }
    }

    fn follower(&self) -> Result<Option<Segment>, StoreError> {
        let Some(current) = &self.current else { return Ok(None) };
        Ok(self.journal.segments()?.into_iter().find(|s| s.number > current.number))
    }
}

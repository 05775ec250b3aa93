//! Reading the journal: verdicts in order of position, from any position on.
//!
//! Needs neither the lock nor the index, so that it works beside a running daemon; tolerates segments that grow, roll
//! over or are deleted meanwhile. Runs on its caller's thread. Not here: the index (`index`), writing (`journal`).

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::warn;
use uuid::Uuid;

use super::record::{Checkpoint, Record, SegmentHeader, position_of};
use super::segment::{self, Scanner, Step};
use super::{Position, StoreError, lock};
use crate::frame::CameraId;
use crate::verdict::Verdict;

/// Stands for when a segment was begun where its header is damaged.
const UNKNOWN: i64 = i64::MIN;
/// How long a segment that the disk could not read is taken for unreadable.
#[cfg(not(test))]
const LOOK_AGAIN: Duration = Duration::from_secs(60);
#[cfg(test)]
const LOOK_AGAIN: Duration = Duration::ZERO;

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
    known: Arc<Mutex<BTreeMap<u64, Known>>>,
}

/// What a look at a segment brought.
#[derive(Debug, Clone)]
struct Known {
    /// `None` where nothing can be read.
    segment: Option<Segment>,
    /// When it is looked at again, where the disk could not read all of it.
    again: Option<Instant>,
}

impl Journal {
    /// The journal in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), known: Arc::default() }
    }

    /// Its segments, oldest first, without those in which nothing can be read.
    pub(super) fn segments(&self) -> Result<Vec<Segment>, StoreError> {
        let numbers = segment::list(&self.folder)?;
        let mut segments = self.known().clone();
        let now = Instant::now();
        segments.retain(|number, known| {
            numbers.binary_search(number).is_ok() && known.again.is_none_or(|again| now < again)
        });
        for number in &numbers {
            if segments.contains_key(number) {
                continue;
            }
            // Without holding up others: a sick disk takes its time.
            match self.look_at(*number) {
                Ok(known) => {
                    self.known().insert(*number, known.clone());
                    segments.insert(*number, known);
                }
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
        self.known().retain(|number, _| numbers.binary_search(number).is_ok());
        Ok(segments.into_values().filter_map(|known| known.segment).collect())
    }

    fn look_at(&self, number: u64) -> Result<Known, StoreError> {
        let mut scanner = Scanner::open(&self.folder, number)?;
        let segment = look_through(&mut scanner, number)?;
        let again = scanner.met_unreadable().then(|| Instant::now() + LOOK_AGAIN);
        Ok(Known { segment, again })
    }

    /// Whether the disk could not read one of these segments when it was looked at.
    fn is_unreadable(&self, numbers: Range<u64>) -> bool {
        self.known().range(numbers).any(|(_, known)| known.again.is_some())
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<u64, Known>> {
        lock(&self.known)
    }

    /// Reads on from the verdict after `after`.
    pub(super) fn after(&self, after: Position) -> Cursor {
        Cursor { journal: self.clone(), next: Position(after.0 + 1), current: None, damage: None, held: None }
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

/// What segment `number` says of itself; `None` where nothing can be read.
fn look_through(scanner: &mut Scanner, number: u64) -> Result<Option<Segment>, StoreError> {
    let Some(header) = scanner.header().copied() else {
        warn!(segment = number, "a journal segment has a damaged header");
        return Ok(first_position(scanner)?.map(|first| Segment {
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
    /// Damage that was met since the last verdict.
    damage: Option<Damage>,
    /// A verdict that was too new for whoever asked.
    held: Option<Found>,
}

/// Damage between two verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damage {
    /// The first position that may be lost in it.
    pub(super) from: Position,
    /// Whether the disk says that it cannot read some of it.
    pub(super) unreadable: bool,
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

    /// The next verdict with a position up to `limit`, or `None` where there is none now.
    pub(super) fn next_upto(&mut self, limit: Position) -> Result<Option<Found>, StoreError> {
        let next = match self.held.take() {
            Some(held) => Some(held),
            None => self.next()?,
        };
        if next.as_ref().is_some_and(|found| found.position > limit) {
            self.held = next;
            return Ok(None);
        }
        Ok(next)
    }

    /// The damage that was met on the way to the verdict that came last.
    pub(super) fn take_damage(&mut self) -> Option<Damage> {
        self.damage.take()
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
            let Some((follower, unreadable)) = self.follower()? else { return Ok(None) };
            // The segment may have grown before its follower was begun; now it is final.
            let end = follower.header.first;
            match self.next_in_segment()? {
                Some(found) if found.position < end => return Ok(Some(found)),
                leftover => {
                    // A leftover that was met moved it on.
                    if leftover.is_some() {
                        self.next = end;
                    }
                    self.skip_to(end, unreadable);
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
            let (first, number) = (segment.header.first, segment.number);
            self.skip_to(first, self.journal.is_unreadable(number..number + 1));
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
                Step::Damage { from, to, unreadable } => {
                    warn!(segment = *number, from, to, "damage in the journal is passed over");
                    let damage = self.damage.get_or_insert(Damage { from: self.next, unreadable });
                    damage.unreadable |= unreadable;
                }
                Step::Tail { .. } | Step::End => return Ok(None),
            }
        }
    }

    /// The segment after the current one, and whether the disk could not read one between them or its start.
    fn follower(&self) -> Result<Option<(Segment, bool)>, StoreError> {
        let Some(current) = &self.current else { return Ok(None) };
        let follower = self.journal.segments()?.into_iter().find(|s| s.number > current.number);
        Ok(follower.map(|follower| {
            let unreadable = self.journal.is_unreadable(current.number + 1..follower.number + 1);
            (follower, unreadable)
        }))
    }

    /// What lies before `first` is not there.
    fn skip_to(&mut self, first: Position, unreadable: bool) {
        if self.next < first {
            let damage = self.damage.get_or_insert(Damage { from: self.next, unreadable });
            damage.unreadable |= unreadable;
            self.next = first;
        }
    }
}

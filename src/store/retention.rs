//! Retention: deletes the oldest evidence and journal segments, by age, by bytes and by free space, and has the files that were
//! judged in them remembered (`judged`).
//!
//! Runs on a thread of its own, so that recording never waits for it; it owns closed segments and evidence of published
//! verdicts, which no other thread writes. Never deletes what the broker has not acknowledged, evidence with a file
//! named `keep` in its folder, or the two newest segments, which carry every camera's sequence on.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::calendar::Calendar;
use super::evidence::{self, PIN, bytes_below};
use super::indexer;
use super::judged;
use super::outbox::time_of;
use super::reader::{Journal, Segment};
use super::segment::{self, sync_folder};
use super::shared::{Shared, free_bytes};
use super::{JOURNAL_FOLDER, Options, Position, StoreError};
use crate::frame::{CameraId, FileKey};
use crate::telemetry::chain;

/// How often age and bytes are looked at.
const TIDY: Duration = Duration::from_secs(60);
/// How often free space is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Percent by which more is deleted than must be, so that it is not done all over again for the next verdict.
const MARGIN: u64 = 5;
/// How long the journal may take to hear of a camera that has evidence already.
const NEWCOMER: SignedDuration = SignedDuration::from_mins(10);
/// Bytes of the oldest segments whose files are remembered before they must go.
const REMEMBERED_AHEAD: u64 = 4 << 20;

/// Judged files by camera.
type Files = BTreeMap<CameraId, Vec<FileKey>>;

/// The limits that are kept to.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    keep: Option<SignedDuration>,
    max_bytes: u64,
    min_free: u64,
}

impl Limits {
    pub(super) fn new(options: &Options) -> Self {
        let days = i64::from(options.keep_days);
        let megabytes = |n: u64| n.saturating_mul(1 << 20);
        Self {
            keep: (days > 0).then(|| SignedDuration::from_hours(24 * days)),
            max_bytes: if options.max_megabytes == 0 { u64::MAX } else { megabytes(options.max_megabytes) },
            min_free: megabytes(options.min_free_megabytes),
        }
    }
}

/// One evidence folder.
#[derive(Debug)]
struct Exhibit {
    recorded_at: Timestamp,
    folder: PathBuf,
}

/// When it is time to make room.
#[derive(Debug, Default)]
pub(super) struct Turns {
    last: Option<Instant>,
    /// Set where that did not help: whether the disk was short of room then.
    in_vain: Option<bool>,
}

impl Turns {
    pub(super) fn is_due(&self, pressed: bool) -> bool {
        // Where no deleting helps, or none is possible, trying again at once would not help either.
        let changed = self.in_vain.map_or(pressed, |was_pressed| was_pressed != pressed);
        changed || self.last.is_none_or(|at| at.elapsed() >= TIDY)
    }

    pub(super) fn is_over(&mut self, pressed: bool, enough: bool) {
        self.last = Some(Instant::now());
        self.in_vain = (!enough).then_some(pressed);
    }
}

/// The retention thread's own things.
pub(super) struct Retention {
    pub(super) shared: Arc<Shared>,
    pub(super) limits: Limits,
}

impl Retention {
    /// Makes room until the store is closed.
    pub(super) fn run(self) {
        let counted = bytes_below(&self.shared.path.join(evidence::FOLDER));
        self.shared.kept.add_evidence(counted.cast_signed());
        let mut calendar = self.calendar();
        let (mut turns, mut ahead) = (Turns::default(), None);
        loop {
            let free = || free_bytes(&self.shared.path).unwrap_or(u64::MAX);
            if self.look(&mut turns, &mut calendar, &free) {
                self.remember_ahead(&mut ahead);
            }
            if self.shared.closed.sleep(LOOK) {
                return;
            }
        }
    }

    /// Looks whether room must be made, and makes it; tells whether it was time for that.
    pub(super) fn look(&self, turns: &mut Turns, calendar: &mut Calendar, free: &dyn Fn() -> u64) -> bool {
        let mut limits = self.limits.clone();
        limits.min_free = limits.min_free.saturating_add(self.shared.refill_reserve(free()));
        self.shared.look_for_room_for_evidence();
        let pressed = free() < limits.min_free;
        if !turns.is_due(pressed) {
            return false;
        }
        let today = self.today(calendar);
        let tidied = Self { shared: self.shared.clone(), limits }.tidy(today, free);
        turns.is_over(pressed, *tidied.as_ref().unwrap_or(&false));
        match tidied {
            Ok(enough) => self.note_crowded(!enough),
            Err(error) => {
                warn!(error = %chain(&error), "room cannot be made in the store; it is tried again");
            }
        }
        true
    }

    pub(super) fn calendar(&self) -> Calendar {
        let keep = self.limits.keep.unwrap_or(SignedDuration::MAX);
        Calendar::new(&self.shared.path, keep, self.shared.latest, (Timestamp::now(), Instant::now()))
    }

    /// The moment by which age counts.
    fn today(&self, calendar: &mut Calendar) -> Timestamp {
        let today = calendar.today(Timestamp::now(), Instant::now());
        if calendar.is_in_doubt() {
            self.shared.undated.set((), "the clock went forward at once; set it right if it is wrong");
        } else {
            self.shared.undated.clear();
        }
        today
    }

    /// Has it stand among the store's complaints that the limits cannot be kept to.
    fn note_crowded(&self, crowded: bool) {
        if !crowded {
            self.shared.crowded.clear();
        } else if self
            .shared
            .crowded
            .set((), "make room on the disk, or change [store] min_free_megabytes or max_megabytes")
        {
            warn!("the store's limits cannot be kept to, though all that may be deleted has been");
        }
    }

    /// Deletes what is too old, then the oldest evidence and then the oldest segments until the limits are kept; tells whether
    /// they are.
    pub(super) fn tidy(&self, now: Timestamp, free: &dyn Fn() -> u64) -> Result<bool, StoreError> {
        let published = self.shared.outbox.published();
        let oldest_kept = self.limits.keep.and_then(|keep| now.checked_sub(keep).ok());
        let mut exhibits = self.deletable_evidence(published, now)?.into_iter().peekable();
        let aged = |recorded: Timestamp| oldest_kept.is_some_and(|oldest| recorded < oldest);
        while let Some(exhibit) = exhibits.next_if(|exhibit| aged(exhibit.recorded_at)) {
            self.delete_evidence(&exhibit);
        }
        let segments = self.deletable_segments(published)?;
        for (at, (segment, next)) in segments.iter().enumerate() {
            // Where a header is damaged, what was begun after it tells.
            let begun = segments[at..].iter().find_map(|(_, next)| next.begun());
            let empty = segment.header.first == next.header.first;
            if !empty && !begun.is_some_and(aged) {
                break;
            }
            self.delete_segment(segment, next)?;
        }
        if !self.over(self.other_bytes(), free, 0) {
            return Ok(true);
        }
        let other = self.other_bytes();
        for exhibit in exhibits {
            self.delete_evidence(&exhibit);
            if !self.over(other, free, MARGIN) {
                return Ok(true);
            }
        }
        for (segment, next) in self.deletable_segments(published)? {
            self.delete_segment(&segment, &next)?;
            if !self.over(self.other_bytes(), free, MARGIN) {
                break;
            }
        }
        Ok(!self.over(self.other_bytes(), free, 0))
    }

    /// Whether more is kept, or less is free, than the limits say, with `margin` percent to spare.
    fn over(&self, other: u64, free: &dyn Fn() -> u64, margin: u64) -> bool {
        let bytes = other + self.shared.kept.evidence_bytes();
        let max = self.limits.max_bytes - self.limits.max_bytes / 100 * margin;
        let min_free = self.limits.min_free + self.limits.min_free / 100 * margin;
        bytes > max || free() < min_free
    }

    /// Bytes of journal and index.
    fn other_bytes(&self) -> u64 {
        [JOURNAL_FOLDER, indexer::FOLDER]
            .iter()
            .map(|folder| bytes_below(&self.shared.path.join(folder)))
            .sum()
    }

    /// The segments that may be deleted, each with the one after it, oldest first.
    fn deletable_segments(&self, published: Position) -> Result<Vec<(Segment, Segment)>, StoreError> {
        let segments = self.shared.reader.segments()?;
        let closed = segments.len().saturating_sub(2);
        let pairs = segments.iter().cloned().zip(segments.iter().skip(1).cloned()).take(closed);
        Ok(pairs.take_while(|(_, next)| next.header.first.0 <= published.0 + 1).collect())
    }

    fn delete_segment(&self, segment: &Segment, next: &Segment) -> Result<(), StoreError> {
        // Mostly done already, while there was room. Where it cannot be, room is what is needed most.
        let mut files = Files::new();
        if let Err(error) = self.files_of(segment, next, &mut files).and_then(|()| self.remember(&files)) {
            warn!(error = %chain(&error), "the files that were judged cannot be remembered; old ones may be judged again");
        }
        let folder = self.shared.path.join(JOURNAL_FOLDER);
        let path = self.path(segment);
        fs::remove_file(&path).map_err(StoreError::file("delete", &path))?;
        sync_folder(&folder).map_err(StoreError::file("sync", &folder))?;
        self.shared.kept.deleted_segments.increment();
        info!(segment = segment.number, "a journal segment was deleted to keep to the limits");
        Ok(())
    }

    /// Keeps the names of the files in the segments that go next, while there is room for them; `ahead` is the newest segment
    /// whose are kept already.
    pub(super) fn remember_ahead(&self, ahead: &mut Option<u64>) {
        let remembered = self.shared.reader.segments().and_then(|segments| {
            let closed = segments.len().saturating_sub(2);
            let (mut files, mut bytes, mut newest) = (Files::new(), 0, *ahead);
            for (segment, next) in segments.iter().zip(segments.iter().skip(1)).take(closed) {
                if bytes > REMEMBERED_AHEAD {
                    break;
                }
                bytes += fs::metadata(self.path(segment)).map_or(0, |file| file.len());
                if newest < Some(segment.number) {
                    self.files_of(segment, next, &mut files)?;
                    newest = Some(segment.number);
                }
            }
            self.remember(&files)?;
            *ahead = newest;
            Ok(())
        });
        if let Err(error) = remembered {
            debug!(error = %chain(&error), "the oldest files cannot be remembered yet; it is tried again");
        }
    }

    /// Adds the files that were judged in a segment.
    fn files_of(&self, segment: &Segment, next: &Segment, files: &mut Files) -> Result<(), StoreError> {
        let mut cursor = self.shared.reader.after(Position(segment.header.first.0.saturating_sub(1)));
        while cursor.wants() < next.header.first {
            match cursor.next()? {
                Some(found) if found.position < next.header.first => {
                    let judgement = found.verdict.judgement;
                    let judged: Vec<_> = judgement.sources().map(|file| file.key()).collect();
                    if !judged.is_empty() {
                        files.entry(judgement.camera).or_default().extend(judged);
                    }
                }
                _ => break,
            }
        }
        Ok(())
    }

    fn remember(&self, files: &Files) -> Result<(), StoreError> {
        judged::remember(&self.shared.path, files).map_err(StoreError::file("write", &self.shared.path))
    }

    fn path(&self, segment: &Segment) -> PathBuf {
        segment::path(&self.shared.path.join(JOURNAL_FOLDER), segment.number)
    }

    /// The evidence that may be deleted, oldest first.
    fn deletable_evidence(&self, published: Position, now: Timestamp) -> Result<Vec<Exhibit>, StoreError> {
        let Some(sequences) = sequences_upto(&self.shared.reader, published)? else { return Ok(Vec::new()) };
        let all_published = self.shared.outbox.newest() <= published;
        let newcomer = now.checked_sub(NEWCOMER).unwrap_or(now);
        let mut exhibits = Vec::new();
        for camera in folders(&self.shared.path.join(evidence::FOLDER)) {
            let name = camera.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            let Some(id) = name else { continue };
            let last = sequences.get::<CameraId>(&id).copied();
            for folder in folders(&camera).iter().flat_map(|day| folders(day)) {
                let name = folder.file_name().and_then(|name| name.to_str()).and_then(|n| n.split_once('-'));
                let Some((sequence, id)) = name else { continue };
                let (Ok(sequence), Ok(id)) = (sequence.parse::<u64>(), id.parse::<Uuid>()) else { continue };
                let Some(recorded_at) = time_of(id) else { continue };
                let published = match last {
                    Some(last) => sequence <= last,
                    None => all_published && recorded_at < newcomer,
                };
                if published {
                    exhibits.push(Exhibit { recorded_at, folder });
                }
            }
        }
        exhibits.sort_unstable_by_key(|exhibit| exhibit.recorded_at);
        Ok(exhibits)
    }

    fn delete_evidence(&self, exhibit: &Exhibit) {
        let folder = &exhibit.folder;
        if folder.join(PIN).exists() {
            return;
        }
        let bytes = bytes_below(folder);
        match fs::remove_dir_all(folder) {
            Ok(()) => {
                self.shared.kept.add_evidence(-bytes.cast_signed());
                self.shared.kept.deleted_evidence.increment();
                // Only empty ones go.
                for above in folder.ancestors().skip(1).take(2) {
                    let _not_empty = fs::remove_dir(above);
                }
            }
            Err(error) => {
                warn!(folder = %folder.display(), error = %chain(&error), "evidence cannot be deleted");
            }
        }
    }
}

/// Each camera's last sequence up to position `upto`; `None` if the journal does not tell for certain.
fn sequences_upto(reader: &Journal, upto: Position) -> Result<Option<BTreeMap<CameraId, u64>>, StoreError> {
    let segments = reader.segments()?;
    let Some(segment) = segments.iter().rev().find(|s| s.header.first.0 <= upto.0 + 1) else {
        // Nothing that is kept was published.
        return Ok(None);
    };
    let Some(before) = &segment.before else { return Ok(None) };
    let mut sequences = before.sequences.clone();
    let mut cursor = reader.after(Position(segment.header.first.0.saturating_sub(1)));
    while cursor.wants() <= upto {
        match cursor.next()? {
            Some(found) if found.position <= upto => {
                sequences.insert(found.verdict.camera().clone(), found.verdict.sequence);
            }
            _ => break,
        }
    }
    Ok(Some(sequences))
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

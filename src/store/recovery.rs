//! Opening the journal: what it adds up to, and a clean end to go on from.
//!
//! Runs once, before the store thread starts. What a killed program left in the kernel's memory is made durable before it
//! is believed. A torn tail, which a crash leaves, is cut off. Damage to what was promised durable, such as what the disk
//! cannot read, is reported and the rest kept. Not here: the index (`indexer`) and evidence (`open`), which follow.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::Path;

use tracing::{error, info, warn};
use uuid::Uuid;

use super::StoreError;
use super::journal::Medium;
use super::record::{Record, SegmentHeader};
use super::segment::{self, Scanner, Step};
use super::state::State;
use crate::frame::CameraId;

/// No verdict's record is smaller.
const SMALLEST_VERDICT: u64 = 256;
/// Four times as long as a segment is by default.
const LONGEST: u64 = 64 << 20;

/// What a journal's files add up to.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) store: Uuid,
    pub(super) state: State,
    pub(super) next_number: u64,
    /// Stretches of bad bytes among what was promised durable, in the segments that were read.
    pub(super) damaged: u64,
}

/// One segment, read through.
struct Contents {
    number: u64,
    header: Option<SegmentHeader>,
    records: Vec<Record>,
    damaged: u64,
    /// Where a tail begins that was never promised.
    torn: Option<u64>,
    /// How many verdicts at most are lost in damage after the last one that can be read.
    lost_at_end: u64,
}

impl Contents {
    /// Whether nothing before it needs to be read.
    fn sums_up(&self) -> bool {
        self.damaged == 0 && matches!(self.records.first(), Some(Record::Checkpoint(_)))
    }
}

/// Reads the journal in `folder` and cuts off its torn tail.
pub(super) fn recover(folder: &Path, medium: &mut dyn Medium) -> Result<Recovered, StoreError> {
    segment::remove_unfinished(folder)?;
    let numbers = segment::list(folder)?;
    if let Some(last) = numbers.last() {
        // Of the others each was durable before the next was begun.
        let path = segment::path(folder, *last);
        let settled = medium.settle(&path).and_then(|()| segment::sync_folder(folder));
        settled.map_err(StoreError::file("make durable what was last written to", &path))?;
    }
    let mut read: Vec<Contents> = Vec::new();
    for number in numbers.iter().rev() {
        read.push(contents(folder, *number, read.is_empty())?);
        if read.last().is_some_and(Contents::sums_up) {
            break;
        }
    }
    if let Some(Contents { number, torn: Some(at), .. }) = read.first() {
        cut(folder, *number, *at)?;
    }
    read.reverse();
    let state = fold(&read);
    info!(
        segments = numbers.len(),
        newest = state.checkpoint.tip.0,
        published = state.checkpoint.published.0,
        open_triggers = state.open.len(),
        "journal opened"
    );
    Ok(Recovered {
        store: read.iter().rev().find_map(|c| c.header).map_or_else(Uuid::now_v7, |h| h.store),
        state,
        next_number: numbers.last().map_or(1, |n| n + 1),
        damaged: read.iter().map(|c| c.damaged).sum(),
    })
}

/// Adds up segments, oldest first. No position and no sequence is given again that a lost verdict may have had.
fn fold(segments: &[Contents]) -> State {
    let mut state = State::default();
    let mut gone = Gone::default();
    for (at, contents) in segments.iter().enumerate() {
        if contents.damaged > 0 {
            let (segment, places) = (contents.number, contents.damaged);
            error!(segment, places, "the journal is damaged; what is sound in it was kept");
        }
        // From there on it holds leftovers of a failed sync, which the next segment holds again.
        let end = segments.get(at + 1).and_then(|next| next.header).map(|header| header.first);
        for record in &contents.records {
            match record {
                Record::Verdict { position, .. } if end.is_some_and(|end| *position >= end) => {}
                _ => {
                    gone.notice(record, &state);
                    state.apply(record);
                }
            }
        }
        gone.at_end += contents.lost_at_end;
    }
    gone.pass_over(&mut state);
    state
}

/// How many verdicts at most are gone in damage.
#[derive(Debug, Default)]
struct Gone {
    /// Since the last checkpoint.
    all: u64,
    /// What `all` was at each camera's last verdict.
    before: BTreeMap<CameraId, u64>,
    /// Since the last verdict.
    at_end: u64,
}

impl Gone {
    /// Notices `record`, which follows on `state`.
    fn notice(&mut self, record: &Record, state: &State) {
        match record {
            // Whoever wrote it knew of all before.
            Record::Checkpoint(_) => *self = Self::default(),
            Record::Verdict { position, verdict, .. } => {
                self.all += position.0.saturating_sub(state.checkpoint.tip.0 + 1);
                self.before.insert(verdict.camera().clone(), self.all);
                self.at_end = 0;
            }
            Record::Accepted { .. } | Record::Published { .. } => {}
        }
    }

    fn pass_over(mut self, state: &mut State) {
        let sum = &mut state.checkpoint;
        self.at_end = self.at_end.max(sum.published.0.saturating_sub(sum.tip.0));
        self.all += self.at_end;
        // Nothing is left to be published of what can be read.
        if sum.published >= sum.tip {
            sum.published.0 = sum.tip.0 + self.at_end;
        }
        sum.tip.0 += self.at_end;
        sum.unknown += self.all;
        for (camera, last) in &mut sum.sequences {
            let most = self.all - self.before.get(camera).copied().unwrap_or(0);
            if most > 0 {
                warn!(%camera, last, most, "verdicts may be lost in the damage; their numbers are passed over");
                *last += most;
            }
        }
    }
}

/// Reads segment `number`. Only in the last one can there be a tail that was never promised.
fn contents(folder: &Path, number: u64, last: bool) -> Result<Contents, StoreError> {
    let mut scanner = Scanner::open(folder, number)?;
    let header = scanner.header().copied();
    let mut found = Vec::new();
    let mut bad: Vec<Bad> = Vec::new();
    let mut promised = 0;
    loop {
        match scanner.next()? {
            Step::Record { offset, durable, payload } => {
                promised = durable;
                found.push((offset, payload));
            }
            Step::Damage { from, to, unreadable } => bad.push(Bad { from, to, unreadable }),
            Step::Tail { from } => {
                bad.push(Bad { from, to: length(folder, number).max(from), unreadable: false });
                break;
            }
            Step::End => break,
        }
    }
    // What follows such a gap was written after it, but nobody had been told yet that either is on disk.
    let is_torn = |bad: &&Bad| last && !bad.unreadable && bad.from >= promised;
    let torn = bad.iter().find(is_torn).map(|bad| bad.from);
    let kept = |at: u64| torn.is_none_or(|torn| at < torn);
    found.retain(|(offset, _)| kept(*offset));
    bad.retain(|bad| kept(bad.from));
    let mut records = Vec::new();
    let mut newest = None;
    for (offset, payload) in found {
        match Record::decode(&payload) {
            Ok(record) => {
                if matches!(record, Record::Verdict { .. }) {
                    newest = Some(offset);
                }
                records.push(record);
            }
            Err(reason) => {
                error!(segment = number, offset, reason, "a journal record cannot be understood");
                bad.push(Bad { from: offset, to: offset + payload.len() as u64, unreadable: false });
            }
        }
    }
    let mut lost_at_end =
        bad.iter().filter(|bad| newest.is_none_or(|newest| bad.from > newest)).map(Bad::most_verdicts).sum();
    if header.is_none() && newest.is_none() {
        // A file that the disk does not even open looks empty.
        lost_at_end = Bad { from: 0, to: length(folder, number), unreadable: true }.most_verdicts();
    }
    let damaged = bad.len() as u64 + u64::from(header.is_none());
    Ok(Contents { number, header, records, damaged, torn, lost_at_end })
}

/// Bytes of which no record can be made.
struct Bad {
    from: u64,
    to: u64,
    unreadable: bool,
}

impl Bad {
    fn most_verdicts(&self) -> u64 {
        (self.to - self.from).div_ceil(SMALLEST_VERDICT)
    }
}

/// How long the file of segment `number` is, or can be where the disk does not say.
fn length(folder: &Path, number: u64) -> u64 {
    fs::metadata(segment::path(folder, number)).map_or(LONGEST, |metadata| metadata.len())
}

fn cut(folder: &Path, number: u64, at: u64) -> Result<(), StoreError> {
    let path = segment::path(folder, number);
    let cut = || {
        let file = OpenOptions::new().write(true).open(&path)?;
        let length = file.metadata()?.len();
        file.set_len(at)?;
        file.sync_all()?;
        Ok(length.saturating_sub(at))
    };
    let bytes = cut().map_err(StoreError::file("cut", &path))?;
    warn!(segment = number, bytes, "a torn end of the journal was cut off; nothing in it had been promised");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Position;
    use super::super::record::RECORD_HEADER;
    use super::*;
    use crate::verdict::tests::judgement;
    use crate::verdict::{Judgement, Outcome, Reason, Verdict};

    #[test]
    fn no_verdict_is_smaller_than_the_smallest() {
        let outcome = Outcome::Uninspected { reason: Reason::Deadline, detail: String::new() };
        let judgement = Judgement { outcome, ..judgement("a", 0.0) };
        let (box_name, evidence) = ("b".into(), None);
        let verdict = Verdict { id: Uuid::now_v7(), box_name, sequence: 1, judgement, evidence };
        let record = Record::Verdict { position: Position(1), ticket: None, verdict: Box::new(verdict) };
        let bytes = RECORD_HEADER + record.encode().len();
        assert!(bytes as u64 >= SMALLEST_VERDICT, "{bytes}");
    }
}

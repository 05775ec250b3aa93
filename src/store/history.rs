//! History: past verdicts by camera, time and decision, read from the journal alone.
//!
//! Works beside a running daemon: [`Reader`] takes no lock and opens no index. Runs on its caller's thread. Not here:
//! the same questions asked of the index (`index`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::evidence::evidence_folder;
use super::reader::{Found, Journal, Segment};
use super::{JOURNAL_FOLDER, Position, StoreError};
use crate::frame::{CameraId, FileKey};
use crate::verdict::{Decision, Verdict};

/// The most verdicts that one query gives.
pub const MAX_LIMIT: usize = 1_000_000;

/// Which verdicts are wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Of this camera only.
    pub camera: Option<CameraId>,
    /// Captured at or after it.
    pub since: Option<Timestamp>,
    /// Captured before it.
    pub until: Option<Timestamp>,
    /// Decided so.
    pub decision: Option<Decision>,
    /// At most so many, the newest.
    pub limit: usize,
}

impl Default for Query {
    fn default() -> Self {
        Self { camera: None, since: None, until: None, decision: None, limit: 100 }
    }
}

impl Query {
    /// Whether a verdict with these properties is wanted.
    pub(super) fn wants(&self, camera: &str, captured_at: Timestamp, decision: Decision) -> bool {
        self.camera.as_ref().is_none_or(|wanted| wanted.as_str() == camera)
            && self.since.is_none_or(|since| captured_at >= since)
            && self.until.is_none_or(|until| captured_at < until)
            && self.decision.is_none_or(|wanted| wanted == decision)
    }
}

/// The newest verdicts, by when they were captured and then by position, up to a limit.
#[derive(Debug)]
pub(super) struct Newest {
    limit: usize,
    oldest_first: BinaryHeap<Reverse<(Timestamp, Position)>>,
    verdicts: BTreeMap<Position, Verdict>,
}

impl Newest {
    pub(super) fn new(query: &Query) -> Self {
        let limit = query.limit.min(MAX_LIMIT);
        Self { limit, oldest_first: BinaryHeap::new(), verdicts: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, Found { position, verdict, .. }: Found) {
        let key = (verdict.judgement.captured_at, position);
        if self.limit == 0 || self.verdicts.contains_key(&position) {
            return;
        }
        self.oldest_first.push(Reverse(key));
        self.verdicts.insert(position, verdict);
        if self.verdicts.len() > self.limit
            && let Some(Reverse((_, position))) = self.oldest_first.pop()
        {
            self.verdicts.remove(&position);
        }
    }

    /// Whether a verdict that was captured at `latest` or before cannot be among them any more.
    fn excludes(&self, latest: Timestamp) -> bool {
        self.verdicts.len() >= self.limit
            && self.oldest_first.peek().is_none_or(|Reverse((oldest, _))| latest < *oldest)
    }

    /// Newest first.
    pub(super) fn into_verdicts(mut self) -> Vec<Verdict> {
        let keys = self.oldest_first.into_sorted_vec();
        keys.iter().filter_map(|Reverse((_, position))| self.verdicts.remove(position)).collect()
    }
}

impl Journal {
    /// Adds what `query` wants of the verdicts after `after`, reading from the newest segment back until no older one
    /// can matter.
    pub(super) fn search(
        &self,
        query: &Query,
        after: Position,
        newest: &mut Newest,
    ) -> Result<(), StoreError> {
        let segments = self.segments()?;
        for (at, segment) in segments.iter().enumerate().rev() {
            let end = segments.get(at + 1).map(|next| next.header.first);
            self.search_segment(query, segment, (after, end), newest)?;
            let older = segment.before.as_ref().map(|before| before.latest);
            // What has no verdict before it has `Some(None)`, what is damaged has `None` and rules nothing out.
            let done = match older {
                Some(None) => true,
                Some(Some(latest)) => {
                    query.since.is_some_and(|since| latest < since) || newest.excludes(latest)
                }
                None => false,
            };
            if done || segment.header.first.0 <= after.0 + 1 {
                break;
            }
        }
        Ok(())
    }

    fn search_segment(
        &self,
        query: &Query,
        segment: &Segment,
        (after, end): (Position, Option<Position>),
        newest: &mut Newest,
    ) -> Result<(), StoreError> {
        let start = Position(segment.header.first.0.saturating_sub(1)).max(after);
        let mut cursor = self.after(start);
        while end.is_none_or(|end| cursor.wants() < end) {
            let Some(found) = cursor.next()? else { break };
            if end.is_some_and(|end| found.position >= end) {
                break;
            }
            let verdict = &found.verdict;
            if query.wants(verdict.camera().as_str(), verdict.judgement.captured_at, verdict.decision()) {
                newest.add(found);
            }
        }
        Ok(())
    }

    /// Takes out of `unknown` what `camera` has judged after `after`, newest segments first, until nothing is left.
    pub(super) fn take_judged(
        &self,
        camera: &CameraId,
        after: Position,
        unknown: &mut HashSet<FileKey>,
    ) -> Result<(), StoreError> {
        let segments = self.segments()?;
        for (at, segment) in segments.iter().enumerate().rev() {
            let end = segments.get(at + 1).map_or(Position(u64::MAX), |next| next.header.first);
            let mut cursor = self.after(Position(segment.header.first.0.saturating_sub(1)).max(after));
            while cursor.wants() < end {
                match cursor.next()? {
                    Some(found) if found.position < end => {
                        let judgement = found.verdict.judgement;
                        if judgement.camera == *camera {
                            for file in judgement.sources() {
                                unknown.remove(&file.key());
                            }
                        }
                    }
                    _ => break,
                }
            }
            if unknown.is_empty() || segment.header.first.0 <= after.0 + 1 {
                break;
            }
        }
        Ok(())
    }
}

/// Reads a store that may be in use by a daemon; changes nothing.
#[derive(Debug, Clone)]
pub struct Reader {
    store: PathBuf,
    journal: Journal,
}

impl Reader {
    /// The store at `path`.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is none.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let folder = path.join(JOURNAL_FOLDER);
        if !folder.is_dir() {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        Ok(Self { store: path.to_owned(), journal: Journal::new(&folder) })
    }

    /// The verdicts that `query` wants, the newest first.
    ///
    /// # Errors
    /// When the journal cannot be read, or was written by a newer program.
    pub fn history(&self, query: &Query) -> Result<Vec<Verdict>, StoreError> {
        let mut newest = Newest::new(query);
        self.journal.search(query, Position::START, &mut newest)?;
        Ok(newest.into_verdicts())
    }

    /// Calls `each` with every verdict that `query` wants, whatever its limit, the one recorded first first.
    ///
    /// # Errors
    /// When the journal cannot be read, or what `each` says.
    pub fn each<E: From<StoreError>>(
        &self,
        query: &Query,
        mut each: impl FnMut(&Verdict) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut cursor = self.journal.after(Position::START);
        while let Some(Found { verdict, .. }) = cursor.next()? {
            if query.wants(verdict.camera().as_str(), verdict.judgement.captured_at, verdict.decision()) {
                each(&verdict)?;
            }
        }
        Ok(())
    }

    /// The folder of a verdict's evidence, if it is still there.
    pub fn evidence(&self, verdict: &Verdict) -> Option<PathBuf> {
        evidence_folder(&self.store, verdict)
    }
}

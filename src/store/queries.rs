//! Questions about the past: what the index knows, checked against the journal, and what came since from the journal.
//!
//! Without an index the journal answers alone. Runs on the caller's thread.

use std::collections::HashSet;

use tracing::error;

use super::history::{Newest, Query};
use super::index::Entry;
use super::judged;
use super::reader::{Cursor, Found};
use super::shared::Shared;
use super::{Position, StoreError};
use crate::frame::{CameraId, FileKey};
use crate::telemetry::chain;
use crate::verdict::Verdict;

/// For more than these, reading the journal through is quicker than following the index.
const MANY: usize = 10_000;

impl Shared {
    /// The verdicts that `query` wants, newest first.
    pub(super) fn history(&self, query: &Query) -> Result<Vec<Verdict>, StoreError> {
        let mut newest = Newest::new(query);
        let mut after = Position::START;
        if query.limit <= MANY {
            let oldest = self.reader.segments()?.first().map_or(0, |segment| segment.number);
            let answer = self.index.ask(|index| index.find(query, oldest));
            if let Some((entries, upto)) = answer
                && let Some(found) = self.read_all(&entries)?
            {
                found.into_iter().for_each(|found| newest.add(found));
                after = upto;
            }
        }
        self.reader.search(query, after, &mut newest)?;
        Ok(newest.into_verdicts())
    }

    /// Hands verdicts `from` to `to` of `camera` to `each`, in order, until it wants no more: many of them are read
    /// through the journal quicker than by the index.
    pub(super) fn replay_each(
        &self,
        camera: &CameraId,
        (from, to): (u64, u64),
        each: impl FnMut(Verdict) -> bool,
    ) -> Result<(), StoreError> {
        self.walk(self.reader.before_sequence(camera, from)?, camera, (from, to), each)
    }

    /// Verdicts `from` to `to` of `camera`, at most `limit`: a few.
    pub(super) fn replay(
        &self,
        camera: &CameraId,
        (from, to): (u64, u64),
        limit: usize,
    ) -> Result<Vec<Verdict>, StoreError> {
        let mut verdicts = Vec::new();
        let mut cursor = None;
        let answer = self.index.ask(|index| index.sequences(camera, (from, to), limit));
        if let Some((entries, upto)) = answer
            && let Some(found) = self.read_all(&entries)?
        {
            verdicts.extend(found.into_iter().map(|found| found.verdict));
            cursor = Some(self.reader.after(upto));
        }
        let known = verdicts.last().map_or(from, |last| last.sequence + 1);
        let cursor = match cursor {
            Some(cursor) => cursor,
            None => self.reader.before_sequence(camera, from)?,
        };
        if verdicts.len() < limit {
            self.walk(cursor, camera, (known, to), |verdict| {
                verdicts.push(verdict);
                verdicts.len() < limit
            })?;
        }
        Ok(verdicts)
    }

    /// Hands `camera`'s verdicts `from` to `to` that `cursor` comes to to `each`, until it wants no more.
    fn walk(
        &self,
        mut cursor: Cursor,
        camera: &CameraId,
        (from, to): (u64, u64),
        mut each: impl FnMut(Verdict) -> bool,
    ) -> Result<(), StoreError> {
        let newest = self.outbox.newest();
        while cursor.wants() <= newest {
            let Some(Found { verdict, .. }) = cursor.next()? else { break };
            let (mine, sequence) = (verdict.camera() == camera, verdict.sequence);
            if mine && (from..=to).contains(&sequence) && !each(verdict) {
                break;
            }
            if mine && sequence >= to {
                break;
            }
        }
        Ok(())
    }

    /// Those of `files` that `camera` has judged.
    pub(super) fn judged(&self, camera: &CameraId, files: &HashSet<FileKey>) -> HashSet<FileKey> {
        let mut unknown = files.clone();
        let mut after = Position::START;
        if let Some((indexed, upto)) = self.index.ask(|index| index.judged(camera, files)) {
            unknown.retain(|file| !indexed.contains(file));
            after = upto;
        }
        // After the index, which forgets a file only when it stands in this list.
        if let Err(error) = judged::take_remembered(&self.path, camera, &mut unknown) {
            error!(%camera, error = %chain(&error), "old judged files cannot be told; some may be judged again");
        }
        if let Err(error) = self.reader.take_judged(camera, after, &mut unknown) {
            error!(%camera, error = %chain(&error), "the files judged so far cannot be told; some may be judged again");
        }
        files - &unknown
    }

    /// The verdicts where the index says they are, without those that were deleted meanwhile; `None` if it is wrong.
    fn read_all(&self, entries: &[Entry]) -> Result<Option<Vec<Found>>, StoreError> {
        let mut all = Vec::with_capacity(entries.len());
        for entry in entries {
            match self.reader.at(entry.location)? {
                Some(found) if found.position == entry.position => all.push(found),
                _ if !self.reader.has(entry.location.segment)? => {}
                _ => {
                    let at = entry.location;
                    self.index.is_broken(format!("verdict {} is not at {at:?}", entry.position.0));
                    return Ok(None);
                }
            }
        }
        Ok(Some(all))
    }
}

//! The index: a sled database that says where in the journal verdicts lie, by camera, by time and by judged file.
//!
//! It can be lost at any time and is rebuilt from the journal, which alone is the truth; entries are checked against
//! the journal whenever they are used. sled may panic on damaged files, so every call goes through [`guarded`]. Filled
//! by the index thread (`indexer`), asked on its callers' threads.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use jiff::Timestamp;
use sled::{Batch, Db, IVec, Tree};
use uuid::Uuid;

use super::Position;
use super::history::Query;
use super::reader::{Found, Location};
use crate::frame::{CameraId, FileKey};
use crate::verdict::Decision;

/// The index's own format; another is rebuilt.
const FORMAT: &[u8] = b"2";
/// How long sled may keep entries in memory only; after a crash that much is indexed again.
const FLUSH_MS: u64 = 1000;
/// Entries of deleted segments that one call removes.
const PRUNE: usize = 4096;

/// What is wrong with an index, in words.
pub(super) type Fault = String;

/// Calls into sled, whose panics become faults.
pub(super) fn guarded<T>(call: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!(
            "sled panicked: {}",
            text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
        ))
    })
}

/// An open index; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Index {
    db: Db,
    /// `format`, `store` and `upto`.
    meta: Tree,
    /// `camera 0 sequence` → [`Entry`].
    by_camera: Tree,
    /// `camera 0 captured_at position` → [`Entry`].
    by_time: Tree,
    /// `camera 0 file` → the position of its verdict; a file is 16 bytes.
    files: Tree,
    /// `camera 0 position` → the file that was judged there.
    judged: Tree,
}

/// What is known of a verdict without reading it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) position: Position,
    pub(super) location: Location,
    captured_at: Timestamp,
    decision: Decision,
    camera: String,
}

impl Entry {
    fn of(found: &Found) -> Self {
        Self {
            position: found.position,
            location: found.location,
            captured_at: found.verdict.judgement.captured_at,
            decision: found.verdict.decision(),
            camera: found.verdict.camera().to_string(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(48);
        bytes.extend(self.position.0.to_be_bytes());
        bytes.extend(self.location.segment.to_be_bytes());
        bytes.extend(self.location.offset.to_be_bytes());
        bytes.extend(time_key(self.captured_at));
        bytes.push(match self.decision {
            Decision::Ok => 0,
            Decision::Anomalous => 1,
            Decision::Uninspected => 2,
        });
        bytes.extend(self.camera.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, Fault> {
        let fault = || format!("an entry of {} bytes cannot be understood", bytes.len());
        let (time, rest) = bytes.get(24..).and_then(|b| b.split_at_checked(16)).ok_or_else(fault)?;
        let (decision, camera) = rest.split_first().ok_or_else(fault)?;
        let number = |at: usize| be64(&bytes[at..at + 8]);
        Ok(Self {
            position: Position(number(0)),
            location: Location { segment: number(8), offset: number(16) },
            captured_at: time_of(time).ok_or_else(fault)?,
            decision: match decision {
                0 => Decision::Ok,
                1 => Decision::Anomalous,
                2 => Decision::Uninspected,
                _ => return Err(fault()),
            },
            camera: String::from_utf8(camera.to_vec()).map_err(|_| fault())?,
        })
    }
}

impl Index {
    /// Opens the index in `folder`, or makes an empty one. One of another store or format, or that knows more than the
    /// journal's newest verdict, is at fault.
    pub(super) fn open(folder: &Path, cache: u64, store: Uuid, tip: Position) -> Result<Self, Fault> {
        guarded(|| {
            let config = sled::Config::new()
                .path(folder)
                .cache_capacity(cache)
                .mode(sled::Mode::LowSpace)
                .flush_every_ms(Some(FLUSH_MS));
            let db = config.open().map_err(fault)?;
            let tree = |name: &str| db.open_tree(name).map_err(fault);
            let index = Self {
                meta: tree("meta")?,
                by_camera: tree("by_camera")?,
                by_time: tree("by_time")?,
                files: tree("files")?,
                judged: tree("judged")?,
                db: db.clone(),
            };
            index.identify(store, tip)?;
            Ok(index)
        })
    }

    fn identify(&self, store: Uuid, tip: Position) -> Result<(), Fault> {
        let get = |key: &str| self.meta.get(key).map_err(fault);
        match (get("format")?, get("store")?) {
            (None, None) if self.by_camera.is_empty() => {
                self.meta.insert("format", FORMAT).map_err(fault)?;
                self.meta.insert("store", store.as_bytes()).map_err(fault)?;
            }
            (Some(format), Some(of)) if &*format == FORMAT && &*of == store.as_bytes() => {}
            _ => return Err("it is of another format or another store".into()),
        }
        let upto = self.upto()?;
        if upto > tip {
            return Err(format!("it knows verdict {} and the journal ends at {}", upto.0, tip.0));
        }
        Ok(())
    }

    /// Everything up to it is indexed.
    pub(super) fn upto(&self) -> Result<Position, Fault> {
        let upto = self.meta.get("upto").map_err(fault)?;
        Ok(Position(upto.as_deref().map_or(0, be64)))
    }

    /// Adds verdicts, in order of position.
    pub(super) fn add(&self, verdicts: &[Found]) -> Result<(), Fault> {
        let Some(last) = verdicts.last() else { return Ok(()) };
        let [mut by_camera, mut by_time, mut files, mut judged] = <[Batch; 4]>::default();
        for found in verdicts {
            let entry = Entry::of(found);
            let value = entry.encode();
            by_camera.insert(camera_key(&entry.camera, found.verdict.sequence), value.as_slice());
            let time = [&time_key(entry.captured_at)[..], &entry.position.0.to_be_bytes()].concat();
            by_time.insert([entry.camera.as_bytes(), &[0], &time].concat(), value);
            for (nth, source) in found.verdict.judgement.sources().enumerate() {
                let file = source.key();
                files.insert(file_key(&entry.camera, &file.0), &entry.position.0.to_be_bytes());
                let mut key = camera_key(&entry.camera, entry.position.0);
                // Of several files of one part, one has the part's key and each other one a byte more.
                key.extend((nth > 0).then_some(nth as u8));
                judged.insert(key, &file.0);
            }
        }
        guarded(|| {
            self.by_camera.apply_batch(by_camera).map_err(fault)?;
            self.by_time.apply_batch(by_time).map_err(fault)?;
            self.files.apply_batch(files).map_err(fault)?;
            self.judged.apply_batch(judged).map_err(fault)?;
            // Last, so that after a crash what is half indexed is indexed again.
            self.meta.insert("upto", &last.position.0.to_be_bytes()).map_err(fault)?;
            Ok(())
        })
    }

    /// Where the newest verdicts that `query` wants lie, newest first, among those indexed and not in segments before
    /// `oldest`.
    pub(super) fn find(&self, query: &Query, oldest: u64) -> Result<Vec<Entry>, Fault> {
        let from = query.since.map_or([0; 16], time_key);
        let to = query.until.map_or([0xff; 16], time_key);
        if from >= to {
            return Ok(Vec::new());
        }
        guarded(|| {
            let cameras = match &query.camera {
                Some(camera) => vec![camera.to_string()],
                None => self.cameras()?,
            };
            let mut wanted = Vec::new();
            for camera in cameras {
                let key = |time: [u8; 16]| [camera.as_bytes(), &[0], &time].concat();
                newest(&mut wanted, (query, oldest), self.by_time.range(key(from)..key(to)))?;
            }
            wanted.sort_unstable_by_key(|entry| Reverse((entry.captured_at, entry.position)));
            wanted.truncate(query.limit);
            Ok(wanted)
        })
    }

    /// The cameras that have verdicts.
    fn cameras(&self) -> Result<Vec<String>, Fault> {
        let mut cameras = Vec::new();
        let mut next = self.by_camera.first().map_err(fault)?;
        while let Some((key, value)) = next {
            let camera = Entry::decode(&value)?.camera;
            let behind = [camera.as_bytes(), &[1]].concat();
            if behind <= key.to_vec() {
                return Err("an entry does not belong to its key".into());
            }
            cameras.push(camera);
            next = self.by_camera.get_gt(behind).map_err(fault)?;
        }
        Ok(cameras)
    }

    /// Where `camera`'s verdicts `from` to `to` lie, in order, at most `limit`, among those indexed.
    pub(super) fn sequences(
        &self,
        camera: &CameraId,
        (from, to): (u64, u64),
        limit: usize,
    ) -> Result<Vec<Entry>, Fault> {
        if from > to {
            return Ok(Vec::new());
        }
        guarded(|| {
            let range = camera_key(camera.as_str(), from)..=camera_key(camera.as_str(), to);
            let entries = self.by_camera.range(range).take(limit);
            entries.map(|entry| Entry::decode(&entry.map_err(fault)?.1)).collect()
        })
    }

    /// Those of `files` that `camera` has judged, among those indexed.
    pub(super) fn judged(
        &self,
        camera: &CameraId,
        files: &HashSet<FileKey>,
    ) -> Result<HashSet<FileKey>, Fault> {
        guarded(|| {
            let mut judged = HashSet::new();
            for file in files {
                if self.files.contains_key(file_key(camera.as_str(), &file.0)).map_err(fault)? {
                    judged.insert(*file);
                }
            }
            Ok(judged)
        })
    }

    /// Removes some entries of what retention has deleted: everything before segment `segment`, whose first position is
    /// `first` and before which each camera had the sequences `before`. Tells whether there may be more.
    pub(super) fn prune(
        &self,
        (segment, first): (u64, Position),
        before: &BTreeMap<CameraId, u64>,
    ) -> Result<bool, Fault> {
        guarded(|| {
            let mut more = false;
            for (camera, last) in before {
                let gone = camera_key(camera.as_str(), 0)..=camera_key(camera.as_str(), *last);
                more |= remove(&self.by_camera, self.by_camera.range(gone))?;
                more |= self.forget_files(camera, first)?;
                let oldest = by_prefix(&self.by_time, camera).take(PRUNE).filter(|entry| match entry {
                    Ok((_, value)) => {
                        Entry::decode(value).is_ok_and(|entry| entry.location.segment < segment)
                    }
                    Err(_) => true,
                });
                more |= remove(&self.by_time, oldest)?;
            }
            Ok(more)
        })
    }

    /// Removes some files that `camera` judged before `first`; tells whether there may be more.
    fn forget_files(&self, camera: &CameraId, first: Position) -> Result<bool, Fault> {
        let gone = camera_key(camera.as_str(), 0)..camera_key(camera.as_str(), first.0);
        let mut files = Batch::default();
        for entry in self.judged.range(gone.clone()).take(PRUNE) {
            let file = file_key(camera.as_str(), &entry.map_err(fault)?.1);
            let position = self.files.get(&file).map_err(fault)?;
            // One that was judged again since stays.
            if position.is_some_and(|position| be64(&position) < first.0) {
                files.remove(file);
            }
        }
        self.files.apply_batch(files).map_err(fault)?;
        remove(&self.judged, self.judged.range(gone))
    }

    /// Bytes that it takes on disk.
    pub(super) fn bytes(&self) -> Result<u64, Fault> {
        guarded(|| self.db.size_on_disk().map_err(fault))
    }

    /// Makes everything durable, so that nothing has to be indexed again.
    pub(super) fn flush(&self) -> Result<(), Fault> {
        guarded(|| self.db.flush().map(drop).map_err(fault))
    }
}

/// Adds the newest of `entries`, as many as `query` wants.
fn newest(
    wanted: &mut Vec<Entry>,
    (query, oldest): (&Query, u64),
    entries: impl DoubleEndedIterator<Item = sled::Result<(IVec, IVec)>>,
) -> Result<(), Fault> {
    let full = wanted.len().saturating_add(query.limit);
    for entry in entries.rev() {
        if wanted.len() >= full {
            break;
        }
        let entry = Entry::decode(&entry.map_err(fault)?.1)?;
        if entry.location.segment >= oldest && query.wants(&entry.camera, entry.captured_at, entry.decision) {
            wanted.push(entry);
        }
    }
    Ok(())
}

/// Removes up to [`PRUNE`] of `entries`; tells whether it stopped there.
fn remove(tree: &Tree, entries: impl Iterator<Item = sled::Result<(IVec, IVec)>>) -> Result<bool, Fault> {
    let mut batch = Batch::default();
    let mut removed = 0;
    for entry in entries.take(PRUNE) {
        batch.remove(entry.map_err(fault)?.0);
        removed += 1;
    }
    tree.apply_batch(batch).map_err(fault)?;
    Ok(removed == PRUNE)
}

fn by_prefix(tree: &Tree, camera: &CameraId) -> sled::Iter {
    tree.scan_prefix([camera.as_str().as_bytes(), &[0]].concat())
}

fn camera_key(camera: &str, number: u64) -> Vec<u8> {
    file_key(camera, &number.to_be_bytes())
}

fn file_key(camera: &str, file: &[u8]) -> Vec<u8> {
    [camera.as_bytes(), &[0], file].concat()
}

/// A moment as bytes that sort as moments do.
fn time_key(moment: Timestamp) -> [u8; 16] {
    (moment.as_nanosecond() - Timestamp::MIN.as_nanosecond()).to_be_bytes()
}

fn time_of(bytes: &[u8]) -> Option<Timestamp> {
    let since = i128::from_be_bytes(bytes.try_into().ok()?);
    Timestamp::from_nanosecond(since.checked_add(Timestamp::MIN.as_nanosecond())?).ok()
}

fn be64(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

#[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
fn fault(error: sled::Error) -> Fault {
    error.to_string()
}

/// Puts a damaged index aside, so that it can be looked at; only the last one is kept.
pub(super) fn move_aside(folder: &Path) -> std::io::Result<()> {
    let aside = folder.with_extension("damaged");
    match fs::remove_dir_all(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    match fs::rename(folder, &aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

//! Waiting for files to be dropped into a folder, and to be finished.
//!
//! In: a look at the folder every so often. Out: files that two looks found alike in size and time, oldest first. Looking
//! instead of being notified, because notifications do not cross SMB or NFS. Memory: 24 bytes for each delivered file
//! that is still in the folder, and the names of the oldest [`BATCH`] others; with more waiting than that, the rest
//! come in later batches.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use super::entry::{Entry, Folder, Known, NameHash};
use crate::camera::{CameraError, FolderOptions, Judged};
use crate::frame::{CameraId, FileKey};

/// The most waiting files that are known by name at a time.
const BATCH: usize = 4096;
/// Looking may take one part in so many of the time, so that a folder with a million files does not keep a disk busy.
const SHARE_OF_TIME: u32 = 5;

pub(super) struct Watch {
    camera: CameraId,
    folder: Folder,
    pause: Duration,
    next_look: Instant,
    /// Delivered and still there, as of the last look.
    done: HashSet<Known>,
    /// There since the start and never seen, so that nobody could be asked whether they are judged.
    unasked: HashSet<NameHash>,
    /// Found by the last look and not delivered: since when, and how often they could not be taken.
    waiting: HashMap<FileKey, (Instant, u32)>,
    /// Found alike by two looks.
    ready: VecDeque<Entry>,
}

impl Watch {
    pub(super) fn new(
        camera: &CameraId,
        options: &FolderOptions,
        judged: &Judged<'_>,
    ) -> Result<Self, CameraError> {
        let mut folder = Folder::new(camera, &options.path);
        let (done, unseen) = folder.judged(judged)?;
        Ok(Self {
            camera: camera.clone(),
            folder,
            pause: Duration::from_millis(options.look_every_ms),
            next_look: Instant::now(),
            done,
            unasked: unseen.iter().map(|unseen| NameHash::of(&unseen.file)).collect(),
            waiting: HashMap::new(),
            ready: VecDeque::new(),
        })
    }

    /// The next finished file, or none until `deadline`.
    pub(super) fn next(&mut self, deadline: Instant) -> Result<Option<Entry>, CameraError> {
        loop {
            if let Some(entry) = self.ready.pop_front() {
                return Ok(Some(entry));
            }
            let now = Instant::now();
            if self.next_look > deadline {
                std::thread::sleep(deadline.saturating_duration_since(now));
                return Ok(None);
            }
            std::thread::sleep(self.next_look.saturating_duration_since(now));
            self.look()?;
        }
    }

    /// Notes what became of `entry`: it was delivered, or it is not fit yet.
    pub(super) fn settle(&mut self, entry: &Entry, delivered: bool) {
        let key = entry.origin.key();
        if delivered {
            self.waiting.remove(&key);
            self.done.insert(entry.known());
        } else if let Some((_, attempts)) = self.waiting.get_mut(&key) {
            *attempts += 1;
        }
    }

    fn look(&mut self) -> Result<(), CameraError> {
        let began = Instant::now();
        let mut still_done = HashSet::with_capacity(self.done.len());
        let mut oldest = BTreeMap::new();
        let (done, unasked) = (&self.done, &self.unasked);
        let mut to_ask = None;
        let looked = self.folder.look(
            |_| true,
            |entry| {
                let known = entry.known();
                if done.contains(&known) {
                    still_done.insert(known);
                } else if unasked.contains(&known.name) {
                    to_ask = Some(entry.origin.name);
                } else {
                    oldest.insert((entry.origin.modified_ns, entry.file.clone()), entry);
                    if oldest.len() > BATCH {
                        oldest.pop_last();
                    }
                }
            },
        );
        self.next_look = Instant::now() + self.pause.max(began.elapsed() * (SHARE_OF_TIME - 1));
        // A look that failed half-way has not shown what is gone.
        let unseen: HashSet<_> = looked?.iter().map(|unseen| NameHash::of(&unseen.file)).collect();
        if let Some(file) = to_ask {
            let message = format!("{file} can be looked at again: whether it is judged is asked now");
            return Err(CameraError::Lost { name: self.camera.to_string(), message });
        }
        self.unasked.retain(|name| unseen.contains(name));
        if !unseen.is_empty() {
            still_done.extend(self.done.iter().filter(|known| unseen.contains(&known.name)));
        }
        self.done = still_done;
        let before = std::mem::take(&mut self.waiting);
        for mut entry in oldest.into_values() {
            let key = entry.origin.key();
            let known = before.get(&key).copied();
            let (noticed, attempts) = known.unwrap_or((began, 0));
            self.waiting.insert(key, (noticed, attempts));
            if known.is_some() {
                (entry.noticed, entry.attempts) = (Some(noticed), attempts);
                self.ready.push_back(entry);
            }
        }
        Ok(())
    }
}

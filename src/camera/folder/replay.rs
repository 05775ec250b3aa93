//! Playing the files of a folder by name.
//!
//! In: the folder. Out: its files in the order of their names, once or without end; one that cannot be looked at ends it with
//! an error rather than being passed over. Memory: the next [`BATCH`] names,
//! and 24 bytes for each file that was judged before.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ffi::OsString;

use tracing::warn;

use super::entry::{Entry, Folder, Known, Unseen};
use crate::camera::{CameraError, FolderOptions, Judged};
use crate::frame::CameraId;

/// The most names that are read ahead.
const BATCH: usize = 4096;

pub(super) struct Replay {
    camera: CameraId,
    folder: Folder,
    repeat: bool,
    judged: HashSet<Known>,
    batch: VecDeque<Entry>,
    /// The last name of the last batch.
    after: Option<OsString>,
    /// Whether this pass has found any file.
    found: bool,
}

impl Replay {
    pub(super) fn new(
        camera: &CameraId,
        options: &FolderOptions,
        judged: &Judged<'_>,
    ) -> Result<Self, CameraError> {
        let mut folder = Folder::new(camera, &options.path);
        // What is played again and again was judged before in any case.
        let judged = if options.repeat {
            HashSet::new()
        } else {
            let (judged, unseen) = folder.judged(judged)?;
            all_seen(&folder, unseen)?;
            judged
        };
        Ok(Self {
            camera: camera.clone(),
            folder,
            repeat: options.repeat,
            judged,
            batch: VecDeque::new(),
            after: None,
            found: false,
        })
    }

    /// The next file, or none when all were played.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, CameraError> {
        loop {
            while let Some(entry) = self.batch.pop_front() {
                if !self.judged.contains(&entry.known()) {
                    return Ok(Some(entry));
                }
            }
            self.read_ahead()?;
            if !self.batch.is_empty() {
                continue;
            }
            if !self.found {
                warn!(camera = %self.camera, "the folder to replay holds no picture");
                return Ok(None);
            }
            if !self.repeat {
                return Ok(None);
            }
            (self.after, self.found) = (None, false);
        }
    }

    fn read_ahead(&mut self) -> Result<(), CameraError> {
        let mut first = BTreeMap::new();
        let after = self.after.as_deref();
        let unseen = self.folder.look(
            |file| after.is_none_or(|after| file > after),
            |entry| {
                first.insert(entry.file.clone(), entry);
                if first.len() > BATCH {
                    first.pop_last();
                }
            },
        )?;
        all_seen(&self.folder, unseen)?;
        self.batch = first.into_values().collect();
        if let Some(last) = self.batch.back() {
            (self.after, self.found) = (Some(last.file.clone()), true);
        }
        Ok(())
    }
}

fn all_seen(folder: &Folder, unseen: Vec<Unseen>) -> Result<(), CameraError> {
    unseen.into_iter().next().map_or(Ok(()), |first| Err(folder.cannot_see(first)))
}

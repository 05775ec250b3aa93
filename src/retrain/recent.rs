//! The last frames that were `ok`, one every two minutes unless told otherwise: what a new version is tried on in shadow.
//!
//! In: frames that the pipeline has judged, offered on its dispatch thread, which copies one when one is due and never
//! waits. Out: `recent/NNNN.png`, the oldest overwritten; written by the `recent` thread, not synced, since a power cut
//! may cost one. Not here: looking at them (`trial`).

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::error::RetrainError;
use super::files;
use super::home::Home;
use super::options::Options;
use crate::frame::{CameraId, Pixels, Size};
use crate::imaging::evidence_bytes;
use crate::telemetry::chain;

/// Frames that may wait to be written; one more is passed over.
const WAITING: usize = 4;
const NOTE: &str = "frame.json";

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Note {
    size: Size,
    /// The number of the next frame to be written.
    next: usize,
}

/// The size of this camera's frames, if one was ever kept.
pub(super) fn frame_size(home: &Home) -> Option<Size> {
    note(home).map(|note| note.size)
}

fn note(home: &Home) -> Option<Note> {
    serde_json::from_slice(&fs::read(home.recent().join(NOTE)).ok()?).ok()
}

/// The kept frames, by number; of those that were kept when more were, only the first `kept`.
pub(super) fn frames(home: &Home, kept: usize) -> Vec<PathBuf> {
    let mut frames = all(home);
    frames.retain(|(number, _)| *number < kept);
    frames.sort();
    frames.into_iter().map(|(_, path)| path).collect()
}

fn all(home: &Home) -> Vec<(usize, PathBuf)> {
    let entries = fs::read_dir(home.recent()).into_iter().flatten().flatten();
    let numbered = |path: PathBuf| Some((path.file_stem()?.to_str()?.parse().ok()?, path));
    entries.filter_map(|entry| numbered(entry.path())).collect()
}

struct Offered {
    camera: CameraId,
    pixels: Pixels,
    size: Size,
}

/// Where the pipeline offers frames; clones share it. The writing thread ends when all are dropped.
#[derive(Clone)]
pub struct Recent {
    every: Duration,
    kept: usize,
    last: Arc<Mutex<HashMap<CameraId, Instant>>>,
    to: Sender<Offered>,
}

impl Recent {
    /// The gallery, and the loop that its thread is to run.
    pub fn new(options: &Options) -> (Self, impl FnOnce() + Send + 'static) {
        let (to, from) = bounded(WAITING);
        let every = Duration::from_secs(options.recent_seconds);
        let recent = Self { every, kept: options.recent_frames, last: Arc::default(), to };
        let (path, kept) = (options.path.clone(), options.recent_frames);
        (recent, move || keep(&path, kept, &from))
    }

    /// Copies the frame if one of this camera is due.
    pub fn offer(&self, camera: &CameraId, pixels: &Pixels, size: Size) {
        if self.kept == 0 {
            return;
        }
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.get(camera).is_some_and(|at| at.elapsed() < self.every) {
                return;
            }
            last.insert(camera.clone(), Instant::now());
        }
        let _passed_over = self.to.try_send(Offered { camera: camera.clone(), pixels: pixels.clone(), size });
    }
}

fn keep(path: &Path, kept: usize, from: &Receiver<Offered>) {
    let mut complained = false;
    for offered in from {
        let written = write(&Home::new(path, &offered.camera), kept, &offered);
        if let Err(error) = &written
            && !complained
        {
            warn!(camera = %offered.camera, error = chain(error), "recent frames cannot be kept");
        }
        complained = written.is_err();
    }
}

fn write(home: &Home, kept: usize, offered: &Offered) -> Result<(), RetrainError> {
    let folder = home.recent();
    files::make_folder(&folder).map_err(RetrainError::file("make", &folder))?;
    let note = note(home).filter(|note| note.size == offered.size);
    // Frames of another size are another camera's: they begin anew.
    let number = match note {
        Some(note) => note.next % kept,
        None => {
            all(home).iter().for_each(|(_, old)| drop(fs::remove_file(old)));
            0
        }
    };
    let (bytes, extension) = evidence_bytes(&offered.pixels);
    let stem = format!("{number:05}");
    // Where fewer are kept than were, those beyond would stay for ever.
    for (_, old) in all(home).iter().filter(|(old, _)| *old == number || *old >= kept) {
        let _overwritten_below = fs::remove_file(old);
    }
    let (fresh, path) = (folder.join(".fresh"), folder.join(format!("{stem}.{extension}")));
    fs::write(&fresh, bytes)
        .and_then(|()| fs::rename(&fresh, &path))
        .map_err(RetrainError::file("write", &path))?;
    let note = Note { size: offered.size, next: (number + 1) % kept };
    let text = serde_json::to_vec(&note).expect("a note is plain data: this is a bug");
    let path = folder.join(NOTE);
    fs::write(&fresh, text)
        .and_then(|()| fs::rename(&fresh, &path))
        .map_err(RetrainError::file("write", &path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::untrained;
    use crate::imaging::png;

    #[test]
    fn the_newest_frames_are_kept_and_another_cameras_size_begins_anew() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::new(root.path(), &"top".parse().unwrap());
        let frame = |width, seed| Pixels::Encoded(png(&untrained::picture(Size::new(width, 8), seed)));
        for (width, count, recent_frames, kept) in [(12, 5, 3, 3), (12, 1, 2, 2), (14, 1, 3, 1)] {
            let options = Options {
                path: root.path().to_owned(),
                recent_frames,
                recent_seconds: 0,
                ..Options::default()
            };
            let (recent, keep) = Recent::new(&options);
            let thread = std::thread::spawn(keep);
            for seed in 0..count {
                recent.offer(home.camera(), &frame(width, seed), Size::new(width, 8));
                while !recent.to.is_empty() {
                    std::thread::yield_now();
                }
            }
            drop(recent);
            thread.join().unwrap();
            assert_eq!((all(&home).len(), frames(&home, recent_frames).len()), (kept, kept));
            assert_eq!(frames(&home, 1).len(), 1);
            assert_eq!(frame_size(&home), Some(Size::new(width, 8)));
        }
    }
}

//! Where a camera's samples and model versions lie.
//!
//! ```text
//! <path>/<camera>/samples/normal/      pictures dropped in by people
//!                 samples/anomalous/   the same, of known defects
//!                 samples/refused/     what could not be taken, each beside NAME.why.txt
//!                 set/                 what was taken, by content, journal.jsonl, and reduced/ to compare with
//!                 recent/              the last frames that were `ok`
//!                 versions/<version>/  model bundles, each with report.json
//!                 active.json          which of them is active
//!                 work/                a retraining under way
//! ```

use std::fs::{File, TryLockError};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::error::RetrainError;
use super::files;
use super::kind::Kind;
use crate::frame::CameraId;

/// The file that whoever retrains on this box holds locked.
const TURN: &str = "retraining.lock";
/// Whoever only asks holds it for less than this, and so often it is tried again.
const ASKING_TAKES: Duration = Duration::from_millis(5);
const ASKED_FOR: u32 = 20;

/// One camera's folder below `[retrain] path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    camera: CameraId,
    root: PathBuf,
}

impl Home {
    /// The folder of `camera` below `path`; nothing is made yet.
    pub fn new(path: &Path, camera: &CameraId) -> Self {
        Self { camera: camera.clone(), root: path.join(camera.as_str()) }
    }

    /// The camera.
    pub fn camera(&self) -> &CameraId {
        &self.camera
    }

    /// Where normal samples are dropped in.
    pub fn normal(&self) -> PathBuf {
        self.root.join("samples/normal")
    }

    /// Where known defects are dropped in.
    pub fn anomalous(&self) -> PathBuf {
        self.root.join("samples/anomalous")
    }

    pub(super) fn refused(&self) -> PathBuf {
        self.root.join("samples/refused")
    }

    pub(super) fn set(&self) -> PathBuf {
        self.root.join("set")
    }

    pub(super) fn recent(&self) -> PathBuf {
        self.root.join("recent")
    }

    pub(super) fn versions(&self) -> PathBuf {
        self.root.join("versions")
    }

    pub(super) fn pointer(&self) -> PathBuf {
        self.root.join("active.json")
    }

    pub(super) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// What the last retraining had seen.
    pub(super) fn learnt(&self) -> PathBuf {
        self.root.join("learnt.json")
    }

    /// Makes the folders that people drop samples into.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn make(&self) -> Result<(), RetrainError> {
        for folder in [self.normal(), self.anomalous()] {
            files::make_folder(&folder).map_err(RetrainError::file("make", &folder))?;
        }
        Ok(())
    }

    /// Drops a picture in, as a person would; gives where it lies.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn drop_in(&self, kind: Kind, name: &str, bytes: &[u8]) -> Result<PathBuf, RetrainError> {
        self.make()?;
        let folder = match kind {
            Kind::Normal => self.normal(),
            Kind::Anomalous => self.anomalous(),
        };
        let path = folder.join(name);
        files::replace(&path, bytes).map_err(RetrainError::file("write", &path))?;
        Ok(path)
    }

    /// Waits for its turn to change this camera's set or pointer; the turn ends when the file is dropped.
    pub(super) fn lock(&self) -> Result<File, RetrainError> {
        files::make_folder(&self.root).map_err(RetrainError::file("make", &self.root))?;
        let path = self.root.join("lock");
        let file = lock_file(&path).map_err(RetrainError::file("open", &path))?;
        file.lock().map_err(RetrainError::file("lock", &path))?;
        Ok(file)
    }
}

/// The right to retrain on this box, until it is dropped: one at a time, since two would take each other's memory.
#[derive(Debug)]
pub(super) struct Turn {
    _file: File,
}

impl Turn {
    /// # Errors
    /// [`RetrainError::Busy`], or the file system refuses.
    pub(super) fn take(path: &Path) -> Result<Self, RetrainError> {
        files::make_folder(path).map_err(RetrainError::file("make", path))?;
        let path = path.join(TURN);
        let failed = RetrainError::file("lock", &path);
        let mut file = lock_file(&path).map_err(&failed)?;
        let mut tried = file.try_lock();
        for _ in 0..ASKED_FOR {
            if !matches!(tried, Err(TryLockError::WouldBlock)) {
                break;
            }
            thread::sleep(ASKING_TAKES);
            tried = file.try_lock();
        }
        match tried {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let _may_be_unreadable = file.read_to_string(&mut holder);
                return Err(RetrainError::Busy(holder.trim().to_owned()));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(&failed)?;
        Ok(Self { _file: file })
    }

    /// Whether somebody has it.
    pub(super) fn is_taken(path: &Path) -> bool {
        // Only asking takes the lock, for an instant; closing the file gives it back.
        File::open(path.join(TURN))
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
}

fn lock_file(path: &Path) -> std::io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    files::inherit_owner(path);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_retraining_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        assert!(!Turn::is_taken(root.path()));
        let turn = Turn::take(root.path()).unwrap();
        assert!(Turn::is_taken(root.path()));
        let refused = Turn::take(root.path()).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(turn);
        assert!(!Turn::is_taken(root.path()));
        Turn::take(root.path()).unwrap();
    }
}

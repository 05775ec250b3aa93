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

use std::fs::File;
use std::path::{Path, PathBuf};

use super::error::RetrainError;
use super::files;
use super::kind::Kind;
use crate::frame::CameraId;
use crate::lockfile::{LockError, LockFile};

/// The file that whoever retrains on this box holds locked.
const TURN: &str = "retraining.lock";

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

    /// What the retraining under way is to do.
    pub(super) fn plan(&self) -> PathBuf {
        self.work().join("plan.json")
    }

    /// Whether a retraining is under way or was interrupted.
    pub(super) fn is_unfinished(&self) -> bool {
        self.plan().is_file()
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
        let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open.map_err(RetrainError::file("open", &path))?;
        files::inherit_owner(&path);
        file.lock().map_err(RetrainError::file("lock", &path))?;
        Ok(file)
    }
}

/// The right to retrain on this box, until it is dropped: one at a time, since two would take each other's memory.
#[derive(Debug)]
pub(super) struct Turn {
    _lock: LockFile,
}

impl Turn {
    /// # Errors
    /// [`RetrainError::Busy`], or the file system refuses.
    pub(super) fn take(path: &Path) -> Result<Self, RetrainError> {
        files::make_folder(path).map_err(RetrainError::file("make", path))?;
        let path = path.join(TURN);
        let taken = LockFile::take(&path);
        files::inherit_owner(&path);
        match taken {
            Ok(lock) => Ok(Self { _lock: lock }),
            Err(LockError::Held(holder)) => Err(RetrainError::Busy(holder.to_string())),
            Err(LockError::Io(error)) => Err(RetrainError::file("lock", &path)(error)),
        }
    }

    /// Whether somebody has it.
    pub(super) fn is_taken(path: &Path) -> bool {
        LockFile::holder(&path.join(TURN)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wait_for;

    #[test]
    fn one_retraining_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        assert!(!Turn::is_taken(root.path()));
        let turn = Turn::take(root.path()).unwrap();
        assert!(Turn::is_taken(root.path()));
        let refused = Turn::take(root.path()).unwrap_err().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        drop(turn);
        // A process that another test starts has the lock, too, until it becomes its program.
        wait_for("it is given back", || !Turn::is_taken(root.path()));
        Turn::take(root.path()).unwrap();
    }
}

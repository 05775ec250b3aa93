//! A file that one process at a time holds, and that says which.
//!
//! The lock ends with the process, however that ends. Not here: what is done by whoever holds it (`store`, `retrain`).

use std::fmt::{self, Display, Formatter};
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// Whoever only asks, and a process between its fork and its program, hold it for less than this all told.
const ASKED_FOR: u32 = 20;
const ASKING_TAKES: Duration = Duration::from_millis(5);

/// The file, held until this is dropped.
#[derive(Debug)]
pub(crate) struct LockFile {
    _file: File,
}

/// Who holds a file, as far as it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Holder {
    pid: Option<u32>,
}

/// Why a file is not ours.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Somebody else holds it.
    Held(Holder),
    /// The file system refuses.
    Io(io::Error),
}

impl LockFile {
    /// Takes the file at `path`, which is made where there is none; waits a tenth of a second for whoever only asks.
    pub(crate) fn take(path: &Path) -> Result<Self, LockError> {
        let open = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = open.map_err(LockError::Io)?;
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
            Err(TryLockError::WouldBlock) => return Err(LockError::Held(Holder::read(file))),
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        let pid = format!("{}\n", std::process::id());
        // Only told to people; a full disk must keep nobody from holding it.
        let _best_effort =
            file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(pid.as_bytes()));
        Ok(Self { _file: file })
    }

    /// Who holds the file at `path`; `None` where nobody does.
    pub(crate) fn holder(path: &Path) -> Option<Holder> {
        let file = File::open(path).ok()?;
        // Only asking takes the lock, for an instant; closing the file gives it back.
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(Holder::read(file)),
            _ => None,
        }
    }
}

impl Holder {
    fn read(file: File) -> Self {
        let mut pid = String::new();
        let _may_be_unreadable = file.take(32).read_to_string(&mut pid);
        Self { pid: pid.trim().parse().ok() }
    }
}

impl Display for Holder {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_at_a_time_and_whoever_asks_hears_who() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        assert_eq!(LockFile::holder(&path), None);
        let held = LockFile::take(&path).unwrap();
        let us = Holder { pid: Some(std::process::id()) };
        assert_eq!(LockFile::holder(&path), Some(us));
        assert!(matches!(LockFile::take(&path), Err(LockError::Held(holder)) if holder == us));
        drop(held);
        LockFile::take(&path).unwrap();
    }

    #[test]
    fn whoever_only_asks_keeps_nobody_from_taking_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        drop(LockFile::take(&path).unwrap());
        let asking = File::open(&path).unwrap();
        asking.try_lock_shared().unwrap();
        let asked = thread::spawn(move || {
            thread::sleep(ASKING_TAKES);
            drop(asking);
        });
        LockFile::take(&path).unwrap();
        asked.join().unwrap();
    }

    #[test]
    fn a_file_that_says_nothing_is_held_by_another_process() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = LockFile::take(&path).unwrap();
        std::fs::write(&path, "\u{0}what?").unwrap();
        assert_eq!(LockFile::holder(&path).unwrap().to_string(), "another process");
        drop(held);
    }
}

//! The reserve: room on the disk that only verdicts may use, once somebody else has filled it.
//!
//! A file that takes up space and holds nothing. The store thread gives it up piece by piece when the disk is full; the
//! retention thread takes hold of it again when there is room. Evidence never gets any of it. Not here: what else is
//! deleted to make room (`retention`).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use tracing::{info, warn};

use crate::telemetry::chain;

/// The file, in the store's folder.
const FILE: &str = "reserve";
/// How much is given up at once: some thousand verdicts.
const PIECE: u64 = 1 << 20;
/// The reserve takes no more than this part of a disk.
const MOST_OF_DISK: u64 = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    wanted: u64,
    held: u64,
    /// Since when less is held than once was.
    used_since: Option<Timestamp>,
    /// It was said already that it cannot be taken hold of.
    complained: bool,
}

impl Reserve {
    /// The reserve of the store in `store`, on a disk of `disk` bytes, as far as it is there already.
    pub(super) fn new(store: &Path, wanted: u64, disk: u64) -> Self {
        let path = store.join(FILE);
        let held = fs::metadata(&path).map_or(0, |file| file.len());
        Self { path, wanted: wanted.min(disk / MOST_OF_DISK), held, used_since: None, complained: false }
    }

    /// Gives up a piece; `false` when there is none left.
    pub(super) fn give_up(&mut self) -> bool {
        if self.held == 0 {
            return false;
        }
        let left = self.held.saturating_sub(PIECE);
        if let Err(error) = resize(&self.path, left) {
            warn!(error = %chain(&error), "the reserve cannot be given up");
            return false;
        }
        if self.used_since.is_none() {
            self.used_since = Some(Timestamp::now());
            warn!(left, "the disk is full: verdicts are written to what was kept free for them");
        }
        self.held = left;
        true
    }

    /// Takes hold of what is missing, where `free` bytes are enough for that and `besides`.
    pub(super) fn refill(&mut self, free: u64, besides: u64) {
        let missing = self.wanted.saturating_sub(self.held);
        if self.held > self.wanted {
            let _tried_again = resize(&self.path, self.wanted).map(|()| self.held = self.wanted);
        }
        // An earlier run may have used it up, on a disk that is full still.
        if missing > 0 && free < PIECE && self.path.exists() {
            self.used_since.get_or_insert_with(Timestamp::now);
        }
        if missing == 0 || free < besides.saturating_add(missing) {
            return;
        }
        match allocate(&self.path, self.wanted) {
            Ok(()) => {
                self.held = self.wanted;
                self.complained = false;
                if let Some(since) = self.used_since.take() {
                    info!(%since, "the disk has room again; the reserve is whole");
                }
            }
            Err(error) => {
                // Not every file system can; and others may have been faster.
                let _best_effort = resize(&self.path, self.held);
                if cannot(&error) {
                    warn!(error = %chain(&error), "no room can be kept free for verdicts on this file system");
                    self.wanted = 0;
                } else if error.kind() != io::ErrorKind::StorageFull && !self.complained {
                    warn!(error = %chain(&error), "no room can be kept free for verdicts now; it is tried again");
                    self.complained = true;
                }
            }
        }
    }

    /// Since when it has been used, and how many bytes are left.
    pub(super) fn in_use(&self) -> Option<(Timestamp, u64)> {
        self.used_since.map(|since| (since, self.held))
    }
}

/// Whether the file system has no such thing as taking hold of room, rather than failing at it.
fn cannot(error: &io::Error) -> bool {
    let never = [Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL];
    never.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn resize(path: &Path, length: u64) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_len(length)?;
    // Until then some file systems do not let others have the space.
    file.sync_all()
}

fn allocate(path: &Path, length: u64) -> io::Result<()> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn it_is_given_up_piece_by_piece_and_taken_again_when_there_is_room() {
        let store = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::new(store.path(), 3 * MIB, u64::MAX);
        assert!(!reserve.give_up(), "nothing is held yet");
        reserve.refill(10 * MIB, 8 * MIB);
        assert!(!reserve.give_up(), "there was no room besides");
        reserve.refill(11 * MIB, 8 * MIB);
        let file = store.path().join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().len(), 3 * MIB);
        assert_eq!(reserve.in_use(), None);
        assert!(reserve.give_up());
        assert_eq!(reserve.in_use().unwrap().1, 2 * MIB);
        // It outlives the process.
        let mut reserve = Reserve::new(store.path(), 3 * MIB, u64::MAX);
        assert!(reserve.give_up() && reserve.give_up() && !reserve.give_up());
        assert_eq!(fs::metadata(&file).unwrap().len(), 0);
        reserve.refill(11 * MIB, 8 * MIB);
        assert_eq!(reserve.in_use(), None);
        assert_eq!(fs::metadata(&file).unwrap().len(), 3 * MIB);
    }

    #[test]
    fn what_fails_once_is_tried_again_and_what_was_used_up_is_told_after_a_restart() {
        let store = tempfile::tempdir().unwrap();
        let file = store.path().join(FILE);
        fs::create_dir(&file).unwrap();
        let mut reserve = Reserve::new(store.path(), 3 * MIB, u64::MAX);
        reserve.refill(u64::MAX, 0);
        fs::remove_dir(&file).unwrap();
        reserve.refill(u64::MAX, 0);
        assert_eq!(fs::metadata(&file).unwrap().len(), 3 * MIB);
        assert!(reserve.give_up());
        let mut reserve = Reserve::new(store.path(), 3 * MIB, u64::MAX);
        reserve.refill(MIB / 2, 0);
        assert_eq!(reserve.in_use().map(|(_, left)| left), Some(2 * MIB));
        assert!(cannot(&Errno::OPNOTSUPP.into()) && !cannot(&Errno::IO.into()));
    }

    #[test]
    fn it_takes_no_more_than_a_sixteenth_of_a_disk() {
        let store = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::new(store.path(), 64 * MIB, 32 * MIB);
        reserve.refill(u64::MAX, 0);
        assert_eq!(reserve.held, 2 * MIB);
    }
}

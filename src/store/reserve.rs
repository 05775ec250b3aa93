//! The reserve: room on the disk that only verdicts may use, once somebody else has filled it.
//!
//! A file that takes up space and holds nothing. The store thread gives it up piece by piece when the disk is full; the
//! retention thread takes hold of it again when there is room. Evidence never gets any of it. Not here: what else is
//! deleted to make room (`retention`).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
    /// Since when less is held than is wanted.
    lacking_since: Option<Instant>,
    /// It was said already that it cannot be taken hold of.
    complained: bool,
}

impl Reserve {
    /// The reserve of the store in `store`, on a disk of `disk` bytes, as far as it is there already.
    pub(super) fn new(store: &Path, wanted: u64, disk: u64) -> Self {
        let path = store.join(FILE);
        let (held, wanted) = (occupied(&path), wanted.min(disk / MOST_OF_DISK));
        Self { path, wanted, held, used_since: None, lacking_since: None, complained: false }
    }

    fn missing(&self) -> u64 {
        self.wanted.saturating_sub(self.held)
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

    /// Takes hold of what is missing, where that leaves so much of the `free` bytes that evidence is still kept, for which half of
    /// `min_free` will do.
    pub(super) fn refill(&mut self, free: u64, min_free: u64) {
        if self.held > self.wanted {
            let _tried_again = resize(&self.path, self.wanted).map(|()| self.held = self.wanted);
        }
        let missing = self.missing();
        // An earlier run may have used it up, on a disk that is full still.
        if missing > 0 && free < PIECE && self.path.exists() {
            self.used_since.get_or_insert_with(Timestamp::now);
        }
        if missing > 0 && free >= (min_free / 2).saturating_add(missing) {
            self.take_hold();
        }
        let since = self.lacking_since.unwrap_or_else(Instant::now);
        self.lacking_since = (self.missing() > 0).then_some(since);
    }

    fn take_hold(&mut self) {
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
                    (self.wanted, self.used_since) = (0, None);
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

    /// What must be free besides, to be taken hold of: until it is whole again, no evidence is kept.
    pub(super) fn claims(&self) -> u64 {
        self.used_since.map_or(0, |_| self.missing())
    }

    /// What people are to know where less has been held than is wanted for as long as that, though nothing of it was used.
    pub(super) fn lacks_for(&self, long: Duration) -> Option<String> {
        let since = self.lacking_since.filter(|_| self.used_since.is_none())?;
        let (held, wanted) = (self.held >> 20, self.wanted >> 20);
        let told = || format!("{held} of {wanted} MiB of [store] reserve_megabytes; make room on the disk");
        (since.elapsed() >= long).then(told)
    }
}

/// Whether the file system has no such thing as taking hold of room, rather than failing at it.
fn cannot(error: &io::Error) -> bool {
    let never = [Errno::OPNOTSUPP, Errno::NOSYS, Errno::INVAL];
    never.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Bytes that the file takes from the disk. A copy of one that holds nothing may look as long and take none.
fn occupied(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |file| file.len().min(512 * file.blocks()))
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
        reserve.refill(7 * MIB - 1, 8 * MIB);
        assert!(!reserve.give_up(), "there was no room besides");
        reserve.refill(7 * MIB, 8 * MIB);
        let file = store.path().join(FILE);
        assert_eq!(fs::metadata(&file).unwrap().len(), 3 * MIB);
        assert_eq!(reserve.in_use(), None);
        assert!(reserve.give_up());
        assert_eq!(reserve.in_use().unwrap().1, 2 * MIB);
        // It outlives the process.
        let mut reserve = Reserve::new(store.path(), 3 * MIB, u64::MAX);
        assert!(reserve.give_up() && reserve.give_up() && !reserve.give_up());
        assert_eq!(fs::metadata(&file).unwrap().len(), 0);
        reserve.refill(7 * MIB, 8 * MIB);
        assert_eq!(reserve.in_use(), None);
        assert_eq!(fs::metadata(&file).unwrap().len(), 3 * MIB);
    }

    #[test]
    fn a_copy_that_takes_no_room_is_not_taken_for_the_reserve() {
        let store = tempfile::tempdir().unwrap();
        let file = store.path().join(FILE);
        File::create(&file).unwrap().set_len(3 * MIB).unwrap();
        let mut reserve = Reserve::new(store.path(), 3 * MIB, u64::MAX);
        assert!(!reserve.give_up(), "it would make no room");
        reserve.refill(u64::MAX, 0);
        assert_eq!(occupied(&file), 3 * MIB);
        assert!(reserve.give_up());
    }

    #[test]
    fn a_reserve_that_cannot_be_had_is_told_and_one_that_is_used_claims_its_room() {
        let store = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::new(store.path(), 3 * MIB, u64::MAX);
        reserve.refill(4 * MIB, 8 * MIB);
        assert_eq!((reserve.claims(), reserve.lacks_for(Duration::MAX)), (0, None));
        let told = reserve.lacks_for(Duration::ZERO).unwrap();
        assert!(told.starts_with("0 of 3 MiB"), "{told}");
        reserve.refill(u64::MAX, 8 * MIB);
        assert_eq!(reserve.lacks_for(Duration::ZERO), None);
        assert!(reserve.give_up() && reserve.give_up());
        reserve.refill(0, 0);
        assert_eq!((reserve.claims(), reserve.lacks_for(Duration::ZERO)), (2 * MIB, None));
        for min_free in [0, MIB, 100 * MIB] {
            reserve.refill(min_free + reserve.claims(), min_free);
            assert_eq!((reserve.claims(), reserve.in_use()), (0, None), "{min_free}");
            assert!(reserve.give_up());
        }
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

//! A disk that fails and loses power on demand, for tests. Real files hold what would have survived.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::journal::{Appendable, Medium};

/// A disk whose faults are set from outside; clones share it.
#[derive(Clone, Default)]
pub(super) struct FaultyDisk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// Answers to the next writes and syncs; none left is success.
    faults: Vec<Fault>,
    lasting: Option<Fault>,
    /// Writes since each file's last sync, in order.
    unsynced: Vec<(Arc<File>, u64, Vec<u8>)>,
    off: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Writing fails: no space.
    Full,
    /// Writing fails: input/output error.
    Write,
    /// Syncing fails, and what was not synced is gone.
    Sync,
}

struct FaultyFile {
    file: Arc<File>,
    disk: FaultyDisk,
}

impl FaultyDisk {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// Lets the next operations fail, the last of `faults` first.
    pub(super) fn fail(&self, faults: &[Fault]) {
        self.inner().faults = faults.to_vec();
    }

    /// Lets every operation of that kind fail until further notice.
    pub(super) fn keep_failing(&self, fault: Option<Fault>) {
        self.inner().lasting = fault;
    }

    /// Cuts the power: of what was not synced, each write survives whole, torn or not at all, in any order.
    pub(super) fn cut_power(&self, chance: &mut ChaCha8Rng) {
        let mut inner = self.inner();
        inner.off = true;
        for (file, offset, bytes) in std::mem::take(&mut inner.unsynced) {
            // Disks lose whole sectors.
            for (sector, chunk) in bytes.chunks(64).enumerate() {
                if chance.random_bool(0.5) {
                    file.write_all_at(chunk, offset + 64 * sector as u64).unwrap();
                }
            }
        }
    }

    fn fault(&self, writing: bool) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.off {
            return Err(io::Error::other("the power is off"));
        }
        let applies = |fault: &Fault| writing != (*fault == Fault::Sync);
        let fault = match inner.faults.last().copied() {
            Some(fault) if applies(&fault) => inner.faults.pop(),
            _ => inner.lasting.filter(applies),
        };
        match fault {
            None => Ok(()),
            Some(Fault::Full) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(Fault::Write | Fault::Sync) => Err(io::Error::other("input/output error")),
        }
    }
}

impl Medium for FaultyDisk {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn Appendable>> {
        let file = Arc::new(File::options().create(true).truncate(true).read(true).write(true).open(path)?);
        Ok(Box::new(FaultyFile { file, disk: self.clone() }))
    }
}

impl Appendable for FaultyFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.fault(true)?;
        self.disk.inner().unsynced.push((self.file.clone(), offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let failed = self.disk.fault(false);
        let mut inner = self.disk.inner();
        let (mine, others) =
            std::mem::take(&mut inner.unsynced).into_iter().partition(|(f, ..)| Arc::ptr_eq(f, &self.file));
        inner.unsynced = others;
        let mine: Vec<_> = mine;
        failed?;
        for (_, offset, bytes) in mine {
            self.file.write_all_at(&bytes, offset)?;
        }
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.disk.fault(true)?;
        self.file.set_len(length)
    }
}

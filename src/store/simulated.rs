//! A disk that fails and loses power on demand, for tests. Real files hold what would have survived.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::journal::{Appendable, Medium};

/// A disk whose faults are set from outside; clones share it.
#[derive(Clone, Default)]
pub(super) struct FaultyDisk(Arc<Mutex<Inner>>, Arc<Mutex<()>>);

#[derive(Default)]
struct Inner {
    /// Answers to the next writes and syncs; none left is success.
    faults: Vec<Fault>,
    lasting: Option<Fault>,
    /// Writes since each file's last sync, in order.
    unsynced: Vec<(Arc<Named>, u64, Vec<u8>)>,
    /// Files as the disk has them, where a killed program's last writes are in the kernel's memory only.
    cached: Vec<(PathBuf, Vec<u8>)>,
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
    /// The program is killed between writing and syncing.
    Kill,
}

struct Named {
    file: File,
    path: PathBuf,
}

struct FaultyFile {
    file: Arc<Named>,
    disk: FaultyDisk,
}

impl FaultyDisk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
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

    /// Lets every sync wait until what this gives is dropped.
    pub(super) fn hang(&self) -> MutexGuard<'_, ()> {
        self.1.lock().unwrap()
    }

    /// Kills the program: what it wrote can be read and is not on the disk.
    fn kill(&self) {
        let mut inner = self.inner();
        inner.off = true;
        for (Named { file, path }, offset, bytes) in
            std::mem::take(&mut inner.unsynced).iter().map(|(file, offset, bytes)| (&**file, offset, bytes))
        {
            // It has got its name meanwhile.
            let path = path.with_extension("journal");
            if !inner.cached.iter().any(|(known, _)| *known == path) {
                inner.cached.push((path.clone(), fs::read(&path).unwrap()));
            }
            file.write_all_at(bytes, *offset).unwrap();
        }
    }

    /// The disk as the next program finds it.
    pub(super) fn for_the_next(&self) -> Self {
        self.inner().off = false;
        self.fail(&[]);
        self.clone()
    }

    /// Cuts the power: of what was not synced, each write survives whole, torn or not at all, in any order.
    pub(super) fn cut_power(&self, chance: &mut ChaCha8Rng) {
        let mut inner = self.inner();
        inner.off = true;
        for (path, held) in std::mem::take(&mut inner.cached) {
            fs::write(path, held).unwrap();
        }
        for (file, offset, bytes) in std::mem::take(&mut inner.unsynced) {
            let file = &file.file;
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
        let applies = |fault: &Fault| writing != matches!(fault, Fault::Sync | Fault::Kill);
        let fault = match inner.faults.last().copied() {
            Some(fault) if applies(&fault) => inner.faults.pop(),
            _ => inner.lasting.filter(applies),
        };
        match fault {
            None => Ok(()),
            Some(Fault::Full) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(Fault::Kill) => {
                drop(inner);
                self.kill();
                Err(io::Error::other("killed"))
            }
            Some(Fault::Write | Fault::Sync) => Err(io::Error::other("input/output error")),
        }
    }
}

impl Medium for FaultyDisk {
    fn create(&mut self, path: &Path) -> io::Result<Box<dyn Appendable>> {
        let file = File::options().create(true).truncate(true).read(true).write(true).open(path)?;
        let file = Arc::new(Named { file, path: path.to_owned() });
        Ok(Box::new(FaultyFile { file, disk: self.clone() }))
    }

    fn settle(&mut self, path: &Path) -> io::Result<()> {
        self.inner().cached.retain(|(cached, _)| cached != path);
        Ok(())
    }
}

impl Appendable for FaultyFile {
    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.fault(true)?;
        self.disk.inner().unsynced.push((self.file.clone(), offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        drop(self.disk.hang());
        let failed = self.disk.fault(false);
        let mut inner = self.disk.inner();
        let (mine, others) =
            std::mem::take(&mut inner.unsynced).into_iter().partition(|(f, ..)| Arc::ptr_eq(f, &self.file));
        inner.unsynced = others;
        let mine: Vec<_> = mine;
        failed?;
        for (_, offset, bytes) in mine {
            self.file.file.write_all_at(&bytes, offset)?;
        }
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.disk.fault(true)?;
        self.file.file.set_len(length)
    }
}

/// What the disk cannot read, by file.
static UNREADABLE: Mutex<Vec<(PathBuf, Range<u64>)>> = Mutex::new(Vec::new());

/// Lets reading these bytes of the file fail from now on, and with them the blocks that they are in.
pub(super) fn make_unreadable(path: &Path, bytes: Range<u64>) {
    let blocks = bytes.start / 4096 * 4096..bytes.end.div_ceil(4096) * 4096;
    let mut known = UNREADABLE.lock().unwrap();
    known.retain(|(of, _)| of != path);
    known.push((path.to_owned(), blocks));
}

/// Lets the disk refuse even to open the file from now on.
pub(super) fn make_unopenable(path: &Path) {
    let mut known = UNREADABLE.lock().unwrap();
    known.retain(|(of, _)| of != path);
    known.push((path.to_owned(), 0..u64::MAX));
}

/// Whether the disk opens the file.
pub(super) fn openable(path: &Path) -> io::Result<()> {
    let known = UNREADABLE.lock().unwrap();
    let refuses = known.iter().any(|(of, bad)| of == path && *bad == (0..u64::MAX));
    if refuses { Err(rustix::io::Errno::IO.into()) } else { Ok(()) }
}

/// What of `buffer` the disk can read at `offset`: as with a real one, all up to a bad block.
pub(super) fn readable<'a>(path: &Path, buffer: &'a mut [u8], offset: u64) -> io::Result<&'a mut [u8]> {
    let known = UNREADABLE.lock().unwrap();
    let Some((_, bad)) = known.iter().find(|(of, _)| of == path) else { return Ok(buffer) };
    if bad.contains(&offset) {
        return Err(rustix::io::Errno::IO.into());
    }
    let upto = if offset < bad.start { (bad.start - offset) as usize } else { usize::MAX };
    let length = buffer.len().min(upto);
    Ok(&mut buffer[..length])
}

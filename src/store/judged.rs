//! Judged files that outlive their verdicts: when retention deletes a journal segment, the files judged in it move here, so
//! that a watched folder's old files are not taken for new ones.
//!
//! One list per camera, 16 bytes a file, the newest [`KEPT`] at least. Written by the retention thread while a segment is
//! among the oldest, so that on a disk that is full by the time it must go its files are here already; read through whenever a
//! camera is opened, never held in memory. What a crash has cut off does not count: its segment is still there. Not here: the
//! files whose verdicts are still in the journal (`history`, `index`).

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::segment::sync_folder;
use crate::frame::{CameraId, FileKey};

/// The store's folder of these lists.
const FOLDER: &str = "judged";
/// The files that are kept of each camera at least, and half of what are kept at most: 64 to 128 MiB.
const KEPT: u64 = 4 << 20;
const ENTRY: u64 = FileKey::BYTES as u64;

/// Adds files that were judged, durably. Those that are there already take no room.
pub(super) fn remember(store: &Path, files: &BTreeMap<CameraId, Vec<FileKey>>) -> io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let folder = store.join(FOLDER);
    if !folder.is_dir() {
        fs::create_dir(&folder)?;
        sync_folder(store)?;
    }
    for (camera, files) in files {
        let mut new: HashSet<FileKey> = files.iter().copied().collect();
        take_remembered(store, camera, &mut new)?;
        if !new.is_empty() {
            append(&path(store, camera), files.iter().filter(|file| new.contains(file)), KEPT)?;
        }
    }
    sync_folder(&folder)
}

/// Takes out of `unknown` the files of `camera` that are remembered.
pub(super) fn take_remembered(
    store: &Path,
    camera: &CameraId,
    unknown: &mut HashSet<FileKey>,
) -> io::Result<()> {
    let file = match File::open(path(store, camera)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let entries = file.metadata()?.len() / ENTRY;
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut entry = FileKey([0; FileKey::BYTES]);
    for _ in 0..entries {
        if unknown.is_empty() {
            break;
        }
        file.read_exact(&mut entry.0)?;
        unknown.remove(&entry);
    }
    Ok(())
}

fn path(store: &Path, camera: &CameraId) -> PathBuf {
    store.join(FOLDER).join(format!("{camera}.files"))
}

/// Adds `files`; of a list that would get longer than twice `kept` entries, the newest `kept` stay.
fn append<'a>(path: &Path, files: impl Iterator<Item = &'a FileKey>, kept: u64) -> io::Result<()> {
    let added: Vec<u8> = files.flat_map(|file| file.0).collect();
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    // What a crash has cut off would shift all that comes after it.
    let whole = file.metadata()?.len() / ENTRY * ENTRY;
    if whole + added.len() as u64 > 2 * kept * ENTRY {
        file = shorten(path, whole, kept)?;
    } else {
        file.set_len(whole)?;
    }
    file.write_all(&added)?;
    file.sync_data()
}

/// Keeps the newest `kept` entries of the `whole` bytes.
fn shorten(path: &Path, whole: u64, kept: u64) -> io::Result<File> {
    let unfinished = path.with_extension("partial");
    let mut old = File::open(path)?;
    old.seek(SeekFrom::Start(whole.saturating_sub(kept * ENTRY)))?;
    let mut new = File::create(&unfinished)?;
    io::copy(&mut old.take(kept * ENTRY), &mut new)?;
    new.sync_data()?;
    fs::rename(&unfinished, path)?;
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(range: std::ops::Range<u64>) -> Vec<FileKey> {
        range.map(|n| FileKey(u128::from(n).to_le_bytes())).collect()
    }

    fn top() -> CameraId {
        "top".parse().unwrap()
    }

    fn remember_top(store: &Path, range: std::ops::Range<u64>) {
        remember(store, &[(top(), files(range))].into()).unwrap();
    }

    /// Those of `range` that are remembered.
    fn known(store: &Path, camera: &CameraId, range: std::ops::Range<u64>) -> Vec<FileKey> {
        let all = files(range);
        let mut unknown = all.iter().copied().collect();
        take_remembered(store, camera, &mut unknown).unwrap();
        all.into_iter().filter(|file| !unknown.contains(file)).collect()
    }

    #[test]
    fn the_newest_are_kept_and_the_list_stays_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        for n in 0..9 {
            append(&list, files(n * 30..(n + 1) * 30).iter(), 100).unwrap();
            let kept = fs::read(&list).unwrap();
            let newest: Vec<u8> = files(0..(n + 1) * 30).into_iter().flat_map(|file| file.0).collect();
            assert!(newest.ends_with(&kept), "{n}");
            assert!(kept.len() >= newest.len().min(1600) && kept.len() <= 3200, "{n}: {}", kept.len());
        }
    }

    #[test]
    fn each_camera_has_a_list_of_its_own() {
        let store = tempfile::tempdir().unwrap();
        assert_eq!(known(store.path(), &top(), 0..3), []);
        remember_top(store.path(), 0..3);
        assert_eq!(known(store.path(), &top(), 0..9), files(0..3));
        assert_eq!(known(store.path(), &"side".parse().unwrap(), 0..9), []);
    }

    #[test]
    fn what_is_there_already_is_not_written_again() {
        let store = tempfile::tempdir().unwrap();
        let written = |range| {
            remember_top(store.path(), range);
            fs::read(path(store.path(), &top())).unwrap()
        };
        let once = written(0..3);
        assert_eq!(written(0..3), once);
        assert_eq!(written(2..4).len(), once.len() + FileKey::BYTES);
    }

    #[test]
    fn an_entry_that_was_cut_off_costs_no_other() {
        let store = tempfile::tempdir().unwrap();
        remember_top(store.path(), 0..3);
        let path = path(store.path(), &top());
        let mut list = fs::read(&path).unwrap();
        list.truncate(list.len() - 5);
        fs::write(&path, list).unwrap();
        assert_eq!(known(store.path(), &top(), 0..9), files(0..2));
        remember_top(store.path(), 3..5);
        assert_eq!(known(store.path(), &top(), 0..9), [files(0..2), files(3..5)].concat());
    }
}

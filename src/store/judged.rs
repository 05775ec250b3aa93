//! Judged files that outlive their verdicts: when retention deletes a journal segment, the names of the files in it move
//! here, so that a watched folder's old files are not taken for new ones.
//!
//! One file of JSON lines per camera, the newest [`MAX_SOURCES`] at least. Written by the retention thread while a segment is
//! among the oldest, so that on a disk that is full by the time it must go its files are here already; read whenever a
//! camera is opened. A line that was cut off by a crash does not count: its segment is still there. Not here: the files whose verdicts are still in the journal (`history`, `index`).

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::MAX_SOURCES;
use super::segment::sync_folder;
use crate::frame::{CameraId, SourceRef};

/// The store's folder of these lists.
const FOLDER: &str = "judged";
/// Longer lines are damage.
const MAX_LINE: usize = 4096;

/// Adds files that were judged, durably. Those that are there already take no room.
pub(super) fn remember(store: &Path, files: &BTreeMap<CameraId, Vec<SourceRef>>) -> io::Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let folder = store.join(FOLDER);
    if !folder.is_dir() {
        fs::create_dir(&folder)?;
        sync_folder(store)?;
    }
    for (camera, files) in files {
        let path = path(store, camera);
        let known = lines(&path)?;
        let there: HashSet<&str> = known.iter().map(String::as_str).collect();
        let new = files.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
        let new: Vec<&String> = new.iter().filter(|line| !there.contains(line.as_str())).collect();
        if new.is_empty() {
            continue;
        }
        if known.len() + new.len() > 2 * MAX_SOURCES {
            rewrite(&folder, &path, &known)?;
        }
        let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
        // Ends a line that a crash has cut off.
        let mut text = vec![b'\n'];
        for line in new {
            text.extend(line.as_bytes());
            text.push(b'\n');
        }
        file.write_all(&text)?;
        file.sync_data()?;
    }
    sync_folder(&folder)
}

/// The files of `camera` that are remembered.
pub(super) fn recall(store: &Path, camera: &CameraId) -> io::Result<HashSet<SourceRef>> {
    let lines = lines(&path(store, camera))?;
    Ok(lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn path(store: &Path, camera: &CameraId) -> PathBuf {
    store.join(FOLDER).join(format!("{camera}.jsonl"))
}

/// The newest lines, at most twice [`MAX_SOURCES`]; none where there is no file.
fn lines(path: &Path) -> io::Result<VecDeque<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(VecDeque::new()),
        Err(error) => return Err(error),
    };
    let mut lines = VecDeque::new();
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        if line.is_empty() || line.len() > MAX_LINE {
            continue;
        }
        if lines.len() == 2 * MAX_SOURCES {
            lines.pop_front();
        }
        lines.extend(String::from_utf8(line));
    }
    Ok(lines)
}

/// Keeps the newest [`MAX_SOURCES`] lines.
fn rewrite(folder: &Path, path: &Path, lines: &VecDeque<String>) -> io::Result<()> {
    let unfinished = path.with_extension("partial");
    let mut file = BufWriter::new(File::create(&unfinished)?);
    for line in lines.iter().skip(lines.len().saturating_sub(MAX_SOURCES)) {
        writeln!(file, "{line}")?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()?;
    fs::rename(&unfinished, path)?;
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(range: std::ops::Range<u64>) -> Vec<SourceRef> {
        range.map(|n| SourceRef { name: format!("{n}.png"), bytes: n, modified_ns: 1 }).collect()
    }

    #[test]
    fn the_newest_are_kept_and_the_list_stays_bounded() {
        let store = tempfile::tempdir().unwrap();
        let top: CameraId = "top".parse().unwrap();
        assert!(recall(store.path(), &top).unwrap().is_empty());
        let step = MAX_SOURCES as u64 * 3 / 4;
        for n in 0..4 {
            remember(store.path(), &[(top.clone(), files(n * step..(n + 1) * step))].into()).unwrap();
        }
        let known = recall(store.path(), &top).unwrap();
        assert!((MAX_SOURCES..=2 * MAX_SOURCES).contains(&known.len()), "{}", known.len());
        assert!(files(4 * step - MAX_SOURCES as u64..4 * step).iter().all(|file| known.contains(file)));
        assert!(recall(store.path(), &"side".parse().unwrap()).unwrap().is_empty());
    }

    #[test]
    fn what_is_there_already_is_not_written_again() {
        let store = tempfile::tempdir().unwrap();
        let top: CameraId = "top".parse().unwrap();
        let written = |range| {
            remember(store.path(), &[(top.clone(), files(range))].into()).unwrap();
            fs::read(path(store.path(), &top)).unwrap()
        };
        let once = written(0..3);
        assert_eq!(written(0..3), once);
        assert!(written(2..4).len() > once.len());
        assert_eq!(lines(&path(store.path(), &top)).unwrap().len(), 4);
    }

    #[test]
    fn a_line_that_was_cut_off_costs_no_other() {
        let store = tempfile::tempdir().unwrap();
        let top: CameraId = "top".parse().unwrap();
        remember(store.path(), &[(top.clone(), files(0..3))].into()).unwrap();
        let path = path(store.path(), &top);
        let mut text = fs::read(&path).unwrap();
        text.truncate(text.len() - 5);
        fs::write(&path, text).unwrap();
        remember(store.path(), &[(top.clone(), files(3..5))].into()).unwrap();
        let known = recall(store.path(), &top).unwrap();
        assert_eq!(known, [files(0..2), files(3..5)].concat().into_iter().collect());
    }
}

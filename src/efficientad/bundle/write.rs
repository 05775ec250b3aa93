//! Writing bundles: a temporary folder beside the goal, synced, then exchanged with what is in its place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};

use super::{BundleError, CalibratedModel, MANIFEST_FILE, TENSORS_FILE, TrainedModel};
use crate::efficientad::normalisation::Normalisation;

/// What a temporary folder's name ends in: a bundle that is being written, and one that is being replaced.
const NEW: &str = "new";
const OLD: &str = "old";

pub(super) fn tensors_file(model: &TrainedModel, by: &Normalisation) -> Result<Vec<u8>, BundleError> {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut data: BTreeMap<&str, (Vec<usize>, Vec<u8>)> =
        model.weights.iter().map(|(name, w)| (name, (w.dims.clone(), bytes(&w.values)))).collect();
    data.insert("quantiles", (vec![4], bytes(&by.quantiles.to_array())));
    if let Some(usual) = &by.usual {
        let [rows, columns] = model.architecture.map_size();
        let both = [&usual.student_teacher[..], &usual.autoencoder_student].concat();
        data.insert("usual_maps", (vec![2, rows, columns], bytes(&both)));
    }
    let unusable = |e: safetensors::SafeTensorError| BundleError::Invalid(e.to_string());
    let views = data
        .iter()
        .map(|(name, (dims, bytes))| Ok((*name, TensorView::new(Dtype::F32, dims.clone(), bytes)?)))
        .collect::<Result<Vec<_>, _>>()
        .map_err(unusable)?;
    serialize(views, None).map_err(unusable)
}

pub(super) fn save(model: &CalibratedModel, goal: &Path) -> Result<(), BundleError> {
    let parent = match goal.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    check_replaceable(goal)?;
    fs::create_dir_all(parent).map_err(failed("create", parent))?;
    remove_leftovers(goal, parent)?;
    let fresh = beside(goal, NEW);
    let written = write_folder(model, &fresh).and_then(|()| put_in_place(&fresh, goal));
    if written.is_err() {
        let _first_error_counts = remove(&fresh);
    }
    written?;
    sync(parent)?;
    // After an exchange the old bundle has the temporary name.
    remove(&fresh)
}

/// Exchanges the two in one step where the file system can, so that a power cut leaves one of them under its name.
fn put_in_place(fresh: &Path, goal: &Path) -> Result<(), BundleError> {
    if !goal.exists() {
        return fs::rename(fresh, goal).map_err(failed("rename", fresh));
    }
    match renameat_with(CWD, fresh, CWD, goal, RenameFlags::EXCHANGE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => put_aside_and_rename(fresh, goal),
        done => done.map_err(|e| failed("exchange", fresh)(e.into())),
    }
}

/// For network file systems that cannot exchange: a folder cannot be renamed onto a full one.
fn put_aside_and_rename(fresh: &Path, goal: &Path) -> Result<(), BundleError> {
    let old = beside(goal, OLD);
    fs::rename(goal, &old).map_err(failed("rename", goal))?;
    fs::rename(fresh, goal).map_err(|source| {
        let _first_error_counts = fs::rename(&old, goal);
        BundleError::Io { action: "rename", path: fresh.to_owned(), source }
    })?;
    remove(&old)
}

/// Whether a bundle could be put at `goal`, as far as what is there is concerned.
pub(super) fn check_replaceable(goal: &Path) -> Result<(), BundleError> {
    let empty = || fs::read_dir(goal).is_ok_and(|mut entries| entries.next().is_none());
    if !goal.exists() || goal.join(MANIFEST_FILE).is_file() || empty() {
        return Ok(());
    }
    let message = "it exists and is no model bundle, so it is not overwritten: name another folder";
    let source = io::Error::new(io::ErrorKind::AlreadyExists, message);
    Err(BundleError::Io { action: "write", path: goal.to_owned(), source })
}

fn write_folder(model: &CalibratedModel, folder: &Path) -> Result<(), BundleError> {
    fs::create_dir(folder).map_err(failed("create", folder))?;
    let manifest =
        serde_json::to_vec_pretty(&model.manifest).map_err(|e| BundleError::Invalid(e.to_string()))?;
    for (name, bytes) in [(TENSORS_FILE, &model.file[..]), (MANIFEST_FILE, &manifest)] {
        let path = folder.join(name);
        let mut file = File::create(&path).map_err(failed("create", &path))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("write", &path))?;
    }
    sync(folder)
}

fn sync(folder: &Path) -> Result<(), BundleError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(failed("sync", folder))
}

fn remove(folder: &Path) -> Result<(), BundleError> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed("remove", folder)(e)),
        _ => Ok(()),
    }
}

fn beside(goal: &Path, suffix: &str) -> PathBuf {
    goal.with_file_name(format!("{}{}.{suffix}", leftover_prefix(goal), std::process::id()))
}

fn leftover_prefix(goal: &Path) -> String {
    let name = goal.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy());
    format!(".{name}.")
}

/// Removes what processes left that were killed while they wrote this bundle. One that was being replaced is put back
/// if nothing has taken its place.
fn remove_leftovers(goal: &Path, parent: &Path) -> Result<(), BundleError> {
    let prefix = leftover_prefix(goal);
    let entries = fs::read_dir(parent).map_err(failed("read", parent))?;
    for entry in entries {
        let path = entry.map_err(failed("read", parent))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some((process, suffix)) = name.strip_prefix(&prefix).and_then(|rest| rest.split_once('.')) else {
            continue;
        };
        let alive = process.parse().map_or(true, |id: u32| id != std::process::id() && is_alive(id));
        match suffix {
            _ if alive => {}
            OLD if !goal.exists() => fs::rename(&path, goal).map_err(failed("rename", &path))?,
            NEW | OLD => remove(&path)?,
            _ => {}
        }
    }
    Ok(())
}

fn is_alive(process: u32) -> bool {
    Path::new("/proc").join(process.to_string()).exists()
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { action, path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(parent: &Path, name: &str, content: &str) -> PathBuf {
        let folder = parent.join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(MANIFEST_FILE), content).unwrap();
        folder
    }

    fn content(folder: &Path) -> String {
        fs::read_to_string(folder.join(MANIFEST_FILE)).unwrap()
    }

    /// A process that is certainly gone.
    fn dead_process() -> u32 {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let id = child.id();
        child.wait().unwrap();
        id
    }

    #[test]
    fn a_new_bundle_takes_the_place_of_the_old_one_whole() {
        for put in [put_in_place, put_aside_and_rename] {
            let parent = tempfile::tempdir().unwrap();
            let goal = folder_with(parent.path(), "m", "old");
            fs::write(goal.join("further"), "file").unwrap();
            let fresh = folder_with(parent.path(), ".m.1.new", "new");
            put(&fresh, &goal).unwrap();
            assert_eq!(content(&goal), "new");
            assert!(!goal.join("further").exists());
        }
    }

    #[test]
    fn what_a_killed_process_left_is_cleared_and_what_another_writes_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let dead = dead_process();
        let goal = folder_with(parent.path(), "m", "current");
        let half = folder_with(parent.path(), &format!(".m.{dead}.new"), "half");
        let at_work = folder_with(parent.path(), ".m.1.new", "another process is writing");
        let others = folder_with(parent.path(), &format!(".other.{dead}.new"), "another bundle's");
        remove_leftovers(&goal, parent.path()).unwrap();
        assert!(!half.exists() && at_work.exists() && others.exists());
        assert_eq!(content(&goal), "current");
    }

    #[test]
    fn a_bundle_that_was_aside_at_a_crash_comes_back() {
        let parent = tempfile::tempdir().unwrap();
        let goal = parent.path().join("m");
        folder_with(parent.path(), &format!(".m.{}.old", dead_process()), "the only one");
        remove_leftovers(&goal, parent.path()).unwrap();
        assert_eq!(content(&goal), "the only one");
    }
}

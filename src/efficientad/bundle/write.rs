//! Writing bundles: a temporary folder beside the goal, synced, then renamed into place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};

use super::{BundleError, CalibratedModel, MANIFEST_FILE, TENSORS_FILE};
use crate::efficientad::maps::MapQuantiles;
use crate::efficientad::weights::Weights;

pub(super) fn tensors_file(weights: &Weights, quantiles: MapQuantiles) -> Result<Vec<u8>, BundleError> {
    let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let mut data: BTreeMap<&str, (Vec<usize>, Vec<u8>)> =
        weights.iter().map(|(name, w)| (name, (w.dims.clone(), bytes(&w.values)))).collect();
    data.insert("quantiles", (vec![4], bytes(&quantiles.to_array())));
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
    let fresh = beside(goal, "new");
    let old = beside(goal, "old");
    // Another process may have been killed here, with a name like ours.
    remove(&fresh)?;
    remove(&old)?;
    let written = write_folder(model, &fresh).and_then(|()| swap(&fresh, goal, &old));
    if written.is_err() {
        let _first_error_counts = remove(&fresh);
    }
    written?;
    sync(parent)?;
    remove(&old)
}

/// Moves a bundle that is in the way aside first, since a folder cannot be renamed onto a full one, and back if the
/// new one does not get its place.
fn swap(fresh: &Path, goal: &Path, old: &Path) -> Result<(), BundleError> {
    let replaces = goal.exists();
    if replaces {
        fs::rename(goal, old).map_err(failed("rename", goal))?;
    }
    fs::rename(fresh, goal).map_err(|source| {
        if replaces {
            let _first_error_counts = fs::rename(old, goal);
        }
        BundleError::Io { action: "rename", path: fresh.to_owned(), source }
    })
}

fn check_replaceable(goal: &Path) -> Result<(), BundleError> {
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
    let name = goal.file_name().map_or_else(|| "model".into(), |n| n.to_string_lossy());
    goal.with_file_name(format!(".{name}.{}.{suffix}", std::process::id()))
}

fn failed(action: &'static str, path: &Path) -> impl Fn(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Io { action, path: path.clone(), source }
}

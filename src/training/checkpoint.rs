//! A training interrupted at any moment goes on: weights, Adam's moments and the step, in one file.
//!
//! The file lies beside the bundle to be made and replaces its predecessor by a rename, so that a power cut leaves the
//! old one or the new one. It holds the plan of the training, and only the same plan is resumed. Not here: when one is
//! written (`session`).

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::durable;
use crate::efficientad::{PdnSize, Weight, Weights};
use crate::frame::Size;

/// The form of the file; raised when an older program's cannot be resumed.
const FORMAT: u32 = 1;
/// The key of the file's own description.
const METADATA: &str = "inspectord.checkpoint";
/// PDN-M with both moments takes 300 MB; room for twice its widths.
const MAX_BYTES: u64 = 2 << 30;

/// Why a checkpoint cannot be written, read or used.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("cannot {action} the checkpoint {path}: {source}")]
    Io {
        /// Read, write, …
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing to go on from.
    #[error("there is no checkpoint {0} to resume from: train without --resume")]
    Missing(PathBuf),
    /// There is one, and nobody asked for it.
    #[error(
        "the checkpoint {0} of an interrupted training is there: go on with --resume, or delete it to start anew"
    )]
    Unasked(PathBuf),
    /// It is not one, or damaged.
    #[error("{path} is no checkpoint that can be resumed: {message}; delete it and train without --resume")]
    Unusable {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// It is of another training.
    #[error(
        "the checkpoint {path} is of another training: {differences}; resume with the same options and pictures, or \
         delete it to start anew"
    )]
    OtherPlan {
        /// Which file.
        path: PathBuf,
        /// What was, and is.
        differences: String,
    },
}

/// All that decides a training's outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The networks.
    pub size: PdnSize,
    /// Their input.
    pub input: Size,
    /// Steps in all.
    pub steps: u64,
    /// The seed.
    pub seed: u64,
    /// The learning rate at first.
    pub learning_rate: f64,
    /// Digest of the training pictures.
    pub training_pictures: String,
    /// Digest of the held-out pictures.
    pub held_out_pictures: String,
    /// How training and held-out pictures are looked at, in words; none where they are seen whole and as they are.
    #[serde(default)]
    pub view: Option<String>,
    /// Digest of the penalty pictures, if there are any.
    pub penalty_pictures: Option<String>,
    /// Digest of the teacher.
    pub teacher: String,
    /// The training pictures that come more than once an epoch.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub again: Vec<usize>,
    /// The version of the model that it started from, if not anew.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub start: Option<String>,
}

impl Resumable for Plan {
    fn steps(&self) -> u64 {
        self.steps
    }
}

/// The plan of something long that can be interrupted: a map of all that decides its outcome.
pub trait Resumable: Serialize {
    /// Steps in all.
    fn steps(&self) -> u64;
}

/// What differs, for people; empty if nothing does.
fn differences(now: &Value, then: &Value) -> String {
    // What is left out where it is empty stands in one of them only.
    let keys: BTreeSet<&String> =
        [now, then].into_iter().filter_map(Value::as_object).flat_map(|fields| fields.keys()).collect();
    let different = keys.into_iter().filter(|key| now[key.as_str()] != then[key.as_str()]);
    let told =
        different.map(|key| format!("`{key}` was {} and is {}", then[key.as_str()], now[key.as_str()]));
    told.collect::<Vec<_>>().join(", ")
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    format: u32,
    plan: Value,
    step: u64,
}

/// Where the checkpoint of a training that is to make `bundle` lies.
pub fn path_for(bundle: &Path) -> PathBuf {
    let mut name = bundle.file_name().unwrap_or("model".as_ref()).to_owned();
    name.push(".checkpoint");
    bundle.with_file_name(name)
}

/// Writes the state after `step` steps of `plan`.
pub fn save(path: &Path, plan: &impl Resumable, step: u64, state: &Weights) -> Result<(), CheckpointError> {
    let unusable = |message: String| CheckpointError::Unusable { path: path.to_owned(), message };
    let description = serde_json::to_value(plan)
        .and_then(|plan| serde_json::to_string(&Description { format: FORMAT, plan, step }))
        .map_err(|e| unusable(e.to_string()))?;
    let tensors: Vec<(&str, &Weight, Vec<u8>)> = state
        .iter()
        .map(|(name, w)| (name, w, w.values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = tensors
        .iter()
        .map(|(name, w, bytes)| Ok((*name, TensorView::new(Dtype::F32, w.dims.clone(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|e| unusable(e.to_string()))?;
    let metadata = HashMap::from([(METADATA.to_owned(), description)]);
    let file = safetensors::serialize(views, Some(metadata)).map_err(|e| unusable(e.to_string()))?;

    let failed = |action| move |source| CheckpointError::Io { action, path: path.to_owned(), source };
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(failed("create the folder of"))?;
    durable::replace(path, &file).map_err(failed("write"))
}

/// Reads the state of `plan` and how many steps it had taken.
pub fn load(path: &Path, plan: &impl Resumable) -> Result<(Weights, u64), CheckpointError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => CheckpointError::Missing(path.to_owned()),
        _ => CheckpointError::Io { action: "read", path: path.to_owned(), source },
    };
    let unusable = |message: String| CheckpointError::Unusable { path: path.to_owned(), message };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > MAX_BYTES {
        return Err(unusable(format!("it has {bytes} bytes, and none needs more than {MAX_BYTES}")));
    }
    let file = fs::read(path).map_err(failed)?;
    let (_, header) = SafeTensors::read_metadata(&file).map_err(|e| unusable(e.to_string()))?;
    let description = header.metadata().as_ref().and_then(|m| m.get(METADATA));
    let description = description.ok_or_else(|| unusable("it is some other safetensors file".into()))?;
    let description: Description = serde_json::from_str(description)
        .map_err(|e| unusable(format!("its description is damaged: {e}")))?;
    if description.format != FORMAT {
        return Err(unusable(format!("its format is {}, this program's {FORMAT}", description.format)));
    }
    let plan_now = serde_json::to_value(plan).map_err(|e| unusable(e.to_string()))?;
    let differences = differences(&plan_now, &description.plan);
    if !differences.is_empty() {
        return Err(CheckpointError::OtherPlan { path: path.to_owned(), differences });
    }
    if description.step > plan.steps() {
        return Err(unusable(format!("it is at step {} of {}", description.step, plan.steps())));
    }
    let tensors = SafeTensors::deserialize(&file).map_err(|e| unusable(e.to_string()))?;
    let mut state = Weights::new();
    for (name, view) in tensors.iter() {
        let floats = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        state.insert(name, Weight { dims: view.shape().to_vec(), values: floats.collect() });
    }
    Ok((state, description.step))
}

/// Removes the checkpoint, whose training is done.
pub fn remove(path: &Path) -> Result<(), CheckpointError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(CheckpointError::Io { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            size: PdnSize::Tiny,
            input: Size::new(256, 256),
            steps: 100,
            seed: 1,
            learning_rate: 1e-4,
            training_pictures: "aa".into(),
            held_out_pictures: "bb".into(),
            view: None,
            penalty_pictures: None,
            teacher: "cc".into(),
            again: Vec::new(),
            start: None,
        }
    }

    fn state() -> Weights {
        let mut state = Weights::new();
        state.insert("w", Weight { dims: vec![2, 1], values: vec![0.1, -1e-30] });
        state
    }

    #[test]
    fn what_was_saved_comes_back_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = path_for(&folder.path().join("new/bottle"));
        assert!(path.ends_with("new/bottle.checkpoint"));
        assert!(matches!(load(&path, &plan()), Err(CheckpointError::Missing(_))));
        save(&path, &plan(), 7, &state()).unwrap();
        save(&path, &plan(), 8, &state()).unwrap();
        assert_eq!(load(&path, &plan()).unwrap(), (state(), 8));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
    }

    #[test]
    fn another_plan_is_refused_with_what_differs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        save(&path, &plan(), 8, &state()).unwrap();
        let other = Plan { seed: 2, training_pictures: "dd".into(), ..plan() };
        let error = load(&path, &other).unwrap_err().to_string();
        assert!(error.contains("`seed` was 1 and is 2") && error.contains("training_pictures"), "{error}");
        assert!(!error.contains("teacher"), "{error}");
        let (again, start) = (vec![1, 2], Some("3f9a".to_owned()));
        save(&path, &Plan { again, start, ..plan() }, 8, &state()).unwrap();
        let error = load(&path, &plan()).unwrap_err().to_string();
        assert!(error.contains("`again` was [1,2]") && error.contains("`start` was \"3f9a\""), "{error}");
    }

    #[test]
    fn damage_is_refused_at_every_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c");
        save(&path, &plan(), 8, &state()).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(matches!(load(&path, &plan()), Err(CheckpointError::Unusable { .. })), "{length}");
        }
    }
}

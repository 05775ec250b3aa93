//! A teacher on disk: f16 safetensors, `conv1.weight` to the last bias, with a note of how it was made.
//!
//! The file replaces its predecessor by a rename. Reading is `efficientad::parse_teacher`.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use half::f16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};
use serde::Serialize;

use super::error::DistillationError;
use crate::durable;
use crate::efficientad::Weights;

/// The one key of the file's metadata; its value is JSON, whose order, unlike a map's, is always the same.
const METADATA: &str = "inspectord.teacher";

/// Writes `weights` and how they were made, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, weights: &Weights, made: &impl Serialize) -> Result<(), DistillationError> {
    let failed = |source| DistillationError::Io { action: "write", path: path.to_owned(), source };
    let bytes = encode(weights, made).map_err(|e| failed(io::Error::other(e)))?;
    durable::replace(path, &bytes).map_err(failed)
}

fn encode(weights: &Weights, made: &impl Serialize) -> Result<Vec<u8>, SafeTensorError> {
    let half = |values: &[f32]| values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
    let data: Vec<(&str, &[usize], Vec<u8>)> =
        weights.iter().map(|(name, w)| (name, w.dims.as_slice(), half(&w.values))).collect();
    let views = data
        .iter()
        .map(|(name, dims, bytes)| Ok((*name, TensorView::new(Dtype::F16, dims.to_vec(), bytes)?)))
        .collect::<Result<Vec<_>, SafeTensorError>>()?;
    let made = serde_json::to_string(made).map_err(SafeTensorError::JsonError)?;
    safetensors::serialize(views, Some(HashMap::from([(METADATA.to_owned(), made)])))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::efficientad::{Architecture, PdnSize, initialise, parse_teacher};
    use crate::frame::Size;

    #[test]
    fn a_teacher_comes_back_as_f16_and_replaces_the_one_before() {
        let architecture = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("teacher.safetensors");
        for seed in [1, 2] {
            let weights = initialise::draw(&architecture.teacher_tensors(), seed);
            write(&path, &weights, &serde_json::json!({"seed": seed})).unwrap();
            let read = parse_teacher(&path, &fs::read(&path).unwrap(), &architecture).unwrap();
            for (name, weight) in weights.iter() {
                let back = &read.get(name).unwrap().values;
                assert!(weight.values.iter().zip(back).all(|(a, b)| f16::from_f32(*a).to_f32() == *b));
            }
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let missing = write(&folder.path().join("no/such"), &Weights::new(), &()).unwrap_err();
        assert!(missing.to_string().contains("no/such"));
    }
}

//! Reading bundles and teacher files: nothing is believed before its size, digest, shape and numbers are checked.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use super::{
    BundleError, CalibratedModel, MANIFEST_FILE, TENSORS_FILE, TrainedModel, check_numbers, check_usual,
};
use crate::efficientad::architecture::Architecture;
use crate::efficientad::manifest::{FORMAT, Manifest};
use crate::efficientad::maps::MapQuantiles;
use crate::efficientad::normalisation::UsualMaps;
use crate::efficientad::weights::{Weight, Weights, WeightsError};

/// PDN-M in f32 takes 150 MB; room for twice its widths.
const MAX_TENSORS_BYTES: u64 = 1 << 30;
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// The bytes of a teacher's file.
///
/// # Errors
/// The file is missing or too large.
pub fn read_teacher(path: &Path) -> Result<Vec<u8>, BundleError> {
    read_bounded(path, "teacher file", MAX_TENSORS_BYTES)
}

/// A teacher's file: `conv1.weight`, `conv1.bias`, … in f16 or f32; the names come back as they are, in f32. Errors
/// call it `path`.
///
/// # Errors
/// The bytes are no safetensors file, or do not fit `architecture`.
pub fn parse_teacher(path: &Path, bytes: &[u8], architecture: &Architecture) -> Result<Weights, BundleError> {
    parse_weights(path, bytes)?
        .select(&architecture.teacher_tensors())
        .map_err(|source| BundleError::Weights { path: path.to_owned(), source })
}

/// What the bundle in `folder` says about itself, without its tensors being looked at.
///
/// # Errors
/// The bundle or its manifest is missing, too large, of another format, or makes no sense.
pub fn load_manifest(folder: &Path) -> Result<Manifest, BundleError> {
    checked_manifest(folder, &read_manifest(folder)?)
}

pub(super) fn load(folder: &Path) -> Result<CalibratedModel, BundleError> {
    let manifest = read_manifest(folder)?;
    let tensors = read_bounded(&folder.join(TENSORS_FILE), "tensors file", MAX_TENSORS_BYTES)?;
    parse(folder, &manifest, tensors)
}

fn read_manifest(folder: &Path) -> Result<Vec<u8>, BundleError> {
    if !folder.is_dir() {
        return Err(BundleError::Missing { what: "model bundle", path: folder.to_owned() });
    }
    read_bounded(&folder.join(MANIFEST_FILE), "manifest", MAX_MANIFEST_BYTES)
}

fn checked_manifest(folder: &Path, bytes: &[u8]) -> Result<Manifest, BundleError> {
    let path = folder.join(MANIFEST_FILE);
    let manifest = parse_manifest(folder, &path, bytes)?;
    check_architecture(&path, &manifest)?;
    check_numbers(&manifest.quantiles, &manifest.calibration)?;
    Ok(manifest)
}

pub(super) fn parse(folder: &Path, manifest: &[u8], file: Vec<u8>) -> Result<CalibratedModel, BundleError> {
    let manifest = checked_manifest(folder, manifest)?;
    let path = folder.join(TENSORS_FILE);
    let got = sha256(&file);
    if got != manifest.tensors_sha256 {
        return Err(BundleError::Digest { path, expected: manifest.tensors_sha256, got });
    }
    let unfit = |source| BundleError::Weights { path: path.clone(), source };
    let mut weights = parse_weights(&path, &file)?;
    let quantiles =
        weights.remove("quantiles").ok_or_else(|| unfit(WeightsError::Missing("quantiles".into())))?;
    check_quantiles(folder, &manifest, &quantiles)?;
    let usual = weights.remove("usual_maps").map(|tensor| usual_maps(&tensor));
    check_usual(&manifest.architecture, usual.as_ref())?;
    let trained = TrainedModel::new(manifest.architecture.clone(), weights, manifest.training.clone())
        .map_err(unfit)?;
    Ok(CalibratedModel { trained, usual, manifest, file: file.into() })
}

fn usual_maps(tensor: &Weight) -> UsualMaps {
    let (student_teacher, autoencoder_student) = tensor.values.split_at(tensor.values.len() / 2);
    UsualMaps { student_teacher: student_teacher.to_vec(), autoencoder_student: autoencoder_student.to_vec() }
}

fn parse_manifest(folder: &Path, path: &Path, bytes: &[u8]) -> Result<Manifest, BundleError> {
    let broken =
        |e: serde_json::Error| BundleError::Manifest { path: path.to_owned(), message: e.to_string() };
    // Another format may lack or add any field, so its number is looked at before the rest.
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(broken)?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(got) if !(1..=u64::from(FORMAT)).contains(&got) => {
            Err(BundleError::Format { path: folder.to_owned(), expected: FORMAT, got })
        }
        _ => serde_json::from_value(value).map_err(broken),
    }
}

fn check_architecture(path: &Path, manifest: &Manifest) -> Result<(), BundleError> {
    manifest.architecture.check().map_err(|message| BundleError::Manifest { path: path.to_owned(), message })
}

fn check_quantiles(folder: &Path, manifest: &Manifest, tensor: &Weight) -> Result<(), BundleError> {
    let close = |a: f32, b: f32| (a - b).abs() <= 1e-6 * a.abs().max(b.abs());
    let stated = manifest.quantiles.to_array();
    match <[f32; 4]>::try_from(tensor.values.as_slice()).map(MapQuantiles::from_array) {
        Ok(q) if q.to_array().iter().zip(stated).all(|(&a, b)| close(a, b)) => Ok(()),
        _ => Err(BundleError::Manifest {
            path: folder.join(MANIFEST_FILE),
            message:
                "its quantiles are not those of its tensors: run `inspectord calibrate` instead of editing"
                    .into(),
        }),
    }
}

fn parse_weights(path: &Path, bytes: &[u8]) -> Result<Weights, BundleError> {
    let broken = |message: String| BundleError::Tensors { path: path.to_owned(), message };
    let tensors = SafeTensors::deserialize(bytes).map_err(|e| broken(e.to_string()))?;
    let mut weights = Weights::new();
    for (name, view) in tensors.iter() {
        let of_type = || broken(format!("tensor `{name}` is of type {:?}, not F32 or F16", view.dtype()));
        weights.insert(name, Weight::of(&view).ok_or_else(of_type)?);
    }
    Ok(weights)
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn read_bounded(path: &Path, what: &'static str, limit: u64) -> Result<Vec<u8>, BundleError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => BundleError::Missing { what, path: path.to_owned() },
        _ => BundleError::Io { action: "read", path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(failed)?;
    let too_large = |bytes| BundleError::TooLarge { path: path.to_owned(), bytes, limit };
    let length = file.metadata().map_err(failed)?.len();
    if length > limit {
        return Err(too_large(length));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    // The file may grow, or be a device without a length.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::untrained;
    use crate::efficientad::{Normalisation, PdnSize};
    use crate::frame::Size;

    fn model() -> CalibratedModel {
        untrained::model(&Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap(), 0)
    }

    #[test]
    fn what_is_usual_is_read_as_it_was_written_and_a_bundle_of_the_first_form_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let (model, path) = (model(), folder.path().join("model"));
        model.save(&path).unwrap();
        let read = CalibratedModel::load(&path).unwrap();
        assert!(read.normalisation().usual.is_some());
        assert_eq!(read.normalisation(), model.normalisation());

        let normalisation = Normalisation { usual: None, ..model.normalisation() };
        let calibration = model.manifest().calibration.clone();
        let old = model.into_trained().calibrate(normalisation, calibration).unwrap();
        let manifest = serde_json::to_string(old.manifest()).unwrap();
        let manifest = manifest.replacen(&format!("\"format\":{FORMAT}"), "\"format\":1", 1);
        let read = CalibratedModel::from_bytes(&path, manifest.as_bytes(), &old.file).unwrap();
        assert_eq!((read.manifest().format, &read.normalisation().usual), (1, &None));
    }

    #[test]
    fn what_is_usual_on_other_maps_is_refused() {
        let model = model();
        let mut normalisation = model.normalisation();
        normalisation.usual.as_mut().unwrap().student_teacher.pop();
        let calibration = model.manifest().calibration.clone();
        let refused = model.into_trained().calibrate(normalisation, calibration).unwrap_err().to_string();
        assert!(refused.contains("56 rows of 56"), "{refused}");
    }
}

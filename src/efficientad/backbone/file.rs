//! Reading a backbone's file, which came from anywhere: its size is bounded and its numbers are checked when used.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use safetensors::SafeTensors;
use sha2::{Digest, Sha256};

use super::BackboneError;
use crate::efficientad::weights::{Weight, Weights};

/// WideResNet-101-2 takes 508 MB in f32.
const MAX_BYTES: u64 = 1 << 30;

pub(super) fn read(path: &Path) -> Result<Weights, BackboneError> {
    let failed = |source: io::Error| BackboneError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let unusable = |message: String| BackboneError::Format { path: path.to_owned(), message };
    if !metadata.is_file() {
        return Err(unusable("it is a folder or a device".into()));
    }
    if metadata.len() > MAX_BYTES {
        return Err(unusable(format!("it has {} bytes, and at most {MAX_BYTES} are read", metadata.len())));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02") {
        let remedy = "it is a PyTorch checkpoint: convert its state_dict with safetensors.torch.save_file";
        return Err(unusable(remedy.into()));
    }
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| unusable(e.to_string()))?;
    let mut weights = Weights::new();
    for (name, view) in tensors.iter() {
        // Counters of batches are not needed; a weight of such a type is reported as missing.
        if let Some(weight) = Weight::of(&view) {
            weights.insert(name, weight);
        }
    }
    Ok(weights)
}

/// The first 16 hex digits of the SHA-256 of all names and numbers.
pub(super) fn digest(weights: &Weights) -> String {
    let mut hash = Sha256::new();
    let mut bytes = Vec::new();
    for (name, weight) in weights.iter() {
        hash.update(name.as_bytes());
        bytes.clear();
        bytes.extend(weight.values.iter().flat_map(|v| v.to_le_bytes()));
        hash.update(&bytes);
    }
    hash.finalize().iter().take(8).map(|b| format!("{b:02x}")).collect()
}

/// A few names, for a message.
pub(super) fn summary(weights: &Weights) -> String {
    let names: Vec<&str> = weights.iter().map(|(name, _)| name).take(4).collect();
    match names.as_slice() {
        [] => "no f32 or f16 tensor".into(),
        names => {
            let short = |n: &&str| format!("`{}`", n.chars().take(60).collect::<String>());
            let more = if weights.iter().nth(4).is_some() { ", …" } else { "" };
            format!("{}{more}", names.iter().map(short).collect::<Vec<_>>().join(", "))
        }
    }
}

//! The teacher in training: never changed, measured once over the training pictures, and remembered where memory
//! allows, since its features of an unchanged picture are the same at every epoch.
//!
//! In: teacher weights from wherever, training pictures. Out: features normalised per channel (paper §3.1). Owned by
//! the training thread. Not here: making a teacher by distillation.

use std::path::Path;

use candle_core::{Device, Result, Tensor, bail};

use super::error::TrainingError;
use super::pictures::Pictures;
use crate::efficientad::{
    Architecture, BundleError, CalibratedModel, Pdn, Weights, initialise, input, parse_teacher, read_teacher,
    sha256, statistics,
};
use crate::frame::Picture;

/// Channels that do not vary over the training pictures are divided by this rather than by zero.
const LEAST_STD: f32 = 1e-6;

/// A teacher's weights, and what the manifest says of their origin.
#[derive(Debug, Clone)]
pub struct TeacherSource {
    /// `conv1.weight`, `conv1.bias`, …
    pub weights: Weights,
    /// The SHA-256 of its file in hexadecimal, or how it was drawn.
    pub origin: String,
}

impl TeacherSource {
    /// A teacher's file.
    ///
    /// # Errors
    /// It is missing, damaged, or not of this architecture.
    pub fn file(path: &Path, architecture: &Architecture) -> std::result::Result<Self, BundleError> {
        Self::bytes(path, &read_teacher(path)?, architecture)
    }

    /// The content of a teacher's file, which errors call `name`.
    ///
    /// # Errors
    /// It is damaged, or not of this architecture.
    pub fn bytes(
        name: &Path,
        bytes: &[u8],
        architecture: &Architecture,
    ) -> std::result::Result<Self, BundleError> {
        let weights = parse_teacher(name, bytes, architecture)?;
        Ok(Self { weights, origin: sha256(bytes) })
    }

    /// The teacher that `model` was trained with, which every bundle carries.
    pub fn of(model: &CalibratedModel) -> Self {
        let mut weights = Weights::new();
        for (name, weight) in model.weights().iter() {
            if let Some(name) = name.strip_prefix("teacher.") {
                weights.insert(name, weight.clone());
            }
        }
        Self { weights, origin: model.manifest().training.teacher.clone() }
    }

    /// A teacher that was never taught: for trying things out, since a random network describes patches, too, but
    /// poorly.
    pub fn random(architecture: &Architecture, seed: u64) -> Self {
        let weights = initialise::draw(&architecture.teacher_tensors(), seed);
        Self { weights, origin: format!("random, seed {seed}") }
    }
}

/// The teacher network with its channel statistics and memory.
#[derive(Debug)]
pub(super) struct Teacher {
    network: Pdn,
    mean: Tensor,
    std: Tensor,
    kept: Vec<Option<Tensor>>,
    room: u64,
    device: Device,
}

impl Teacher {
    /// The teacher of `weights`, not measured yet, with `room` bytes to remember features of `pictures` pictures.
    pub(super) fn new(
        architecture: &Architecture,
        weights: &Weights,
        device: &Device,
        pictures: usize,
        room: u64,
    ) -> Result<Self> {
        let network = Pdn::new(&architecture.teacher(), weights.var_builder(device)?)?;
        let channels = (1, architecture.features, 1, 1);
        let dtype = candle_core::DType::F32;
        let (mean, std) = (Tensor::zeros(channels, dtype, device)?, Tensor::ones(channels, dtype, device)?);
        Ok(Self { network, mean, std, kept: vec![None; pictures], room, device: device.clone() })
    }

    /// Measures mean and standard deviation per channel over all `pictures`; `tell` hears how many of how many
    /// passes over a picture are done, and may end it.
    pub(super) fn measure(
        &mut self,
        pictures: &mut Pictures,
        tell: &mut dyn FnMut(usize, usize) -> std::result::Result<(), TrainingError>,
    ) -> std::result::Result<(), TrainingError> {
        let count = pictures.len();
        let (mut failure, mut done) = (None, 0);
        let measured = statistics::channel_statistics(count, |index| {
            let told = tell(done, 2 * count);
            done += 1;
            let picture = match told.and_then(|()| pictures.get(index)) {
                Ok(picture) => picture,
                Err(e) => {
                    failure = Some(e);
                    bail!("stopped, or a training picture cannot be read")
                }
            };
            self.raw(index, &picture)
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        let (mean, mut std) = measured?;
        std.iter_mut().for_each(|s| *s = s.max(LEAST_STD));
        self.set_statistics(&mean, &std)?;
        Ok(())
    }

    /// Takes the statistics as they were measured before.
    pub(super) fn set_statistics(&mut self, mean: &[f32], std: &[f32]) -> Result<()> {
        let channels = |values: &[f32]| Tensor::from_slice(values, (1, values.len(), 1, 1), &self.device);
        (self.mean, self.std) = (channels(mean)?, channels(std)?);
        Ok(())
    }

    /// Copies `teacher_mean` and `teacher_std` into `weights`.
    pub(super) fn save_statistics(&self, weights: &mut Weights) -> Result<()> {
        weights.insert_tensor("teacher_mean", &self.mean.flatten_all()?)?;
        weights.insert_tensor("teacher_std", &self.std.flatten_all()?)
    }

    /// Normalised features `[1, C, h, w]` of the training picture at `index`.
    pub(super) fn of_training_picture(&mut self, index: usize, picture: &Picture) -> Result<Tensor> {
        let raw = self.raw(index, picture)?;
        self.normalise(&raw)
    }

    /// Normalised features of any pictures `x [b, 3, H, W]`.
    pub(super) fn of(&self, x: &Tensor) -> Result<Tensor> {
        self.normalise(&self.network.forward(x)?)
    }

    fn normalise(&self, raw: &Tensor) -> Result<Tensor> {
        raw.broadcast_sub(&self.mean)?.broadcast_div(&self.std)
    }

    fn raw(&mut self, index: usize, picture: &Picture) -> Result<Tensor> {
        if let Some(features) = &self.kept[index] {
            return Ok(features.clone());
        }
        let features = self.network.forward(&input::normalise(&[picture], &self.device)?)?;
        let bytes = (features.elem_count() * features.dtype().size_in_bytes()) as u64;
        if bytes <= self.room {
            self.room -= bytes;
            self.kept[index] = Some(features.clone());
        }
        Ok(features)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::efficientad::PdnSize;
    use crate::frame::Size;
    use crate::training::pictures::View;

    #[test]
    fn whoever_watches_may_end_the_measuring_before_the_next_picture() {
        let size = Size::new(256, 256);
        let tiny = Architecture::new(PdnSize::Tiny, size).unwrap();
        let source = TeacherSource::random(&tiny, 1);
        let mut teacher = Teacher::new(&tiny, &source.weights, &Device::Cpu, 1, 0).unwrap();
        let mut pictures = Pictures::new(vec!["never/read.png".into()], View::Line(Box::default()), size, 0);
        let measured = teacher.measure(&mut pictures, &mut |_, _| Err(TrainingError::Unstarted));
        assert!(matches!(measured, Err(TrainingError::Unstarted)));
    }
}

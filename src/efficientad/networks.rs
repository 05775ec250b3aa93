//! The three networks of one detector together: the reference that every engine is held against.
//!
//! In: normalised pictures `[b, 3, H, W]`. Out: raw maps `[b, H/4−8, W/4−8]`. Not here: trainable variables
//! (`training`), quantiles and threshold (`bundle`).

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;

use super::architecture::Architecture;
use super::autoencoder::Autoencoder;
use super::maps;
use super::pdn::Pdn;
use super::weights::Weights;

/// Teacher, student, autoencoder, and what normalises the teacher.
#[derive(Debug, Clone)]
pub struct Networks {
    /// Describes a patch as pretraining taught it; never trained here.
    pub teacher: Pdn,
    /// Predicts the teacher (first half of its channels) and the autoencoder (second half).
    pub student: Pdn,
    /// Predicts the teacher from the whole picture.
    pub autoencoder: Autoencoder,
    /// The teacher's channel means over the training pictures, `[1, C, 1, 1]`.
    pub teacher_mean: Tensor,
    /// The teacher's channel standard deviations, `[1, C, 1, 1]`.
    pub teacher_std: Tensor,
}

impl Networks {
    /// Constants from `weights` with all of [`Architecture::model_tensors`].
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(architecture: &Architecture, weights: &Weights, device: &Device) -> Result<Self> {
        Self::from_builder(architecture, weights.var_builder(device)?)
    }

    /// From any source of tensors.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn from_builder(architecture: &Architecture, vb: VarBuilder) -> Result<Self> {
        let channels = |name| vb.get(architecture.features, name)?.reshape((1, architecture.features, 1, 1));
        Ok(Self {
            teacher: Pdn::new(&architecture.teacher(), vb.pp("teacher"))?,
            student: Pdn::new(&architecture.student(), vb.pp("student"))?,
            autoencoder: Autoencoder::new(architecture, vb.pp("autoencoder"))?,
            teacher_mean: channels("teacher_mean")?,
            teacher_std: channels("teacher_std")?,
        })
    }

    /// The teacher's features of `x [b, 3, H, W]`, normalised per channel: `[b, C, H/4−8, W/4−8]`.
    pub fn normalised_teacher(&self, x: &Tensor) -> Result<Tensor> {
        self.teacher.forward(x)?.broadcast_sub(&self.teacher_mean)?.broadcast_div(&self.teacher_std)
    }

    /// The raw student–teacher and autoencoder–student maps of `x [b, 3, H, W]`, each `[b, H/4−8, W/4−8]`.
    pub fn raw_maps(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let teacher = self.normalised_teacher(x)?;
        let student = self.student.forward(x)?;
        let student_teacher = maps::student_teacher(&teacher, &student)?;
        let autoencoder = self.autoencoder.forward(x, None)?;
        Ok((student_teacher, maps::autoencoder_student(&autoencoder, &student)?))
    }
}

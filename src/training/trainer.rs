//! One training step: forward, four losses, backward, Adam (paper §3.2, §3.3; batch 1).
//!
//! In: the step's pictures. Out: its losses, and networks a little better. Owned by the training thread. Not here:
//! which pictures (`schedule`), the loop around it (`session`).

use candle_core::{Device, Result, Tensor};
use candle_nn::{VarBuilder, VarMap};
use rand_chacha::ChaCha8Rng;

use super::adam::Adam;
use super::loss::{LossValues, Losses, Outputs, Visible};
use super::schedule::Pace;
use super::teacher::Teacher;
use crate::efficientad::{Architecture, Autoencoder, Pdn, Weights, initialise, input};
use crate::frame::Picture;

/// What one step looks at.
#[derive(Debug)]
pub(super) struct StepPictures<'a> {
    /// Which training picture it is.
    pub(super) index: usize,
    /// The training picture.
    pub(super) training: &'a Picture,
    /// The same with its colours changed.
    pub(super) augmented: &'a Picture,
    /// What of the training picture counts; all of it where there is none.
    pub(super) visible: Option<&'a Visible>,
    /// A picture of something else.
    pub(super) penalty: Option<&'a Picture>,
}

/// The networks in training.
#[derive(Debug)]
pub(super) struct Trainer {
    teacher: Teacher,
    student: Pdn,
    autoencoder: Autoencoder,
    features: usize,
    adam: Adam,
    device: Device,
}

impl Trainer {
    /// Networks that begin with `weights`, all of [`Architecture::trained_tensors`].
    pub(super) fn new(
        architecture: &Architecture,
        teacher: Teacher,
        weights: Weights,
        device: &Device,
    ) -> Result<Self> {
        let variables: VarMap = initialise::variables(&weights, device)?;
        let vb = VarBuilder::from_varmap(&variables, candle_core::DType::F32, device);
        Ok(Self {
            teacher,
            student: Pdn::new(&architecture.student(), vb.pp("student"))?,
            autoencoder: Autoencoder::new(architecture, vb.pp("autoencoder"))?,
            features: architecture.features,
            adam: Adam::new(&variables)?,
            device: device.clone(),
        })
    }

    /// The teacher, to be measured.
    pub(super) fn teacher_mut(&mut self) -> &mut Teacher {
        &mut self.teacher
    }

    /// One step.
    pub(super) fn step(
        &mut self,
        pictures: &StepPictures,
        pace: Pace,
        dropout: &mut ChaCha8Rng,
    ) -> Result<LossValues> {
        let outputs = self.outputs(pictures, dropout)?;
        let losses = Losses::of(&outputs, pictures.visible, pace.hard_share)?;
        let values = losses.values()?;
        // Gradients of a broken loss would spoil every weight; the caller stops on it.
        if values.broken().is_none() {
            self.adam.step(&losses.total()?.backward()?, pace.learning_rate)?;
        }
        Ok(values)
    }

    fn outputs(&mut self, pictures: &StepPictures, dropout: &mut ChaCha8Rng) -> Result<Outputs> {
        let teacher = self.teacher.of_training_picture(pictures.index, pictures.training)?;
        let augmented = input::normalise(&[pictures.augmented], &self.device)?;
        let augmented_teacher = self.teacher.of(&augmented)?;
        // The student sees all its pictures in one batch, which fills the machine better than three.
        let mut batch = vec![input::normalise(&[pictures.training], &self.device)?];
        if let Some(penalty) = pictures.penalty {
            batch.push(input::normalise(&[penalty], &self.device)?);
        }
        let plain = batch.len();
        batch.push(augmented.clone());
        let (first, second) = self.student.forward_halves(&Tensor::cat(&batch, 0)?, plain)?;
        Ok(Outputs {
            teacher,
            student: first.narrow(0, 0, 1)?,
            penalty: pictures.penalty.map(|_| first.narrow(0, 1, 1)).transpose()?,
            augmented_teacher,
            augmented_student: second,
            autoencoder: self.autoencoder.forward(&augmented, Some(dropout))?,
        })
    }

    /// Steps taken.
    pub(super) fn steps(&self) -> u64 {
        self.adam.steps()
    }

    /// All that changes: networks, moments, the teacher's statistics.
    pub(super) fn state(&self) -> Result<Weights> {
        let mut state = Weights::new();
        self.adam.save(&mut state)?;
        self.teacher.save_statistics(&mut state)?;
        Ok(state)
    }

    /// Goes on from `state` after `steps`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub(super) fn restore(&mut self, state: &Weights, steps: u64) -> Result<()> {
        self.adam.restore(state, steps)?;
        let channels = |name: &str| match state.get(name) {
            Some(w) if w.values.len() == self.features => Ok(&w.values),
            _ => candle_core::bail!("tensor `{name}` is missing or has another shape"),
        };
        let (mean, std) = (channels("teacher_mean")?, channels("teacher_std")?);
        self.teacher.set_statistics(mean, std)
    }
}

//! One step of a distillation: targets, forward with the paddings of distillation, mean squared error, Adam.
//!
//! In: a batch of views. Out: its loss, and a network a little better. Owned by the distilling thread.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};

use super::crops::View;
use super::options::Options;
use super::target::Target;
use crate::efficientad::{Pdn, Weights, initialise, input};
use crate::training::adam::Adam;

/// Pixels that go through the network at once on a CPU, four pictures of the paper's size: memory grows with them, 0.3 GB
/// a picture for the medium network.
const PIXELS_AT_ONCE_ON_CPU: usize = 4 * 256 * 256;
/// Positions at each border of the padded map whose patches reach beyond the picture.
const BORDER: usize = 4;

/// The network in training.
pub(super) struct Distiller {
    target: Target,
    network: Pdn,
    variables: Vec<Var>,
    adam: Adam,
    padded: bool,
    device: Device,
}

impl Distiller {
    /// A network that begins with `start`, or fresh from the options' seed.
    pub(super) fn new(
        options: &Options,
        target: Target,
        start: Option<&Weights>,
        device: &Device,
    ) -> Result<Self> {
        let architecture = options.architecture();
        let variables: VarMap = match start {
            Some(weights) => initialise::variables(weights, device)?,
            None => {
                let drawn = initialise::draw(&architecture.teacher_tensors(), options.seed);
                initialise::variables(&drawn, device)?
            }
        };
        let vb = VarBuilder::from_varmap(&variables, DType::F32, device);
        Ok(Self {
            target,
            network: Pdn::new(&architecture.teacher(), vb)?,
            adam: Adam::new(&variables)?,
            variables: variables.all_vars(),
            padded: options.padded,
            device: device.clone(),
        })
    }

    /// Steps taken.
    pub(super) fn steps(&self) -> u64 {
        self.adam.steps()
    }

    /// One step; the loss is the mean squared error of normalised descriptors. One that is not finite changes nothing.
    pub(super) fn step(&mut self, views: &[View], learning_rate: f64) -> Result<f32> {
        let pixels = views.first().map_or(1, |view| view.small.size().pixels() as usize);
        let at_once =
            if self.device.is_cpu() { (PIXELS_AT_ONCE_ON_CPU / pixels).max(1) } else { views.len() };
        let mut total = 0.0;
        let mut gradients: Option<GradStore> = None;
        for part in views.chunks(at_once) {
            let share = part.len() as f64 / views.len() as f64;
            let loss = (self.loss(part)? * share)?;
            total += loss.to_scalar::<f32>()?;
            let mut new = loss.backward()?;
            if let Some(sum) = gradients.take() {
                for variable in &self.variables {
                    if let (Some(a), Some(b)) = (sum.get(variable), new.get(variable)) {
                        let both = (a + b)?;
                        new.insert(variable, both);
                    }
                }
            }
            gradients = Some(new);
        }
        if let Some(gradients) = gradients.filter(|_| total.is_finite()) {
            self.adam.step(&gradients, learning_rate)?;
        }
        Ok(total)
    }

    fn loss(&self, views: &[View]) -> Result<Tensor> {
        let large: Vec<_> = views.iter().map(|v| &v.large).collect();
        let small: Vec<_> = views.iter().map(|v| &v.small).collect();
        let target = self.target.of(&large)?.detach();
        let small = input::normalise(&small, &self.device)?;
        if self.padded {
            return (self.network.forward_padded(&small)? - target)?.sqr()?.mean_all();
        }
        let described = self.network.forward(&small)?;
        let (_, _, height, width) = described.dims4()?;
        let target = target.narrow(2, BORDER, height)?.narrow(3, BORDER, width)?;
        (described - target)?.sqr()?.mean_all()
    }

    /// All that changes: the network, Adam's moments, the target's statistics.
    pub(super) fn state(&self) -> Result<Weights> {
        let mut state = Weights::new();
        self.adam.save(&mut state)?;
        self.target.save(&mut state)?;
        Ok(state)
    }

    /// Goes on from `state` after `steps`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub(super) fn restore(&mut self, state: &Weights, steps: u64) -> Result<()> {
        self.adam.restore(state, steps)
    }
}

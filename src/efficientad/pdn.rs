//! The patch description network: teacher and student alike (paper §3.1, table 6).
//!
//! In: normalised pictures `[b, 3, H, W]`. Out: features `[b, C, H/4−8, W/4−8]`, or `[b, C, H/4, W/4]` with the
//! paddings of distillation. Owned by whoever trains or infers. Not here: the widths (`architecture`).

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;

use super::architecture::PdnLayer;
use super::ops::{Features, Layer};

/// A patch description network whose tensors are `conv1.weight`, `conv1.bias`, `conv2.weight`, …
#[derive(Debug, Clone)]
pub struct Pdn {
    layers: Vec<(PdnLayer, Tensor, Tensor)>,
}

fn chain(mut x: Features, layers: &[(PdnLayer, Tensor, Tensor)], padded: bool) -> Result<Features> {
    for (layer, weight, bias) in layers {
        let what = Layer {
            stride: 1,
            padding: if padded { layer.distillation_padding } else { 0 },
            relu: layer.relu,
            pool: layer.pool.then_some(usize::from(padded)),
        };
        x = x.layer(weight, bias, what)?;
    }
    Ok(x)
}

impl Pdn {
    /// Takes its weights from `vb`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(layers: &[PdnLayer], vb: VarBuilder) -> Result<Self> {
        let load = |(i, layer): (usize, &PdnLayer)| {
            let vb = vb.pp(format!("conv{}", i + 1));
            let weight = vb.get((layer.output, layer.input, layer.kernel, layer.kernel), "weight")?;
            Ok((*layer, weight, vb.get(layer.output, "bias")?))
        };
        let layers = layers.iter().enumerate().map(load).collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// Features of `x [b, 3, H, W]`, one per patch of 33×33 pixels: `[b, C, H/4−8, W/4−8]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, false)
    }

    /// Features with the paddings that distillation uses: `[b, C, H/4, W/4]`.
    pub fn forward_padded(&self, x: &Tensor) -> Result<Tensor> {
        self.run(x, true)
    }

    /// The first half of the channels for the first `first` pictures of `x [b, 3, H, W]`, and the second half for the
    /// others: `[first, C/2, H/4−8, W/4−8]` and `[b−first, C/2, …]`.
    ///
    /// A student in training is asked for no more (paper §3.2–3.3), and its last layer is half of its work.
    pub fn forward_halves(&self, x: &Tensor, first: usize) -> Result<(Tensor, Tensor)> {
        let Some(((layer, weight, bias), before)) = self.layers.split_last() else {
            bail!("a network without layers: this is a bug")
        };
        let (x, half) = (chain(Features::new(x)?, before, false)?, layer.output / 2);
        let part = |rows: usize, count: usize, channel: usize| {
            let (weight, bias) = (weight.narrow(0, channel, half)?, bias.narrow(0, channel, half)?);
            let x = x.map(|x| x.narrow(0, rows, count))?;
            chain(x, &[(*layer, weight, bias)], false)?.into_tensor()
        };
        let others = x.batch()?.saturating_sub(first);
        Ok((part(0, first, 0)?, part(first, others, half)?))
    }

    fn run(&self, x: &Tensor, padded: bool) -> Result<Tensor> {
        chain(Features::new(x)?, &self.layers, padded)?.into_tensor()
    }
}

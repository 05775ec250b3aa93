//! The patch description network: teacher and student alike (paper §3.1, table 6).
//!
//! In: normalised pictures `[b, 3, H, W]`. Out: features `[b, C, H/4−8, W/4−8]`, or `[b, C, H/4, W/4]` with the
//! paddings of distillation. Owned by whoever trains or infers. Not here: the widths (`architecture`).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::architecture::PdnLayer;
use super::ops::{Features, Layer};

/// A patch description network whose tensors are `conv1.weight`, `conv1.bias`, `conv2.weight`, …
#[derive(Debug, Clone)]
pub struct Pdn {
    layers: Vec<(PdnLayer, Tensor, Tensor)>,
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

    fn run(&self, x: &Tensor, padded: bool) -> Result<Tensor> {
        let mut x = Features::new(x)?;
        for (layer, weight, bias) in &self.layers {
            let what = Layer {
                stride: 1,
                padding: if padded { layer.distillation_padding } else { 0 },
                relu: layer.relu,
                pool: layer.pool.then_some(usize::from(padded)),
            };
            x = x.layer(weight, bias, what)?;
        }
        x.into_tensor()
    }
}

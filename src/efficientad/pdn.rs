//! The patch description network: teacher and student alike (paper §3.1, table 6).
//!
//! In: normalised pictures `[b, 3, H, W]`. Out: features `[b, C, H/4−8, W/4−8]`, or `[b, C, H/4, W/4]` with the
//! paddings of distillation. Owned by whoever trains or infers. Not here: the widths (`architecture`).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

use super::architecture::PdnLayer;
use super::ops;

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
        let mut x = x.clone();
        for (layer, weight, bias) in &self.layers {
            let padding = if padded { layer.distillation_padding } else { 0 };
            x = ops::conv2d(&x, weight, Some(bias), 1, padding)?;
            if layer.relu {
                x = x.relu()?;
            }
            if layer.pool {
                x = ops::avg_pool2(&x, usize::from(padded))?;
            }
        }
        Ok(x)
    }
}

//! The autoencoder that learns the picture's layout as a whole (paper §3.3, table 7).
//!
//! In: normalised pictures `[b, 3, H, W]`. Out: a guess at the teacher's features, `[b, C, H/4−8, W/4−8]`.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use rand::RngCore;

use super::architecture::{Architecture, ConvShape};
use super::ops::{Features, Layer};

/// Share of the decoder's activations that training silences (paper table 7).
const DROPOUT: f64 = 0.2;

/// The encoder `enconv1` … `enconv6` and the decoder `deconv1` … `deconv8`.
#[derive(Debug, Clone)]
pub struct Autoencoder {
    encoder: Vec<Conv>,
    decoder: Vec<Conv>,
    sizes: [[usize; 2]; 7],
}

#[derive(Debug, Clone)]
struct Conv {
    shape: ConvShape,
    weight: Tensor,
    bias: Tensor,
}

impl Conv {
    fn new(shape: ConvShape, vb: VarBuilder) -> Result<Self> {
        let weight = vb.get((shape.output, shape.input, shape.kernel, shape.kernel), "weight")?;
        let bias = vb.get(shape.output, "bias")?;
        Ok(Self { shape, weight, bias })
    }

    fn forward(&self, x: &Features) -> Result<Features> {
        let ConvShape { stride, padding, relu, .. } = self.shape;
        x.layer(&self.weight, &self.bias, Layer { stride, padding, relu, pool: None })
    }
}

impl Autoencoder {
    /// Takes its weights from `vb`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(architecture: &Architecture, vb: VarBuilder) -> Result<Self> {
        let load = |name: &str, shapes: &[ConvShape]| {
            let conv = |(i, shape): (usize, &ConvShape)| Conv::new(*shape, vb.pp(format!("{name}{}", i + 1)));
            shapes.iter().enumerate().map(conv).collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            encoder: load("enconv", &architecture.encoder())?,
            decoder: load("deconv", &architecture.decoder())?,
            sizes: architecture.decoder_sizes(),
        })
    }

    /// Its guess for `x [b, 3, H, W]`: `[b, C, H/4−8, W/4−8]`. With `dropout`, a fifth of the decoder's activations
    /// is silenced as the generator says; that is for training only.
    pub fn forward(&self, x: &Tensor, mut dropout: Option<&mut dyn RngCore>) -> Result<Tensor> {
        let mut x = Features::new(x)?;
        for conv in &self.encoder {
            x = conv.forward(&x)?;
        }
        for (i, conv) in self.decoder.iter().enumerate() {
            if let Some(&[rows, columns]) = self.sizes.get(i) {
                x = x.resize(rows, columns)?;
            }
            x = conv.forward(&x)?;
            // The last two convolutions, after the resize to the map's size, have no dropout.
            if i + 2 < self.decoder.len()
                && let Some(rng) = dropout.as_deref_mut()
            {
                x = x.drop_out(DROPOUT, rng.next_u64())?;
            }
        }
        x.into_tensor()
    }
}

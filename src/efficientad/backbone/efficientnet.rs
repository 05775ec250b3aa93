//! EfficientNet-Lite0 with the names of the PyTorch port (`_conv_stem`, `_blocks.N._expand_conv`, …), up to block 10.

use candle_core::{Device, Result, Tensor, bail};

use super::BackboneError;
use super::activation::Activation;
use super::conv::{Conv, Folding, Padding, Plan};
use crate::efficientad::input;
use crate::frame::Picture;

/// Blocks in a row, kernel, stride of the first, expansion, output channels.
const STAGES: [(usize, usize, usize, usize, usize); 5] =
    [(1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112)];
const STEM_CHANNELS: usize = 32;
/// The last blocks at an eighth and at a sixteenth of the picture's side.
const FEATURE_BLOCKS: [usize; 2] = [4, 10];

#[derive(Debug, Clone)]
struct Block {
    expand: Option<Conv>,
    depthwise: Conv,
    project: Conv,
    residual: bool,
}

#[derive(Debug, Clone)]
pub(super) struct EfficientNetLite0 {
    stem: Conv,
    blocks: Vec<Block>,
}

impl EfficientNetLite0 {
    pub(super) fn new(folding: &mut Folding<'_>) -> std::result::Result<Self, BackboneError> {
        let plan = |stride, activation| Plan { stride, padding: Padding::Same, activation };
        let stem =
            folding.conv(["_conv_stem", "_bn0"], [STEM_CHANNELS, 3, 3, 3], plan(2, Activation::Relu6))?;
        let (mut blocks, mut input) = (Vec::new(), STEM_CHANNELS);
        for (repeats, kernel, first_stride, expansion, output) in STAGES {
            for repeat in 0..repeats {
                let stride = if repeat == 0 { first_stride } else { 1 };
                let block = blocks.len();
                let name = |part: &str| format!("_blocks.{block}.{part}");
                let mut conv =
                    |conv: &str, norm: &str, dims, plan| folding.conv([&name(conv), &name(norm)], dims, plan);
                let wide = input * expansion;
                let pointwise = plan(1, Activation::Relu6);
                let expand = match expansion {
                    1 => None,
                    _ => Some(conv("_expand_conv", "_bn0", [wide, input, 1, 1], pointwise)?),
                };
                let depthwise = [wide, 1, kernel, kernel];
                blocks.push(Block {
                    expand,
                    depthwise: conv("_depthwise_conv", "_bn1", depthwise, plan(stride, Activation::Relu6))?,
                    project: conv("_project_conv", "_bn2", [output, wide, 1, 1], plan(1, Activation::None))?,
                    residual: stride == 1 && input == output,
                });
                input = output;
            }
        }
        Ok(Self { stem, blocks })
    }

    pub(super) fn features(&self, x: &Tensor) -> Result<[Tensor; 2]> {
        let mut x = self.stem.forward(x)?;
        let mut features = Vec::with_capacity(2);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x)?;
            if FEATURE_BLOCKS.contains(&i) {
                features.push(x.clone());
            }
        }
        match <[Tensor; 2]>::try_from(features) {
            Ok(features) => Ok(features),
            Err(_) => bail!("both feature blocks lie inside the network: this is a bug"),
        }
    }
}

impl Block {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = match &self.expand {
            Some(expand) => expand.forward(x)?,
            None => x.clone(),
        };
        let y = self.project.forward(&self.depthwise.forward(&wide)?)?;
        if self.residual { y + x } else { Ok(y) }
    }
}

/// Pictures as (value − 127) / 128.
pub(super) fn input(pictures: &[&Picture], device: &Device) -> Result<Tensor> {
    input::batch(pictures, device, |rgb, planes| {
        for (channel, plane) in planes.chunks_exact_mut((rgb.len() / 3).max(1)).enumerate() {
            for (out, pixel) in plane.iter_mut().zip(rgb.chunks_exact(3)) {
                *out = (f32::from(pixel[channel]) - 127.0) / 128.0;
            }
        }
    })
}

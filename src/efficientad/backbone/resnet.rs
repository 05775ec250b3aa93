//! ResNets with torchvision's names (`conv1`, `layer1.0.conv1`, `layer1.0.downsample.0`, …), up to layer 3.

use candle_core::{Result, Tensor};

use super::BackboneError;
use super::activation::Activation;
use super::conv::{Conv, Folding, Padding, Plan};
use crate::efficientad::weights::Weights;

const STEM_CHANNELS: usize = 64;
/// Output channels of a bottleneck, by its layer's basic width.
const BOTTLENECK_EXPANSION: usize = 4;

/// What tells one ResNet from another.
#[derive(Debug, Clone, Copy)]
pub(super) struct ResNetShape {
    /// Whether its blocks are bottlenecks of three convolutions.
    pub(super) bottleneck: bool,
    /// Blocks of layers 1 to 3.
    pub(super) blocks: [usize; 3],
    /// Channels of the 3×3 convolutions of layer 1.
    pub(super) width: usize,
}

impl ResNetShape {
    /// Whether the weights have this depth and width; what they hold beyond layer 3 does not matter.
    pub(super) fn fits(&self, weights: &Weights) -> bool {
        let has = |name: String| weights.get(&name).is_some();
        let layers = self.blocks.iter().enumerate().all(|(i, blocks)| {
            let conv = |block: usize| has(format!("layer{}.{block}.conv1.weight", i + 1));
            conv(blocks - 1) && !conv(*blocks)
        });
        let width = weights.get("layer1.0.conv1.weight").is_some_and(|w| w.dims.first() == Some(&self.width));
        layers && width && has("layer1.0.conv3.weight".into()) == self.bottleneck
    }
}

#[derive(Debug, Clone)]
struct Block {
    convs: Vec<Conv>,
    downsample: Option<Conv>,
}

#[derive(Debug, Clone)]
pub(super) struct ResNet {
    stem: Conv,
    layers: [Vec<Block>; 3],
}

impl ResNet {
    pub(super) fn new(
        shape: &ResNetShape,
        folding: &mut Folding<'_>,
    ) -> std::result::Result<Self, BackboneError> {
        let stem = folding.conv(
            ["conv1", "bn1"],
            [STEM_CHANNELS, 3, 7, 7],
            Plan { stride: 2, padding: Padding::Even(3), activation: Activation::Relu },
        )?;
        let mut layers = [Vec::new(), Vec::new(), Vec::new()];
        let mut input = STEM_CHANNELS;
        for (i, layer) in layers.iter_mut().enumerate() {
            let output = (STEM_CHANNELS << i) * if shape.bottleneck { BOTTLENECK_EXPANSION } else { 1 };
            for block in 0..shape.blocks[i] {
                let stride = if block == 0 && i > 0 { 2 } else { 1 };
                let name = format!("layer{}.{block}", i + 1);
                let channels = [input, shape.width << i, output];
                layer.push(Block::new(&name, channels, stride, shape.bottleneck, folding)?);
                input = output;
            }
        }
        Ok(Self { stem, layers })
    }

    pub(super) fn features(&self, x: &Tensor) -> Result<[Tensor; 2]> {
        // After ReLU a zero is the least value, so padding with zeros is the pool's own padding.
        let x = self.stem.forward(x)?.pad_with_zeros(2, 1, 1)?.pad_with_zeros(3, 1, 1)?;
        let x = x.max_pool2d_with_stride(3, 2)?;
        let run = |x: Tensor, layer: &[Block]| layer.iter().try_fold(x, |x, block| block.forward(&x));
        let second = run(run(x, &self.layers[0])?, &self.layers[1])?;
        let third = run(second.clone(), &self.layers[2])?;
        Ok([second, third])
    }
}

impl Block {
    fn new(
        name: &str,
        [input, width, output]: [usize; 3],
        stride: usize,
        bottleneck: bool,
        folding: &mut Folding<'_>,
    ) -> std::result::Result<Self, BackboneError> {
        let mut conv = |i: usize, dims: [usize; 4], stride, activation| {
            let plan = Plan { stride, padding: Padding::Even(dims[2] / 2), activation };
            folding.conv([&format!("{name}.conv{i}"), &format!("{name}.bn{i}")], dims, plan)
        };
        let convs = if bottleneck {
            vec![
                conv(1, [width, input, 1, 1], 1, Activation::Relu)?,
                conv(2, [width, width, 3, 3], stride, Activation::Relu)?,
                conv(3, [output, width, 1, 1], 1, Activation::None)?,
            ]
        } else {
            vec![
                conv(1, [output, input, 3, 3], stride, Activation::Relu)?,
                conv(2, [output, output, 3, 3], 1, Activation::None)?,
            ]
        };
        let downsample = if stride != 1 || input != output {
            let names = [&*format!("{name}.downsample.0"), &*format!("{name}.downsample.1")];
            let plan = Plan { stride, padding: Padding::Even(0), activation: Activation::None };
            Some(folding.conv(names, [output, input, 1, 1], plan)?)
        } else {
            None
        };
        Ok(Self { convs, downsample })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.convs.iter().try_fold(x.clone(), |x, conv| conv.forward(&x))?;
        let shortcut = match &self.downsample {
            Some(downsample) => downsample.forward(x)?,
            None => x.clone(),
        };
        (y + shortcut)?.relu()
    }
}

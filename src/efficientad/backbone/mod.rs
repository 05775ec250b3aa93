//! Backbones that a teacher is distilled from: pretrained classifiers, up to the two layers whose features count.
//!
//! In: a safetensors file with the names that its ecosystem uses, and pictures. Out: two feature maps, at an eighth and
//! a sixteenth of the picture's side. Inference only; batch normalisation is folded into the convolutions when the
//! file is read. Owned by whoever distils. Not here: training (`training::distillation`).

mod activation;
mod conv;
mod cpu;
mod efficientnet;
mod file;
mod neighbourhood;
mod resnet;

use std::fmt;
use std::path::{Path, PathBuf};

use candle_core::{Device, Result, Tensor};
use thiserror::Error;

use self::conv::Folding;
use self::efficientnet::EfficientNetLite0;
use self::resnet::{ResNet, ResNetShape};
use super::input;
use super::weights::{Weights, WeightsError};
use crate::frame::Picture;

pub use neighbourhood::Describer;

/// A classifier whose features can be distilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackboneKind {
    /// EfficientNet-Lite0; outputs of blocks 4 and 10 (40 and 112 channels).
    EfficientNetLite0,
    /// ResNet-18; outputs of layers 2 and 3 (128 and 256 channels).
    ResNet18,
    /// ResNet-50; outputs of layers 2 and 3 (512 and 1024 channels).
    ResNet50,
    /// WideResNet-50-2; outputs of layers 2 and 3 (512 and 1024 channels).
    WideResNet50,
    /// WideResNet-101-2, the paper's; outputs of layers 2 and 3 (512 and 1024 channels).
    WideResNet101,
}

impl BackboneKind {
    const RESNETS: [Self; 4] = [Self::ResNet18, Self::ResNet50, Self::WideResNet50, Self::WideResNet101];

    /// The kind that has these weights, going by names and shapes.
    fn of(weights: &Weights) -> Option<Self> {
        if weights.get("_conv_stem.weight").is_some() {
            return Some(Self::EfficientNetLite0);
        }
        Self::RESNETS.into_iter().find(|kind| kind.resnet().is_some_and(|shape| shape.fits(weights)))
    }

    fn resnet(self) -> Option<ResNetShape> {
        let shape = |bottleneck, blocks, width| ResNetShape { bottleneck, blocks, width };
        match self {
            Self::EfficientNetLite0 => None,
            Self::ResNet18 => Some(shape(false, [2, 2, 2], 64)),
            Self::ResNet50 => Some(shape(true, [3, 4, 6], 64)),
            Self::WideResNet50 => Some(shape(true, [3, 4, 6], 128)),
            Self::WideResNet101 => Some(shape(true, [3, 4, 23], 128)),
        }
    }

    /// Channels of the two feature maps.
    pub fn channels(self) -> [usize; 2] {
        match self {
            Self::EfficientNetLite0 => [40, 112],
            Self::ResNet18 => [128, 256],
            Self::ResNet50 | Self::WideResNet50 | Self::WideResNet101 => [512, 1024],
        }
    }
}

impl fmt::Display for BackboneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EfficientNetLite0 => "EfficientNet-Lite0",
            Self::ResNet18 => "ResNet-18",
            Self::ResNet50 => "ResNet-50",
            Self::WideResNet50 => "WideResNet-50-2",
            Self::WideResNet101 => "WideResNet-101-2",
        })
    }
}

/// Why a file is no backbone.
#[derive(Debug, Error)]
pub enum BackboneError {
    /// It cannot be read.
    #[error("cannot read the backbone {path}: {source}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no safetensors file.
    #[error("the backbone {path} is no safetensors file: {message}", path = path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong, with the remedy.
        message: String,
    },
    /// Its tensors are none that are known.
    #[error(
        "the weights are of no known backbone; expected EfficientNet-Lite0 (`_conv_stem.weight`, \
         `_blocks.0._depthwise_conv.weight`, …) or torchvision's ResNet-18, ResNet-50, WideResNet-50-2 or \
         WideResNet-101-2 (`conv1.weight`, `layer1.0.conv1.weight`, …), found {found}"
    )]
    Unknown {
        /// What is there instead.
        found: String,
    },
    /// A tensor does not fit the backbone that the others make.
    #[error("the weights look like {kind}, but {source}")]
    Weights {
        /// What the others make.
        kind: BackboneKind,
        /// What does not fit.
        source: WeightsError,
    },
    /// The device failed.
    #[error("the backbone could not be put on the device: {0}")]
    Device(#[from] candle_core::Error),
}

#[derive(Debug, Clone)]
enum Network {
    EfficientNet(EfficientNetLite0),
    ResNet(ResNet),
}

/// A pretrained classifier, up to its second feature layer.
#[derive(Debug, Clone)]
pub struct Backbone {
    kind: BackboneKind,
    network: Network,
    digest: String,
    device: Device,
}

impl Backbone {
    /// Reads a safetensors file, f32 or f16; which backbone it holds is seen from its tensors.
    ///
    /// # Errors
    /// [`BackboneError`], which says what was expected.
    pub fn load(path: &Path, device: &Device) -> std::result::Result<Self, BackboneError> {
        Self::new(file::read(path)?, device)
    }

    /// The backbone that `weights` make.
    ///
    /// # Errors
    /// They make none.
    pub fn new(weights: Weights, device: &Device) -> std::result::Result<Self, BackboneError> {
        let Some(kind) = BackboneKind::of(&weights) else {
            return Err(BackboneError::Unknown { found: file::summary(&weights) });
        };
        let digest = file::digest(&weights);
        let mut folding = Folding::new(kind, weights, device);
        let network = match kind.resnet() {
            None => Network::EfficientNet(EfficientNetLite0::new(&mut folding)?),
            Some(shape) => Network::ResNet(ResNet::new(&shape, &mut folding)?),
        };
        Ok(Self { kind, network, digest, device: device.clone() })
    }

    /// Which one it is.
    pub fn kind(&self) -> BackboneKind {
        self.kind
    }

    /// Tells its weights from others: the first 16 hex digits of their SHA-256.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Pictures of one size as this backbone was trained to see them: `[b, 3, H, W]`, f32.
    ///
    /// # Errors
    /// There is none, or their sizes differ.
    pub fn input(&self, pictures: &[&Picture]) -> Result<Tensor> {
        match self.kind {
            BackboneKind::EfficientNetLite0 => efficientnet::input(pictures, &self.device),
            _ => input::normalise(pictures, &self.device),
        }
    }

    /// The two feature maps of `x [b, 3, H, W]`, sides multiples of 16: `[b, C₁, H/8, W/8]` and `[b, C₂, H/16, W/16]`.
    ///
    /// # Errors
    /// The device failed.
    pub fn features(&self, x: &Tensor) -> Result<[Tensor; 2]> {
        match &self.network {
            Network::EfficientNet(network) => network.features(x),
            Network::ResNet(network) => network.features(x),
        }
    }
}

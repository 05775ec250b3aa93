//! The shapes of the networks: layers, widths and sizes, without a single weight.
//!
//! Paper §3.1 and table 6; the input-size rule follows the reference implementation. Not here: arithmetic
//! (`pdn`, `autoencoder`), files (`bundle`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::frame::Size;

/// One convolution of a patch description network: stride 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PdnLayer {
    /// Kernel side.
    pub kernel: usize,
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Padding when a teacher is distilled; inspection and training on normals use none.
    pub distillation_padding: usize,
    /// Whether ReLU follows.
    pub relu: bool,
    /// Whether a 2/2 average pool follows.
    pub pool: bool,
}

/// One convolution of the autoencoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// Kernel side.
    pub kernel: usize,
    /// Input channels.
    pub input: usize,
    /// Output channels.
    pub output: usize,
    /// Pixels from one output to the next.
    pub stride: usize,
    /// Zeros around the input, on each side.
    pub padding: usize,
    /// Whether ReLU follows.
    pub relu: bool,
}

/// The name and shape that a tensor of the model must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorShape {
    /// Its name, such as `student.conv1.weight`.
    pub name: String,
    /// Its dimensions: `[output, input, kernel, kernel]` of a weight, `[output]` of a bias.
    pub dims: Vec<usize>,
}

impl TensorShape {
    /// How many numbers it holds.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

/// Which patch description network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PdnSize {
    /// PDN-S at a quarter of its widths: for tests, the demo and the smallest boxes.
    Tiny,
    /// The paper's PDN-S.
    Small,
    /// The paper's PDN-M.
    Medium,
}

impl fmt::Display for PdnSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tiny => "tiny",
            Self::Small => "small",
            Self::Medium => "medium",
        })
    }
}

impl FromStr for PdnSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "tiny" => Ok(Self::Tiny),
            "small" => Ok(Self::Small),
            "medium" => Ok(Self::Medium),
            other => Err(format!("`{other}` is no network size: use tiny, small or medium")),
        }
    }
}

/// Everything that fixes the shape of a detector's tensors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Architecture {
    /// Which network.
    pub size: PdnSize,
    /// The first two convolutions' widths (the second is repeated up to the last but one, or two).
    pub widths: [usize; 2],
    /// Channels of the teacher's output; the student has twice as many.
    pub features: usize,
    /// The autoencoder's first two encoder widths, and its width everywhere else.
    pub autoencoder_widths: [usize; 2],
    /// The size of the pictures that the networks read.
    pub input: Size,
}

/// An input size for which the networks are not defined.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "the networks cannot read pictures of {0}: each side must be a multiple of 4 from {min} to {max}",
    min = Architecture::MIN_SIDE,
    max = Architecture::MAX_SIDE
)]
pub struct IllegalInput(pub Size);

impl Architecture {
    /// The smallest legal input side, in pixels: below it the encoder's last, 8-wide valid convolution has no output.
    pub const MIN_SIDE: u32 = 256;
    /// The largest legal input side, in pixels.
    pub const MAX_SIDE: u32 = 2048;
    /// The most channels a layer may have.
    pub const MAX_WIDTH: usize = 1024;
    /// The patch description networks' total stride: one map cell is 4 pixels of the input.
    pub const STRIDE: u32 = 4;
    /// Map cells that the valid convolutions eat on each side; the map is padded by as many.
    pub const MAP_PADDING: usize = 4;

    /// The architecture the project trains at `size` for pictures of `input`.
    pub fn new(size: PdnSize, input: Size) -> Result<Self, IllegalInput> {
        let side = |s: u32| (Self::MIN_SIDE..=Self::MAX_SIDE).contains(&s) && s.is_multiple_of(4);
        if !side(input.width) || !side(input.height) {
            return Err(IllegalInput(input));
        }
        let (widths, features, autoencoder_widths) = match size {
            PdnSize::Tiny => ([32, 64], 96, [8, 16]),
            PdnSize::Small => ([128, 256], 384, [32, 64]),
            PdnSize::Medium => ([256, 512], 384, [32, 64]),
        };
        Ok(Self { size, widths, features, autoencoder_widths, input })
    }

    /// Whether an architecture that came from outside can be built: legal input, widths that fit in memory.
    ///
    /// # Errors
    /// Says which number is out of bounds.
    pub fn check(&self) -> Result<(), String> {
        Self::new(self.size, self.input).map_err(|e| e.to_string())?;
        let [a, b] = self.widths;
        let [c, d] = self.autoencoder_widths;
        for width in [a, b, self.features, c, d] {
            if !(1..=Self::MAX_WIDTH).contains(&width) {
                return Err(format!("a layer of {width} channels: legal are 1 to {}", Self::MAX_WIDTH));
            }
        }
        Ok(())
    }

    /// The teacher's layers, in order; `conv1` is the first.
    pub fn teacher(&self) -> Vec<PdnLayer> {
        self.pdn(self.features)
    }

    /// The student's layers: twice the teacher's output channels.
    pub fn student(&self) -> Vec<PdnLayer> {
        self.pdn(2 * self.features)
    }

    fn pdn(&self, output: usize) -> Vec<PdnLayer> {
        let [a, b] = self.widths;
        // kernel, output channels, padding while a teacher is distilled
        let table: &[(usize, usize, usize)] = match self.size {
            PdnSize::Tiny | PdnSize::Small => &[(4, a, 3), (4, b, 3), (3, b, 1), (4, output, 0)],
            PdnSize::Medium => &[(4, a, 3), (4, b, 3), (1, b, 0), (3, b, 1), (4, output, 0), (1, output, 0)],
        };
        let mut input = 3;
        let last = table.len() - 1;
        let layer = |(i, &(kernel, output, distillation_padding)): (usize, &(usize, usize, usize))| {
            let from = std::mem::replace(&mut input, output);
            PdnLayer { kernel, input: from, output, distillation_padding, relu: i < last, pool: i < 2 }
        };
        table.iter().enumerate().map(layer).collect()
    }

    /// The autoencoder's convolutions `enconv1` … `enconv6` (paper table 7).
    pub fn encoder(&self) -> [ConvShape; 6] {
        let [a, b] = self.autoencoder_widths;
        let halving =
            |input, output| ConvShape { kernel: 4, input, output, stride: 2, padding: 1, relu: true };
        let bottleneck = ConvShape { kernel: 8, input: b, output: b, stride: 1, padding: 0, relu: false };
        [halving(3, a), halving(a, a), halving(a, b), halving(b, b), halving(b, b), bottleneck]
    }

    /// The autoencoder's convolutions `deconv1` … `deconv8` (paper table 7).
    pub fn decoder(&self) -> [ConvShape; 8] {
        let b = self.autoencoder_widths[1];
        let conv =
            |kernel, padding, output, relu| ConvShape { kernel, input: b, output, stride: 1, padding, relu };
        let growing = conv(4, 2, b, true);
        let [g1, g2, g3, g4, g5, g6] = [growing; 6];
        [g1, g2, g3, g4, g5, g6, conv(3, 1, b, true), conv(3, 1, self.features, false)]
    }

    /// The teacher's tensors, without the prefix `teacher.`: what a teacher file holds.
    pub fn teacher_tensors(&self) -> Vec<TensorShape> {
        pdn_tensors("", &self.teacher())
    }

    /// The tensors that training changes: `student.…` and `autoencoder.…`.
    pub fn trained_tensors(&self) -> Vec<TensorShape> {
        let mut tensors = pdn_tensors("student.", &self.student());
        for (part, convs) in [("enconv", &self.encoder()[..]), ("deconv", &self.decoder()[..])] {
            for (i, c) in convs.iter().enumerate() {
                let name = format!("autoencoder.{part}{}", i + 1);
                tensors.extend(conv_tensors(&name, [c.output, c.input, c.kernel]));
            }
        }
        tensors
    }

    /// Every tensor of a trained model: teacher, its channel statistics, student and autoencoder.
    pub fn model_tensors(&self) -> Vec<TensorShape> {
        let mut tensors = pdn_tensors("teacher.", &self.teacher());
        let channels = |name: &str| TensorShape { name: name.to_owned(), dims: vec![self.features] };
        tensors.extend([channels("teacher_mean"), channels("teacher_std")]);
        tensors.extend(self.trained_tensors());
        tensors
    }

    /// The anomaly map's rows and columns: 56 at 256.
    pub fn map_size(&self) -> [usize; 2] {
        let side = |s: u32| (s / Self::STRIDE) as usize - 2 * Self::MAP_PADDING;
        [side(self.input.height), side(self.input.width)]
    }

    /// The sides `[rows, columns]` that the autoencoder's decoder resizes to before each of its first seven
    /// convolutions: 3, 8, 15, 32, 63, 127 and 56 at 256.
    pub fn decoder_sizes(&self) -> [[usize; 2]; 7] {
        let sides = |s: u32| {
            let s = s as usize;
            [s / 64 - 1, s / 32, s / 16 - 1, s / 8, s / 4 - 1, s / 2 - 1, s / 4 - 8]
        };
        let (rows, columns) = (sides(self.input.height), sides(self.input.width));
        std::array::from_fn(|i| [rows[i], columns[i]])
    }
}

fn pdn_tensors(prefix: &str, layers: &[PdnLayer]) -> Vec<TensorShape> {
    let tensors = |(i, l): (usize, &PdnLayer)| {
        conv_tensors(&format!("{prefix}conv{}", i + 1), [l.output, l.input, l.kernel])
    };
    layers.iter().enumerate().flat_map(tensors).collect()
}

fn conv_tensors(name: &str, [output, input, kernel]: [usize; 3]) -> [TensorShape; 2] {
    [
        TensorShape { name: format!("{name}.weight"), dims: vec![output, input, kernel, kernel] },
        TensorShape { name: format!("{name}.bias"), dims: vec![output] },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_at_256_are_the_papers() {
        let a = Architecture::new(PdnSize::Small, Size::new(256, 256)).unwrap();
        assert_eq!(a.map_size(), [56, 56]);
        assert_eq!(a.decoder_sizes().map(|[rows, _]| rows), [3, 8, 15, 32, 63, 127, 56]);
        assert_eq!(a.student().last().unwrap().output, 768);
        let m = Architecture::new(PdnSize::Medium, Size::new(256, 256)).unwrap();
        assert_eq!(m.teacher().iter().map(|l| l.kernel).collect::<Vec<_>>(), [4, 4, 1, 3, 4, 1]);
    }

    #[test]
    fn an_input_the_decoder_cannot_reach_is_refused() {
        assert!(Architecture::new(PdnSize::Tiny, Size::new(252, 256)).is_err());
        assert!(Architecture::new(PdnSize::Tiny, Size::new(256, 258)).is_err());
        assert!(Architecture::new(PdnSize::Tiny, Size::new(300, 416)).is_ok());
    }
}

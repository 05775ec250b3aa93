//! From a backbone's two feature maps to what the teacher learns: one descriptor per patch (paper, appendix; PatchCore).
//!
//! The 3×3 neighbourhood of each feature is flattened and adaptively average-pooled, the second map is resized to the
//! first one's grid, and both together are pooled to the teacher's channels. All of that is linear, so each map's share
//! is one 3×3 convolution with fixed weights.

use candle_core::{Device, Result, Tensor};

use super::{Backbone, BackboneKind};
use crate::efficientad::ops;
use crate::frame::Picture;

const NEIGHBOURHOOD: usize = 3;
/// A neighbourhood longer than this is first pooled to it, as the paper's descriptors are.
const DESCRIPTOR: usize = 1024;

/// A backbone that describes patches with as many channels as a teacher has.
#[derive(Debug, Clone)]
pub struct Describer {
    backbone: Backbone,
    pools: [Tensor; 2],
    features: usize,
}

impl Describer {
    /// Descriptors of `features` channels (an even number; half come from each layer).
    ///
    /// # Errors
    /// The device failed.
    pub fn new(backbone: Backbone, features: usize) -> Result<Self> {
        let [first, second] = backbone.kind().channels();
        let pool = |channels| pooling(channels, features / 2, backbone.device());
        Ok(Self { pools: [pool(first)?, pool(second)?], backbone, features })
    }

    /// Which backbone describes.
    pub fn kind(&self) -> BackboneKind {
        self.backbone.kind()
    }

    /// Channels of a descriptor.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Descriptors of pictures of one size, whose sides are multiples of 16: `[b, features, H/8, W/8]`, f32, not
    /// normalised.
    ///
    /// # Errors
    /// Pictures differ in size, or the device failed.
    pub fn describe(&self, pictures: &[&Picture]) -> Result<Tensor> {
        let x = self.backbone.input(pictures)?;
        if !x.device().is_cpu() {
            return self.descriptors(&x);
        }
        // Picture by picture: the widest maps then stay below the allocator's limit for memory that it keeps.
        let each = (0..pictures.len()).map(|i| self.descriptors(&x.narrow(0, i, 1)?));
        Tensor::cat(&each.collect::<Result<Vec<_>>>()?, 0)
    }

    /// The same for `x [b, 3, H, W]`, prepared by [`Backbone::input`].
    ///
    /// # Errors
    /// The device failed.
    pub fn descriptors(&self, x: &Tensor) -> Result<Tensor> {
        let [first, second] = self.backbone.features(x)?;
        let pool = |x: &Tensor, weight| ops::conv2d(x, weight, None, 1, NEIGHBOURHOOD / 2);
        let first = pool(&first, &self.pools[0])?;
        let (_, _, rows, columns) = first.dims4()?;
        let second = ops::resize_bilinear(&pool(&second, &self.pools[1])?, rows, columns)?;
        Tensor::cat(&[first, second], 1)
    }
}

/// The convolution `[outputs, channels, 3, 3]` that flattens neighbourhoods (channel by channel) and pools them.
fn pooling(channels: usize, outputs: usize, device: &Device) -> Result<Tensor> {
    let flat = channels * NEIGHBOURHOOD * NEIGHBOURHOOD;
    // Half of a descriptor of 384: the teacher of the smallest size pools the larger ones' channels once more.
    let mut stages = vec![flat];
    stages.extend([DESCRIPTOR, LARGEST_HALF].into_iter().filter(|&n| n < flat && n > outputs));
    stages.push(outputs);
    let mut matrix = averages(stages[0], stages[1]);
    for pair in stages[1..].windows(2) {
        matrix = product(&averages(pair[0], pair[1]), &matrix);
    }
    let values: Vec<f32> = matrix.into_iter().flatten().map(|v| v as f32).collect();
    Tensor::from_vec(values, (outputs, channels, NEIGHBOURHOOD, NEIGHBOURHOOD), device)
}

/// Half the channels of the paper's teachers.
const LARGEST_HALF: usize = 192;

/// Adaptive average pooling from `from` to `to` values as a matrix of `to` rows (PyTorch's `adaptive_avg_pool1d`).
fn averages(from: usize, to: usize) -> Vec<Vec<f64>> {
    let row = |i: usize| {
        let (start, end) = (i * from / to, ((i + 1) * from).div_ceil(to));
        let share = 1.0 / (end - start) as f64;
        (0..from).map(|j| if (start..end).contains(&j) { share } else { 0.0 }).collect()
    };
    (0..to).map(row).collect()
}

/// `a · b`, where the rows of `a` are mostly zeros.
fn product(a: &[Vec<f64>], b: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let row = |weights: &Vec<f64>| {
        let mut sum = vec![0.0; b[0].len()];
        for (&weight, row) in weights.iter().zip(b).filter(|(w, _)| **w != 0.0) {
            sum.iter_mut().zip(row).for_each(|(s, v)| *s += weight * v);
        }
        sum
    };
    a.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adaptive_averages_are_pytorchs() {
        let third = 1.0 / 3.0;
        assert_eq!(
            averages(5, 3),
            [[0.5, 0.5, 0.0, 0.0, 0.0], [0.0, third, third, third, 0.0], [0.0, 0.0, 0.0, 0.5, 0.5]]
        );
        assert_eq!(averages(2, 4), [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]);
    }

    #[test]
    fn pooling_keeps_a_constant() {
        for (channels, outputs) in [(40, 192), (512, 192), (112, 48), (1024, 48)] {
            let weight = pooling(channels, outputs, &Device::Cpu).unwrap();
            let sums: Vec<f32> = weight.flatten_from(1).unwrap().sum(1).unwrap().to_vec1().unwrap();
            assert!(sums.iter().all(|s| (s - 1.0).abs() < 1e-5), "{channels} to {outputs}");
        }
    }
}

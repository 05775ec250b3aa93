//! One convolution of a backbone: batch normalisation folded in, activation applied.
//!
//! On the CPU, pointwise and depthwise convolutions have kernels of their own (`cpu`); elsewhere all is candle's.

use candle_core::{Device, Result, Tensor};

use super::activation::Activation;
use super::{BackboneError, BackboneKind, cpu};
use crate::efficientad::ops;
use crate::efficientad::weights::{Weight, Weights, WeightsError};

/// Zeros around a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Padding {
    /// As many on each side.
    Even(usize),
    /// TensorFlow's "same": output side = ⌈side / stride⌉, the odd zero behind.
    Same,
}

impl Padding {
    /// Zeros before and behind a side of `length`.
    pub(super) fn zeros(self, length: usize, kernel: usize, stride: usize) -> [usize; 2] {
        match self {
            Self::Even(n) => [n, n],
            Self::Same => {
                let total = ((length.div_ceil(stride) - 1) * stride + kernel).saturating_sub(length);
                [total / 2, total - total / 2]
            }
        }
    }
}

/// What a convolution does, apart from its weights.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) stride: usize,
    pub(super) padding: Padding,
    pub(super) activation: Activation,
}

/// A convolution with a bias; `weight` is `[o, i, k, k]`, or `[o, 1, k, k]` when each channel has its own.
#[derive(Debug, Clone)]
pub(super) struct Conv {
    weight: Tensor,
    bias: Tensor,
    kernel: usize,
    depthwise: bool,
    plan: Plan,
}

impl Conv {
    /// `x [b, i, h, w]` → `[b, o, …]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Plan { stride, padding, activation } = self.plan;
        let (_, _, h, w) = x.dims4()?;
        let [top, bottom] = padding.zeros(h, self.kernel, stride);
        let [left, right] = padding.zeros(w, self.kernel, stride);
        let pads = [[top, bottom], [left, right]];
        if x.device().is_cpu() {
            if self.depthwise {
                return cpu::depthwise(x, [&self.weight, &self.bias], stride, pads, activation);
            }
            if self.kernel == 1 && stride == 1 {
                return cpu::pointwise(x, &self.weight, &self.bias, activation);
            }
        }
        if self.depthwise {
            return activation.apply(&by_taps(x, &self.weight, &self.bias, stride, pads)?);
        }
        let even = top == bottom && left == right && top == left;
        let (x, padding) = if even {
            (x.clone(), top)
        } else {
            (x.pad_with_zeros(2, top, bottom)?.pad_with_zeros(3, left, right)?, 0)
        };
        activation.apply(&ops::conv2d(&x, &self.weight, Some(&self.bias), stride, padding)?)
    }
}

/// A depthwise convolution as a sum over the kernel's taps, each a shifted view: candle's own runs one convolution per
/// channel.
fn by_taps(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    stride: usize,
    pads: [[usize; 2]; 2],
) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let kernel = weight.dim(2)?;
    let side = |length: usize, [before, behind]: [usize; 2]| (length + before + behind - kernel) / stride + 1;
    let (rows, columns) = (side(h, pads[0]), side(w, pads[1]));
    // Room for every phase of the stride.
    let (cells_y, cells_x) = (rows + kernel / stride, columns + kernel / stride);
    let x = x.pad_with_zeros(2, pads[0][0], (cells_y * stride).saturating_sub(h + pads[0][0]))?;
    let x = x.pad_with_zeros(3, pads[1][0], (cells_x * stride).saturating_sub(w + pads[1][0]))?;
    let x = x.narrow(2, 0, cells_y * stride)?.narrow(3, 0, cells_x * stride)?.contiguous()?;
    let phases = x.reshape(vec![b, c, cells_y, stride, cells_x, stride])?;
    let mut sum = bias.reshape((1, c, 1, 1))?.broadcast_as((b, c, rows, columns))?.contiguous()?;
    for ky in 0..kernel {
        for kx in 0..kernel {
            let phase = phases.narrow(3, ky % stride, 1)?.narrow(5, kx % stride, 1)?;
            let view = phase.squeeze(5)?.squeeze(3)?.narrow(2, ky / stride, rows)?;
            let view = view.narrow(3, kx / stride, columns)?;
            let tap = weight.narrow(2, ky, 1)?.narrow(3, kx, 1)?.reshape((1, c, 1, 1))?;
            sum = (sum + view.broadcast_mul(&tap)?)?;
        }
    }
    Ok(sum)
}

/// Takes a file's tensors one by one and folds each batch normalisation into its convolution.
pub(super) struct Folding<'a> {
    kind: BackboneKind,
    weights: Weights,
    device: &'a Device,
    epsilon: f64,
}

impl<'a> Folding<'a> {
    pub(super) fn new(kind: BackboneKind, weights: Weights, device: &'a Device) -> Self {
        let epsilon = if kind == BackboneKind::EfficientNetLite0 { 1e-3 } else { 1e-5 };
        Self { kind, weights, device, epsilon }
    }

    /// The convolution `conv`.weight of shape `dims`, normalised by `norm`.{weight, bias, running_mean, running_var}.
    pub(super) fn conv(
        &mut self,
        [conv, norm]: [&str; 2],
        dims: [usize; 4],
        plan: Plan,
    ) -> std::result::Result<Conv, BackboneError> {
        let [outputs, inputs, kernel, _] = dims;
        let mut weight = self.take(format!("{conv}.weight"), &dims)?;
        let mut channels = |part: &str| self.take(format!("{norm}.{part}"), &[outputs]);
        let (gamma, beta) = (channels("weight")?, channels("bias")?);
        let (mean, variance) = (channels("running_mean")?, channels("running_var")?);
        let mut bias = Vec::with_capacity(outputs);
        for (o, filter) in weight.values.chunks_exact_mut(inputs * kernel * kernel).enumerate() {
            let deviation = (f64::from(variance.values[o]).max(0.0) + self.epsilon).sqrt();
            let scale = f64::from(gamma.values[o]) / deviation;
            filter.iter_mut().for_each(|v| *v = (f64::from(*v) * scale) as f32);
            bias.push((f64::from(beta.values[o]) - f64::from(mean.values[o]) * scale) as f32);
        }
        Ok(Conv {
            weight: Tensor::from_vec(weight.values, dims.as_slice(), self.device)?,
            bias: Tensor::from_vec(bias, outputs, self.device)?,
            kernel,
            depthwise: inputs == 1 && outputs > 1,
            plan,
        })
    }

    fn take(&mut self, name: String, dims: &[usize]) -> std::result::Result<Weight, BackboneError> {
        let kind = self.kind;
        let unfit = |source| BackboneError::Weights { kind, source };
        let weight = self.weights.remove(&name).ok_or_else(|| unfit(WeightsError::Missing(name.clone())))?;
        if weight.dims != dims {
            return Err(unfit(WeightsError::Shape { name, expected: dims.to_vec(), got: weight.dims }));
        }
        if !weight.values.iter().all(|v| v.is_finite()) {
            return Err(unfit(WeightsError::NotFinite(name)));
        }
        Ok(weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(dims: &[usize], phase: f64) -> Tensor {
        let n: usize = dims.iter().product();
        let values: Vec<f32> = (0..n).map(|i| ((i as f64 * 1.7 + phase).sin()) as f32).collect();
        Tensor::from_vec(values, dims, &Device::Cpu).unwrap()
    }

    fn conv(weight: Tensor, stride: usize, padding: Padding, activation: Activation) -> Conv {
        let (outputs, inputs, kernel, _) = weight.dims4().unwrap();
        let plan = Plan { stride, padding, activation };
        let depthwise = inputs == 1 && outputs > 1;
        Conv { bias: wave(&[outputs], 3.0), weight, kernel, depthwise, plan }
    }

    /// candle's own grouped convolution on a picture padded by hand.
    fn expected(conv: &Conv, x: &Tensor) -> Vec<f32> {
        let Plan { stride, padding, activation } = conv.plan;
        let (_, c, h, w) = x.dims4().unwrap();
        let [top, bottom] = padding.zeros(h, conv.kernel, stride);
        let [left, right] = padding.zeros(w, conv.kernel, stride);
        let x = x.pad_with_zeros(2, top, bottom).unwrap().pad_with_zeros(3, left, right).unwrap();
        let y = x.conv2d(&conv.weight, 0, stride, 1, if conv.depthwise { c } else { 1 }).unwrap();
        let bias = conv.bias.reshape((1, (), 1, 1)).unwrap();
        flat(&activation.apply(&y.broadcast_add(&bias).unwrap()).unwrap())
    }

    fn flat(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn close(a: &[f32], b: &[f32]) {
        assert_eq!(a.len(), b.len());
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{i}: {a} against {b}");
        }
    }

    #[test]
    fn depthwise_kernels_agree_with_candles_groups() {
        for (kernel, stride, padding, h, w) in [
            (3, 1, Padding::Same, 7, 9),
            (3, 2, Padding::Same, 8, 70),
            (3, 2, Padding::Same, 7, 9),
            (5, 1, Padding::Same, 6, 33),
            (5, 2, Padding::Same, 64, 32),
            (5, 2, Padding::Even(2), 5, 5),
            (3, 2, Padding::Even(1), 9, 8),
        ] {
            for activation in [Activation::None, Activation::Relu, Activation::Relu6] {
                let x = wave(&[2, 3, h, w], 0.5);
                let conv = conv(wave(&[3, 1, kernel, kernel], 1.0), stride, padding, activation);
                let reference = expected(&conv, &x);
                close(&flat(&conv.forward(&x).unwrap()), &reference);
                let pads = [padding.zeros(h, kernel, stride), padding.zeros(w, kernel, stride)];
                let taps = by_taps(&x, &conv.weight, &conv.bias, stride, pads).unwrap();
                close(&flat(&activation.apply(&taps).unwrap()), &reference);
            }
        }
    }

    #[test]
    fn dense_convolutions_agree_with_candle() {
        for (kernel, stride, padding, h, w) in
            [(1, 1, Padding::Same, 5, 701), (1, 2, Padding::Even(0), 6, 8), (3, 2, Padding::Same, 8, 6)]
        {
            let x = wave(&[2, 4, h, w], 0.25);
            let conv = conv(wave(&[5, 4, kernel, kernel], 2.0), stride, padding, Activation::Relu6);
            close(&flat(&conv.forward(&x).unwrap()), &expected(&conv, &x));
        }
    }

    #[test]
    fn same_padding_puts_the_odd_zero_behind() {
        assert_eq!(Padding::Same.zeros(512, 3, 2), [0, 1]);
        assert_eq!(Padding::Same.zeros(256, 5, 2), [1, 2]);
        assert_eq!(Padding::Same.zeros(7, 5, 1), [2, 2]);
        assert_eq!(Padding::Same.zeros(5, 1, 2), [0, 0]);
    }
}

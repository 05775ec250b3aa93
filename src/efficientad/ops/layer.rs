//! A convolution with all that follows it – bias, ReLU, average pool – as one operation with one backward pass.
//!
//! Tensors here are channels last, `[batch, rows, columns, channels]`, and on the CPU. One operation rather than four
//! because the sums of PDN's first layer fill 100 MB a step, and each pass over them costs as much as their arithmetic.

use std::sync::OnceLock;

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, DType, Layout, Result, Shape, Storage, Tensor, WithDType, bail};

use super::cpu::{self, Buffer, Convolution, Element, InputGradient, Pool, WeightGradient};

/// A convolution and what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layer {
    /// Pixels from one output to the next.
    pub stride: usize,
    /// Zeros around the input, on each side.
    pub padding: usize,
    /// Whether ReLU follows.
    pub relu: bool,
    /// Whether a 2×2 average pool of stride 2 follows, with so many zeros around it, which count.
    pub pool: Option<usize>,
}

/// `x [b, h, w, i]`, `weight [o, i, k, k]`, `bias [o]` → `[b, h', w', o]`.
pub(super) fn apply(x: &Tensor, weight: &Tensor, bias: &Tensor, layer: Layer) -> Result<Tensor> {
    let (x, weight, bias) = (x.contiguous()?, weight.contiguous()?, bias.contiguous()?);
    x.apply_op3(&weight, &bias, Fused { layer, alive: OnceLock::new() })
}

struct Fused {
    layer: Layer,
    /// Which inputs of each pool window were above zero; kept from the forward pass for the backward one.
    alive: OnceLock<Vec<u8>>,
}

/// The sizes of one call.
struct Sizes {
    batch: usize,
    shape: cpu::Shape,
    pool: Option<Pool>,
}

impl Sizes {
    /// Rows, columns and numbers of an output picture.
    fn output(&self) -> ([usize; 2], usize) {
        match &self.pool {
            Some(pool) => (pool.output_size(), pool.output_len()),
            None => (self.shape.output_size(), self.shape.output_len()),
        }
    }
}

impl Fused {
    fn sizes(&self, x: &Shape, weight: &Shape) -> Result<Sizes> {
        let (batch, rows, columns, input) = x.dims4()?;
        let (output, weight_input, kernel, kernel_columns) = weight.dims4()?;
        let Layer { stride, padding, relu, pool } = self.layer;
        let too_small = rows.min(columns) + 2 * padding < kernel;
        if input != weight_input || kernel != kernel_columns || too_small || stride == 0 {
            bail!("a convolution of {x:?} (channels last) with a kernel of {weight:?}, padding {padding}");
        }
        let shape = cpu::Shape { size: [rows, columns], input, output, kernel, stride, padding };
        let size = shape.output_size();
        let pool = pool.map(|padding| Pool { size, channels: output, padding, relu });
        Ok(Sizes { batch, shape, pool })
    }

    fn forward<T: Element>(&self, sizes: &Sizes, x: &[T], weight: &[T], bias: &[T]) -> Vec<T> {
        let (_, len) = sizes.output();
        let convolution = Convolution::new(sizes.shape, weight);
        let mut out = vec![T::ZERO; sizes.batch * len];
        let pictures = out.chunks_exact_mut(len.max(1)).zip(x.chunks_exact(sizes.shape.input_len()));
        let Some(pool) = &sizes.pool else {
            for (out, x) in pictures {
                convolution.forward(x, out);
                cpu::add_bias(out, bias, self.layer.relu);
            }
            return out;
        };
        let mut alive = vec![0; sizes.batch * len];
        let mut sums = Buffer::take(sizes.shape.output_len());
        for ((out, x), alive) in pictures.zip(alive.chunks_exact_mut(len.max(1))) {
            convolution.forward(x, &mut sums);
            pool.forward(&sums, bias, out, alive);
        }
        let _first_forward_counts = self.alive.set(alive);
        out
    }

    fn backward<T: Element + WithDType>(
        &self,
        sizes: &Sizes,
        [x, weight, out, gradient]: [&[T]; 4],
        wants_input: bool,
    ) -> Gradients<T> {
        let shape = sizes.shape;
        let (_, len) = sizes.output();
        let back = wants_input.then(|| InputGradient::new(shape, weight));
        let mut input = vec![T::ZERO; if wants_input { x.len() } else { 0 }];
        let mut weight = WeightGradient::new(shape);
        let mut bias = vec![T::ZERO; shape.output];
        let mut scratch = Buffer::take(shape.output_len());
        for picture in 0..sizes.batch {
            let part = picture * len..(picture + 1) * len;
            let gradient = &gradient[part.clone()];
            let sums = match (&sizes.pool, self.alive.get()) {
                (Some(pool), Some(alive)) => {
                    pool.backward(gradient, &alive[part], &mut scratch);
                    &scratch[..]
                }
                (None, _) if self.layer.relu => {
                    cpu::cut_dead(gradient, &out[part], &mut scratch);
                    &scratch[..]
                }
                _ => gradient,
            };
            let part = picture * shape.input_len()..(picture + 1) * shape.input_len();
            weight.add(&x[part.clone()], sums);
            cpu::add_bias_gradient(sums, &mut bias);
            if let Some(back) = &back {
                back.run(sums, &mut input[part]);
            }
        }
        Gradients { input: wants_input.then_some(input), weight: weight.finish(), bias }
    }

    fn backward_tensors<T: Element + WithDType>(
        &self,
        [x, weight, out, gradient]: [&Tensor; 4],
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let sizes = self.sizes(x.shape(), weight.shape())?;
        let wants_input = x.track_op();
        let found = with_slice(x, |x| {
            with_slice(weight, |weight| {
                with_slice(out, |out| {
                    with_slice(gradient, |gradient| {
                        Ok(self.backward::<T>(&sizes, [x, weight, out, gradient], wants_input))
                    })
                })
            })
        })?;
        let device = x.device();
        let input = found.input.map(|v| Tensor::from_vec(v, x.shape(), device)).transpose()?;
        let weight = Tensor::from_vec(found.weight, weight.shape(), device)?;
        let bias = Tensor::from_vec(found.bias, sizes.shape.output, device)?;
        Ok((input, Some(weight), Some(bias)))
    }
}

struct Gradients<T> {
    input: Option<Vec<T>>,
    weight: Vec<T>,
    bias: Vec<T>,
}

impl CustomOp3 for Fused {
    fn name(&self) -> &'static str {
        "convolution layer"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let sizes = self.sizes(x_layout.shape(), weight_layout.shape())?;
        let ([rows, columns], _) = sizes.output();
        let out = Shape::from((sizes.batch, rows, columns, sizes.shape.output));
        let (x, weight, bias) = ((x, x_layout), (weight, weight_layout), (bias, bias_layout));
        let storage = match x.0.dtype() {
            DType::F64 => {
                let out = self.forward::<f64>(&sizes, slice(x)?, slice(weight)?, slice(bias)?);
                f64::to_cpu_storage_owned(out)
            }
            _ => {
                let out = self.forward::<f32>(&sizes, slice(x)?, slice(weight)?, slice(bias)?);
                f32::to_cpu_storage_owned(out)
            }
        };
        Ok((storage, out))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        out: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let gradient = gradient.contiguous()?;
        match x.dtype() {
            DType::F64 => self.backward_tensors::<f64>([x, weight, out, &gradient]),
            _ => self.backward_tensors::<f32>([x, weight, out, &gradient]),
        }
    }
}

/// The numbers of a contiguous tensor on the CPU.
pub(super) fn slice<'a, T: WithDType>((storage, layout): (&'a CpuStorage, &Layout)) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&T::cpu_storage_as_slice(storage)?[from..to]),
        None => bail!("a tensor that is not contiguous reached an operation that needs it so: this is a bug"),
    }
}

/// Calls `work` with the numbers of a contiguous tensor on the CPU.
pub(super) fn with_slice<T: WithDType, R>(
    tensor: &Tensor,
    work: impl FnOnce(&[T]) -> Result<R>,
) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => work(slice((storage, layout))?),
        _ => bail!("a tensor on another device reached an operation of the CPU: this is a bug"),
    }
}

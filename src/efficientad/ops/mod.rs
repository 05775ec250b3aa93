//! Differentiable tensor operations of the networks, each with a correct backward pass on odd and even sizes.
//!
//! In f32 or f64, on any candle device. The functions take and give `[batch, channels, rows, columns]`; networks chain
//! [`Features`], which stay in the order that suits the device: channels last on the CPU (`layer`, `resize`) and on NVIDIA
//! cards (`cuda`), candle's own elsewhere (`channels_first`). candle's own average pool has a wrong gradient on odd
//! sizes and its bilinear resize has none, hence these.

mod channels_first;
mod cpu;
#[cfg(any(test, feature = "cuda"))]
mod cuda;
mod dropout;
mod layer;
mod nth_largest;
mod order;
mod resize;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};

pub use layer::Layer;
pub use nth_largest::nth_largest;

/// Feature maps between two operations, in the order of their dimensions that the device computes in.
#[derive(Debug, Clone)]
pub struct Features {
    tensor: Tensor,
    order: Order,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    ChannelsFirst,
    ChannelsLast,
}

impl Features {
    /// From `[batch, channels, rows, columns]`.
    pub fn new(x: &Tensor) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if cuda::fits(x)? {
            return Ok(Self { tensor: cuda::channels_last(x)?, order: Order::ChannelsLast });
        }
        Self::of_any_width(x)
    }

    /// The same, for layers with any number of channels, which a card's kernels are not made for.
    fn of_any_width(x: &Tensor) -> Result<Self> {
        if x.device().is_cpu() {
            Ok(Self { tensor: order::channels_last(x)?, order: Order::ChannelsLast })
        } else {
            Ok(Self { tensor: x.clone(), order: Order::ChannelsFirst })
        }
    }

    /// How many pictures they are of.
    pub fn batch(&self) -> Result<usize> {
        self.tensor.dim(0)
    }

    /// As `[batch, channels, rows, columns]`.
    pub fn into_tensor(self) -> Result<Tensor> {
        match self.order {
            Order::ChannelsFirst => Ok(self.tensor),
            Order::ChannelsLast if self.tensor.device().is_cpu() => order::channels_first(&self.tensor),
            Order::ChannelsLast => self.tensor.permute((0, 3, 1, 2))?.contiguous(),
        }
    }

    /// A convolution with `weight [o, i, k, k]` and `bias [o]`, and what follows it.
    pub fn layer(&self, weight: &Tensor, bias: &Tensor, layer: Layer) -> Result<Self> {
        let run = match self.order {
            Order::ChannelsFirst => channels_first::layer,
            #[cfg(feature = "cuda")]
            Order::ChannelsLast if self.tensor.device().is_cuda() => cuda::layer,
            Order::ChannelsLast => layer::apply,
        };
        Ok(Self { tensor: run(&self.tensor, weight, bias, layer)?, ..*self })
    }

    /// See [`resize_bilinear`].
    pub fn resize(&self, rows: usize, columns: usize) -> Result<Self> {
        let run = match self.order {
            Order::ChannelsFirst => channels_first::resize_bilinear,
            #[cfg(feature = "cuda")]
            Order::ChannelsLast if self.tensor.device().is_cuda() => cuda::resize_bilinear,
            Order::ChannelsLast => resize::apply,
        };
        Ok(Self { tensor: run(&self.tensor, rows, columns)?, ..*self })
    }

    /// Silences `share` of all numbers, from 0 to below 1, and has the others make up for it; which ones follows from `key`
    /// alone, alike on the CPU and on cards.
    pub fn drop_out(&self, share: f64, key: u64) -> Result<Self> {
        let run = match self.order {
            Order::ChannelsFirst => dropout::by_mask,
            #[cfg(feature = "cuda")]
            Order::ChannelsLast if self.tensor.device().is_cuda() => cuda::drop_out,
            Order::ChannelsLast => dropout::apply,
        };
        Ok(Self { tensor: run(&self.tensor, dropout::Dropout::new(share, key))?, ..*self })
    }

    /// Applies an operation that treats every element alike, or picks pictures of the batch.
    pub fn map(&self, elementwise: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Ok(Self { tensor: elementwise(&self.tensor)?, ..*self })
    }
}

/// Where the numbers of a contiguous tensor (f32) are in its card's memory.
#[cfg(feature = "cuda")]
pub(crate) fn address_on_card(tensor: &Tensor) -> Result<u64> {
    cuda::address(tensor)
}

/// Convolution: `x [b, i, h, w]`, `weight [o, i, k, k]`, `bias [o]` → `[b, o, (h+2·padding−k)/stride+1, …]`.
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let none = match bias {
        Some(bias) => bias.clone(),
        None => Tensor::zeros(weight.dim(0)?, weight.dtype(), weight.device())?,
    };
    Features::of_any_width(x)?
        .layer(weight, &none, Layer { stride, padding, relu: false, pool: None })?
        .into_tensor()
}

/// 2×2 average pool of stride 2 with `padding` zeros on each side, which count: `[b, c, h, w]` →
/// `[b, c, (h+2·padding)/2, (w+2·padding)/2]`.
pub fn avg_pool2(x: &Tensor, padding: usize) -> Result<Tensor> {
    channels_first::avg_pool2(x, padding)
}

/// Bilinear resize with half-pixel centres and no antialiasing (PyTorch's `align_corners=False`): `[b, c, h, w]` →
/// `[b, c, rows, columns]`.
pub fn resize_bilinear(x: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    Features::of_any_width(x)?.resize(rows, columns)?.into_tensor()
}

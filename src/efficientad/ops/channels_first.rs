//! The operations as candle has them, `[batch, channels, rows, columns]`, mended: for devices without kernels of ours, and on cards for
//! convolutions that are not of the networks.
//!
//! candle's average pool has a wrong gradient on odd sizes, its bilinear resize none, and its convolution's input
//! gradient is slow.

use candle_core::backend::BackendStorage;
use candle_core::{
    CpuStorage, CudaStorage, CustomOp2, Device, Layout, MetalStorage, Result, Shape, Storage, Tensor, bail,
};

use super::Layer;

/// A convolution and what follows it: `x [b, i, h, w]` → `[b, o, h', w']`.
pub(super) fn layer(x: &Tensor, weight: &Tensor, bias: &Tensor, layer: Layer) -> Result<Tensor> {
    let x = conv2d(x, weight, layer.stride, layer.padding)?;
    let x = x.broadcast_add(&bias.reshape((1, bias.elem_count(), 1, 1))?)?;
    let x = if layer.relu { x.relu()? } else { x };
    layer.pool.map_or(Ok(x.clone()), |padding| avg_pool2(&x, padding))
}

fn conv2d(x: &Tensor, weight: &Tensor, stride: usize, padding: usize) -> Result<Tensor> {
    let (x, weight) = (x.contiguous()?, weight.contiguous()?);
    let y = x.detach().conv2d(&weight.detach(), padding, stride, 1, 1)?;
    if x.track_op() || weight.track_op() {
        x.apply_op2(&weight, Reversible { y, stride, padding })
    } else {
        Ok(y)
    }
}

pub(super) fn avg_pool2(x: &Tensor, padding: usize) -> Result<Tensor> {
    let x = match padding {
        0 => x.clone(),
        _ => x.pad_with_zeros(2, padding, padding)?.pad_with_zeros(3, padding, padding)?,
    };
    let (_, _, h, w) = x.dims4()?;
    x.narrow(2, 0, h / 2 * 2)?.narrow(3, 0, w / 2 * 2)?.contiguous()?.avg_pool2d(2)
}

/// As products with two constant matrices, which have a gradient.
pub(super) fn resize_bilinear(x: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    let vertical = matrix(h, rows, x.device())?.to_dtype(x.dtype())?;
    let horizontal = matrix(w, columns, x.device())?.to_dtype(x.dtype())?.t()?.contiguous()?;
    let wide = x.contiguous()?.reshape((b * c * h, w))?.matmul(&horizontal)?;
    let wide = wide.reshape((b * c, h, columns))?;
    vertical.broadcast_left(b * c)?.contiguous()?.matmul(&wide)?.reshape((b, c, rows, columns))
}

fn matrix(from: usize, to: usize, device: &Device) -> Result<Tensor> {
    let mut values = vec![0f64; from * to];
    for (row, tap) in super::resize::taps(from, to).into_iter().enumerate() {
        values[row * from + tap.low] += 1.0 - tap.share;
        values[row * from + tap.high] += tap.share;
    }
    Tensor::from_vec(values, (to, from), device)
}

/// Gives the convolution `y` that candle computed without a graph a backward pass of its own.
struct Reversible {
    y: Tensor,
    stride: usize,
    padding: usize,
}

impl CustomOp2 for Reversible {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        match &*self.y.storage_and_layout().0 {
            Storage::Cpu(y) => Ok((y.clone(), self.y.shape().clone())),
            _ => bail!("a convolution that changed its device: this is a bug"),
        }
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        match &*self.y.storage_and_layout().0 {
            Storage::Cuda(y) => Ok((y.try_clone(self.y.layout())?, self.y.shape().clone())),
            _ => bail!("a convolution that changed its device: this is a bug"),
        }
    }

    fn metal_fwd(
        &self,
        _: &MetalStorage,
        _: &Layout,
        _: &MetalStorage,
        _: &Layout,
    ) -> Result<(MetalStorage, Shape)> {
        match &*self.y.storage_and_layout().0 {
            Storage::Metal(y) => Ok((y.try_clone(self.y.layout())?, self.y.shape().clone())),
            _ => bail!("a convolution that changed its device: this is a bug"),
        }
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (x, weight, dy) = (x.detach(), weight.detach(), dy.contiguous()?);
        let kernel = weight.dim(2)?;
        let (_, _, rows, columns) = x.dims4()?;
        let dx = if self.stride == 1 && self.padding < kernel {
            let turned = weight.flip(&[2, 3])?.transpose(0, 1)?.contiguous()?;
            dy.conv2d(&turned, kernel - 1 - self.padding, 1, 1, 1)?
        } else {
            // Begins `padding` before the input, and ends before its edge where the stride leaves a remainder.
            let dx = dy.conv_transpose2d(&weight, 0, 0, self.stride, 1)?;
            let (_, _, h, w) = dx.dims4()?;
            let fit = |dx: Tensor, dim: usize, from: usize, to: usize| {
                let len = to.min(from - self.padding);
                dx.narrow(dim, self.padding, len)?.pad_with_zeros(dim, 0, to - len)
            };
            fit(fit(dx, 2, h, rows)?, 3, w, columns)?
        };
        let swap = |t: &Tensor| t.transpose(0, 1)?.contiguous();
        let dw = swap(&x)?.conv2d(&swap(&dy)?, self.padding, 1, self.stride, 1)?;
        let dw = dw.narrow(2, 0, kernel)?.narrow(3, 0, kernel)?;
        Ok((Some(dx), Some(swap(&dw)?)))
    }
}

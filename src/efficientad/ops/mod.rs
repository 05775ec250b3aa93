//! Differentiable tensor operations of the networks, each with a correct backward pass on odd and even sizes.
//!
//! Tensors are `[batch, channels, rows, columns]`, f32 or f64, on any candle device. candle's own average pool has a
//! wrong gradient on odd sizes and its bilinear resize has none, hence these.

use candle_core::{Device, Result, Tensor};

/// Convolution: `x [b, i, h, w]`, `weight [o, i, k, k]`, `bias [o]` → `[b, o, (h+2·padding−k)/stride+1, …]`.
pub fn conv2d(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    padding: usize,
) -> Result<Tensor> {
    let y = x.conv2d(weight, padding, stride, 1, 1)?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, bias.elem_count(), 1, 1))?),
        None => Ok(y),
    }
}

/// 2×2 average pool of stride 2 with `padding` zeros on each side, which count: `[…, h, w]` →
/// `[…, (h+2·padding)/2, (w+2·padding)/2]`.
pub fn avg_pool2(x: &Tensor, padding: usize) -> Result<Tensor> {
    let x = if padding == 0 {
        x.clone()
    } else {
        x.pad_with_zeros(2, padding, padding)?.pad_with_zeros(3, padding, padding)?
    };
    let (_, _, h, w) = x.dims4()?;
    x.narrow(2, 0, h / 2 * 2)?.narrow(3, 0, w / 2 * 2)?.contiguous()?.avg_pool2d(2)
}

/// Bilinear resize with half-pixel centres and no antialiasing (PyTorch's `align_corners=False`) to
/// `[…, rows, columns]`.
pub fn resize_bilinear(x: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    let (b, c, h, w) = x.dims4()?;
    if (h, w) == (rows, columns) {
        return Ok(x.clone());
    }
    let vertical = matrix(h, rows, x.device())?.to_dtype(x.dtype())?;
    let horizontal = matrix(w, columns, x.device())?.to_dtype(x.dtype())?.t()?.contiguous()?;
    let wide = x.contiguous()?.reshape((b * c * h, w))?.matmul(&horizontal)?;
    let wide = wide.reshape((b * c, h, columns))?;
    vertical.broadcast_left(b * c)?.contiguous()?.matmul(&wide)?.reshape((b, c, rows, columns))
}

fn matrix(from: usize, to: usize, device: &Device) -> Result<Tensor> {
    let mut values = vec![0f64; from * to];
    let scale = from as f64 / to as f64;
    for row in 0..to {
        let at = ((row as f64 + 0.5) * scale - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        let high = (low + 1).min(from - 1);
        let share = at - low as f64;
        values[row * from + low] += 1.0 - share;
        values[row * from + high] += share;
    }
    Tensor::from_vec(values, (to, from), device)
}

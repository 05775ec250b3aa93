//! Between channels first and channels last on the CPU, with gradients.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, WithDType};

use super::cpu::{self, Element};
use super::layer::slice;

/// `[batch, channels, rows, columns]` → `[batch, rows, columns, channels]`.
pub(super) fn channels_last(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(ToLast)
}

/// `[batch, rows, columns, channels]` → `[batch, channels, rows, columns]`.
pub(super) fn channels_first(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1(ToFirst)
}

struct ToLast;
struct ToFirst;

impl CustomOp1 for ToLast {
    fn name(&self) -> &'static str {
        "channels last"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (b, c, h, w) = layout.shape().dims4()?;
        let storage = match storage.dtype() {
            DType::F64 => transpose::<f64>(storage, layout, cpu::channels_last, c, h * w)?,
            _ => transpose::<f32>(storage, layout, cpu::channels_last, c, h * w)?,
        };
        Ok((storage, (b, h, w, c).into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        channels_first(gradient).map(Some)
    }
}

impl CustomOp1 for ToFirst {
    fn name(&self) -> &'static str {
        "channels first"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (b, h, w, c) = layout.shape().dims4()?;
        let storage = match storage.dtype() {
            DType::F64 => transpose::<f64>(storage, layout, cpu::channels_first, c, h * w)?,
            _ => transpose::<f32>(storage, layout, cpu::channels_first, c, h * w)?,
        };
        Ok((storage, (b, c, h, w).into()))
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        channels_last(gradient).map(Some)
    }
}

fn transpose<T: Element + WithDType>(
    storage: &CpuStorage,
    layout: &Layout,
    how: impl Fn(&[T], usize, usize) -> Vec<T>,
    channels: usize,
    positions: usize,
) -> Result<CpuStorage> {
    Ok(T::to_cpu_storage_owned(how(slice((storage, layout))?, channels, positions)))
}

//! Adam's kernels on a card, by way of candle's storage.
//!
//! In: contiguous f32 tensors on one card. Out: the first of them, changed. Not here: the formulas (`adam.cu`).

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{LaunchConfig, PushKernelArg};
use candle_core::{CudaStorage, Layout, Result, bail};

const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/adam.ptx"));

/// Runs `kernel` over `out` and two inputs, with the factors that it takes besides.
pub(super) fn run(
    kernel: &str,
    out: (&mut CudaStorage, &Layout),
    inputs: [(&CudaStorage, &Layout); 2],
    factors: &[f32],
) -> Result<()> {
    let span = |layout: &Layout| match layout.contiguous_offsets() {
        Some(span) => Ok(span),
        None => bail!("Adam's tensors are contiguous: this is a bug"),
    };
    let device = out.0.device().clone();
    let (from, to) = span(out.1)?;
    let count = (to - from) as u64;
    let [(a, a_layout), (b, b_layout)] = inputs;
    let (a_span, b_span) = (span(a_layout)?, span(b_layout)?);
    let a = a.as_cuda_slice::<f32>()?.slice(a_span.0..a_span.1);
    let b = b.as_cuda_slice::<f32>()?.slice(b_span.0..b_span.1);
    let mut out = out.0.as_cuda_slice_mut::<f32>()?.slice_mut(from..to);
    let function = device.get_or_load_custom_func(kernel, "inspectord_adam", KERNELS)?;
    let mut launch = function.builder();
    launch.arg(&mut out).arg(&a).arg(&b).arg(&count);
    for factor in factors {
        launch.arg(factor);
    }
    // SAFETY: the kernels of this file take three arrays of `count` numbers, the count, and as many factors as are given.
    unsafe { launch.launch(LaunchConfig::for_num_elems(count as u32)) }.w()?;
    Ok(())
}

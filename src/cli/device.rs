//! The device that trains and calibrates, from what the command line calls it.

use anyhow::Context as _;
use candle_core::Device;
use tracing::{info, warn};

use crate::detector::{cuda, options};

/// The device that `asked` means; `auto` is the first NVIDIA card where this build and machine have one.
pub(super) fn open(asked: options::Device) -> anyhow::Result<Device> {
    let device = find(asked)?;
    if device.is_cuda() {
        // Products in TF32, whose ten bits of fraction do for training.
        candle_core::cuda::set_gemm_reduced_precision_f32(true);
        #[cfg(feature = "cuda")]
        keep_memory(device.as_cuda_device()?).context("the card cannot be prepared")?;
    }
    Ok(device)
}

/// Memory is kept rather than given back at each wait.
#[cfg(feature = "cuda")]
fn keep_memory(device: &candle_core::CudaDevice) -> anyhow::Result<()> {
    use candle_core::cuda_backend::cudarc::driver::{result, sys};
    let context = device.cuda_stream().context().clone();
    // SAFETY: all tensors of a training are made and used on this one stream, so that no events are needed between them.
    unsafe { device.disable_event_tracking() };
    // SAFETY: the context is alive, and the attribute is a 64-bit number that the call copies.
    unsafe {
        let pool = result::device::get_default_mem_pool(context.cu_device())?;
        let mut all = u64::MAX;
        let kind = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, kind, (&raw mut all).cast()).result()?;
    }
    Ok(())
}

fn find(asked: options::Device) -> anyhow::Result<Device> {
    match asked {
        options::Device::Cpu => Ok(Device::Cpu),
        options::Device::Cuda(n) if cfg!(feature = "cuda") => {
            card(n).with_context(|| format!("cannot use cuda:{n}; use --device cpu, or see `inspectord check`"))
        }
        options::Device::Cuda(n) => Err(super::report::UsageError(format!(
            "this build has no support for cuda:{n}: use --device cpu"
        ))
        .into()),
        options::Device::Auto if cfg!(feature = "cuda") && cuda::cards().is_ok_and(|cards| !cards.is_empty()) => {
            Ok(card(0).unwrap_or_else(|error| {
                warn!(error = %format!("{error:#}"), "the card cannot be used; the processor is, which takes longer");
                Device::Cpu
            }))
        }
        options::Device::Auto => Ok(Device::Cpu),
    }
}

/// The driver is asked first: it says in its own words what is wrong, in one line.
fn card(ordinal: usize) -> anyhow::Result<Device> {
    let cards = cuda::cards()?;
    let Some(card) = cards.get(ordinal) else {
        anyhow::bail!("the driver knows {} of NVIDIA's cards, which are counted from 0", cards.len());
    };
    let device = Device::new_cuda(ordinal).with_context(|| format!("{} cannot be opened", card.name))?;
    info!(ordinal, card = card.name, "training and calibration run on the card");
    Ok(device)
}

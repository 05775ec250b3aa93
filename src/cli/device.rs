//! The device that trains and calibrates, from what the command line calls it.

use anyhow::Context as _;
use candle_core::Device;

use crate::detector::options;

/// The device that `asked` means; `auto` is the first NVIDIA card where this build and machine have one.
pub(super) fn open(asked: options::Device) -> anyhow::Result<Device> {
    match asked {
        options::Device::Cpu => Ok(Device::Cpu),
        options::Device::Auto => Ok(Device::cuda_if_available(0).unwrap_or(Device::Cpu)),
        options::Device::Cuda(n) if cfg!(feature = "cuda") => {
            Device::new_cuda(n).with_context(|| format!("cannot use cuda:{n}"))
        }
        options::Device::Cuda(n) => Err(super::report::UsageError(format!(
            "this build has no support for cuda:{n}: use --device cpu"
        ))
        .into()),
    }
}

//! Adam on a card, by way of candle's memory.
//!
//! In: variables, their moments and gradients, contiguous f32 on one card. Out: variables and moments, changed. Not here: the
//! formulas (`adam.cu`).

use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{DeviceRepr, LaunchConfig, PushKernelArg};
use candle_core::{Result, Tensor};

use super::{BETA1, BETA2, EPSILON, Rate, Slot, WEIGHT_DECAY};
use crate::efficientad::ops::address_on_card;

const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/adam.ptx"));
/// Variables of one launch, and numbers of one block, as `adam.cu` has them.
const MOST_VARIABLES: usize = 64;
const NUMBERS_OF_A_BLOCK: usize = 1024;
const THREADS: u32 = 256;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Variable {
    weight: u64,
    first: u64,
    second: u64,
    gradient: u64,
    count: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    variables: [Variable; MOST_VARIABLES],
    begins: [u32; MOST_VARIABLES],
    count: u32,
    decay: f32,
    keep_first: f32,
    keep_second: f32,
    step: f32,
    root: f32,
    epsilon: f32,
}

// SAFETY: plain numbers, laid out as adam.cu declares them.
unsafe impl DeviceRepr for Parameters {}

/// Moves variables by their gradients.
pub(super) fn step(moved: &[(&Slot, Tensor)], rate: &Rate) -> Result<()> {
    moved.chunks(MOST_VARIABLES).try_for_each(|moved| launch(moved, rate))
}

fn launch(moved: &[(&Slot, Tensor)], rate: &Rate) -> Result<()> {
    let Some((first, _)) = moved.first() else { return Ok(()) };
    let device = first.variable.device().as_cuda_device()?.clone();
    let mut parameters = Parameters {
        variables: [Variable::default(); MOST_VARIABLES],
        begins: [0; MOST_VARIABLES],
        count: moved.len() as u32,
        decay: WEIGHT_DECAY as f32,
        keep_first: BETA1 as f32,
        keep_second: BETA2 as f32,
        step: rate.step as f32,
        root: rate.root as f32,
        epsilon: EPSILON as f32,
    };
    let mut blocks = 0;
    for (nth, (slot, gradient)) in moved.iter().enumerate() {
        let count = slot.variable.elem_count();
        parameters.variables[nth] = Variable {
            weight: address_on_card(&slot.variable)?,
            first: address_on_card(&slot.moments[0])?,
            second: address_on_card(&slot.moments[1])?,
            gradient: address_on_card(gradient)?,
            count: count as u64,
        };
        parameters.begins[nth] = blocks;
        blocks += count.div_ceil(NUMBERS_OF_A_BLOCK) as u32;
    }
    let function = device.get_or_load_custom_func("adam", "inspectord_adam", KERNELS)?;
    let mut launch = function.builder();
    launch.arg(&parameters);
    let config = LaunchConfig { grid_dim: (blocks, 1, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: 0 };
    // SAFETY: the kernel takes this structure and stays within `count` of each of its four arrays, which live until the work of
    // this stream is done. Nobody reads variables or moments meanwhile: all of candle's work on the card is in the stream.
    unsafe { launch.launch(config) }.w()?;
    Ok(())
}

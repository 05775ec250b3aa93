//! The operations on NVIDIA cards, with kernels of our own: channels last, f32 in memory, TF32 in products.
//!
//! candle's convolution writes out every window before it multiplies, and takes a launch each for bias, ReLU and pool; its
//! way back does so three times over. Here a layer is three launches forward and seven back. `layer`, `gradients`,
//! `resize`, `dropout` and `select` plan launches; `tensors` has candle run them, `tests` the emulator. Not here: what runs
//! on the card (`kernels/`).

mod dropout;
mod gradients;
mod layer;
mod parameters;
mod resize;
mod select;
#[cfg(feature = "cuda")]
mod tensors;
#[cfg(test)]
mod tests;

use candle_core::Result;

use parameters::{Address, Parameters};
#[cfg(feature = "cuda")]
pub(super) use tensors::{address, channels_last, drop_out, fits, layer, nth_largest, resize_bilinear};

/// Threads of a product's block.
const THREADS: usize = 128;
/// Bytes of its shared memory for each row and column of a tile: three stages of 64.
const SHARED: usize = 3 * 64;
/// Blocks that fill a card twice over. A constant, so that what comes out does not depend on the card.
const ENOUGH_BLOCKS: usize = 256;
/// Threads of a pass over memory.
const WIDE: usize = 256;

/// One kernel to run.
#[derive(Debug, Clone, Copy)]
struct Launch {
    kernel: &'static str,
    grid: [usize; 2],
    threads: usize,
    /// Bytes of shared memory.
    shared: usize,
    parameters: Parameters,
}

/// Who runs kernels, one after another.
trait Machine {
    /// Memory for so many f32 of any value, for as long as the operation takes.
    fn scratch(&mut self, numbers: usize) -> Result<Address>;

    /// The same, all zeros.
    fn zeros(&mut self, numbers: usize) -> Result<Address>;

    /// Runs a kernel after all that came before.
    fn launch(&mut self, launch: &Launch) -> Result<()>;

    /// A launch of a thread for each of `count` elements.
    fn pass(&mut self, kernel: &'static str, count: usize, parameters: Parameters) -> Result<()> {
        self.launch(&Launch { kernel, grid: [count.div_ceil(WIDE), 1], threads: WIDE, shared: 0, parameters })
    }
}

/// As kernels count. Tensors of a training are far below what an `i32` holds, so one that is not stays out of bounds for all.
fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

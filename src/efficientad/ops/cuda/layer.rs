//! A convolution layer and its way back as launches of kernels.
//!
//! Tensors are f32, channels last, contiguous; weights `[o, i, k, k]`. Everything is planned from sizes and addresses alone, so
//! that the same plan runs on a card and on the one that tests emulate. Not here: candle (`tensors`).

use candle_core::{Result, bail};

use super::gradients::{self, Sums};
use super::parameters::{Address, Convolve, Pack, Parameters, Spread};
use super::{ENOUGH_BLOCKS, Launch, Machine, SHARED, THREADS, int};
use crate::efficientad::ops::Layer;

/// Numbers of a kernel row that one step of a product covers.
const STEP: usize = 16;

/// The sizes of one call.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Sizes {
    pub(super) batch: usize,
    /// Rows and columns of the input.
    pub(super) size: [usize; 2],
    /// Channels of the input in memory: the weights' inputs, and zeros up to a multiple of four.
    pub(super) channels: usize,
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) kernel: usize,
    pub(super) layer: Layer,
}

/// Where a layer's tensors are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tensors {
    pub(super) x: Address,
    pub(super) weights: Address,
    pub(super) bias: Address,
    pub(super) out: Address,
    /// A byte for each output of a pool.
    pub(super) alive: Address,
}

/// Where the gradients go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gradients {
    /// 0 where nobody asks for it.
    pub(super) x: Address,
    pub(super) weights: Address,
    pub(super) bias: Address,
}

impl Sizes {
    /// Of `x [b, h, w, c]` and `weight [o, i, k, k]`.
    ///
    /// # Errors
    /// The kernels cannot compute it, or it is no convolution.
    pub(super) fn new(x: [usize; 4], weight: [usize; 4], layer: Layer) -> Result<Self> {
        let ([batch, rows, columns, channels], [outputs, inputs, kernel, kernel_columns]) = (x, weight);
        let too_small = rows.min(columns) + 2 * layer.padding < kernel;
        // Threads are counted in 32 bits, and so are the positions of what is spread out.
        let spread = [rows, columns].map(|side| side + 2 * kernel);
        let too_large =
            (batch * area(spread)).checked_mul(channels.max(outputs)).is_none_or(|n| n > i32::MAX as usize);
        let fits =
            channels == inputs.next_multiple_of(4) && outputs.is_multiple_of(4) && layer.padding < kernel;
        if kernel != kernel_columns
            || too_small
            || layer.stride == 0
            || !fits
            || too_large
            || batch * outputs == 0
        {
            bail!(
                "a convolution of {x:?} (channels last) with a kernel of {weight:?}, padding {}, is none that the \
                 card's kernels can compute: train on the processor, or with smaller pictures",
                layer.padding
            );
        }
        Ok(Self { batch, size: [rows, columns], channels, inputs, outputs, kernel, layer })
    }

    /// Rows and columns of the sums.
    pub(super) fn sums(&self) -> [usize; 2] {
        self.size.map(|side| (side + 2 * self.layer.padding - self.kernel) / self.layer.stride + 1)
    }

    /// Rows and columns of the output.
    pub(super) fn output(&self) -> [usize; 2] {
        match self.layer.pool {
            Some(padding) => self.sums().map(|side| (side + 2 * padding) / 2),
            None => self.sums(),
        }
    }

    /// Numbers of the output.
    pub(super) fn output_len(&self) -> usize {
        self.batch * area(self.output()) * self.outputs
    }

    /// The output's dimensions, channels last.
    #[cfg(feature = "cuda")]
    pub(super) fn output_dims(&self) -> [usize; 4] {
        let [rows, columns] = self.output();
        [self.batch, rows, columns, self.outputs]
    }

    /// The input with its padding: rows and columns.
    fn padded(&self) -> [usize; 2] {
        self.size.map(|side| side + 2 * self.layer.padding)
    }
}

pub(super) fn area([rows, columns]: [usize; 2]) -> usize {
    rows * columns
}

/// `x [b, h, w, c]` → `out [b, h', w', o]`.
pub(super) fn forward(machine: &mut impl Machine, sizes: &Sizes, tensors: Tensors) -> Result<()> {
    let (x, size) = with_padding(machine, sizes, tensors.x)?;
    let (packed, steps) = pack(machine, sizes, tensors.weights, false)?;
    let product = Product {
        x,
        x_size: size,
        channels: sizes.channels,
        weights: packed,
        row_steps: steps,
        bias: tensors.bias,
        out: tensors.out,
        out_size: sizes.output(),
        outputs: sizes.outputs,
        layer: sizes.layer,
        alive: tensors.alive,
        sums: sizes.sums(),
    };
    product.launch(machine, sizes)
}

/// From the gradient of what [`forward`] wrote, `gradient [b, h', w', o]`, to those of what it read.
pub(super) fn backward(
    machine: &mut impl Machine,
    sizes: &Sizes,
    tensors: Tensors,
    gradient: Address,
    to: Gradients,
) -> Result<()> {
    let Layer { stride, relu, pool, .. } = sizes.layer;
    // With what is needed around and between the sums' gradients for the way back to be a convolution of stride 1.
    let wants_input = to.x != 0;
    let (margin, spread, size) = match wants_input {
        true => {
            (sizes.kernel - 1 - sizes.layer.padding, stride, sizes.size.map(|side| side + sizes.kernel - 1))
        }
        false => (0, 1, sizes.sums()),
    };
    let sums = machine.scratch(sizes.batch * area(size) * sizes.outputs)?;
    let [rows, columns] = sizes.sums().map(int);
    let [pool_rows, pool_columns] = sizes.output().map(int);
    let back = Spread {
        from: gradient,
        kept: if relu && pool.is_none() { tensors.out } else { 0 },
        alive: if pool.is_some() { tensors.alive } else { 0 },
        to: sums,
        batch: int(sizes.batch),
        rows,
        columns,
        channels: int(sizes.outputs),
        to_rows: int(size[0]),
        to_columns: int(size[1]),
        margin: int(margin),
        spread: int(spread),
        pool_padding: int(pool.unwrap_or(0)),
        pool_rows,
        pool_columns,
    };
    machine.pass("spread", sizes.batch * area(size) * sizes.outputs / 4, Parameters::Spread(back))?;
    gradients::add_up(machine, [sums, to.bias], sizes.batch * area(size), sizes.outputs)?;
    let (x, x_size) = with_padding(machine, sizes, tensors.x)?;
    let sums_there = Sums { first: sums, size, margin, spread };
    gradients::weigh(machine, sizes, (x, x_size), sums_there, to.weights)?;
    if !wants_input {
        return Ok(());
    }
    let (packed, steps) = pack(machine, sizes, tensors.weights, true)?;
    let product = Product {
        x: sums,
        x_size: size,
        channels: sizes.outputs,
        weights: packed,
        row_steps: steps,
        bias: 0,
        out: to.x,
        out_size: sizes.size,
        outputs: sizes.channels,
        layer: Layer { stride: 1, padding: 0, relu: false, pool: None },
        alive: 0,
        sums: sizes.size,
    };
    product.launch(machine, sizes)
}

/// The input as a product reads it, and its rows and columns: a copy with zeros around it where the layer has padding, and of a
/// picture, whose numbers nobody has rounded yet; else what is there.
fn with_padding(machine: &mut impl Machine, sizes: &Sizes, x: Address) -> Result<(Address, [usize; 2])> {
    let padding = sizes.layer.padding;
    if padding == 0 && sizes.inputs == sizes.channels {
        return Ok((x, sizes.size));
    }
    let size = sizes.padded();
    let numbers = sizes.batch * area(size) * sizes.channels;
    let to = machine.scratch(numbers)?;
    let [rows, columns] = sizes.size.map(int);
    let copy = Spread {
        from: x,
        kept: 0,
        alive: 0,
        to,
        batch: int(sizes.batch),
        rows,
        columns,
        channels: int(sizes.channels),
        to_rows: int(size[0]),
        to_columns: int(size[1]),
        margin: int(padding),
        spread: 1,
        pool_padding: 0,
        pool_rows: 0,
        pool_columns: 0,
    };
    machine.pass("spread", numbers / 4, Parameters::Spread(copy))?;
    Ok((to, size))
}

/// The weights as a product reads them, or `turned`, as the way back does; and the steps of a kernel row.
fn pack(
    machine: &mut impl Machine,
    sizes: &Sizes,
    weights: Address,
    turned: bool,
) -> Result<(Address, usize)> {
    let (lines, across) = match turned {
        true => (sizes.channels, sizes.outputs),
        false => (sizes.outputs, sizes.channels),
    };
    let row_steps = (sizes.kernel * across).div_ceil(STEP);
    let numbers = lines * sizes.kernel * row_steps * STEP;
    let packed = machine.scratch(numbers)?;
    let parameters = Pack {
        weights,
        packed,
        outputs: int(sizes.outputs),
        inputs: int(sizes.inputs),
        channels: int(sizes.channels),
        kernel: int(sizes.kernel),
        row_steps: int(row_steps),
        turned: i32::from(turned),
    };
    machine.pass("pack", numbers, Parameters::Pack(parameters))?;
    Ok((packed, row_steps))
}

/// A convolution over an input that has its padding in memory.
struct Product {
    x: Address,
    x_size: [usize; 2],
    channels: usize,
    weights: Address,
    row_steps: usize,
    bias: Address,
    out: Address,
    out_size: [usize; 2],
    outputs: usize,
    layer: Layer,
    alive: Address,
    /// Rows and columns of the sums that a pool is over.
    sums: [usize; 2],
}

impl Product {
    fn launch(self, machine: &mut impl Machine, sizes: &Sizes) -> Result<()> {
        let corners = if self.layer.pool.is_some() { 4 } else { 1 };
        let positions = corners * sizes.batch * area(self.out_size);
        let blocks = |tile: usize| [positions.div_ceil(tile), self.outputs.div_ceil(tile)];
        let large = self.outputs > 64 && area(blocks(128)) >= ENOUGH_BLOCKS;
        let tile = if large { 128 } else { 64 };
        let [grid_x, grid_y] = blocks(tile);
        let kernel = match (self.layer.pool, large) {
            (None, false) => "convolve_64",
            (None, true) => "convolve_128",
            (Some(_), false) => "convolve_pooled_64",
            (Some(_), true) => "convolve_pooled_128",
        };
        let input = sizes.batch * area(self.x_size) * self.channels;
        let parameters = Convolve {
            x: self.x,
            x_end: self.x + 4 * input as u64,
            weights: self.weights,
            bias: self.bias,
            out: self.out,
            alive: self.alive,
            batch: int(sizes.batch),
            rows: int(self.out_size[0]),
            columns: int(self.out_size[1]),
            x_rows: int(self.x_size[0]),
            x_columns: int(self.x_size[1]),
            channels: int(self.channels),
            outputs: int(self.outputs),
            kernel: int(sizes.kernel),
            row_steps: int(self.row_steps),
            stride: int(self.layer.stride),
            relu: i32::from(self.layer.relu),
            pool_padding: int(self.layer.pool.unwrap_or(0)),
            sum_rows: int(self.sums[0]),
            sum_columns: int(self.sums[1]),
        };
        machine.launch(&Launch {
            kernel,
            grid: [grid_x, grid_y],
            threads: THREADS,
            shared: 2 * tile * SHARED,
            parameters: Parameters::Convolve(parameters),
        })
    }
}

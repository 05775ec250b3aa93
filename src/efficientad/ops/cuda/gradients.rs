//! The gradients of a layer's weights and bias as launches: sums over all positions, in an order that does not depend on the
//! card.
//!
//! Not here: the gradient of a layer's input, which is a convolution (`layer`).

use candle_core::Result;

use super::layer::{Sizes, area};
use super::parameters::{Address, Gather, Parameters, Total, Weigh};
use super::{ENOUGH_BLOCKS, Launch, Machine, SHARED, THREADS, WIDE, int};

/// Positions that are worth a split of their own.
const WORTH_A_SPLIT: usize = 512;
/// Rows that one block adds up.
const ROWS_ADDED: usize = 1024;

/// The gradients of a layer's sums in memory.
pub(super) struct Sums {
    pub(super) first: Address,
    /// Rows and columns, all that is around and between included.
    pub(super) size: [usize; 2],
    pub(super) margin: usize,
    pub(super) spread: usize,
}

/// The gradient of the weights, `[o, i, k, k]`, from the layer's input with its padding, of `x_size` rows and columns, and the
/// gradients of its sums.
pub(super) fn weigh(
    machine: &mut impl Machine,
    sizes: &Sizes,
    (x, x_size): (Address, [usize; 2]),
    sums: Sums,
    to: Address,
) -> Result<()> {
    let row = sizes.kernel * sizes.channels;
    let (kernel, [rows, columns]) = match (sizes.outputs, row) {
        (65.., ..=32) => ("weigh_128x32", [128, 32]),
        (65.., 65..) => ("weigh_128x128", [128, 128]),
        _ => ("weigh_64x64", [64, 64]),
    };
    let row_tiles = row.div_ceil(columns);
    let tiles = sizes.outputs.div_ceil(rows) * sizes.kernel * row_tiles;
    let positions = sizes.batch * area(sizes.sums());
    let splits = ENOUGH_BLOCKS.div_ceil(tiles).min(positions.div_ceil(WORTH_A_SPLIT));
    let per_split = positions.div_ceil(splits).next_multiple_of(16);
    let splits = positions.div_ceil(per_split);
    let partial = machine.scratch(splits * sizes.outputs * sizes.kernel * row)?;
    let [sum_rows, sum_columns] = sizes.sums().map(int);
    let inside = (sums.margin * sums.size[1] + sums.margin) * sizes.outputs;
    let parameters = Weigh {
        x,
        sums: sums.first + 4 * inside as u64,
        partial,
        batch: int(sizes.batch),
        rows: sum_rows,
        columns: sum_columns,
        x_rows: int(x_size[0]),
        x_columns: int(x_size[1]),
        channels: int(sizes.channels),
        stride: int(sizes.layer.stride),
        sum_rows: int(sums.size[0]),
        sum_columns: int(sums.size[1]),
        spread: int(sums.spread),
        outputs: int(sizes.outputs),
        kernel: int(sizes.kernel),
        per_split: int(per_split),
        row_tiles: int(row_tiles),
    };
    machine.launch(&Launch {
        kernel,
        grid: [tiles, splits],
        threads: THREADS,
        shared: (rows + columns) * SHARED,
        parameters: Parameters::Weigh(parameters),
    })?;
    let gather = Gather {
        partial,
        weights: to,
        outputs: int(sizes.outputs),
        inputs: int(sizes.inputs),
        channels: int(sizes.channels),
        kernel: int(sizes.kernel),
        splits: int(splits),
    };
    machine.pass("gather", sizes.outputs * sizes.kernel * row, Parameters::Gather(gather))
}

/// Adds up the rows of `from [rows, columns]`, in an order that does not depend on the card.
pub(super) fn add_up(
    machine: &mut impl Machine,
    [from, to]: [Address; 2],
    rows: usize,
    columns: usize,
) -> Result<()> {
    let blocks = rows.div_ceil(ROWS_ADDED);
    if blocks == 1 {
        return total(machine, [from, to], [rows, columns], rows);
    }
    let between = machine.scratch(blocks * columns)?;
    total(machine, [from, between], [rows, columns], ROWS_ADDED)?;
    total(machine, [between, to], [blocks, columns], blocks)
}

/// Adds up each `per_block` rows of `from [rows, columns]`.
fn total(
    machine: &mut impl Machine,
    [from, to]: [Address; 2],
    [rows, columns]: [usize; 2],
    per_block: usize,
) -> Result<()> {
    let total = Total { from, to, rows: int(rows), columns: int(columns), per_block: int(per_block) };
    machine.launch(&Launch {
        kernel: "total",
        grid: [columns.div_ceil(32), rows.div_ceil(per_block)],
        threads: WIDE,
        shared: WIDE * 4,
        parameters: Parameters::Total(total),
    })
}

//! Bilinear resize, channels last, and its way back, as launches.

use candle_core::Result;

use super::parameters::{Address, Parameters, Resize};
use super::{Machine, int};

/// `from [b, h, w, c]` → `to [b, rows, columns, c]`; c a multiple of four.
pub(super) fn forward(
    machine: &mut impl Machine,
    places: [Address; 2],
    size: [usize; 4],
    to: [usize; 2],
) -> Result<()> {
    run(machine, "resize_forward", places, size, to)
}

/// From the gradient of what was written, `[b, rows, columns, c]`, to that of what was read, `[b, h, w, c]`.
pub(super) fn backward(
    machine: &mut impl Machine,
    places: [Address; 2],
    [batch, h, w, channels]: [usize; 4],
    [rows, columns]: [usize; 2],
) -> Result<()> {
    run(machine, "resize_back", places, [batch, rows, columns, channels], [h, w])
}

/// From `[b, rows, columns, c]` to `[b, to_rows, to_columns, c]`.
fn run(
    machine: &mut impl Machine,
    kernel: &'static str,
    [from, to]: [Address; 2],
    [batch, rows, columns, channels]: [usize; 4],
    [to_rows, to_columns]: [usize; 2],
) -> Result<()> {
    let parameters = Resize {
        from,
        to,
        batch: int(batch),
        rows: int(rows),
        columns: int(columns),
        to_rows: int(to_rows),
        to_columns: int(to_columns),
        channels: int(channels),
    };
    machine.pass(kernel, batch * to_rows * to_columns * channels / 4, Parameters::Resize(parameters))
}

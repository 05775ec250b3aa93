//! Bilinear resize, channels last, and its way back, as launches.

use candle_core::Result;

use super::parameters::{Address, Parameters, Resize};
use super::{Machine, int};

/// `from [b, h, w, c]` → `to [b, rows, columns, c]`; c a multiple of four.
pub(super) fn forward(
    machine: &mut impl Machine,
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
    machine.pass("resize", batch * to_rows * to_columns * channels / 4, Parameters::Resize(parameters))
}

/// From the gradient of what was written, `[b, rows, columns, c]`, to that of what was read, `[b, h, w, c]`.
pub(super) fn backward(
    machine: &mut impl Machine,
    [from, to]: [Address; 2],
    [batch, rows, columns, channels]: [usize; 4],
    [from_rows, from_columns]: [usize; 2],
) -> Result<()> {
    let parameters = Resize {
        from,
        to,
        batch: int(batch),
        rows: int(from_rows),
        columns: int(from_columns),
        to_rows: int(rows),
        to_columns: int(columns),
        channels: int(channels),
    };
    machine.pass("resize_back", batch * rows * columns * channels / 4, Parameters::Resize(parameters))
}

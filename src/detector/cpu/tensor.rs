//! Features in memory: blocks of sixteen channels, then rows, then columns, with room around the values.
//!
//! The room is the convolutions' zero padding and what the last tiles of a row read beyond it. Nobody ever writes to
//! it, so it stays zero. Not here: arithmetic.

use super::simd::{Block, LANES};

/// How a tensor lies in memory; sides in positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Channels that mean something; the last block is filled up with zeros.
    pub(super) channels: usize,
    /// Rows and columns of values.
    pub(super) size: [usize; 2],
    /// Zeros above and to the left of the values.
    pub(super) margin: usize,
    /// Rows and columns in memory.
    pub(super) stored: [usize; 2],
}

impl Layout {
    /// Values with `margin` zeros on every side.
    pub(super) fn new(channels: usize, size: [usize; 2], margin: usize) -> Self {
        Self { channels, size, margin, stored: size.map(|s| s + 2 * margin) }
    }

    /// The same with room for a reader of `extent` rows and columns, from the margin's corner.
    pub(super) fn reaching(mut self, extent: [usize; 2]) -> Self {
        for (stored, needed) in self.stored.iter_mut().zip(extent) {
            *stored = needed.max(*stored);
        }
        self
    }

    pub(super) fn blocks(&self) -> usize {
        self.channels.div_ceil(LANES)
    }

    /// The block `block` of the value in row `y` and column `x`.
    #[inline(always)]
    pub(super) fn at(&self, block: usize, y: usize, x: usize) -> usize {
        (block * self.stored[0] + y + self.margin) * self.stored[1] + x + self.margin
    }
}

/// Features of one picture.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) layout: Layout,
    pub(super) data: Vec<Block>,
}

impl Tensor {
    pub(super) fn zeros(layout: Layout) -> Self {
        let data = vec![Block::ZERO; layout.blocks() * layout.stored[0] * layout.stored[1]];
        Self { layout, data }
    }
}

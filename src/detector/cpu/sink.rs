//! What becomes of a convolution's outputs while they are still in registers.
//!
//! Adding the bias, ReLU, the sum of a 2/2 pool, or the square that goes into an anomaly map: none of them costs a
//! pass over memory, and the 384- and 768-channel outputs are never written at all.

use super::shared::Shared;
use super::simd::{Block, Simd};
use super::tensor::{Layout, Tensor};

/// What is done with an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Kept as it is.
    Keep,
    /// max(0, ·).
    Relu,
    /// max(0, ·), then summed over 2×2; the quarter is in the next layer's weights.
    ReluPool,
    /// Squared, and added to one plane over all channels.
    Squares,
}

impl Then {
    /// Rows or columns of outputs that make one value.
    pub(super) fn pooled(self) -> usize {
        if self == Self::ReluPool { 2 } else { 1 }
    }
}

/// Where outputs go.
#[derive(Clone, Copy)]
pub(super) struct Sink<'a> {
    pub(super) then: Then,
    pub(super) layout: Layout,
    to: Shared<'a, Block>,
}

impl<'a> Sink<'a> {
    pub(super) fn new(then: Then, tensor: &'a mut Tensor) -> Self {
        Self { then, layout: tensor.layout, to: Shared::new(&mut tensor.data) }
    }

    /// Takes the output of block `block` in row `y` and column `x`, bias included. Not for [`Then::ReluPool`].
    ///
    /// # Safety
    /// During a section, only one task puts outputs of this position (for squares: of any block) here.
    #[inline(always)]
    pub(super) unsafe fn put<S: Simd>(&self, s: S, block: usize, [y, x]: [usize; 2], v: S::V) {
        if y >= self.layout.size[0] || x >= self.layout.size[1] {
            return;
        }
        let block = if self.then == Then::Squares { 0 } else { block };
        // SAFETY: the caller's promise.
        let to = unsafe { self.to.get(self.layout.at(block, y, x)) };
        match self.then {
            Then::Keep => s.store(v, to),
            Then::Relu => s.store(s.relu(v), to),
            Then::Squares => s.store(s.fma(v, v, s.load(to)), to),
            Then::ReluPool => unreachable!("pooled outputs come by fours: this is a bug"),
        }
    }

    /// Takes the four outputs of one pooled value in row `y` and column `x`, and the bias they lack.
    ///
    /// # Safety
    /// During a section, only one task puts outputs of this position and block here.
    #[inline(always)]
    pub(super) unsafe fn put_pooled<S: Simd>(
        &self,
        s: S,
        block: usize,
        [y, x]: [usize; 2],
        four: [S::V; 4],
        bias: S::V,
    ) {
        if y >= self.layout.size[0] || x >= self.layout.size[1] {
            return;
        }
        let mut sum = s.splat(0.0);
        for v in four {
            sum = s.add(sum, s.relu(s.add(v, bias)));
        }
        // SAFETY: the caller's promise.
        s.store(sum, unsafe { self.to.get(self.layout.at(block, y, x)) });
    }
}

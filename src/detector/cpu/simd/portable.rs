//! Sixteen lanes in plain Rust, for processors without a kernel of their own; the compiler vectorises what it can.

use super::{Block, LANES, Simd};

#[derive(Debug, Clone, Copy)]
pub(super) struct Portable;

/// A loop, since a closure might not be inlined.
macro_rules! lanes {
    ($i:ident => $body:expr) => {{
        let mut v = [0.0; LANES];
        let mut $i = 0;
        while $i < LANES {
            v[$i] = $body;
            $i += 1;
        }
        v
    }};
}

impl Simd for Portable {
    type V = [f32; LANES];
    const GROUP: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, block: &Block) -> Self::V {
        block.0
    }

    #[inline(always)]
    fn store(self, v: Self::V, block: &mut Block) {
        block.0 = v;
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => a[i] + b[i])
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => a[i] - b[i])
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => a[i] * b[i])
    }

    // Not `mul_add`, which is a library call where the processor has no such instruction.
    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes!(i => a[i] * b[i] + c[i])
    }

    // A NaN stays one, so that damage shows in the map.
    #[inline(always)]
    fn relu(self, a: Self::V) -> Self::V {
        lanes!(i => if a[i] < 0.0 { 0.0 } else { a[i] })
    }
}

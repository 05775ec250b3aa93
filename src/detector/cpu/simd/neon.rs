//! Sixteen lanes as four NEON registers.
//!
//! The token is made only by `detect`, which is what makes its methods safe.

use std::arch::aarch64::*;

use super::{Block, Kernel, Simd};

#[derive(Debug, Clone, Copy)]
pub(super) struct Neon(());

impl Neon {
    pub(super) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }

    pub(super) fn run(self, kernel: impl Kernel) {
        #[target_feature(enable = "neon")]
        fn enter(simd: Neon, kernel: impl Kernel) {
            kernel.run(simd);
        }
        // SAFETY: the token is made only where NEON was detected.
        unsafe { enter(self, kernel) }
    }
}

/// All four registers, written out, since a closure might not be inlined.
macro_rules! lanes {
    ($i:ident => $body:expr) => {
        [lanes!($i = 0, $body), lanes!($i = 1, $body), lanes!($i = 2, $body), lanes!($i = 3, $body)]
    };
    ($i:ident = $n:literal, $body:expr) => {{
        const $i: usize = $n;
        // SAFETY: the token is made only where NEON was detected; a block is whole and aligned.
        unsafe { $body }
    }};
}

impl Simd for Neon {
    type V = [float32x4_t; 4];
    const GROUP: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        lanes!(_I => vdupq_n_f32(x))
    }
    #[inline(always)]
    fn load(self, block: &Block) -> Self::V {
        lanes!(I => vld1q_f32(block.0.as_ptr().add(4 * I)))
    }

    #[inline(always)]
    fn store(self, v: Self::V, block: &mut Block) {
        lanes!(I => vst1q_f32(block.0.as_mut_ptr().add(4 * I), v[I]));
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(I => vaddq_f32(a[I], b[I]))
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(I => vsubq_f32(a[I], b[I]))
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(I => vmulq_f32(a[I], b[I]))
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes!(I => vfmaq_f32(c[I], a[I], b[I]))
    }

    // `vmaxq_f32` keeps a NaN a NaN.
    #[inline(always)]
    fn relu(self, a: Self::V) -> Self::V {
        lanes!(I => vmaxq_f32(a[I], vdupq_n_f32(0.0)))
    }
}

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

macro_rules! lanes {
    ($i:ident => $body:expr) => {
        std::array::from_fn(
            #[inline(always)]
            |$i| {
                // SAFETY: the token is made only where NEON was detected; a block is whole and aligned.
                unsafe { $body }
            },
        )
    };
}

impl Simd for Neon {
    type V = [float32x4_t; 4];
    const GROUP: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        lanes!(_i => vdupq_n_f32(x))
    }

    #[inline(always)]
    fn load(self, block: &Block) -> Self::V {
        lanes!(i => vld1q_f32(block.0.as_ptr().add(4 * i)))
    }

    #[inline(always)]
    fn store(self, v: Self::V, block: &mut Block) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: the token is made only where NEON was detected; a block is whole and aligned.
            unsafe { vst1q_f32(block.0.as_mut_ptr().add(4 * i), v) }
        }
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => vaddq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => vsubq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(i => vmulq_f32(a[i], b[i]))
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes!(i => vfmaq_f32(c[i], a[i], b[i]))
    }

    // `vmaxq_f32` keeps a NaN a NaN.
    #[inline(always)]
    fn relu(self, a: Self::V) -> Self::V {
        lanes!(i => vmaxq_f32(a[i], vdupq_n_f32(0.0)))
    }
}

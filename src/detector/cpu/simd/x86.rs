//! Sixteen lanes as two AVX2 registers, or as one of AVX-512.
//!
//! The tokens are made only by `detect`, which is what makes their methods safe.

use std::arch::x86_64::*;

use super::{Block, Kernel, LANES, Simd};

#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2(());

#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")).then_some(Self(()))
    }

    pub(super) fn run(self, kernel: impl Kernel) {
        #[target_feature(enable = "avx2,fma")]
        fn enter(simd: Avx2, kernel: impl Kernel) {
            kernel.run(simd);
        }
        // SAFETY: the token is made only where AVX2 and FMA were detected.
        unsafe { enter(self, kernel) }
    }
}

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        is_x86_feature_detected!("avx512f").then_some(Self(()))
    }

    pub(super) fn run(self, kernel: impl Kernel) {
        #[target_feature(enable = "avx512f")]
        fn enter(simd: Avx512, kernel: impl Kernel) {
            kernel.run(simd);
        }
        // SAFETY: the token is made only where AVX-512F was detected.
        unsafe { enter(self, kernel) }
    }
}

// Every method's SAFETY is the same: the token exists only where the instructions were detected, and loads and stores
// go to a whole, aligned block.
macro_rules! lanes {
    ($body:expr) => {
        // SAFETY: the token is made only where the instructions were detected; a block is whole and aligned.
        unsafe { $body }
    };
}

impl Simd for Avx2 {
    type V = [__m256; 2];
    const GROUP: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        lanes!([_mm256_set1_ps(x); 2])
    }

    #[inline(always)]
    fn load(self, block: &Block) -> Self::V {
        let from = block.0.as_ptr();
        lanes!([_mm256_load_ps(from), _mm256_load_ps(from.add(LANES / 2))])
    }

    #[inline(always)]
    fn store(self, v: Self::V, block: &mut Block) {
        let to = block.0.as_mut_ptr();
        lanes!({
            _mm256_store_ps(to, v[0]);
            _mm256_store_ps(to.add(LANES / 2), v[1]);
        })
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!([_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!([_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!([_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])])
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes!([_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])])
    }

    // The operands' order keeps a NaN a NaN.
    #[inline(always)]
    fn relu(self, a: Self::V) -> Self::V {
        lanes!([_mm256_max_ps(_mm256_setzero_ps(), a[0]), _mm256_max_ps(_mm256_setzero_ps(), a[1])])
    }

    #[inline(always)]
    fn prefetch(self, block: &Block) {
        lanes!(_mm_prefetch::<_MM_HINT_T0>(block.0.as_ptr().cast()));
    }
}

impl Simd for Avx512 {
    type V = __m512;
    const GROUP: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::V {
        lanes!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn load(self, block: &Block) -> Self::V {
        lanes!(_mm512_load_ps(block.0.as_ptr()))
    }

    #[inline(always)]
    fn store(self, v: Self::V, block: &mut Block) {
        lanes!(_mm512_store_ps(block.0.as_mut_ptr(), v))
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        lanes!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes!(_mm512_fmadd_ps(a, b, c))
    }

    // The operands' order keeps a NaN a NaN.
    #[inline(always)]
    fn relu(self, a: Self::V) -> Self::V {
        lanes!(_mm512_max_ps(_mm512_setzero_ps(), a))
    }

    #[inline(always)]
    fn prefetch(self, block: &Block) {
        lanes!(_mm_prefetch::<_MM_HINT_T0>(block.0.as_ptr().cast()));
    }
}

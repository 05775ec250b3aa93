//! The processor's own peak: fused multiply-adds that wait for nothing, to hold an engine's speed against.

use std::hint::black_box;
use std::time::Instant;

use super::pool::Pool;
use super::simd::{Isa, Kernel, LANES, Simd};

/// Independent chains, enough to hide the latency of an addition and a multiplication.
const CHAINS: usize = 16;
const STEPS: usize = 1 << 18;
const TRIALS: usize = 20;

/// Billions of f32 operations a second that `threads` threads reach together, a multiply-add counting as two.
pub(crate) fn gflops(threads: usize) -> f64 {
    let (pool, isa) = (Pool::shared(threads), Isa::best());
    let operations = (2 * LANES * CHAINS * STEPS * pool.threads()) as f64;
    let trial = || {
        let began = Instant::now();
        pool.run(pool.threads(), &|_, _| isa.run(Chains));
        operations / began.elapsed().as_secs_f64() / 1e9
    };
    (0..TRIALS).map(|_| trial()).fold(0.0, f64::max)
}

struct Chains;

impl Kernel for Chains {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (factor, term) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
        let mut chains = [term; CHAINS];
        for _ in 0..STEPS {
            for chain in &mut chains {
                *chain = s.fma(*chain, factor, term);
            }
        }
        black_box(chains);
    }
}

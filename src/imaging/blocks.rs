//! Rows in blocks of pixels: as many as fill the widest registers, so that the compiler makes vector instructions of plain
//! loops over them, for whichever the processor has.
//!
//! It does so only where a loop's length is a constant and nothing can overlap: hence arrays and not slices. And only what is
//! inlined all the way is compiled for the processor at hand: hence a trait, whose methods can demand that, and neither
//! closures nor the standard library's `map` of arrays, which cannot. `benches/frames.rs` shows when either is lost: frames
//! then take several times as long. Not here: what is done to the pixels (`bayer`, `raw`, `samples`).

/// Pixels that are treated at once: an even number, so that every block begins with the same colour of a pattern.
pub(super) const BLOCK: usize = 64;

/// What makes `OUT` bytes of `IN` others.
pub(super) trait Kernel<const IN: usize, const OUT: usize> {
    /// Treats the next block of a row; every implementation is `#[inline(always)]`.
    fn block(&mut self, from: &[u8; IN], out: &mut [u8; OUT]);
}

/// Makes `out` of `from`, block by block; the last one is padded with zeros.
pub(super) fn each<const IN: usize, const OUT: usize>(
    from: &[u8],
    out: &mut [u8],
    kernel: impl Kernel<IN, OUT>,
) {
    pulp::Arch::new().dispatch(Each { from, out, kernel });
}

struct Each<'a, const IN: usize, const OUT: usize, K> {
    from: &'a [u8],
    out: &'a mut [u8],
    kernel: K,
}

impl<const IN: usize, const OUT: usize, K: Kernel<IN, OUT>> pulp::NullaryFnOnce for Each<'_, IN, OUT, K> {
    type Output = ();

    #[inline(always)]
    fn call(mut self) {
        let ((from, rest), (blocks, rest_of_out)) = (self.from.as_chunks(), self.out.as_chunks_mut());
        for (from, block) in from.iter().zip(blocks) {
            self.kernel.block(from, block);
        }
        if !rest_of_out.is_empty() {
            let (mut padded, mut block) = ([0; IN], [0; OUT]);
            padded[..rest.len()].copy_from_slice(rest);
            self.kernel.block(&padded, &mut block);
            rest_of_out.copy_from_slice(&block[..rest_of_out.len()]);
        }
    }
}

/// Writes three planes of a block as interleaved pixels.
#[inline(always)]
pub(super) fn interleave(planes: [&[u8; BLOCK]; 3], out: &mut [u8; 3 * BLOCK]) {
    for (x, pixel) in out.as_chunks_mut().0.iter_mut().enumerate() {
        *pixel = [planes[0][x], planes[1][x], planes[2][x]];
    }
}

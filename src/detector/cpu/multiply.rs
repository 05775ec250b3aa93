//! The products in between: for one point, a matrix of tiles × input channels times one of input × output channels.
//!
//! A micro-kernel keeps ROWS tiles × GROUP blocks of outputs in registers while it runs through all input channels; tiles
//! are broadcast, weights are vectors. Not here: layout decisions and threads (`winograd`).

use super::shared::Shared;
use super::simd::{Block, Kernel, LANES, Simd};

/// `sums = values · weights` for one point.
pub(super) struct Multiply<'a> {
    pub(super) values: &'a [Block],
    /// Blocks from one block of input channels to the next.
    pub(super) values_by_block: usize,
    /// Blocks of input channels.
    pub(super) depth: usize,
    /// Tiles; a multiple of `rows`.
    pub(super) tiles: usize,
    /// Tiles that a micro-kernel takes at once.
    pub(super) rows: usize,
    /// Groups of output channels, each `depth·16 × GROUP` blocks of weights.
    pub(super) weights: &'a [Block],
    pub(super) groups: usize,
    /// Weights that will be wanted next, to be fetched meanwhile; any number.
    pub(super) next: &'a [Block],
    pub(super) sums: Shared<'a, Block>,
    pub(super) sums_start: usize,
    /// Blocks from one block of output channels to the next.
    pub(super) sums_by_block: usize,
}

impl Kernel for Multiply<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match (S::GROUP, self.rows) {
            (2, 14) => self.all::<S, 14, 2>(s),
            (2, 12) => self.all::<S, 12, 2>(s),
            (2, 10) => self.all::<S, 10, 2>(s),
            (2, 8) => self.all::<S, 8, 2>(s),
            (2, 4) => self.all::<S, 4, 2>(s),
            (1, 6) => self.all::<S, 6, 1>(s),
            (1, 5) => self.all::<S, 5, 1>(s),
            (1, 4) => self.all::<S, 4, 1>(s),
            (group, rows) => {
                unreachable!("no micro-kernel has {rows} rows and {group} blocks: this is a bug")
            }
        }
    }
}

impl Multiply<'_> {
    #[inline(always)]
    fn all<S: Simd, const ROWS: usize, const GROUP: usize>(&self, s: S) {
        let panel = self.depth * LANES * GROUP;
        let mut ahead = Ahead::new(self.next, self.tiles / ROWS * self.groups * self.depth * LANES);
        for tile in (0..self.tiles).step_by(ROWS) {
            let values = &self.values[tile..tile + (self.depth - 1) * self.values_by_block + ROWS];
            for group in 0..self.groups {
                let weights = &self.weights[group * panel..(group + 1) * panel];
                let sums = self.product::<S, ROWS, GROUP>(s, values, weights, &mut ahead);
                for g in 0..GROUP {
                    let start = self.sums_start + (group * GROUP + g) * self.sums_by_block + tile;
                    // SAFETY: these tiles of these output channels at this point are this task's alone.
                    let to = unsafe { self.sums.range(start..start + ROWS) };
                    for (to, sums) in to.iter_mut().zip(&sums) {
                        s.store(sums[g], to);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn product<S: Simd, const ROWS: usize, const GROUP: usize>(
        &self,
        s: S,
        values: &[Block],
        weights: &[Block],
        ahead: &mut Ahead<'_>,
    ) -> [[S::V; GROUP]; ROWS] {
        assert!(values.len() == (self.depth - 1) * self.values_by_block + ROWS);
        assert!(weights.len() == self.depth * LANES * GROUP);
        let mut sums = [[s.splat(0.0); GROUP]; ROWS];
        for block in 0..self.depth {
            for lane in 0..LANES {
                ahead.fetch(s);
                let mut w = [s.splat(0.0); GROUP];
                for (g, w) in w.iter_mut().enumerate() {
                    // SAFETY: below `depth·16·GROUP`, which was asserted to be the length.
                    *w = s.load(unsafe { weights.get_unchecked((block * LANES + lane) * GROUP + g) });
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: at most `(depth − 1)·by_block + ROWS − 1`, one less than the asserted length; a lane of 16.
                    let x = unsafe {
                        *values.get_unchecked(block * self.values_by_block + row).0.get_unchecked(lane)
                    };
                    let x = s.splat(x);
                    for g in 0..GROUP {
                        sums[g] = s.fma(x, w[g], sums[g]);
                    }
                }
            }
        }
        sums
    }
}

/// Fetches some blocks, evenly spread over a number of steps.
struct Ahead<'a> {
    blocks: &'a [Block],
    /// Position and step in 1/65536 of a block.
    position: usize,
    step: usize,
}

impl<'a> Ahead<'a> {
    fn new(blocks: &'a [Block], steps: usize) -> Self {
        Self { blocks, position: 0, step: (blocks.len() << 16) / steps }
    }

    #[inline(always)]
    fn fetch<S: Simd>(&mut self, s: S) {
        if let Some(block) = self.blocks.get(self.position >> 16) {
            s.prefetch(block);
        }
        self.position += self.step;
    }
}

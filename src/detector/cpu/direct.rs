//! Convolutions of any kernel and stride, value by value: the first layer, the encoder, and 1×1 layers.
//!
//! In: the picture, or tensors. Out: a sink. There is no im2col: a micro-kernel runs through a list of taps, each an
//! offset from its positions' corners, so a tap's inputs are broadcast from where they lie. Not here: threads (`pool`).

use std::ops::Range;

use super::super::filters::Filters;
use super::pool::Pool;
use super::simd::{Block, Isa, Kernel, LANES, Simd, scalars};
use super::sink::{Sink, Then};
use super::tensor::{Layout, Tensor};

/// What a direct convolution reads.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) values: &'a [f32],
    /// Scalars from one position to the next, and from one row to the next.
    pub(super) by_column: usize,
    pub(super) by_row: usize,
}

/// Scalars from one block of channels, one row and one column to the next, in tensors of this layout.
pub(super) fn distances(layout: &Layout) -> [usize; 3] {
    let [rows, columns] = layout.stored;
    [rows * columns * LANES, columns * LANES, LANES]
}

impl<'a> From<&'a Tensor> for Source<'a> {
    fn from(tensor: &'a Tensor) -> Self {
        let by_row = tensor.layout.stored[1] * LANES;
        Self { values: scalars(&tensor.data), by_column: LANES, by_row }
    }
}

/// The taps of one source, in the order of the packed weights.
struct Taps {
    /// Scalars from a position's corner.
    offsets: Vec<u32>,
    furthest: usize,
}

/// A convolution ready to run on sources of one layout.
pub(super) struct Direct {
    isa: Isa,
    stride: usize,
    /// Rows and columns of outputs, before pooling.
    size: [usize; 2],
    taps: Vec<Taps>,
    depth: usize,
    blocks: usize,
    groups: usize,
    /// `[group][tap][block of the group]`.
    weights: Vec<Block>,
    bias: Vec<Block>,
    then: Then,
}

impl Direct {
    /// A layer that yields `size` outputs before any pooling.
    ///
    /// `distances` are, for each source, the scalars from one channel's block, row and column to the next.
    pub(super) fn new(
        isa: Isa,
        filters: &Filters,
        stride: usize,
        size: [usize; 2],
        distances: &[[usize; 3]],
        then: Then,
    ) -> Self {
        let group = isa.group();
        let blocks = filters.outputs().div_ceil(LANES);
        let groups = blocks.div_ceil(group);
        let mut packed = Vec::new();
        let mut taps = Vec::new();
        let mut first = 0;
        for (&channels, &distances) in filters.sources.iter().zip(distances) {
            let used = used_taps(filters, first..first + channels, distances);
            let offsets: Vec<u32> = used.iter().map(|tap| tap.0).collect();
            let furthest = offsets.iter().max().map_or(0, |&o| o as usize);
            taps.push(Taps { offsets, furthest });
            packed.extend(used.into_iter().map(|tap| tap.1));
            first += channels;
        }
        let depth = packed.len();
        let mut weights = vec![Block::ZERO; groups * depth * group];
        for (tap, (input, position)) in packed.into_iter().enumerate() {
            for output in 0..filters.outputs() {
                let block = output / LANES;
                let at = ((block / group) * depth + tap) * group + block % group;
                weights[at].0[output % LANES] = filters.filter(output, input)[position] as f32;
            }
        }
        let mut bias = vec![Block::ZERO; groups * group];
        for (i, b) in filters.bias.iter().enumerate() {
            bias[i / LANES].0[i % LANES] = *b as f32;
        }
        Self { isa, stride, size, taps, depth, blocks, groups, weights, bias, then }
    }

    /// Convolves `sources` into `sink`. The first output's corner is each source's first position, `origin` rows and
    /// columns in.
    pub(super) fn run(&self, pool: &Pool, sources: &[Source<'_>], origin: usize, sink: &Sink<'_>) {
        assert!(sink.then == self.then && sources.len() == self.taps.len(), "another layer's: this is a bug");
        let [rows, columns] = self.size.map(|s| s / self.then.pooled());
        // Squares of all channels add up in one place, so they stay in one task; small layers need the parallelism.
        let split = if self.then != Then::Squares && rows < 4 * pool.threads() { self.groups } else { 1 };
        pool.run(rows * split, &|_, task| {
            let groups = match split {
                1 => 0..self.groups,
                _ => task % split..task % split + 1,
            };
            self.isa.run(Row { layer: self, sources, origin, y: task / split, columns, groups, sink });
        });
    }
}

/// A tap's offset, and its input channel and position in the filters.
type Tap = (u32, (usize, usize));

/// The taps of the input channels `inputs` with any weight: a filter that was widened has many without.
fn used_taps(filters: &Filters, inputs: Range<usize>, [by_block, by_row, by_column]: [usize; 3]) -> Vec<Tap> {
    let mut taps = Vec::new();
    for first in inputs.clone().step_by(LANES) {
        for position in 0..filters.kernel * filters.kernel {
            for input in first..(first + LANES).min(inputs.end) {
                if (0..filters.outputs()).all(|output| filters.filter(output, input)[position] == 0.0) {
                    continue;
                }
                let (y, x) = (position / filters.kernel, position % filters.kernel);
                let channel = input - inputs.start;
                let offset = channel / LANES * by_block + y * by_row + x * by_column + channel % LANES;
                let offset = u32::try_from(offset).expect("pictures are bounded: this is a bug");
                taps.push((offset, (input, position)));
            }
        }
    }
    taps
}

/// One row of values, in some of the groups.
struct Row<'a> {
    layer: &'a Direct,
    sources: &'a [Source<'a>],
    origin: usize,
    y: usize,
    columns: usize,
    groups: Range<usize>,
    sink: &'a Sink<'a>,
}

impl Kernel for Row<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match S::GROUP {
            2 => self.dispatch::<S, 12, 6, 2>(s),
            1 => self.dispatch::<S, 6, 2, 1>(s),
            group => unreachable!("no micro-kernel has {group} blocks: this is a bug"),
        }
    }
}

impl Row<'_> {
    /// `WIDE` columns at once where nothing is pooled, two rows of `POOLED` columns where it is.
    #[inline(always)]
    fn dispatch<S: Simd, const WIDE: usize, const POOLED: usize, const GROUP: usize>(&self, s: S) {
        let step = self.sources[0].by_column * self.layer.stride;
        let pooled = self.layer.then == Then::ReluPool;
        match (step, pooled) {
            (3, true) => self.groups::<S, 2, POOLED, 3, GROUP>(s),
            (6, false) => self.groups::<S, 1, WIDE, 6, GROUP>(s),
            (16, false) => self.groups::<S, 1, WIDE, 16, GROUP>(s),
            (32, false) => self.groups::<S, 1, WIDE, 32, GROUP>(s),
            _ => unreachable!("no micro-kernel steps by {step}: this is a bug"),
        }
    }

    #[inline(always)]
    fn groups<S: Simd, const ROWS: usize, const COLUMNS: usize, const STEP: usize, const GROUP: usize>(
        &self,
        s: S,
    ) {
        let values = COLUMNS / ROWS;
        for group in self.groups.clone() {
            let mut x = 0;
            while x < self.columns {
                if self.columns >= values {
                    // The last stretch overlaps the one before it rather than the margin.
                    let start = x.min(self.columns - values);
                    // Squares are added up, so what overlaps must not be added twice.
                    let fresh = if self.layer.then == Then::Squares { x } else { start };
                    self.stretch::<S, ROWS, COLUMNS, STEP, GROUP>(s, group, start, fresh);
                    x += values;
                } else {
                    self.stretch::<S, ROWS, ROWS, STEP, GROUP>(s, group, x, x);
                    x += 1;
                }
            }
        }
    }

    /// The values from column `start` on, of which those from `fresh` on are kept.
    #[inline(always)]
    fn stretch<S: Simd, const ROWS: usize, const COLUMNS: usize, const STEP: usize, const GROUP: usize>(
        &self,
        s: S,
        group: usize,
        start: usize,
        fresh: usize,
    ) {
        let sums = self.product::<S, ROWS, COLUMNS, STEP, GROUP>(s, group, start);
        let blocks = group * GROUP..((group + 1) * GROUP).min(self.layer.blocks);
        for (g, block) in blocks.enumerate() {
            let bias = s.load(&self.layer.bias[block]);
            for x in 0..COLUMNS / ROWS {
                let at = [self.y, start + x];
                if start + x < fresh {
                    continue;
                }
                // SAFETY: this row in this group (of squares, in all groups) is this task's alone.
                unsafe {
                    if ROWS == 2 {
                        let (a, b) = (&sums[0], &sums[1]);
                        let four = [a[2 * x][g], a[2 * x + 1][g], b[2 * x][g], b[2 * x + 1][g]];
                        self.sink.put_pooled(s, block, at, four, bias);
                    } else {
                        self.sink.put(s, block, at, s.add(sums[0][x][g], bias));
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn product<S: Simd, const ROWS: usize, const COLUMNS: usize, const STEP: usize, const GROUP: usize>(
        &self,
        s: S,
        group: usize,
        start: usize,
    ) -> [[[S::V; GROUP]; COLUMNS]; ROWS] {
        let layer = self.layer;
        let mut sums = [[[s.splat(0.0); GROUP]; COLUMNS]; ROWS];
        let mut weights = &layer.weights[group * layer.depth * GROUP..(group + 1) * layer.depth * GROUP];
        for (source, taps) in self.sources.iter().zip(&layer.taps) {
            let row = (self.y * ROWS * layer.stride + self.origin) * source.by_row;
            let corner = row + start * ROWS * STEP + self.origin * source.by_column;
            let from = &source.values[corner..];
            let reach = (ROWS - 1) * source.by_row + (COLUMNS - 1) * STEP;
            assert!(taps.furthest + reach < from.len(), "taps reach beyond their source: this is a bug");
            for &tap in &taps.offsets {
                // SAFETY: `weights` holds GROUP blocks for each tap of each source; the furthest input that any tap
                // reaches was asserted to be inside.
                unsafe {
                    let mut w = [s.splat(0.0); GROUP];
                    for (g, w) in w.iter_mut().enumerate() {
                        *w = s.load(weights.get_unchecked(g));
                    }
                    weights = weights.get_unchecked(GROUP..);
                    for (r, sums) in sums.iter_mut().enumerate() {
                        for (c, sums) in sums.iter_mut().enumerate() {
                            let x = *from.get_unchecked(tap as usize + r * source.by_row + c * STEP);
                            let x = s.splat(x);
                            for g in 0..GROUP {
                                sums[g] = s.fma(x, w[g], sums[g]);
                            }
                        }
                    }
                }
            }
        }
        sums
    }
}

//! Stride-1 convolutions of 3- and 4-wide kernels by minimal filtering: F(6×6, 3×3) and F(5×5, 4×4).
//!
//! In: one or several source tensors. Out: one or several parts, each over some of the sources and with an end of its
//! own, that share the transformed input. Two schedules: layers with small weights give each worker tiles to carry
//! through all three steps inside its own cache; layers with large weights do each step over many tiles together, so
//! that every weight is read from memory once. Not here: arithmetic (`transform`, `multiply`), threads (`pool`).

use std::ops::Range;

use super::super::filters::Filters;
use super::cook_toom::{self, POINTS};
use super::multiply::Multiply;
use super::plan::Plan;
use super::pool::Pool;
use super::shared::Shared;
use super::simd::{Block, Isa, Kernel, LANES, Simd};
use super::sink::{Sink, Then};
use super::tensor::{Layout, Tensor};
use super::tiling::{Demand, Tiling};
use super::transform::{self, Input, Points, TILE, Tile};

/// Outputs of the largest tile's side.
const LARGEST: usize = 6;

/// One convolution over some of a layer's sources.
struct Part {
    /// Blocks of input channels, over all sources in turn.
    depth: Range<usize>,
    /// Blocks of output channels that mean something.
    blocks: usize,
    groups: usize,
    /// `[round][point][group of the round][input channel][block of the group]`.
    weights: Vec<Block>,
    bias: Vec<Block>,
    then: Then,
}

/// A convolution ready to run at one output size.
pub(super) struct Winograd {
    plan: Plan,
    /// Outputs of a tile's side.
    step: usize,
    sources: Vec<usize>,
    parts: Vec<Part>,
    tiling: Tiling,
    /// Source and block of every block of input channels.
    blocks: Vec<(usize, usize)>,
}

/// A part to be: its filters, the source that its first input is, and what becomes of its outputs.
pub(super) struct Spec {
    pub(super) filters: Filters,
    pub(super) first_source: usize,
    pub(super) then: Then,
}

/// Whether this kernel can be run here.
pub(super) fn handles(kernel: usize) -> bool {
    kernel == 3 || kernel == 4
}

/// Rows or columns that are read for `outputs` of them.
pub(super) fn extent(kernel: usize, outputs: usize) -> usize {
    let step = POINTS + 1 - kernel;
    (outputs.div_ceil(step) - 1) * step + POINTS
}

impl Winograd {
    /// A layer over `sources` (channels each) whose convolutions yield `size` outputs before any pooling.
    pub(super) fn new(plan: Plan, sources: &[usize], size: [usize; 2], parts: Vec<Spec>) -> Self {
        let kernel = parts[0].filters.kernel;
        assert!(handles(kernel), "minimal filtering of {kernel}-wide kernels: this is a bug");
        let step = POINTS + 1 - kernel;
        let sources: Vec<usize> = sources.iter().map(|c| c.div_ceil(LANES)).collect();
        let taken: usize = parts.iter().map(|spec| spec.filters.outputs() * spec.filters.inputs()).sum();
        let widest = parts.iter().map(|spec| spec.filters.outputs()).max().unwrap_or(0);
        let tiling = Tiling::new(&Demand {
            isa: plan.isa,
            threads: plan.threads,
            tiles: size.map(|s| s.div_ceil(step)),
            pooled: parts[0].then.pooled(),
            depth: sources.iter().sum(),
            groups: widest.div_ceil(LANES * plan.isa.group()),
            weight_bytes: TILE * taken * size_of::<f32>(),
        });
        let blocks = sources.iter().enumerate().flat_map(|(i, &n)| (0..n).map(move |b| (i, b))).collect();
        let parts = parts.into_iter().map(|spec| Part::new(plan.isa, &sources, spec, tiling.round)).collect();
        Self { plan, step, sources, blocks, parts, tiling }
    }

    /// Blocks of working memory that `run` needs.
    pub(super) fn scratch(&self) -> usize {
        let workers = if self.tiling.joint { 1 } else { self.plan.threads };
        workers * (self.tiling.values.by_point + self.tiling.sums.by_point) * TILE
    }

    /// Convolves `sources` into `sinks`, one for each part.
    pub(super) fn run(&self, pool: &Pool, scratch: &mut [Block], sources: &[&Tensor], sinks: &[Sink<'_>]) {
        assert!(sinks.iter().zip(&self.parts).all(|(s, p)| s.then == p.then), "another sink: this is a bug");
        if self.tiling.joint {
            self.run_jointly(pool, scratch, sources, sinks);
        } else {
            self.run_privately(pool, scratch, sources, sinks);
        }
    }

    fn run_privately(&self, pool: &Pool, scratch: &mut [Block], sources: &[&Tensor], sinks: &[Sink<'_>]) {
        let (values_len, sums_len) = (self.tiling.values.by_point * TILE, self.tiling.sums.by_point * TILE);
        let scratch = Shared::new(scratch);
        pool.run(self.tiling.chunks.len(), &|worker, chunk| {
            let start = worker * (values_len + sums_len);
            // SAFETY: a worker's number is its own while the section runs, and so is this part of the memory.
            let mine = unsafe { scratch.range(start..start + values_len + sums_len) };
            let (values, sums) = mine.split_at_mut(values_len);
            let tiles = &self.tiling.tiles[self.tiling.chunks[chunk].tiles.clone()];
            let mut first = 0;
            for (source, &blocks) in sources.iter().zip(&self.sources) {
                self.transform(source, 0..blocks, first, tiles, Shared::new(values));
                first += blocks;
            }
            for (part, sink) in self.parts.iter().zip(sinks) {
                for group in 0..part.groups {
                    for point in 0..TILE {
                        self.multiply(part, group..group + 1, point, tiles.len(), values, Shared::new(sums));
                    }
                    self.finish(part, group..group + 1, tiles, 0..tiles.len(), sums, sink);
                }
            }
        });
    }

    fn run_jointly(&self, pool: &Pool, scratch: &mut [Block], sources: &[&Tensor], sinks: &[Sink<'_>]) {
        let (values, sums) = scratch.split_at_mut(self.tiling.values.by_point * TILE);
        for chunk in &self.tiling.chunks {
            let tiles = &self.tiling.tiles[chunk.tiles.clone()];
            let shared = Shared::new(values);
            pool.run(self.blocks.len(), &|_, i| {
                let (source, block) = self.blocks[i];
                self.transform(sources[source], block..block + 1, i, tiles, shared);
            });
            for (part, sink) in self.parts.iter().zip(sinks) {
                for first in (0..part.groups).step_by(self.tiling.round) {
                    let groups = first..(first + self.tiling.round).min(part.groups);
                    let shared = Shared::new(sums);
                    let values = &*values;
                    pool.run(TILE, &|_, point| {
                        self.multiply(part, groups.clone(), point, tiles.len(), values, shared);
                    });
                    let sums = &*sums;
                    pool.run(chunk.pieces.len(), &|_, i| {
                        self.finish(part, groups.clone(), tiles, chunk.pieces[i].clone(), sums, sink);
                    });
                }
            }
        }
    }

    /// Transforms `tiles` of some of a source's blocks; the first of them is the layer's block `to`.
    fn transform(
        &self,
        source: &Tensor,
        blocks: Range<usize>,
        to: usize,
        tiles: &[Tile],
        values: Shared<'_, Block>,
    ) {
        let mut points = self.tiling.values;
        points.start = to * points.by_block;
        self.plan.isa.run(Input { source, blocks, tiles, step: self.step, values, points });
    }

    fn multiply(
        &self,
        part: &Part,
        groups: Range<usize>,
        point: usize,
        tiles: usize,
        values: &[Block],
        sums: Shared<'_, Block>,
    ) {
        let (from, to) = (self.tiling.values, self.tiling.sums);
        let panel = part.depth.len() * LANES * self.plan.isa.group();
        let place = |point: usize| (groups.start * TILE + point * self.tiling.round) * panel;
        // The next point is another worker's where the step is joint.
        let next = place(point + if self.tiling.joint { self.plan.threads } else { 1 });
        self.plan.isa.run(Multiply {
            values: &values[point * from.by_point + part.depth.start * from.by_block..],
            values_by_block: from.by_block,
            depth: part.depth.len(),
            tiles: tiles.next_multiple_of(self.tiling.rows),
            rows: self.tiling.rows,
            weights: &part.weights[place(point)..place(point) + groups.len() * panel],
            groups: groups.len(),
            next: part.weights.get(next..next + groups.len() * panel).unwrap_or(&[]),
            sums,
            sums_start: point * to.by_point,
            sums_by_block: to.by_block,
        });
    }

    /// Transforms back and hands to the sink `some` of the chunk's tiles.
    fn finish(
        &self,
        part: &Part,
        groups: Range<usize>,
        tiles: &[Tile],
        some: Range<usize>,
        sums: &[Block],
        sink: &Sink<'_>,
    ) {
        let group = self.plan.isa.group();
        let blocks = groups.start * group..(groups.end * group).min(part.blocks);
        let mut points = self.tiling.sums;
        points.start = some.start;
        let tiles = &tiles[some];
        match self.step {
            5 => self.plan.isa.run(Output::<5> { sums, points, tiles, blocks, bias: &part.bias, sink }),
            6 => self.plan.isa.run(Output::<6> { sums, points, tiles, blocks, bias: &part.bias, sink }),
            step => unreachable!("tiles of {step}: this is a bug"),
        }
    }
}

impl Part {
    fn new(isa: Isa, sources: &[usize], spec: Spec, round: usize) -> Self {
        let Spec { filters, first_source, then } = spec;
        let group = isa.group();
        let blocks = filters.outputs().div_ceil(LANES);
        let groups = blocks.div_ceil(group);
        let first: usize = sources[..first_source].iter().sum();
        let depth: usize = filters.sources.iter().map(|c| c.div_ceil(LANES)).sum();
        let g = cook_toom::weight(filters.kernel);
        let mut weights = vec![Block::ZERO; groups.next_multiple_of(round) * TILE * depth * LANES * group];
        let mut channel = 0;
        let mut row = 0;
        for &channels in &filters.sources {
            for c in 0..channels {
                for output in 0..filters.outputs() {
                    let (block, lane) = (output / LANES, output % LANES);
                    let (first, in_round) = (block / group / round * round, block / group % round);
                    let factors = cook_toom::transform_weight(filters.filter(output, channel + c), &g);
                    for (point, factor) in factors.into_iter().enumerate() {
                        let panel = (first * TILE + point * round + in_round) * depth * LANES;
                        weights[(panel + row + c) * group + block % group].0[lane] = factor as f32;
                    }
                }
            }
            channel += channels;
            row += channels.next_multiple_of(LANES);
        }
        let mut bias = vec![Block::ZERO; groups * group];
        for (i, b) in filters.bias.iter().enumerate() {
            bias[i / LANES].0[i % LANES] = *b as f32;
        }
        Self { depth: first..first + depth, blocks, groups, weights, bias, then }
    }
}

/// Aᵀ m A of tiles, with bias, into a sink.
struct Output<'a, const M: usize> {
    sums: &'a [Block],
    /// Where the first of `blocks` and of `tiles` lies.
    points: Points,
    tiles: &'a [Tile],
    /// Blocks of the layer's output channels.
    blocks: Range<usize>,
    bias: &'a [Block],
    sink: &'a Sink<'a>,
}

impl<const M: usize> Kernel for Output<'_, M> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (b, block) in self.blocks.clone().enumerate() {
            let first = self.points.start + b * self.points.by_block;
            let bias = s.load(&self.bias[block]);
            if self.sink.then == Then::ReluPool {
                self.pooled(s, first, block, bias);
                continue;
            }
            for (t, tile) in self.tiles.iter().enumerate() {
                let outputs = transform::output::<S, M>(s, self.sums, first + t, self.points.by_point);
                for (y, row) in outputs.into_iter().enumerate() {
                    for (x, v) in row.into_iter().enumerate() {
                        let at = [tile.y * M + y, tile.x * M + x];
                        // SAFETY: a tile, with all blocks that share its outputs, is one task's.
                        unsafe { self.sink.put(s, block, at, s.add(v, bias)) }
                    }
                }
            }
        }
    }
}

impl<const M: usize> Output<'_, M> {
    /// Squares of 2×2 tiles, whose sides are even where a tile's may not be.
    #[inline(always)]
    fn pooled<S: Simd>(&self, s: S, first: usize, block: usize, bias: S::V) {
        let mut square = [[bias; 2 * LARGEST]; 2 * LARGEST];
        let mut t = 0;
        while t < self.tiles.len() {
            let (top, left) = (self.tiles[t].y / 2, self.tiles[t].x / 2);
            while let Some(tile) = self.tiles.get(t).filter(|tile| (tile.y / 2, tile.x / 2) == (top, left)) {
                let outputs = transform::output::<S, M>(s, self.sums, first + t, self.points.by_point);
                for (y, row) in outputs.into_iter().enumerate() {
                    for (x, v) in row.into_iter().enumerate() {
                        square[tile.y % 2 * M + y][tile.x % 2 * M + x] = v;
                    }
                }
                t += 1;
            }
            for y in 0..M {
                for x in 0..M {
                    let (a, b) = (&square[2 * y], &square[2 * y + 1]);
                    let four = [a[2 * x], a[2 * x + 1], b[2 * x], b[2 * x + 1]];
                    // SAFETY: a square of tiles is one task's.
                    unsafe { self.sink.put_pooled(s, block, [top * M + y, left * M + x], four, bias) }
                }
            }
        }
    }
}

/// The layout of a layer's source: `channels` of `size` with `margin` zeros, and what the last tiles read beyond.
pub(super) fn source_layout(kernel: usize, channels: usize, size: [usize; 2], margin: usize) -> Layout {
    let outputs = size.map(|s| s + 2 * margin + 1 - kernel);
    Layout::new(channels, size, margin).reaching(outputs.map(|o| extent(kernel, o)))
}

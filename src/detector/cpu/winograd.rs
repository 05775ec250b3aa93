//! Stride-1 convolutions of 3- and 4-wide kernels by minimal filtering: F(6×6, 3×3) and F(5×5, 4×4).
//!
//! In: one or several source tensors. Out: one or several parts, each over some of the sources and with an end of its
//! own, that share the transformed input. Two schedules: layers with small weights give each worker tiles to carry
//! through all three steps inside its own cache; layers with large weights do each step over many tiles together, so
//! that every weight is read from memory once. Not here: arithmetic (`transform`, `multiply`), threads (`pool`).

use std::ops::Range;

use super::cook_toom::{self, POINTS};
use super::filters::Filters;
use super::multiply::Multiply;
use super::pool::Pool;
use super::shared::Shared;
use super::simd::{Block, Isa, Kernel, LANES, Simd};
use super::sink::{Sink, Then};
use super::tensor::{Layout, Tensor};
use super::transform::{self, Input, Points, TILE, Tile};

/// Outputs of the largest tile's side.
const LARGEST: usize = 6;
/// Transformed tiles and sums of one worker: what a second-level cache holds beside the weights streaming through.
const PRIVATE_BYTES: usize = 960 << 10;
/// Weights up to this size are read once per few tiles, from the last-level cache.
const STREAMED_BYTES: usize = 10 << 20;
/// Transformed tiles that all workers share at a time.
const JOINT_VALUES_BYTES: usize = 24 << 20;
/// Sums that all workers share at a time.
const JOINT_SUMS_BYTES: usize = 15 << 20;

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
    isa: Isa,
    threads: usize,
    /// Outputs of a tile's side.
    step: usize,
    sources: Vec<usize>,
    parts: Vec<Part>,
    tiles: Vec<Tile>,
    /// Tiles that go through the steps together, and the pieces in which a joint schedule hands out the last step.
    chunks: Vec<(Range<usize>, Vec<Range<usize>>)>,
    /// Source and block of every block of input channels.
    blocks: Vec<(usize, usize)>,
    /// Tiles of a micro-kernel.
    rows: usize,
    joint: bool,
    /// Groups whose sums fit beside each other.
    round: usize,
    /// How transformed tiles and sums lie in a worker's, or the joint, memory.
    values: Points,
    sums: Points,
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
    pub(super) fn new(
        isa: Isa,
        threads: usize,
        sources: &[usize],
        size: [usize; 2],
        parts: Vec<Spec>,
    ) -> Self {
        let kernel = parts[0].filters.kernel;
        assert!(handles(kernel), "minimal filtering of {kernel}-wide kernels: this is a bug");
        let step = POINTS + 1 - kernel;
        let sources: Vec<usize> = sources.iter().map(|c| c.div_ceil(LANES)).collect();
        let pooled = parts[0].then.pooled();
        let tiles = tiles(size.map(|s| s.div_ceil(step)), pooled);

        let depth: usize = sources.iter().sum();
        let point = TILE * size_of::<Block>();
        let weights: usize = parts
            .iter()
            .map(|spec| TILE * spec.filters.outputs() * spec.filters.inputs() * size_of::<f32>())
            .sum();
        let joint = weights > STREAMED_BYTES && tiles.len() > 4;
        let group = isa.group();
        let limit = if joint {
            (JOINT_VALUES_BYTES / (point * depth)).max(isa.rows()[0])
        } else {
            let fits = PRIVATE_BYTES / (point * (depth + group));
            let fair = tiles.len().div_ceil(threads);
            fits.min(fair)
        };
        let (rows, limit) = micro_kernel(isa, limit, tiles.len());
        let chunks = chunks(&tiles, pooled, limit).into_iter().map(|chunk| {
            let piece = chunk.len().div_ceil(4 * threads).max(pooled * pooled);
            let pieces = self::chunks(&tiles[chunk.clone()], pooled, piece);
            (chunk, pieces)
        });
        let chunks: Vec<_> = chunks.collect();
        let longest = chunks.iter().map(|(c, _)| c.len()).max().unwrap_or(0).next_multiple_of(rows);
        let round = if joint { (JOINT_SUMS_BYTES / (point * longest * group)).max(1) } else { 1 };
        // An odd distance from point to point spreads the points over all sets of the caches.
        let values = Points { start: 0, by_point: (depth * longest) | 1, by_block: longest };
        let sums = Points { start: 0, by_point: (round * group * longest) | 1, by_block: longest };
        let blocks = sources.iter().enumerate().flat_map(|(i, &n)| (0..n).map(move |b| (i, b))).collect();
        let parts = parts.into_iter().map(|spec| Part::new(isa, &sources, spec, round)).collect();
        Self { isa, threads, step, sources, blocks, parts, tiles, chunks, rows, joint, round, values, sums }
    }

    /// Blocks of working memory that `run` needs.
    pub(super) fn scratch(&self) -> usize {
        let workers = if self.joint { 1 } else { self.threads };
        workers * (self.values.by_point + self.sums.by_point) * TILE
    }

    /// Convolves `sources` into `sinks`, one for each part.
    pub(super) fn run(&self, pool: &Pool, scratch: &mut [Block], sources: &[&Tensor], sinks: &[Sink<'_>]) {
        assert!(sinks.iter().zip(&self.parts).all(|(s, p)| s.then == p.then), "another sink: this is a bug");
        if self.joint {
            self.run_jointly(pool, scratch, sources, sinks);
        } else {
            self.run_privately(pool, scratch, sources, sinks);
        }
    }

    fn run_privately(&self, pool: &Pool, scratch: &mut [Block], sources: &[&Tensor], sinks: &[Sink<'_>]) {
        let (values_len, sums_len) = (self.values.by_point * TILE, self.sums.by_point * TILE);
        let scratch = Shared::new(scratch);
        pool.run(self.chunks.len(), &|worker, chunk| {
            let start = worker * (values_len + sums_len);
            // SAFETY: a worker's number is its own while the section runs, and so is this part of the memory.
            let mine = unsafe { scratch.range(start..start + values_len + sums_len) };
            let (values, sums) = mine.split_at_mut(values_len);
            let tiles = &self.tiles[self.chunks[chunk].0.clone()];
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
        let (values, sums) = scratch.split_at_mut(self.values.by_point * TILE);
        for (chunk, pieces) in &self.chunks {
            let tiles = &self.tiles[chunk.clone()];
            let shared = Shared::new(values);
            pool.run(self.blocks.len(), &|_, i| {
                let (source, block) = self.blocks[i];
                self.transform(sources[source], block..block + 1, i, tiles, shared);
            });
            for (part, sink) in self.parts.iter().zip(sinks) {
                for first in (0..part.groups).step_by(self.round) {
                    let groups = first..(first + self.round).min(part.groups);
                    let shared = Shared::new(sums);
                    let values = &*values;
                    pool.run(TILE, &|_, point| {
                        self.multiply(part, groups.clone(), point, tiles.len(), values, shared);
                    });
                    let sums = &*sums;
                    pool.run(pieces.len(), &|_, i| {
                        self.finish(part, groups.clone(), tiles, pieces[i].clone(), sums, sink);
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
        let mut points = self.values;
        points.start = to * points.by_block;
        self.isa.run(Input { source, blocks, tiles, step: self.step, values, points });
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
        let (from, to) = (self.values, self.sums);
        let panel = part.depth.len() * LANES * self.isa.group();
        let place = |point: usize| (groups.start * TILE + point * self.round) * panel;
        // The next point is another worker's where the step is joint.
        let next = place(point + if self.joint { self.threads } else { 1 });
        self.isa.run(Multiply {
            values: &values[point * from.by_point + part.depth.start * from.by_block..],
            values_by_block: from.by_block,
            depth: part.depth.len(),
            tiles: tiles.next_multiple_of(self.rows),
            rows: self.rows,
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
        let group = self.isa.group();
        let blocks = groups.start * group..(groups.end * group).min(part.blocks);
        let mut points = self.sums;
        points.start = some.start;
        let tiles = &tiles[some];
        match self.step {
            5 => self.isa.run(Output::<5> { sums, points, tiles, blocks, bias: &part.bias, sink }),
            6 => self.isa.run(Output::<6> { sums, points, tiles, blocks, bias: &part.bias, sink }),
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

/// All tiles, row by row, or by squares of `pooled × pooled` so that pooled values come from neighbours in the list.
fn tiles([rows, columns]: [usize; 2], pooled: usize) -> Vec<Tile> {
    let mut tiles = Vec::with_capacity(rows * columns);
    for top in (0..rows).step_by(pooled) {
        for left in (0..columns).step_by(pooled) {
            for y in top..(top + pooled).min(rows) {
                tiles.extend((left..(left + pooled).min(columns)).map(|x| Tile { y, x }));
            }
        }
    }
    tiles
}

/// The list cut into pieces of at most `limit` tiles, of about equal length, never inside a square.
fn chunks(tiles: &[Tile], pooled: usize, limit: usize) -> Vec<Range<usize>> {
    let square = |t: &Tile| (t.y / pooled, t.x / pooled);
    let mut chunks = Vec::new();
    let mut start = 0;
    while start < tiles.len() {
        let mut end = (start + limit).min(tiles.len());
        while end < tiles.len() && end > start + 1 && square(&tiles[end]) == square(&tiles[end - 1]) {
            end -= 1;
        }
        chunks.push(start..end);
        start = end;
    }
    chunks
}

/// The micro-kernel's rows, and the chunks' length, that waste least on `tiles` tiles in chunks of about `limit`.
fn micro_kernel(isa: Isa, limit: usize, tiles: usize) -> (usize, usize) {
    let limit = limit.clamp(1, tiles.max(1));
    let chunk_of = |rows: usize| match limit == tiles {
        true => limit.next_multiple_of(rows),
        false => (limit / rows).max(1) * rows,
    };
    let cost = |&rows: &usize| {
        let chunk = chunk_of(rows);
        let (whole, rest) = (tiles / chunk, tiles % chunk);
        let computed = whole * chunk + rest.next_multiple_of(rows);
        // Fewer rows load more weights per product.
        1000 * computed * (rows + 2) / rows
    };
    let rows = isa
        .rows()
        .iter()
        .copied()
        .min_by_key(cost)
        .expect("every instruction set has a kernel: this is a bug");
    (rows, chunk_of(rows))
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

//! How a layer's tiles are dealt out: in what order, how many at a time, and where their values lie meanwhile.
//!
//! Decided once, at load, from the layer's shape and the sizes of caches. Not here: the steps themselves (`winograd`).

use std::ops::Range;

use super::simd::{Block, Isa};
use super::transform::{Points, TILE, Tile};

/// Transformed tiles and sums of one worker: what a second-level cache holds beside the weights streaming through.
const PRIVATE_BYTES: usize = 960 << 10;
/// Weights up to this size are read once per few tiles, from the last-level cache.
const STREAMED_BYTES: usize = 10 << 20;
/// Transformed tiles that all workers share at a time.
const JOINT_VALUES_BYTES: usize = 24 << 20;
/// Sums that all workers share at a time.
const JOINT_SUMS_BYTES: usize = 15 << 20;

/// What a layer's tiling follows from.
pub(super) struct Demand {
    pub(super) isa: Isa,
    pub(super) threads: usize,
    /// Tiles in each direction.
    pub(super) tiles: [usize; 2],
    /// Rows or columns of outputs that make one value.
    pub(super) pooled: usize,
    /// Blocks of input channels.
    pub(super) depth: usize,
    /// Groups of output channels of the widest part.
    pub(super) groups: usize,
    /// Of all weights, transformed.
    pub(super) weight_bytes: usize,
}

/// Tiles that go through the steps together.
pub(super) struct Chunk {
    pub(super) tiles: Range<usize>,
    /// The pieces in which a joint schedule hands out the last step; places in the chunk.
    pub(super) pieces: Vec<Range<usize>>,
}

pub(super) struct Tiling {
    pub(super) tiles: Vec<Tile>,
    pub(super) chunks: Vec<Chunk>,
    /// Tiles of a micro-kernel.
    pub(super) rows: usize,
    /// Whether all workers share a chunk, or each carries one of its own through all steps.
    pub(super) joint: bool,
    /// Groups of output channels whose sums lie beside each other.
    pub(super) round: usize,
    /// How transformed tiles and sums lie in a worker's, or the joint, memory.
    pub(super) values: Points,
    pub(super) sums: Points,
}

impl Tiling {
    pub(super) fn new(demand: &Demand) -> Self {
        let &Demand { isa, threads, pooled, depth, .. } = demand;
        let tiles = tiles(demand.tiles, pooled);
        let point = TILE * size_of::<Block>();
        let joint = demand.weight_bytes > STREAMED_BYTES && tiles.len() > isa.rows()[0] / 2;
        let limit = if joint {
            JOINT_VALUES_BYTES / (point * depth)
        } else {
            let fits = PRIVATE_BYTES / (point * (depth + isa.group()));
            fits.min(tiles.len().div_ceil(threads))
        };
        let (rows, limit) = micro_kernel(isa, limit, tiles.len());
        let chunk = |range: Range<usize>| {
            let piece = range.len().div_ceil(4 * threads).max(pooled * pooled);
            Chunk { pieces: chunks(&tiles[range.clone()], pooled, piece), tiles: range }
        };
        let chunks: Vec<_> = chunks(&tiles, pooled, limit).into_iter().map(chunk).collect();
        let longest = chunks.iter().map(|c| c.tiles.len()).max().unwrap_or(0).next_multiple_of(rows);
        let fit = (JOINT_SUMS_BYTES / (point * longest * isa.group())).clamp(1, demand.groups);
        let round = if joint { fit } else { 1 };
        // An odd distance from point to point spreads the points over all sets of the caches.
        let values = Points { start: 0, by_point: (depth * longest) | 1, by_block: longest };
        let sums = Points { start: 0, by_point: (round * isa.group() * longest) | 1, by_block: longest };
        Self { tiles, chunks, rows, joint, round, values, sums }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tile_is_in_one_chunk_and_pooled_squares_stay_whole() {
        for (rows, columns) in [(25, 25), (1, 1), (7, 4), (2, 31)] {
            for pooled in [1, 2] {
                let tiles = tiles([rows, columns], pooled);
                assert_eq!(tiles.len(), rows * columns);
                for limit in [4, 10, 24] {
                    let chunks = chunks(&tiles, pooled, limit);
                    assert!(chunks.iter().all(|c| !c.is_empty() && c.len() <= limit));
                    assert!(chunks.windows(2).all(|pair| pair[0].end == pair[1].start));
                    assert_eq!(chunks.last().unwrap().end, tiles.len());
                    let square = |i: usize| (tiles[i].y / pooled, tiles[i].x / pooled);
                    assert!(chunks.iter().skip(1).all(|c| square(c.start) != square(c.start - 1)));
                }
            }
        }
    }
}

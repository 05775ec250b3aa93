//! Winograd's transforms of tiles, sixteen channels at a time.
//!
//! In: tiles of a tensor, or sums of products at the 64 points. Out: the tiles' values at the 64 points, or the tile's
//! outputs. Opposite points share their even and odd parts, which halves the work. Not here: where the matrices come
//! from (`cook_toom`), the products (`multiply`), what happens to outputs (`sink`).

use super::cook_toom::{self, POINTS};
use super::shared::Shared;
use super::simd::{Block, Kernel, Simd};
use super::tensor::Tensor;

/// The points of a tile.
pub(super) const TILE: usize = POINTS * POINTS;

/// A tile of the output, by its number in each direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) y: usize,
    pub(super) x: usize,
}

/// Where the values of tiles at points lie: `start + point·by_point + block·by_block + tile`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Points {
    pub(super) start: usize,
    pub(super) by_point: usize,
    pub(super) by_block: usize,
}

/// Bᵀ d B of `tiles` in all blocks of `source`.
pub(super) struct Input<'a> {
    pub(super) source: &'a Tensor,
    /// Which of the source's blocks.
    pub(super) blocks: std::ops::Range<usize>,
    pub(super) tiles: &'a [Tile],
    /// Outputs of a tile's side.
    pub(super) step: usize,
    pub(super) values: Shared<'a, Block>,
    /// Where the first of `blocks` and of `tiles` goes.
    pub(super) points: Points,
}

impl Kernel for Input<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let [rows, columns] = self.source.layout.stored;
        for (b, block) in self.blocks.clone().enumerate() {
            let plane = &self.source.data[block * rows * columns..(block + 1) * rows * columns];
            for (t, tile) in self.tiles.iter().enumerate() {
                let corner = tile.y * self.step * columns + tile.x * self.step;
                let mut half = [[s.splat(0.0); POINTS]; POINTS];
                for x in 0..POINTS {
                    let from = &plane[corner + x..corner + x + (POINTS - 1) * columns + 1];
                    let mut column = [s.splat(0.0); POINTS];
                    for (y, v) in column.iter_mut().enumerate() {
                        *v = s.load(&from[y * columns]);
                    }
                    let column = input_1d(s, column);
                    for y in 0..POINTS {
                        half[y][x] = column[y];
                    }
                }
                let to = self.points.start + b * self.points.by_block + t;
                for (y, row) in half.into_iter().enumerate() {
                    let row = input_1d(s, row);
                    for (x, v) in row.into_iter().enumerate() {
                        // SAFETY: this tile's place in this block, at each point, is this task's alone.
                        let block = unsafe { self.values.get(to + (y * POINTS + x) * self.points.by_point) };
                        s.store(v, block);
                    }
                }
            }
        }
    }
}

/// Bᵀ d.
#[inline(always)]
fn input_1d<S: Simd>(s: S, d: [S::V; POINTS]) -> [S::V; POINTS] {
    const B: [[f32; POINTS]; POINTS] = cook_toom::input();
    let mut v = [s.splat(0.0); POINTS];
    // 0 and infinity are even and odd throughout.
    v[0] = sum(s, [(B[0][6], d[6]), (B[0][4], d[4]), (B[0][2], d[2]), (B[0][0], d[0])]);
    v[7] = sum(s, [(B[7][7], d[7]), (B[7][5], d[5]), (B[7][3], d[3]), (B[7][1], d[1])]);
    macro_rules! pair {
        ($i:literal) => {
            let even = sum(s, [(B[$i][6], d[6]), (B[$i][4], d[4]), (B[$i][2], d[2])]);
            let odd = sum(s, [(B[$i][5], d[5]), (B[$i][3], d[3]), (B[$i][1], d[1])]);
            v[$i] = s.add(even, odd);
            v[$i + 1] = s.sub(even, odd);
        };
    }
    pair!(1);
    pair!(3);
    pair!(5);
    v
}

#[inline(always)]
fn sum<S: Simd, const N: usize>(s: S, terms: [(f32, S::V); N]) -> S::V {
    let mut total = terms[0].1;
    if terms[0].0 != 1.0 {
        total = s.mul(s.splat(terms[0].0), total);
    }
    for &(c, v) in &terms[1..] {
        total = if c == 1.0 {
            s.add(total, v)
        } else if c == -1.0 {
            s.sub(total, v)
        } else {
            s.fma(s.splat(c), v, total)
        };
    }
    total
}

/// Aᵀ m A of one tile in one block: `M × M` outputs.
#[inline(always)]
pub(super) fn output<S: Simd, const M: usize>(
    s: S,
    sums: &[Block],
    first: usize,
    by_point: usize,
) -> [[S::V; M]; M] {
    let sums = &sums[first..first + (TILE - 1) * by_point + 1];
    let mut half = [[s.splat(0.0); POINTS]; M];
    for x in 0..POINTS {
        let mut column = [s.splat(0.0); POINTS];
        for (y, v) in column.iter_mut().enumerate() {
            *v = s.load(&sums[(y * POINTS + x) * by_point]);
        }
        let column = output_1d::<S, M>(s, column);
        for y in 0..M {
            half[y][x] = column[y];
        }
    }
    let mut outputs = [[s.splat(0.0); M]; M];
    for (outputs, row) in outputs.iter_mut().zip(half) {
        *outputs = output_1d::<S, M>(s, row);
    }
    outputs
}

/// Aᵀ m.
#[inline(always)]
fn output_1d<S: Simd, const M: usize>(s: S, m: [S::V; POINTS]) -> [S::V; M] {
    let even = [s.add(m[1], m[2]), s.add(m[3], m[4]), s.add(m[5], m[6])];
    let odd = [s.sub(m[1], m[2]), s.sub(m[3], m[4]), s.sub(m[5], m[6])];
    let mut y = [s.splat(0.0); M];
    for (k, y) in y.iter_mut().enumerate() {
        let pairs = if k % 2 == 0 { even } else { odd };
        let a = const { cook_toom::output::<M>() }[k];
        *y = sum(s, [(a[1], pairs[0]), (a[3], pairs[1]), (a[5], pairs[2])]);
        if k == 0 {
            *y = s.add(*y, m[0]);
        }
        if k == M - 1 {
            *y = s.add(*y, m[POINTS - 1]);
        }
    }
    y
}

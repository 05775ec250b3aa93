//! Winograd's minimal filtering F(4×4, K×K): N² products of small matrices instead of 16·K² per 4×4 outputs.
//!
//! `N = K + 3`. A tile of N×N inputs, the kernel, and a tile of 4×4 outputs are carried to N² points each, where the
//! convolution is a product per point, summed over channels. The weight's gradient is the exact adjoint of that.

use std::ops::Range;

use rayon::prelude::*;

use super::Shape;
use super::cook_toom::{Rows, evaluation, interpolation, transpose};
use super::element::{Buffer, Element, Matrix, multiply, vectorised};

/// Outputs of one tile, on each side.
const TILE: usize = 4;
/// Channels transformed together: one AVX-512 register of f32.
const LANES: usize = 16;
/// Tiles whose points are multiplied at once; fewer would re-read the kernel's points too often.
const TILES: usize = 96;

type Lanes<T> = [T; LANES];

/// The transforms for K×K kernels.
pub(in super::super) struct Winograd<T, const K: usize, const N: usize> {
    input: [[T; N]; N],
    kernel: [[T; K]; N],
    kernel_adjoint: [[T; N]; K],
    output: [[T; N]; TILE],
    output_adjoint: [[T; TILE]; N],
}

/// Where a tile's data lies in a picture, channels last.
struct Plane<'a, T> {
    data: &'a [T],
    size: [usize; 2],
    channels: usize,
    /// Zeros around it.
    padding: usize,
}

impl<T: Element, const K: usize, const N: usize> Winograd<T, K, N> {
    pub(super) fn new() -> Self {
        // Found by trial: of all small dyadic points those with little error, in pairs of opposite sign.
        let points = match K {
            3 => &[0.0, 0.5, -0.5, 1.5, -1.5][..],
            _ => &[0.0, 1.0, -1.0, 0.5, -0.5, 3.0],
        };
        let (kernel, output_adjoint) = (evaluation(points, K), evaluation(points, TILE));
        Self {
            input: fixed(&interpolation(points)),
            kernel_adjoint: fixed(&transpose(&kernel)),
            kernel: fixed(&kernel),
            output: fixed(&transpose(&output_adjoint)),
            output_adjoint: fixed(&output_adjoint),
        }
    }

    /// `kernel` as [`Self::kernel_points`] made it.
    pub(super) fn forward(&self, shape: &Shape, x: &[T], kernel: &[T], y: &mut [T]) {
        let [_, columns] = shape.output_size();
        let tile_columns = columns.div_ceil(TILE);
        let tile_rows = TILES.div_ceil(tile_columns);
        let x = Plane { data: x, size: shape.size, channels: shape.input, padding: shape.padding };
        let pieces = y.par_chunks_mut(tile_rows * TILE * columns * shape.output);
        pieces.enumerate().for_each(|(i, y)| {
            let rows = (y.len() / (columns * shape.output)).div_ceil(TILE);
            let tiles = rows * tile_columns;
            let mut from = Buffer::take(N * N * tiles * shape.input);
            let mut slices: Vec<_> = from.chunks_exact_mut(tiles * shape.input).collect();
            let lines = i * tile_rows..i * tile_rows + rows;
            vectorised(|| points(&self.input, &x, lines, tile_columns, &mut slices));
            let mut to = Buffer::take(N * N * tiles * shape.output);
            let products = to.chunks_exact_mut(tiles * shape.output).zip(slices);
            for ((to, from), kernel) in products.zip(kernel.chunks_exact(shape.output * shape.input)) {
                let kernel = Matrix::new(kernel, shape.output, shape.input).transposed();
                multiply(to, Matrix::new(from, tiles, shape.input), kernel, false);
            }
            vectorised(|| self.output_tiles(&to, [tile_columns, columns], shape.output, y));
        });
    }

    /// Adds to `sum [N², output, input]`.
    pub(super) fn add_weight_gradient(&self, shape: &Shape, x: &[T], dy: &[T], sum: &mut Option<Buffer<T>>) {
        let size = shape.output_size();
        let [tile_rows, tile_columns] = size.map(|side| side.div_ceil(TILE));
        let tiles = tile_rows * tile_columns;
        let x = Plane { data: x, size: shape.size, channels: shape.input, padding: shape.padding };
        let dy = Plane { data: dy, size, channels: shape.output, padding: 0 };
        let mut from = Buffer::take(N * N * tiles * shape.input);
        let mut to = Buffer::take(N * N * tiles * shape.output);
        let lines = split(&mut from, N * N, tile_rows).into_par_iter().zip(split(&mut to, N * N, tile_rows));
        lines.enumerate().for_each(|(row, (mut from, mut to))| {
            vectorised(|| points(&self.input, &x, row..row + 1, tile_columns, &mut from));
            vectorised(|| points(&self.output_adjoint, &dy, row..row + 1, tile_columns, &mut to));
        });
        let accumulate = sum.is_some();
        let sum = sum.get_or_insert_with(|| Buffer::take(N * N * shape.output * shape.input));
        let operands = to.par_chunks(tiles * shape.output).zip(from.par_chunks(tiles * shape.input));
        sum.par_chunks_mut(shape.output * shape.input).zip(operands).for_each(|(sum, (to, from))| {
            let left = Matrix::new(to, tiles, shape.output).transposed();
            multiply(sum, left, Matrix::new(from, tiles, shape.input), accumulate);
        });
    }

    /// `[output, input, K, K]` → `[N², output, input]`.
    pub(super) fn kernel_points(&self, shape: &Shape, weight: &[T]) -> Buffer<T> {
        let mut kernel = Buffer::take(N * N * shape.output * shape.input);
        let lines = split(&mut kernel, N * N, shape.output).into_par_iter();
        lines.zip(weight.par_chunks(K * K * shape.input)).for_each(|(mut to, weight)| {
            vectorised(|| {
                for first in (0..shape.input).step_by(LANES) {
                    let lanes = LANES.min(shape.input - first);
                    let mut x = [[[T::ZERO; LANES]; K]; K];
                    for (lane, taps) in weight[first * K * K..].chunks_exact(K * K).take(lanes).enumerate() {
                        for (i, tap) in taps.iter().enumerate() {
                            x[i / K][i % K][lane] = *tap;
                        }
                    }
                    let y = sandwich(&self.kernel, &x);
                    for (to, y) in to.iter_mut().zip(y.as_flattened()) {
                        to[first..first + lanes].copy_from_slice(&y[..lanes]);
                    }
                }
            });
        });
        kernel
    }

    /// `[N², output, input]` → `[output, input, K, K]`.
    pub(super) fn kernel_gradient(&self, shape: &Shape, kernel: &[T]) -> Vec<T> {
        let mut gradient = vec![T::ZERO; shape.output * shape.input * K * K];
        gradient.par_chunks_mut(shape.input * K * K).enumerate().for_each(|(output, gradient)| {
            vectorised(|| {
                for first in (0..shape.input).step_by(LANES) {
                    let lanes = LANES.min(shape.input - first);
                    let mut x = [[[T::ZERO; LANES]; N]; N];
                    for (i, x) in x.as_flattened_mut().iter_mut().enumerate() {
                        let at = (i * shape.output + output) * shape.input + first;
                        x[..lanes].copy_from_slice(&kernel[at..at + lanes]);
                    }
                    let y = sandwich(&self.kernel_adjoint, &x);
                    let taps = gradient[first * K * K..].chunks_exact_mut(K * K);
                    for (lane, taps) in taps.take(lanes).enumerate() {
                        for (i, tap) in taps.iter_mut().enumerate() {
                            *tap = y[i / K][i % K][lane];
                        }
                    }
                }
            });
        });
        gradient
    }

    /// Points `[N², tiles, channels]` → rows `[.., columns, channels]` of a picture.
    #[inline(always)]
    fn output_tiles(&self, from: &[T], [tile_columns, columns]: [usize; 2], channels: usize, y: &mut [T]) {
        let per_point = from.len() / (N * N);
        for (tile_row, rows) in y.chunks_mut(TILE * columns * channels).enumerate() {
            for tile_column in 0..tile_columns {
                let tile = (tile_row * tile_columns + tile_column) * channels;
                for first in (0..channels).step_by(LANES) {
                    let lanes = LANES.min(channels - first);
                    let mut x = [[[T::ZERO; LANES]; N]; N];
                    for (i, x) in x.as_flattened_mut().iter_mut().enumerate() {
                        let at = i * per_point + tile + first;
                        load(x, &from[at..at + lanes]);
                    }
                    let tile = sandwich(&self.output, &x);
                    for (row, tile) in rows.chunks_exact_mut(columns * channels).zip(&tile) {
                        for (i, lane) in tile.iter().enumerate().take(columns - tile_column * TILE) {
                            let at = (tile_column * TILE + i) * channels + first;
                            store(&mut row[at..at + lanes], lane);
                        }
                    }
                }
            }
        }
    }
}

/// Carries tiles of `S × S` every 4 pixels of `from`, of the tile rows `lines`, to `to`: `[N²][tiles, channels]`.
#[inline(always)]
fn points<T: Element, const S: usize, const N: usize>(
    matrix: &[[T; S]; N],
    from: &Plane<T>,
    lines: Range<usize>,
    tile_columns: usize,
    to: &mut [&mut [T]],
) {
    let ([height, width], channels) = (from.size, from.channels);
    for (line, tile_row) in lines.enumerate() {
        for tile_column in 0..tile_columns {
            let tile = (line * tile_columns + tile_column) * channels;
            for first in (0..channels).step_by(LANES) {
                let lanes = LANES.min(channels - first);
                let mut x = [[[T::ZERO; LANES]; S]; S];
                for (i, x) in x.iter_mut().enumerate() {
                    let row = (tile_row * TILE + i).wrapping_sub(from.padding);
                    for (j, x) in x.iter_mut().enumerate() {
                        let column = (tile_column * TILE + j).wrapping_sub(from.padding);
                        if row < height && column < width {
                            let at = (row * width + column) * channels + first;
                            load(x, &from.data[at..at + lanes]);
                        }
                    }
                }
                let y = sandwich(matrix, &x);
                for (to, y) in to.iter_mut().zip(y.as_flattened()) {
                    store(&mut to[tile + first..tile + first + lanes], y);
                }
            }
        }
    }
}

/// `M x Mᵀ` in each lane.
#[inline(always)]
fn sandwich<T: Element, const R: usize, const C: usize>(
    m: &[[T; C]; R],
    x: &[[Lanes<T>; C]; C],
) -> [[Lanes<T>; R]; R] {
    let mut half = [[[T::ZERO; LANES]; C]; R];
    for (half, m) in half.iter_mut().zip(m) {
        for (column, half) in half.iter_mut().enumerate() {
            *half = combine(m, |i| &x[i][column]);
        }
    }
    let mut y = [[[T::ZERO; LANES]; R]; R];
    for (y, half) in y.iter_mut().zip(&half) {
        for (y, m) in y.iter_mut().zip(m) {
            *y = combine(m, |i| &half[i]);
        }
    }
    y
}

/// The sum of lanes, each times its factor.
#[inline(always)]
fn combine<'a, T: Element, const C: usize>(
    factors: &[T; C],
    lanes: impl Fn(usize) -> &'a Lanes<T>,
) -> Lanes<T> {
    let mut sum = [T::ZERO; LANES];
    for (i, factor) in factors.iter().enumerate() {
        for (s, v) in sum.iter_mut().zip(lanes(i)) {
            *s = *s + *factor * *v;
        }
    }
    sum
}

#[inline(always)]
fn load<T: Element>(lanes: &mut Lanes<T>, from: &[T]) {
    match <&Lanes<T>>::try_from(from) {
        Ok(all) => *lanes = *all,
        Err(_) => lanes[..from.len()].copy_from_slice(from),
    }
}

#[inline(always)]
fn store<T: Element>(to: &mut [T], lanes: &Lanes<T>) {
    match <&mut Lanes<T>>::try_from(&mut *to) {
        Ok(all) => *all = *lanes,
        Err(_) => to.copy_from_slice(&lanes[..to.len()]),
    }
}

/// Cuts each of `points` equal parts of `data` into `lines`, and hands out line by line, so that threads can fill them.
fn split<T>(data: &mut [T], points: usize, lines: usize) -> Vec<Vec<&mut [T]>> {
    let len = data.len() / (points * lines);
    let mut split: Vec<Vec<&mut [T]>> = (0..lines).map(|_| Vec::with_capacity(points)).collect();
    for (i, part) in data.chunks_exact_mut(len).enumerate() {
        split[i % lines].push(part);
    }
    split
}

fn fixed<T: Element, const R: usize, const C: usize>(rows: &Rows) -> [[T; C]; R] {
    std::array::from_fn(|r| std::array::from_fn(|c| T::from_f64(rows[r][c])))
}

//! Winograd's minimal filtering F(4×4, K×K): N² products of small matrices instead of 16·K² per 4×4 outputs.
//!
//! `N = K + 3`. A tile of N×N inputs, the kernel, and a tile of 4×4 outputs are carried to N² points each, where the
//! convolution is a product per point, summed over channels. The weight's gradient is the exact adjoint of that.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::Shape;
use super::cook_toom::{Rows, evaluation, interpolation, transpose};
use super::element::{Buffer, Element, Matrix, multiply};

/// Outputs of one tile, on each side.
const TILE: usize = 4;
/// The most channels transformed together: the lanes of an AVX-512 register of f32.
const MAX_LANES: usize = 16;
/// Tiles whose points are multiplied at once: enough to fill the matrices.
const TILES: usize = 64;
/// Output channels multiplied at once, so that with as many tiles they stay in a core's second-level cache.
const OUTPUTS: usize = 64;
/// Tiles that go into a weight's gradient at once, so that all threads' points stay in the third-level cache.
const GRADIENT_TILES: usize = 128;

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

    /// Output rows that one piece of work takes: of whole tiles, enough to fill the matrices, few enough for the cache.
    pub(super) fn rows_per_piece(&self, shape: &Shape) -> usize {
        let tile_columns = shape.output_size()[1].div_ceil(TILE);
        (TILES / tile_columns).max(1) * TILE
    }

    /// The rows of the output from `first_row` on, as many as `y [rows, columns, output]` holds; `kernel` as
    /// [`Self::kernel_points`] made it.
    pub(super) fn forward_rows(&self, shape: &Shape, x: &[T], kernel: &[T], first_row: usize, y: &mut [T]) {
        let (input, output) = (shape.input, shape.output);
        let columns = shape.output_size()[1];
        let tile_columns = columns.div_ceil(TILE);
        let tile_rows = (y.len() / (columns * output)).div_ceil(TILE);
        let tiles = tile_rows * tile_columns;
        let x = Plane { data: x, size: shape.size, channels: input, padding: shape.padding };
        let mut from = Buffer::take(N * N * tiles * input);
        let mut slices: Vec<_> = from.chunks_exact_mut(tiles * input).collect();
        let lines = first_row / TILE..first_row / TILE + tile_rows;
        Arch::new().dispatch(Points { matrix: &self.input, from: &x, lines, tile_columns, to: &mut slices });
        let mut to = Buffer::take(N * N * tiles * OUTPUTS);
        for first in (0..output).step_by(OUTPUTS) {
            let channels = first..output.min(first + OUTPUTS);
            let to = &mut to[..N * N * tiles * channels.len()];
            let operands = slices.iter().zip(kernel.chunks_exact(output * input));
            for (to, (from, kernel)) in to.chunks_exact_mut(tiles * channels.len()).zip(operands) {
                let kernel = Matrix::part(&kernel[first..], input, channels.len(), output);
                multiply(to, Matrix::new(from, tiles, input), kernel, false);
            }
            let columns = [tile_columns, columns];
            Arch::new().dispatch(Outputs { matrix: &self.output, from: to, columns, channels, output, y });
        }
    }

    /// Adds to `sum [N², input, output]`.
    pub(super) fn add_weight_gradient(&self, shape: &Shape, x: &[T], dy: &[T], sum: &mut Option<Buffer<T>>) {
        let (input, output, size) = (shape.input, shape.output, shape.output_size());
        let [tile_rows, tile_columns] = size.map(|side| side.div_ceil(TILE));
        let x = Plane { data: x, size: shape.size, channels: input, padding: shape.padding };
        let dy = Plane { data: dy, size, channels: output, padding: 0 };
        let step = tile_rows.div_ceil((tile_rows * tile_columns).div_ceil(GRADIENT_TILES));
        let mut from = Buffer::take(N * N * step * tile_columns * input);
        let mut to = Buffer::take(N * N * step * tile_columns * output);
        for first in (0..tile_rows).step_by(step) {
            let rows = step.min(tile_rows - first);
            let tiles = rows * tile_columns;
            let (from, to) = (&mut from[..N * N * tiles * input], &mut to[..N * N * tiles * output]);
            let lines = split(from, N * N, rows).into_par_iter().zip(split(to, N * N, rows)).enumerate();
            lines.for_each(|(row, (mut from, mut to))| {
                let lines = first + row..first + row + 1;
                let (matrix, to_lines) = (&self.output_adjoint, lines.clone());
                Arch::new().dispatch(Points {
                    matrix: &self.input,
                    from: &x,
                    lines,
                    tile_columns,
                    to: &mut from,
                });
                Arch::new().dispatch(Points {
                    matrix,
                    from: &dy,
                    lines: to_lines,
                    tile_columns,
                    to: &mut to,
                });
            });
            let accumulate = sum.is_some();
            let sum = sum.get_or_insert_with(|| Buffer::take(N * N * output * input));
            let operands = to.par_chunks(tiles * output).zip(from.par_chunks(tiles * input));
            sum.par_chunks_mut(output * input).zip(operands).for_each(|(sum, (to, from))| {
                let left = Matrix::new(from, tiles, input).transposed();
                multiply(sum, left, Matrix::new(to, tiles, output), accumulate);
            });
        }
    }

    /// `[output, input, K, K]` → `[N², input, output]`.
    pub(super) fn kernel_points(&self, shape: &Shape, weight: &[T]) -> Buffer<T> {
        let mut kernel = Buffer::take(N * N * shape.output * shape.input);
        let lines = split(&mut kernel, N * N, shape.input).into_par_iter().enumerate().with_min_len(8);
        lines.for_each(|(input, mut to)| {
            Arch::new().dispatch(KernelPoints { matrix: &self.kernel, shape, weight, input, to: &mut to });
        });
        kernel
    }

    /// `[N², input, output]` → `[output, input, K, K]`.
    pub(super) fn kernel_gradient(&self, shape: &Shape, kernel: &[T]) -> Vec<T> {
        let mut gradient = vec![T::ZERO; shape.output * shape.input * K * K];
        let blocks = gradient.par_chunks_mut(MAX_LANES * shape.input * K * K).enumerate();
        blocks.for_each(|(block, to)| {
            let (matrix, first) = (&self.kernel_adjoint, block * MAX_LANES);
            Arch::new().dispatch(KernelGradient { matrix, shape, kernel, first, to });
        });
        gradient
    }
}

/// Carries tiles of `S × S` every 4 pixels of `from`, of the tile rows `lines`, to `to`: `[N²][tiles, channels]`.
struct Points<'a, 'b, T, const S: usize, const N: usize> {
    matrix: &'a [[T; S]; N],
    from: &'a Plane<'a, T>,
    lines: Range<usize>,
    tile_columns: usize,
    to: &'a mut [&'b mut [T]],
}

impl<T: Element, const SIDE: usize, const N: usize> WithSimd for Points<'_, '_, T, SIDE, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ([height, width], channels) = (self.from.size, self.from.channels);
        let matrix = self.matrix;
        for (line, tile_row) in self.lines.enumerate() {
            for tile_column in 0..self.tile_columns {
                let tile = (line * self.tile_columns + tile_column) * channels;
                for first in (0..channels).step_by(T::lanes::<S>()) {
                    let lanes = T::lanes::<S>().min(channels - first);
                    let mut x = [[T::splat(simd, T::ZERO); SIDE]; SIDE];
                    for (i, x) in x.iter_mut().enumerate() {
                        // What would lie before the picture wraps to far beyond it.
                        let row = (tile_row * TILE + i).wrapping_sub(self.from.padding);
                        for (j, x) in x.iter_mut().enumerate() {
                            let column = (tile_column * TILE + j).wrapping_sub(self.from.padding);
                            if row < height && column < width {
                                let at = (row * width + column) * channels + first;
                                *x = T::load(simd, &self.from.data[at..at + lanes]);
                            }
                        }
                    }
                    let y = sandwich::<T, S, N, SIDE>(simd, matrix, &x);
                    for (to, y) in self.to.iter_mut().zip(y.as_flattened()) {
                        T::store(simd, &mut to[tile + first..tile + first + lanes], *y);
                    }
                }
            }
        }
    }
}

/// Carries points `[N², tiles, some channels]` to those of the `output` channels of `y [rows, columns, output]`.
struct Outputs<'a, T, const N: usize> {
    matrix: &'a [[T; N]; TILE],
    from: &'a [T],
    /// Of tiles, and of the picture.
    columns: [usize; 2],
    channels: Range<usize>,
    output: usize,
    y: &'a mut [T],
}

impl<T: Element, const N: usize> WithSimd for Outputs<'_, T, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ([tile_columns, columns], channels) = (self.columns, self.channels.len());
        let per_point = self.from.len() / (N * N);
        for (tile_row, rows) in self.y.chunks_mut(TILE * columns * self.output).enumerate() {
            for tile_column in 0..tile_columns {
                let tile = (tile_row * tile_columns + tile_column) * channels;
                for first in (0..channels).step_by(T::lanes::<S>()) {
                    let lanes = T::lanes::<S>().min(channels - first);
                    let mut x = [[T::splat(simd, T::ZERO); N]; N];
                    for (point, x) in x.as_flattened_mut().iter_mut().enumerate() {
                        let at = point * per_point + tile + first;
                        *x = T::load(simd, &self.from[at..at + lanes]);
                    }
                    let tile = sandwich::<T, S, TILE, N>(simd, self.matrix, &x);
                    for (row, tile) in rows.chunks_exact_mut(columns * self.output).zip(&tile) {
                        for (i, y) in tile.iter().enumerate().take(columns - tile_column * TILE) {
                            let at = (tile_column * TILE + i) * self.output + self.channels.start + first;
                            T::store(simd, &mut row[at..at + lanes], *y);
                        }
                    }
                }
            }
        }
    }
}

/// Carries the kernels of one input channel to `to`: `[N²][output]`.
struct KernelPoints<'a, 'b, T, const K: usize, const N: usize> {
    matrix: &'a [[T; K]; N],
    shape: &'a Shape,
    weight: &'a [T],
    input: usize,
    to: &'a mut [&'b mut [T]],
}

impl<T: Element, const K: usize, const N: usize> WithSimd for KernelPoints<'_, '_, T, K, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for first in (0..self.shape.output).step_by(T::lanes::<S>()) {
            let lanes = T::lanes::<S>().min(self.shape.output - first);
            let mut taps = [[[T::ZERO; MAX_LANES]; K]; K];
            for lane in 0..lanes {
                let kernel =
                    &self.weight[((first + lane) * self.shape.input + self.input) * K * K..][..K * K];
                for (taps, tap) in taps.as_flattened_mut().iter_mut().zip(kernel) {
                    taps[lane] = *tap;
                }
            }
            let x = taps.map(|row| row.map(|tap| T::load(simd, &tap[..T::lanes::<S>()])));
            let y = sandwich::<T, S, N, K>(simd, self.matrix, &x);
            for (to, y) in self.to.iter_mut().zip(y.as_flattened()) {
                T::store(simd, &mut to[first..first + lanes], *y);
            }
        }
    }
}

/// Carries the points of the outputs from `first` on back to kernels `to`: `[some outputs, input, K, K]`.
struct KernelGradient<'a, T, const K: usize, const N: usize> {
    matrix: &'a [[T; N]; K],
    shape: &'a Shape,
    kernel: &'a [T],
    first: usize,
    to: &'a mut [T],
}

impl<T: Element, const K: usize, const N: usize> WithSimd for KernelGradient<'_, T, K, N> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Shape { input: inputs, output: outputs, .. } = *self.shape;
        for (nth, to) in self.to.chunks_mut(T::lanes::<S>() * inputs * K * K).enumerate() {
            let first = self.first + nth * T::lanes::<S>();
            let lanes = to.len() / (inputs * K * K);
            for input in 0..inputs {
                let mut x = [[T::splat(simd, T::ZERO); N]; N];
                for (point, x) in x.as_flattened_mut().iter_mut().enumerate() {
                    let at = (point * inputs + input) * outputs + first;
                    *x = T::load(simd, &self.kernel[at..at + lanes]);
                }
                let mut taps = [[[T::ZERO; MAX_LANES]; K]; K];
                let y = sandwich::<T, S, K, N>(simd, self.matrix, &x);
                for (taps, y) in taps.as_flattened_mut().iter_mut().zip(y.as_flattened()) {
                    T::store(simd, &mut taps[..T::lanes::<S>()], *y);
                }
                for lane in 0..lanes {
                    let kernel = &mut to[(lane * inputs + input) * K * K..][..K * K];
                    for (tap, taps) in kernel.iter_mut().zip(taps.as_flattened()) {
                        *tap = taps[lane];
                    }
                }
            }
        }
    }
}

/// `M x Mᵀ` in each lane.
#[inline(always)]
fn sandwich<T: Element, S: Simd, const R: usize, const C: usize>(
    simd: S,
    m: &[[T; C]; R],
    x: &[[T::Lanes<S>; C]; C],
) -> [[T::Lanes<S>; R]; R] {
    let zero = T::splat(simd, T::ZERO);
    let mut half = [[zero; R]; C];
    for column in 0..C {
        for (half, m) in half[column].iter_mut().zip(m) {
            for (x, m) in x.iter().zip(m) {
                *half = T::multiply_add(simd, T::splat(simd, *m), x[column], *half);
            }
        }
    }
    let mut y = [[zero; R]; R];
    for (row, y) in y.iter_mut().enumerate() {
        for (y, m) in y.iter_mut().zip(m) {
            for (half, m) in half.iter().zip(m) {
                *y = T::multiply_add(simd, T::splat(simd, *m), half[row], *y);
            }
        }
    }
    y
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

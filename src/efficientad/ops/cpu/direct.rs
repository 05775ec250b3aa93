//! Convolution through patch matrices: any stride, padding and width.

use rayon::prelude::*;

use super::element::{Buffer, Element, Matrix, multiply};
use super::{Shape, add_to};

/// Numbers of a patch matrix that stay in a core's second-level cache.
const PATCH_NUMBERS: usize = 1 << 17;

/// Output rows that one piece of work takes; even, so that a pool's windows lie in one piece.
pub(super) fn rows_per_piece(shape: &Shape) -> usize {
    let [_, columns] = shape.output_size();
    (PATCH_NUMBERS / (columns * patch_len(shape)).max(1)).max(2) / 2 * 2
}

fn patch_len(shape: &Shape) -> usize {
    shape.kernel * shape.kernel * shape.input
}

/// The rows of the output from `first_row` on, as many as `y [rows, columns, output]` holds; `kernel` as [`lay_out`]
/// made it.
pub(super) fn forward_rows<T: Element>(shape: &Shape, x: &[T], kernel: &[T], first_row: usize, y: &mut [T]) {
    let kernel = Matrix::new(kernel, shape.output, patch_len(shape)).transposed();
    let positions = y.len() / shape.output;
    let patches = gather(shape, x, first_row, positions);
    multiply(y, Matrix::new(&patches, positions, patch_len(shape)), kernel, false);
}

/// Adds to `sum [output, kernel, kernel, input]`.
pub(super) fn add_weight_gradient<T: Element>(shape: &Shape, x: &[T], dy: &[T], sum: &mut Option<Buffer<T>>) {
    /// Sums that are kept apart, whatever the number of threads.
    const PARTS: usize = 4;
    let rows = rows_per_piece(shape);
    let piece = rows * shape.output_size()[1] * shape.output;
    let pieces: Vec<_> = dy.chunks(piece).enumerate().collect();
    let partial = |pieces: &[(usize, &[T])]| {
        let mut partial = Buffer::take(shape.output * patch_len(shape));
        for (nth, &(i, dy)) in pieces.iter().enumerate() {
            let positions = dy.len() / shape.output;
            let patches = gather(shape, x, i * rows, positions);
            let left = Matrix::new(dy, positions, shape.output).transposed();
            multiply(&mut partial, left, Matrix::new(&patches, positions, patch_len(shape)), nth > 0);
        }
        partial
    };
    let partials: Vec<_> = pieces.par_chunks(pieces.len().div_ceil(PARTS).max(1)).map(partial).collect();
    for partial in partials {
        match sum {
            None => *sum = Some(partial),
            Some(sum) => add_to(sum, &partial),
        }
    }
}

/// The input's gradient where it is no convolution: with a stride.
pub(super) fn scatter_gradient<T: Element>(shape: &Shape, dy: &[T], kernel: &[T], dx: &mut [T]) {
    dx.fill(T::ZERO);
    let rows = rows_per_piece(shape);
    for (i, dy) in dy.chunks(rows * shape.output_size()[1] * shape.output).enumerate() {
        let positions = dy.len() / shape.output;
        let mut patches = Buffer::take(positions * patch_len(shape));
        let right = Matrix::new(kernel, shape.output, patch_len(shape));
        multiply(&mut patches, Matrix::new(dy, positions, shape.output), right, false);
        scatter(shape, &patches, i * rows, dx);
    }
}

/// `[output, input, kernel, kernel]` → `[output, kernel, kernel, input]`.
pub(super) fn lay_out<T: Element>(shape: &Shape, weight: &[T]) -> Buffer<T> {
    let mut kernel = Buffer::take(weight.len());
    reorder(weight, patch_len(shape), shape.kernel * shape.kernel, &mut kernel);
    kernel
}

/// `[output, kernel, kernel, input]` → `[output, input, kernel, kernel]`.
pub(super) fn lay_back<T: Element>(shape: &Shape, kernel: &[T]) -> Vec<T> {
    let mut weight = vec![T::ZERO; kernel.len()];
    reorder(kernel, patch_len(shape), shape.input, &mut weight);
    weight
}

/// Transposes each matrix of `len` numbers in rows of `columns`.
fn reorder<T: Element>(from: &[T], len: usize, columns: usize, to: &mut [T]) {
    let rows = len / columns;
    to.par_chunks_mut(len).zip(from.par_chunks(len)).for_each(|(to, from)| {
        for (i, v) in from.iter().enumerate() {
            to[i % columns * rows + i / columns] = *v;
        }
    });
}

/// Calls `run(patches' offset, picture's offset, length)` for each run of numbers that a patch takes from the picture,
/// without the picture's offset where it lies in the padding.
#[inline(always)]
fn for_each_run(
    shape: &Shape,
    first_row: usize,
    positions: usize,
    mut run: impl FnMut(usize, Option<usize>, usize),
) {
    let [height, width] = shape.size;
    let (columns, k, ci) = (shape.output_size()[1], shape.kernel, shape.input);
    let patch = patch_len(shape);
    for position in 0..positions {
        let (row, column) = (first_row + position / columns, position % columns);
        let (top, left) = (row * shape.stride, column * shape.stride);
        // Of the kernel's columns, those from `from` to `to` lie inside.
        let from = shape.padding.saturating_sub(left).min(k);
        let to = (width + shape.padding).saturating_sub(left).min(k).max(from);
        for kh in 0..k {
            let at = position * patch + kh * k * ci;
            match (top + kh).checked_sub(shape.padding).filter(|&y| y < height) {
                Some(y) if from < to => {
                    run(at, None, from * ci);
                    run(
                        at + from * ci,
                        Some((y * width + left + from - shape.padding) * ci),
                        (to - from) * ci,
                    );
                    run(at + to * ci, None, (k - to) * ci);
                }
                _ => run(at, None, k * ci),
            }
        }
    }
}

fn gather<T: Element>(shape: &Shape, x: &[T], first_row: usize, positions: usize) -> Buffer<T> {
    let mut patches = Buffer::take(positions * patch_len(shape));
    for_each_run(shape, first_row, positions, |to, from, len| match from {
        Some(from) => patches[to..to + len].copy_from_slice(&x[from..from + len]),
        None => patches[to..to + len].fill(T::ZERO),
    });
    patches
}

fn scatter<T: Element>(shape: &Shape, patches: &[T], first_row: usize, dx: &mut [T]) {
    for_each_run(shape, first_row, patches.len() / patch_len(shape), |from, to, len| {
        if let Some(to) = to {
            add_to(&mut dx[to..to + len], &patches[from..from + len]);
        }
    });
}

//! Channels first to channels last and back.

use rayon::prelude::*;

use super::element::Element;

/// `[batch, channels, positions]` → `[batch, positions, channels]`.
pub(in super::super) fn channels_last<T: Element>(x: &[T], channels: usize, positions: usize) -> Vec<T> {
    transpose(x, channels, positions)
}

/// `[batch, positions, channels]` → `[batch, channels, positions]`.
pub(in super::super) fn channels_first<T: Element>(x: &[T], channels: usize, positions: usize) -> Vec<T> {
    transpose(x, positions, channels)
}

/// Transposes each `rows × columns` matrix, in blocks that fit the first-level cache.
fn transpose<T: Element>(x: &[T], rows: usize, columns: usize) -> Vec<T> {
    const SIDE: usize = 32;
    let mut y = vec![T::ZERO; x.len()];
    let matrices = y.par_chunks_mut(rows * columns).zip(x.par_chunks(rows * columns));
    matrices.for_each(|(y, x)| {
        y.par_chunks_mut(SIDE * rows).enumerate().for_each(|(block, y)| {
            for first in (0..rows).step_by(SIDE) {
                for (i, y) in y.chunks_exact_mut(rows).enumerate() {
                    let column = block * SIDE + i;
                    for (row, y) in y.iter_mut().enumerate().skip(first).take(SIDE) {
                        *y = x[row * columns + column];
                    }
                }
            }
        });
    });
    y
}

//! What follows a convolution's sums: bias, ReLU and the 2×2 average pool, and their way back.

use rayon::prelude::*;

use super::element::{Element, vectorised};

/// Numbers that one thread takes at a time.
const PIECE: usize = 1 << 16;

/// Adds `bias [channels]` to `sums [.., channels]`, and makes negative values zero if `relu`.
pub(in super::super) fn add_bias<T: Element>(sums: &mut [T], bias: &[T], relu: bool) {
    let rows = (PIECE / bias.len()).max(1);
    sums.par_chunks_mut(rows * bias.len()).for_each(|sums| {
        vectorised(
            #[inline(always)]
            || {
                for row in sums.chunks_exact_mut(bias.len()) {
                    for (s, b) in row.iter_mut().zip(bias) {
                        let v = *s + *b;
                        // Written so that a NaN passes through and damage is seen.
                        *s = if relu && v < T::ZERO { T::ZERO } else { v };
                    }
                }
            },
        );
    });
}

/// The gradient before a ReLU, where `activations` are what it gave.
pub(in super::super) fn cut_dead<T: Element>(gradient: &[T], activations: &[T], to: &mut [T]) {
    let pieces = to.par_chunks_mut(PIECE).zip(gradient.par_chunks(PIECE)).zip(activations.par_chunks(PIECE));
    pieces.for_each(|((to, gradient), activations)| {
        vectorised(
            #[inline(always)]
            || {
                for ((t, g), a) in to.iter_mut().zip(gradient).zip(activations) {
                    *t = if *a > T::ZERO { *g } else { T::ZERO };
                }
            },
        );
    });
}

/// A 2×2 average pool of stride 2 over one picture, and the bias and ReLU before it.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Pool {
    /// Rows and columns before it.
    pub(in super::super) size: [usize; 2],
    /// Channels.
    pub(in super::super) channels: usize,
    /// Zeros around it, which count.
    pub(in super::super) padding: usize,
    /// Whether a ReLU comes before it.
    pub(in super::super) relu: bool,
}

impl Pool {
    /// Rows and columns after it.
    pub(in super::super) fn output_size(&self) -> [usize; 2] {
        self.size.map(|side| (side + 2 * self.padding) / 2)
    }

    /// Numbers of an output picture.
    pub(in super::super) fn output_len(&self) -> usize {
        let [rows, columns] = self.output_size();
        rows * columns * self.channels
    }

    /// `sums [rows, columns, channels]` → `out [rows', columns', channels]`, and in four bits of `mask` for each output
    /// which of its inputs were alive.
    pub(in super::super) fn forward<T: Element>(
        &self,
        sums: &[T],
        bias: &[T],
        out: &mut [T],
        mask: &mut [u8],
    ) {
        let line = self.output_size()[1] * self.channels;
        let lines = out.par_chunks_mut(line).zip(mask.par_chunks_mut(line)).enumerate();
        lines.for_each(|(row, (out, mask))| {
            vectorised(
                #[inline(always)]
                || self.forward_line(row, sums, bias, (out, mask)),
            )
        });
    }

    #[inline(always)]
    fn forward_line<T: Element>(
        &self,
        row: usize,
        sums: &[T],
        bias: &[T],
        (out, mask): (&mut [T], &mut [u8]),
    ) {
        let ([height, width], channels) = (self.size, self.channels);
        out.fill(T::ZERO);
        mask.fill(0);
        for (bit, dy, dx) in [(1, 0, 0), (2, 0, 1), (4, 1, 0), (8, 1, 1)] {
            // What would lie before the picture wraps to far beyond it.
            let y = (2 * row + dy).wrapping_sub(self.padding);
            if y >= height {
                continue;
            }
            let windows = out.chunks_exact_mut(channels).zip(mask.chunks_exact_mut(channels));
            for (column, (out, mask)) in windows.enumerate() {
                let x = (2 * column + dx).wrapping_sub(self.padding);
                if x < width {
                    let at = (y * width + x) * channels;
                    self.take_in(bit, &sums[at..at + channels], bias, (out, mask));
                }
            }
        }
    }

    #[inline(always)]
    fn take_in<T: Element>(&self, bit: u8, sums: &[T], bias: &[T], (out, mask): (&mut [T], &mut [u8])) {
        let quarter = T::from_f64(0.25);
        for (((s, b), o), m) in sums.iter().zip(bias).zip(out).zip(mask) {
            let v = *s + *b;
            let dead = self.relu && v <= T::ZERO;
            *o = *o + quarter * if dead { T::ZERO } else { v };
            *m |= if dead { 0 } else { bit };
        }
    }

    /// The gradient of the sums from that of the outputs.
    pub(in super::super) fn backward<T: Element>(&self, gradient: &[T], mask: &[u8], sums: &mut [T]) {
        let channels = self.channels;
        let line = self.output_size()[1] * channels;
        sums.par_chunks_mut(self.size[1] * channels).enumerate().for_each(|(y, sums)| {
            let (row, dy) = ((y + self.padding) / 2, (y + self.padding) % 2);
            // An odd last row or column belongs to no window.
            let (Some(gradient), Some(mask)) =
                (gradient.get(row * line..(row + 1) * line), mask.get(row * line..(row + 1) * line))
            else {
                return sums.fill(T::ZERO);
            };
            vectorised(
                #[inline(always)]
                || {
                    for (x, sums) in sums.chunks_exact_mut(channels).enumerate() {
                        let (column, dx) = ((x + self.padding) / 2, (x + self.padding) % 2);
                        let at = column * channels..(column + 1) * channels;
                        match (gradient.get(at.clone()), mask.get(at)) {
                            (Some(gradient), Some(mask)) => {
                                give_back(1 << (2 * dy + dx), gradient, mask, sums)
                            }
                            _ => sums.fill(T::ZERO),
                        }
                    }
                },
            );
        });
    }
}

#[inline(always)]
fn give_back<T: Element>(bit: u8, gradient: &[T], mask: &[u8], sums: &mut [T]) {
    let quarter = T::from_f64(0.25);
    for ((s, g), m) in sums.iter_mut().zip(gradient).zip(mask) {
        *s = if m & bit != 0 { *g * quarter } else { T::ZERO };
    }
}

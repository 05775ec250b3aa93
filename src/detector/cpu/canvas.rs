//! The picture as the first layers read it: normalised, interleaved R G B, with one position of zeros around it.

use super::direct::Source;
use super::pool::Pool;
use super::shared::Shared;
use crate::efficientad::input::{MEAN, STD};
use crate::frame::{Picture, Size};

const CHANNELS: usize = 3;
/// The first encoder layer's padding.
pub(super) const MARGIN: usize = 1;

pub(super) struct Canvas {
    values: Vec<f32>,
    size: Size,
    table: [[f32; CHANNELS]; 256],
}

impl Canvas {
    pub(super) fn new(size: Size) -> Self {
        let normal = |v: usize, c: usize| (v as f32 / 255.0 - MEAN[c]) / STD[c];
        let table = std::array::from_fn(|v| std::array::from_fn(|c| normal(v, c)));
        let rows = size.height as usize + 2 * MARGIN;
        Self { values: vec![0.0; rows * Self::row(size)], size, table }
    }

    fn row(size: Size) -> usize {
        (size.width as usize + 2 * MARGIN) * CHANNELS
    }

    /// Scalars from one block of channels (there is one), row and column to the next.
    pub(super) fn distances(&self) -> [usize; 3] {
        [0, Self::row(self.size), CHANNELS]
    }

    /// Takes a picture of this canvas's size.
    pub(super) fn draw(&mut self, pool: &Pool, picture: &Picture) {
        let (row, width) = (Self::row(self.size), self.size.width as usize * CHANNELS);
        let values = Shared::new(&mut self.values);
        pool.run(self.size.height as usize, &|_, y| {
            let start = (y + MARGIN) * row + MARGIN * CHANNELS;
            // SAFETY: this row is this task's alone.
            let to = unsafe { values.range(start..start + width) };
            let from = &picture.rgb()[y * width..(y + 1) * width];
            for (to, from) in to.chunks_exact_mut(CHANNELS).zip(from.chunks_exact(CHANNELS)) {
                for c in 0..CHANNELS {
                    to[c] = self.table[usize::from(from[c])][c];
                }
            }
        });
    }

    pub(super) fn source(&self) -> Source<'_> {
        Source { values: &self.values, by_column: CHANNELS, by_row: Self::row(self.size) }
    }
}

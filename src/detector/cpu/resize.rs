//! Bilinear resizing between the decoder's layers: half-pixel centres, as the reference.
//!
//! In: a tensor. Out: another of the same channels, inside its margin.

use super::pool::Pool;
use super::shared::Shared;
use super::simd::{Block, Isa, Kernel, Simd};
use super::tensor::{Layout, Tensor};

/// The two inputs that an output lies between.
#[derive(Debug, Clone, Copy)]
struct Tap {
    low: usize,
    high: usize,
    share: f32,
}

fn taps(from: usize, to: usize) -> Vec<Tap> {
    let scale = from as f64 / to as f64;
    let tap = |out: usize| {
        let at = ((out as f64 + 0.5) * scale - 0.5).max(0.0);
        let low = (at as usize).min(from - 1);
        Tap { low, high: (low + 1).min(from - 1), share: (at - low as f64) as f32 }
    };
    (0..to).map(tap).collect()
}

/// A change of size.
pub(super) struct Resize {
    isa: Isa,
    rows: Vec<Tap>,
    columns: Vec<Tap>,
}

impl Resize {
    pub(super) fn new(isa: Isa, from: [usize; 2], to: [usize; 2]) -> Self {
        Self { isa, rows: taps(from[0], to[0]), columns: taps(from[1], to[1]) }
    }

    pub(super) fn run(&self, pool: &Pool, source: &Tensor, to: &mut Tensor) {
        let layout = to.layout;
        let shared = Shared::new(&mut to.data);
        pool.run(self.rows.len(), &|_, y| self.isa.run(Row { resize: self, source, y, layout, to: shared }));
    }
}

struct Row<'a> {
    resize: &'a Resize,
    source: &'a Tensor,
    y: usize,
    layout: Layout,
    to: Shared<'a, Block>,
}

impl Kernel for Row<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let row = self.resize.rows[self.y];
        let down = s.splat(row.share);
        let from = &self.source.layout;
        for block in 0..from.blocks() {
            let low = &self.source.data[from.at(block, row.low, 0)..][..from.size[1]];
            let high = &self.source.data[from.at(block, row.high, 0)..][..from.size[1]];
            for (x, tap) in self.resize.columns.iter().enumerate() {
                let a = blend(s, &low[tap.low], &high[tap.low], down);
                let b = blend(s, &low[tap.high], &high[tap.high], down);
                let v = s.fma(s.sub(b, a), s.splat(tap.share), a);
                // SAFETY: this row is this task's alone.
                s.store(v, unsafe { self.to.get(self.layout.at(block, self.y, x)) });
            }
        }
    }
}

#[inline(always)]
fn blend<S: Simd>(s: S, low: &Block, high: &Block, share: S::V) -> S::V {
    let (a, b) = (s.load(low), s.load(high));
    s.fma(s.sub(b, a), share, a)
}

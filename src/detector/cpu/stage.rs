//! One convolution with the tensor it fills: the link of which the networks' chains are made.

use super::super::filters::Filters;
use super::direct::{Direct, Source, distances};
use super::plan::Plan;
use super::pool::Pool;
use super::simd::Block;
use super::sink::{Sink, Then};
use super::tensor::{Layout, Tensor};
use super::winograd::{self, Spec, Winograd};

enum Convolution {
    Winograd(Winograd),
    Direct(Direct),
}

/// A convolution and its output.
pub(super) struct Stage {
    convolution: Convolution,
    then: Then,
    pub(super) output: Tensor,
}

impl Stage {
    /// A stride-1 layer over the tensor `source`, whose margin is the padding, into `output`.
    pub(super) fn new(plan: Plan, filters: Filters, source: &Layout, output: Layout, then: Then) -> Self {
        let size = output.size.map(|s| s * then.pooled());
        let convolution = if winograd::handles(filters.kernel) {
            let part = Spec { filters, first_source: 0, then };
            Convolution::Winograd(Winograd::new(plan, &[source.channels], size, vec![part]))
        } else {
            Convolution::Direct(Direct::new(plan.isa, &filters, 1, size, &[distances(source)], then))
        };
        Self { convolution, then, output: Tensor::zeros(output) }
    }

    /// A layer of any stride over a source of these distances (see [`distances`]) into `output`.
    pub(super) fn direct(
        plan: Plan,
        filters: &Filters,
        stride: usize,
        source: [usize; 3],
        output: Layout,
        then: Then,
    ) -> Self {
        let size = output.size.map(|s| s * then.pooled());
        let direct = Direct::new(plan.isa, filters, stride, size, &[source], then);
        Self { convolution: Convolution::Direct(direct), then, output: Tensor::zeros(output) }
    }

    /// Blocks of working memory that `run` needs.
    pub(super) fn scratch(&self) -> usize {
        match &self.convolution {
            Convolution::Winograd(layer) => layer.scratch(),
            Convolution::Direct(_) => 0,
        }
    }

    /// Fills the output from the tensor it was made for.
    pub(super) fn run(&mut self, pool: &Pool, scratch: &mut [Block], source: &Tensor) {
        let sink = Sink::new(self.then, &mut self.output);
        match &self.convolution {
            Convolution::Winograd(layer) => layer.run(pool, scratch, &[source], &[sink]),
            Convolution::Direct(layer) => layer.run(pool, &[source.into()], 0, &sink),
        }
    }

    /// Fills the output from the picture, `origin` rows and columns in.
    pub(super) fn run_on(&mut self, pool: &Pool, source: Source<'_>, origin: usize) {
        let sink = Sink::new(self.then, &mut self.output);
        match &self.convolution {
            Convolution::Direct(layer) => layer.run(pool, &[source], origin, &sink),
            Convolution::Winograd(_) => unreachable!("pictures are read directly: this is a bug"),
        }
    }
}

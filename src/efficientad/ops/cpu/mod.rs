//! Convolution on the CPU in plain memory, channels last: `[rows, columns, channels]` per picture.
//!
//! Wide stride-1 convolutions go through Winograd's minimal filtering, which needs a third to a fifth of the
//! multiplications; the rest through patch matrices. Both end in the `gemm` crate. Work is cut into pieces that do not
//! depend on the number of threads, so that the same numbers come out whatever that is. Not here: tensors (`layer`).

mod activation;
mod cook_toom;
mod direct;
mod element;
mod order;
mod winograd;

pub(super) use activation::{Pool, add_bias, cut_dead};
pub(super) use element::{Buffer, Element};
pub(super) use order::{channels_first, channels_last};

use rayon::prelude::*;

use element::vectorised;

/// The shape of a convolution of one picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Input rows and columns.
    pub(super) size: [usize; 2],
    /// Input channels.
    pub(super) input: usize,
    /// Output channels.
    pub(super) output: usize,
    /// Kernel side.
    pub(super) kernel: usize,
    /// Pixels from one output to the next.
    pub(super) stride: usize,
    /// Zeros around the input.
    pub(super) padding: usize,
}

impl Shape {
    /// Output rows and columns.
    pub(super) fn output_size(&self) -> [usize; 2] {
        self.size.map(|side| (side + 2 * self.padding - self.kernel) / self.stride + 1)
    }

    /// Numbers of an input picture.
    pub(super) fn input_len(&self) -> usize {
        self.size[0] * self.size[1] * self.input
    }

    /// Numbers of an output picture.
    pub(super) fn output_len(&self) -> usize {
        let [rows, columns] = self.output_size();
        rows * columns * self.output
    }

    /// The convolution of the output's gradient that gives the input's, where that is one.
    fn reversed(&self) -> Option<Self> {
        (self.stride == 1 && self.padding < self.kernel).then(|| Self {
            size: self.output_size(),
            input: self.output,
            output: self.input,
            padding: self.kernel - 1 - self.padding,
            ..*self
        })
    }

    fn method(&self) -> Method {
        // Winograd pays where the matrices are wide and the tiles are well filled.
        let [rows, columns] = self.output_size();
        let wide = self.stride == 1 && self.input.min(self.output) >= 16 && rows.min(columns) >= 8;
        match self.kernel {
            3 if wide => Method::Winograd3,
            4 if wide => Method::Winograd4,
            _ => Method::Patches,
        }
    }
}

#[derive(Clone, Copy)]
enum Method {
    Patches,
    Winograd3,
    Winograd4,
}

/// A convolution whose kernel is laid out for its method; one picture at a time.
pub(super) struct Convolution<T: Element> {
    shape: Shape,
    kernel: Buffer<T>,
}

impl<T: Element> Convolution<T> {
    /// `weight [output, input, kernel, kernel]`.
    pub(super) fn new(shape: Shape, weight: &[T]) -> Self {
        let kernel = match shape.method() {
            Method::Patches => direct::lay_out(&shape, weight),
            Method::Winograd3 => T::winograd3().kernel_points(&shape, weight),
            Method::Winograd4 => T::winograd4().kernel_points(&shape, weight),
        };
        Self { shape, kernel }
    }

    /// Rows of the output that suit one piece of work; an even number.
    pub(super) fn rows_per_piece(&self) -> usize {
        match self.shape.method() {
            Method::Patches => direct::rows_per_piece(&self.shape),
            Method::Winograd3 => T::winograd3().rows_per_piece(&self.shape),
            Method::Winograd4 => T::winograd4().rows_per_piece(&self.shape),
        }
    }

    /// The rows of the output from `first_row` on, a multiple of [`Self::rows_per_piece`], as many as `y [rows,
    /// columns, output]` holds; on the calling thread alone.
    pub(super) fn forward_rows(&self, x: &[T], first_row: usize, y: &mut [T]) {
        let shape = &self.shape;
        assert_eq!(x.len(), shape.input_len(), "a picture of another size: this is a bug");
        match shape.method() {
            Method::Patches => direct::forward_rows(shape, x, &self.kernel, first_row, y),
            Method::Winograd3 => T::winograd3().forward_rows(shape, x, &self.kernel, first_row, y),
            Method::Winograd4 => T::winograd4().forward_rows(shape, x, &self.kernel, first_row, y),
        }
    }

    /// `x [rows, columns, input]` → `y [rows', columns', output]`.
    pub(super) fn forward(&self, x: &[T], y: &mut [T]) {
        let rows = self.rows_per_piece();
        let piece = rows * self.shape.output_size()[1] * self.shape.output;
        y.par_chunks_mut(piece).enumerate().for_each(|(i, y)| self.forward_rows(x, i * rows, y));
    }
}

/// The way back from an output's gradient to the input's.
pub(super) enum InputGradient<T: Element> {
    /// A convolution with the kernel turned round.
    Reversed(Convolution<T>),
    /// Products scattered over the input.
    Scattered(Shape, Buffer<T>),
}

impl<T: Element> InputGradient<T> {
    /// `weight [output, input, kernel, kernel]`.
    pub(super) fn new(shape: Shape, weight: &[T]) -> Self {
        match shape.reversed() {
            Some(reversed) => Self::Reversed(Convolution::new(reversed, &turn(&shape, weight))),
            None => Self::Scattered(shape, direct::lay_out(&shape, weight)),
        }
    }

    /// `dy [rows', columns', output]` → `dx [rows, columns, input]`.
    pub(super) fn run(&self, dy: &[T], dx: &mut [T]) {
        match self {
            Self::Reversed(convolution) => convolution.forward(dy, dx),
            Self::Scattered(shape, kernel) => direct::scatter_gradient(shape, dy, kernel, dx),
        }
    }
}

/// The sum over pictures of a weight's gradient.
pub(super) struct WeightGradient<T: Element> {
    shape: Shape,
    sum: Option<Buffer<T>>,
}

impl<T: Element> WeightGradient<T> {
    /// Nothing yet.
    pub(super) fn new(shape: Shape) -> Self {
        Self { shape, sum: None }
    }

    /// Adds one picture's: `x [rows, columns, input]`, `dy [rows', columns', output]`.
    pub(super) fn add(&mut self, x: &[T], dy: &[T]) {
        let (shape, sum) = (&self.shape, &mut self.sum);
        match shape.method() {
            Method::Patches => direct::add_weight_gradient(shape, x, dy, sum),
            Method::Winograd3 => T::winograd3().add_weight_gradient(shape, x, dy, sum),
            Method::Winograd4 => T::winograd4().add_weight_gradient(shape, x, dy, sum),
        }
    }

    /// The sum, `[output, input, kernel, kernel]`.
    pub(super) fn finish(self) -> Vec<T> {
        let shape = &self.shape;
        let Some(sum) = self.sum else {
            return vec![T::ZERO; shape.output * shape.input * shape.kernel * shape.kernel];
        };
        match shape.method() {
            Method::Patches => direct::lay_back(shape, &sum),
            Method::Winograd3 => T::winograd3().kernel_gradient(shape, &sum),
            Method::Winograd4 => T::winograd4().kernel_gradient(shape, &sum),
        }
    }
}

/// Adds `dy [.., channels]`, summed over all but the channels, to `sum [channels]`.
pub(super) fn add_bias_gradient<T: Element>(dy: &[T], sum: &mut [T]) {
    const ROWS: usize = 4096;
    let partial = |rows: &[T]| {
        let mut partial = vec![T::ZERO; sum.len()];
        vectorised(
            #[inline(always)]
            || rows.chunks_exact(partial.len()).for_each(|row| add_to(&mut partial, row)),
        );
        partial
    };
    let partials: Vec<_> = dy.par_chunks(ROWS * sum.len()).map(partial).collect();
    partials.iter().for_each(|partial| add_to(sum, partial));
}

#[inline(always)]
fn add_to<T: Element>(sum: &mut [T], more: &[T]) {
    for (s, m) in sum.iter_mut().zip(more) {
        *s = *s + *m;
    }
}

/// The kernel that carries gradients back: input and output exchanged, turned by half a turn.
fn turn<T: Element>(shape: &Shape, weight: &[T]) -> Vec<T> {
    let taps = shape.kernel * shape.kernel;
    let mut turned = vec![T::ZERO; weight.len()];
    turned.par_chunks_mut(shape.output * taps).enumerate().for_each(|(input, out)| {
        for (output, out) in out.chunks_exact_mut(taps).enumerate() {
            let from = &weight[(output * shape.input + input) * taps..][..taps];
            for (o, w) in out.iter_mut().zip(from.iter().rev()) {
                *o = *w;
            }
        }
    });
    turned
}

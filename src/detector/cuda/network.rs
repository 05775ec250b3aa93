//! The detector's networks as a list of launches, laid out once for one model; pure.
//!
//! Teacher and student go side by side through one tensor, the teacher's channels first, up to their last layers; these and
//! the autoencoder's last are linear, so that the heads compute differences of features, of which only sums of squares
//! leave the registers. The autoencoder runs beside the other two. Not here: the card's memory (`slot`), the kernels'
//! parameters (`launches`).

use super::super::filters::Filters;
use super::parameters::PROBLEMS;
use super::tiles::Tile;
use super::weights::{CHANNELS, Packed, Part, Size, pack, pack_first, padded};
use crate::efficientad::architecture::{ConvShape, PdnLayer};
use crate::efficientad::{Architecture, CalibratedModel};

/// Activations of one picture, channels last, with zeros around them for the layer that pads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) channels: usize,
    pub(super) size: [usize; 2],
    pub(super) margin: usize,
}

impl Shape {
    /// Rows and columns in memory.
    pub(super) fn sides(&self) -> [usize; 2] {
        self.size.map(|s| s + 2 * self.margin)
    }

    pub(super) fn bytes(&self) -> usize {
        self.channels * self.sides()[0] * self.sides()[1] * 2
    }

    /// Bytes from the start to what is `inset` positions inside the outermost one, at this channel.
    pub(super) fn offset(&self, inset: usize, channel: usize) -> usize {
        ((inset * self.sides()[1] + inset) * self.channels + channel) * 2
    }
}

/// Some channels of a tensor, and how they are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reads {
    pub(super) tensor: usize,
    pub(super) channel: usize,
    pub(super) channels: usize,
    pub(super) kernel: usize,
    pub(super) padding: usize,
}

/// What becomes of sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Keep { relu: bool },
    Pool,
    Squares,
}

/// One layer of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) sources: Vec<Reads>,
    /// Which of the plan's packed weights.
    pub(super) weights: usize,
    /// The first channel that is written.
    pub(super) channel: usize,
}

/// Layers over the same positions, in one launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Convolution {
    pub(super) problems: Vec<Problem>,
    pub(super) stride: usize,
    pub(super) then: Then,
    /// Of the output, after any pool.
    pub(super) size: [usize; 2],
    /// The tensor that is written; none for squares.
    pub(super) output: Option<usize>,
}

/// A layer that reads the canvas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct First {
    pub(super) weights: usize,
    /// Whether outputs are pooled, or every other position is an output.
    pub(super) pooled: bool,
    pub(super) output: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    First(First),
    Convolution(Convolution),
    Resize { from: usize, to: usize },
}

/// All launches between the picture on the canvas and the sums of squares.
pub(super) struct Plan {
    pub(super) tensors: Vec<Shape>,
    pub(super) packed: Vec<Packed>,
    /// Teacher and student.
    pub(super) main: Vec<Step>,
    /// The autoencoder, which may run beside them.
    pub(super) side: Vec<Step>,
    /// After both.
    pub(super) heads: Convolution,
    /// The tile for all convolutions, to try it out, rather than the best for each.
    pub(super) only_tile: Option<Tile>,
}

impl Plan {
    pub(super) fn new(model: &CalibratedModel) -> Self {
        let mut builder = Builder { model, tensors: Vec::new(), packed: Vec::new() };
        let (main, described) = builder.networks();
        let (side, hidden) = builder.autoencoder();
        let heads = builder.heads(&described, &hidden);
        Self { tensors: builder.tensors, packed: builder.packed, main, side, heads, only_tile: None }
    }

    /// The tile to compute a layer in, for so many pictures on a card with so many processors.
    pub(super) fn tile(&self, convolution: &Convolution, batch: usize, processors: usize) -> Tile {
        self.only_tile.unwrap_or_else(|| convolution.tile(&self.packed, batch, processors))
    }

    /// Bytes of one picture's activations.
    pub(super) fn bytes(&self) -> usize {
        self.tensors.iter().map(Shape::bytes).sum()
    }
}

impl Convolution {
    /// Rows of the product for so many pictures.
    pub(super) fn rows(&self, batch: usize) -> usize {
        let corners = if self.then == Then::Pool { 4 } else { 1 };
        batch * self.size[0] * self.size[1] * corners
    }

    /// The tile to compute it in.
    fn tile(&self, packed: &[Packed], batch: usize, processors: usize) -> Tile {
        let sizes: Vec<_> =
            self.problems.iter().map(|p| (packed[p.weights].outputs(), packed[p.weights].steps)).collect();
        Tile::best(self.rows(batch), &sizes, processors)
    }
}

/// Channels of a tensor that hold one network's activations.
struct Activations {
    tensor: usize,
    channel: usize,
    /// As the network states them, without filling.
    channels: usize,
    size: Size,
}

impl Activations {
    fn read(&self, kernel: usize, padding: usize) -> Reads {
        Reads { tensor: self.tensor, channel: self.channel, channels: padded(self.channels), kernel, padding }
    }
}

struct Builder<'a> {
    model: &'a CalibratedModel,
    tensors: Vec<Shape>,
    packed: Vec<Packed>,
}

const NAMES: [&str; PROBLEMS] = ["teacher", "student"];

impl Builder<'_> {
    fn tensor(&mut self, channels: usize, size: [usize; 2], margin: usize) -> usize {
        self.tensors.push(Shape { channels, size, margin });
        self.tensors.len() - 1
    }

    fn keep(&mut self, packed: Packed) -> usize {
        self.packed.push(packed);
        self.packed.len() - 1
    }

    fn architecture(&self) -> &Architecture {
        self.model.architecture()
    }

    fn input(&self) -> [usize; 2] {
        let input = self.architecture().input;
        [input.height as usize, input.width as usize]
    }

    /// Teacher and student without their last layers.
    fn networks(&mut self) -> (Vec<Step>, [Activations; PROBLEMS]) {
        let [teacher, student] = [self.architecture().teacher(), self.architecture().student()];
        let (first, mut size) = (teacher[0], self.input());
        let filters = NAMES.map(|name| Filters::of(self.model, &format!("{name}.conv1")));
        let scales = [0, 1].map(|i| Size::PICTURE.after(&filters[i]));
        let weights =
            self.keep(pack_first(&[(&filters[0], scales[0].scale), (&filters[1], scales[1].scale)]));
        size = size.map(|s| (s + 1 - first.kernel) / 2);
        let width = padded(first.output);
        let output = self.tensor(2 * width, size, 0);
        let mut steps = vec![Step::First(First { weights, pooled: true, output })];
        let mut now = [0, 1].map(|i| Activations {
            tensor: output,
            channel: i * width,
            channels: first.output,
            size: scales[i],
        });
        let pairs = teacher.iter().zip(&student).enumerate();
        for (i, (&teacher, &student)) in pairs.skip(1).take(teacher.len() - 2) {
            steps.push(self.pair(i, [teacher, student], &mut now, &mut size));
        }
        (steps, now)
    }

    /// Layer `i` of both networks, from `now` on.
    fn pair(
        &mut self,
        i: usize,
        layers: [PdnLayer; PROBLEMS],
        now: &mut [Activations; PROBLEMS],
        size: &mut [usize; 2],
    ) -> Step {
        let pool = layers[0].pool;
        *size = size.map(|s| (s + 1 - layers[0].kernel) / if pool { 2 } else { 1 });
        let widths = layers.map(|layer| padded(layer.output));
        let output = self.tensor(widths.iter().sum(), *size, 0);
        let mut channel = 0;
        let problems = [0, 1].map(|n| {
            let filters = Filters::of(self.model, &format!("{}.conv{}", NAMES[n], i + 1));
            let after = now[n].size.after(&filters);
            let part = Part { filters: &filters, scale: now[n].size.scale, sign: 1.0 };
            let weights = self.keep(pack(&[part], after.scale));
            let sources = vec![now[n].read(layers[n].kernel, 0)];
            let at = std::mem::replace(&mut channel, widths[0]);
            now[n] = Activations { tensor: output, channel: at, channels: layers[n].output, size: after };
            Problem { sources, weights, channel: at }
        });
        Step::Convolution(Convolution {
            problems: problems.into(),
            stride: 1,
            then: if pool { Then::Pool } else { Then::Keep { relu: layers[0].relu } },
            size: *size,
            output: Some(output),
        })
    }

    /// The autoencoder without its last layer.
    fn autoencoder(&mut self) -> (Vec<Step>, Activations) {
        let encoder = self.architecture().encoder();
        let decoder = self.architecture().decoder();
        let mut size = self.input().map(|s| s / 2);
        let filters = Filters::of(self.model, "autoencoder.enconv1");
        let scale = Size::PICTURE.after(&filters);
        let weights = self.keep(pack_first(&[(&filters, scale.scale)]));
        let output = self.tensor(padded(encoder[0].output), size, encoder[1].padding);
        let mut now = Activations { tensor: output, channel: 0, channels: encoder[0].output, size: scale };
        let mut steps = vec![Step::First(First { weights, pooled: false, output })];
        for (i, conv) in encoder.iter().enumerate().skip(1) {
            let name = format!("autoencoder.enconv{}", i + 1);
            let margin = encoder.get(i + 1).map_or(0, |next| next.padding);
            steps.push(self.single(&name, (conv, margin), &mut now, &mut size));
        }
        let sizes = self.architecture().decoder_sizes();
        for (i, to) in sizes.into_iter().enumerate() {
            let resized = self.tensor(padded(now.channels), to, decoder[i].padding);
            steps.push(Step::Resize { from: now.tensor, to: resized });
            (now.tensor, size) = (resized, to);
            let name = format!("autoencoder.deconv{}", i + 1);
            // The last of these is read by the heads, the others by a resize.
            let margin = if i + 1 == sizes.len() { decoder[i + 1].padding } else { 0 };
            steps.push(self.single(&name, (&decoder[i], margin), &mut now, &mut size));
        }
        (steps, now)
    }

    fn single(
        &mut self,
        name: &str,
        (conv, margin): (&ConvShape, usize),
        now: &mut Activations,
        size: &mut [usize; 2],
    ) -> Step {
        let filters = Filters::of(self.model, name);
        let after = now.size.after(&filters);
        let part = Part { filters: &filters, scale: now.size.scale, sign: 1.0 };
        let weights = self.keep(pack(&[part], after.scale));
        let sources = vec![now.read(conv.kernel, conv.padding)];
        *size = size.map(|s| (s + 2 * conv.padding - conv.kernel) / conv.stride + 1);
        let output = self.tensor(padded(conv.output), *size, margin);
        *now = Activations { tensor: output, channel: 0, channels: conv.output, size: after };
        Step::Convolution(Convolution {
            problems: vec![Problem { sources, weights, channel: 0 }],
            stride: conv.stride,
            then: Then::Keep { relu: conv.relu },
            size: *size,
            output: Some(output),
        })
    }

    /// Normalised teacher less student, and student less autoencoder.
    fn heads(&mut self, described: &[Activations; PROBLEMS], hidden: &Activations) -> Convolution {
        let (model, features) = (self.model, self.architecture().features);
        let last = self.architecture().student().len();
        let (mean, std) = (model.tensor("teacher_mean"), model.tensor("teacher_std"));
        let teacher =
            Filters::of(model, &format!("teacher.conv{last}")).normalised(&mean.values, &std.values);
        let student = Filters::of(model, &format!("student.conv{last}"));
        let students = [student.only(0..features), student.only(features..2 * features)];
        let autoencoder = Filters::of(model, "autoencoder.deconv8");
        let padding = self.architecture().decoder()[7].padding;
        let [by_teacher, by_student] = described;
        let sides = [
            [(&teacher, by_teacher, 0), (&students[0], by_student, 0)],
            [(&students[1], by_student, 0), (&autoencoder, hidden, padding)],
        ];
        let problems = sides.map(|[plus, minus]| {
            let part = |(filters, from, _): (_, &Activations, _), sign| Part {
                filters,
                scale: from.size.scale,
                sign,
            };
            let weights = self.keep(pack(&[part(plus, 1.0), part(minus, -1.0)], 1.0));
            let read = |(filters, from, padding): (&Filters, &Activations, usize)| {
                from.read(filters.kernel, padding)
            };
            Problem { sources: vec![read(plus), read(minus)], weights, channel: 0 }
        });
        Convolution {
            problems: problems.into(),
            stride: 1,
            then: Then::Squares,
            size: self.architecture().map_size(),
            output: None,
        }
    }
}

/// Steps of 32 channels.
pub(super) fn chunks(channels: usize) -> usize {
    channels / CHANNELS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::untrained;
    use crate::efficientad::PdnSize;
    use crate::frame;

    /// Every layer reads what exists, and as many steps as its weights have.
    #[test]
    fn plans_fit_together_for_every_network_and_odd_sizes() {
        for (size, input) in
            [(PdnSize::Tiny, [256, 256]), (PdnSize::Tiny, [300, 416]), (PdnSize::Medium, [256, 256])]
        {
            let input = frame::Size::new(input[1], input[0]);
            let model = untrained::model(&Architecture::new(size, input).unwrap(), 1);
            let plan = Plan::new(&model);
            let steps = plan.main.iter().chain(&plan.side);
            let mut convolutions = vec![&plan.heads];
            convolutions.extend(steps.filter_map(|step| match step {
                Step::Convolution(c) => Some(c),
                _ => None,
            }));
            for c in convolutions {
                for p in &c.problems {
                    let packed = &plan.packed[p.weights];
                    let steps: usize =
                        p.sources.iter().map(|s| s.kernel * s.kernel * chunks(s.channels)).sum();
                    assert_eq!(packed.steps, steps);
                    assert_eq!(packed.weights.len(), packed.outputs() * steps * CHANNELS);
                    for s in &p.sources {
                        assert!(s.channel + s.channels <= plan.tensors[s.tensor].channels);
                        // No window begins beyond its tensor.
                        let pool = if c.then == Then::Pool { 2 } else { 1 };
                        for (out, from) in c.size.iter().zip(plan.tensors[s.tensor].size) {
                            let end = (out * pool - 1) * c.stride + s.kernel;
                            assert!(end <= from + 2 * s.padding, "{c:?}");
                            assert!(s.padding <= plan.tensors[s.tensor].margin, "{c:?}");
                        }
                    }
                    if let Some(output) = c.output {
                        let to = plan.tensors[output];
                        assert!(p.channel + packed.outputs() <= to.channels && to.size == c.size);
                    }
                }
            }
        }
    }
}

//! The detector's networks as chains of stages, laid out once for one model and one input size.
//!
//! In: a picture. Out: the two raw maps. Teacher and student run up to their last layer; that layer and the
//! autoencoder's are linear, so the heads compute their differences directly (see [`Filters::less`]) and only sums of
//! squares leave the registers. Not here: quantiles and threads (`super`).

use super::super::filters::Filters;
use super::canvas::{self, Canvas};
use super::direct::{Direct, distances};
use super::plan::Plan;
use super::pool::Pool;
use super::resize::Resize;
use super::simd::Block;
use super::sink::{Sink, Then};
use super::stage::Stage;
use super::tensor::{Layout, Tensor};
use super::winograd::{self, Spec, Winograd};
use crate::efficientad::CalibratedModel;
use crate::efficientad::architecture::PdnLayer;
use crate::frame::Picture;

/// A pool hands on sums of four, so the next layer's weights hold the quarter.
const POOLED: f64 = 4.0;
/// The padding of the autoencoder's last layer.
const LAST_PADDING: usize = 1;

/// Stages of which the first reads the picture and every other the one before it.
struct Chain {
    stages: Vec<Stage>,
    /// Rows and columns of the canvas to skip: its margin, or nothing where the first layer pads.
    origin: usize,
}

impl Chain {
    /// A patch description network without its last layer.
    fn pdn(plan: Plan, model: &CalibratedModel, name: &str, layers: &[PdnLayer], canvas: &Canvas) -> Self {
        let mut stages: Vec<Stage> = Vec::new();
        let input = model.architecture().input;
        let mut size = [input.height as usize, input.width as usize];
        for (i, layer) in layers[..layers.len() - 1].iter().enumerate() {
            let mut filters = Filters::of(model, &format!("{name}.conv{}", i + 1));
            if i > 0 && layers[i - 1].pool {
                filters = filters.for_inputs_times(POOLED);
            }
            let then = if layer.pool { Then::ReluPool } else { Then::Relu };
            size = size.map(|s| (s + 1 - layer.kernel) / then.pooled());
            let output = source_layout(layers[i + 1].kernel, layer.output, size, 0);
            stages.push(match stages.last() {
                None => Stage::direct(plan, &filters, 1, canvas.distances(), output, then),
                Some(before) => Stage::new(plan, filters, &before.output.layout, output, then),
            });
        }
        Self { stages, origin: canvas::MARGIN }
    }

    /// The autoencoder's encoder.
    fn encoder(plan: Plan, model: &CalibratedModel, canvas: &Canvas) -> Self {
        let input = model.architecture().input;
        let mut size = [input.height as usize, input.width as usize];
        let convs = model.architecture().encoder();
        let mut stages: Vec<Stage> = Vec::new();
        for (i, conv) in convs.iter().enumerate() {
            let filters = Filters::of(model, &format!("autoencoder.enconv{}", i + 1));
            size = size.map(|s| (s + 2 * conv.padding - conv.kernel) / conv.stride + 1);
            let output = Layout::new(conv.output, size, convs.get(i + 1).map_or(0, |next| next.padding));
            let source = stages.last().map_or(canvas.distances(), |s| distances(&s.output.layout));
            let then = if conv.relu { Then::Relu } else { Then::Keep };
            stages.push(Stage::direct(plan, &filters, conv.stride, source, output, then));
        }
        Self { stages, origin: 0 }
    }

    fn run(&mut self, i: usize, pool: &Pool, scratch: &mut [Block], canvas: &Canvas) {
        let (before, rest) = self.stages.split_at_mut(i);
        match before.last() {
            None => rest[0].run_on(pool, canvas.source(), self.origin),
            Some(source) => rest[0].run(pool, scratch, &source.output),
        }
    }

    fn output(&self) -> &Tensor {
        &self.stages.last().expect("networks have layers: this is a bug").output
    }
}

/// The layout that a layer of this kernel wants to read, with `margin` zeros as its padding.
fn source_layout(kernel: usize, channels: usize, size: [usize; 2], margin: usize) -> Layout {
    if winograd::handles(kernel) {
        winograd::source_layout(kernel, channels, size, margin)
    } else {
        Layout::new(channels, size, margin)
    }
}

/// A layer of the decoder: a change of size, what it fills, and the convolution that reads that.
struct Growth {
    resize: Resize,
    resized: Tensor,
    stage: Stage,
}

/// The decoder without its last layer. `readable` is what the heads read of its output, rows and columns.
fn decoder(plan: Plan, model: &CalibratedModel, mut size: [usize; 2], readable: [usize; 2]) -> Vec<Growth> {
    let architecture = model.architecture();
    let sizes = architecture.decoder_sizes();
    let layer = |(i, to): (usize, [usize; 2])| {
        let conv = architecture.decoder()[i];
        let filters = Filters::of(model, &format!("autoencoder.deconv{}", i + 1));
        let resize = Resize::new(plan.isa, size, to);
        let resized = Tensor::zeros(source_layout(conv.kernel, conv.input, to, conv.padding));
        size = to.map(|s| s + 2 * conv.padding + 1 - conv.kernel);
        let output = match i + 1 == sizes.len() {
            true => Layout::new(conv.output, size, LAST_PADDING).reaching(readable),
            false => Layout::new(conv.output, size, 0),
        };
        let stage = Stage::new(plan, filters, &resized.layout, output, Then::Relu);
        Growth { resize, resized, stage }
    };
    sizes.into_iter().enumerate().map(layer).collect()
}

/// The last layers: both differences of features, squared and summed over channels.
#[expect(clippy::large_enum_variant, reason = "there is one a network")]
enum Heads {
    /// 4-wide last layers (PDN-S): one transformed input, two parts.
    Winograd(Winograd),
    /// 1-wide last layers (PDN-M).
    Direct(Box<[Direct; 2]>),
}

/// A part of the work that is run, and can be measured, on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Normalises the picture.
    Draw,
    /// A layer of the teacher, from 0, but the last.
    Teacher(usize),
    /// A layer of the student, from 0, but the last.
    Student(usize),
    /// A layer of the encoder, from 0.
    Encoder(usize),
    /// A layer of the decoder, from 0, but the last.
    Decoder(usize),
    /// The last layers of all three, as differences, and their sums of squares.
    Heads,
}

/// All networks of a detector.
pub(super) struct Network {
    canvas: Canvas,
    teacher: Chain,
    student: Chain,
    encoder: Chain,
    decoder: Vec<Growth>,
    heads: Heads,
    /// Sums of squares: student–teacher, autoencoder–student.
    sums: [Tensor; 2],
    scratch: Vec<Block>,
    features: usize,
    steps: Vec<Step>,
}

impl Network {
    pub(super) fn new(plan: Plan, model: &CalibratedModel) -> Self {
        let architecture = model.architecture();
        let canvas = Canvas::new(architecture.input);
        let layers = architecture.student();
        let kernel = layers.last().expect("networks have layers: this is a bug").kernel;
        let map = architecture.map_size();
        let beyond =
            |s| if winograd::handles(kernel) { winograd::extent(kernel, s) } else { s + 2 * LAST_PADDING };
        let teacher = Chain::pdn(plan, model, "teacher", &architecture.teacher(), &canvas);
        let student = Chain::pdn(plan, model, "student", &layers, &canvas);
        let encoder = Chain::encoder(plan, model, &canvas);
        let decoder = decoder(plan, model, encoder.output().layout.size, map.map(beyond));
        let hidden = decoder.last().map_or(encoder.output(), |last| &last.stage.output);
        let sources = [teacher.output().layout, student.output().layout, hidden.layout];
        let heads = Heads::new(plan, model, layers.len(), &sources);
        let sums = [(); 2].map(|()| Tensor::zeros(Layout::new(1, map, 0)));

        let chains = [&teacher, &student, &encoder].into_iter().flat_map(|chain| &chain.stages);
        let stages = chains.chain(decoder.iter().map(|growth| &growth.stage));
        let scratch = stages.map(Stage::scratch).max().unwrap_or(0).max(heads.scratch());
        let mut steps = vec![Step::Draw];
        steps.extend((0..teacher.stages.len()).map(Step::Teacher));
        steps.extend((0..student.stages.len()).map(Step::Student));
        steps.extend((0..encoder.stages.len()).map(Step::Encoder));
        steps.extend((0..decoder.len()).map(Step::Decoder));
        steps.push(Step::Heads);
        let (scratch, features) = (vec![Block::ZERO; scratch], architecture.features);
        Self { canvas, teacher, student, encoder, decoder, heads, sums, scratch, features, steps }
    }

    /// All steps of a frame, in order.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The raw student–teacher and autoencoder–student maps of `picture`, row by row, into `maps`.
    pub(super) fn run(&mut self, pool: &Pool, picture: &Picture, maps: [&mut [f32]; 2]) {
        for i in 0..self.steps.len() {
            self.run_step(self.steps[i], pool, picture);
        }
        let scale = 1.0 / self.features as f32;
        for (map, sums) in maps.into_iter().zip(&self.sums) {
            for (value, block) in map.iter_mut().zip(&sums.data) {
                *value = block.0.iter().sum::<f32>() * scale;
            }
        }
    }

    /// One step, on what the steps before it left.
    pub(super) fn run_step(&mut self, step: Step, pool: &Pool, picture: &Picture) {
        let (canvas, scratch) = (&self.canvas, &mut self.scratch);
        match step {
            Step::Draw => self.canvas.draw(pool, picture),
            Step::Teacher(i) => self.teacher.run(i, pool, scratch, canvas),
            Step::Student(i) => self.student.run(i, pool, scratch, canvas),
            Step::Encoder(i) => self.encoder.run(i, pool, scratch, canvas),
            Step::Decoder(i) => {
                let (before, rest) = self.decoder.split_at_mut(i);
                let source = before.last().map_or(self.encoder.output(), |growth| &growth.stage.output);
                let Growth { resize, resized, stage } = &mut rest[0];
                resize.run(pool, source, resized);
                stage.run(pool, scratch, resized);
            }
            Step::Heads => self.run_heads(pool),
        }
    }

    fn run_heads(&mut self, pool: &Pool) {
        let hidden = self.decoder.last().map_or(self.encoder.output(), |last| &last.stage.output);
        let sources = [self.teacher.output(), self.student.output(), hidden];
        for sums in &mut self.sums {
            sums.data.fill(Block::ZERO);
        }
        let sinks = self.sums.each_mut().map(|sums| Sink::new(Then::Squares, sums));
        match &self.heads {
            Heads::Winograd(layer) => layer.run(pool, &mut self.scratch, &sources, &sinks),
            Heads::Direct(layers) => {
                for (i, layer) in layers.iter().enumerate() {
                    layer.run(pool, &[sources[i].into(), sources[i + 1].into()], 0, &sinks[i]);
                }
            }
        }
    }
}

impl Heads {
    fn new(plan: Plan, model: &CalibratedModel, last: usize, sources: &[Layout; 3]) -> Self {
        let features = model.architecture().features;
        let (mean, std) = (model.tensor("teacher_mean"), model.tensor("teacher_std"));
        let teacher =
            Filters::of(model, &format!("teacher.conv{last}")).normalised(&mean.values, &std.values);
        let student = Filters::of(model, &format!("student.conv{last}"));
        let autoencoder = Filters::of(model, "autoencoder.deconv8");
        let differences = [
            teacher.less(&student.only(0..features)),
            student.only(features..2 * features).less(&autoencoder),
        ];
        let map = model.architecture().map_size();
        if winograd::handles(student.kernel) {
            let channels = sources.map(|s| s.channels);
            let mut first_source = 0;
            let parts = differences.map(|filters| {
                first_source += 1;
                Spec { filters, first_source: first_source - 1, then: Then::Squares }
            });
            Self::Winograd(Winograd::new(plan, &channels, map, parts.into()))
        } else {
            let mut i = 0;
            Self::Direct(Box::new(differences.map(|filters| {
                i += 1;
                let distances = [distances(&sources[i - 1]), distances(&sources[i])];
                Direct::new(plan.isa, &filters, 1, map, &distances, Then::Squares)
            })))
        }
    }

    fn scratch(&self) -> usize {
        match self {
            Self::Winograd(layer) => layer.scratch(),
            Self::Direct(_) => 0,
        }
    }
}

//! The detector's networks as chains of stages, laid out once for one model and one input size.
//!
//! In: a picture. Out: the two raw maps. Teacher and student run up to their last layer; that layer and the
//! autoencoder's are linear, so the heads compute their differences directly (see [`Filters::less`]) and only sums of
//! squares leave the registers. Not here: quantiles and threads (`super`).

use super::canvas::{self, Canvas};
use super::direct::{Direct, distances};
use super::filters::Filters;
use super::pool::Pool;
use super::resize::Resize;
use super::simd::Block;
use super::sink::{Sink, Then};
use super::stage::{Plan, Stage};
use super::tensor::{Layout, Tensor};
use super::winograd::{self, Spec, Winograd};
use crate::efficientad::CalibratedModel;
use crate::efficientad::architecture::PdnLayer;

/// A pool hands on sums of four, so the next layer's weights hold the quarter.
const POOLED: f64 = 4.0;

/// A patch description network without its last layer.
struct Trunk(Vec<Stage>);

impl Trunk {
    fn new(plan: Plan, model: &CalibratedModel, name: &str, layers: &[PdnLayer], canvas: &Canvas) -> Self {
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
        Self(stages)
    }

    fn run(&mut self, pool: &Pool, scratch: &mut [Block], canvas: &Canvas) {
        let (first, others) = self.0.split_first_mut().expect("networks have layers: this is a bug");
        first.run_on(pool, canvas.source(), canvas::MARGIN);
        let mut source = &first.output;
        for stage in others {
            stage.run(pool, scratch, source);
            source = &stage.output;
        }
    }

    fn features(&self) -> &Tensor {
        &self.0.last().expect("networks have layers: this is a bug").output
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

/// The autoencoder without its last layer.
struct Autoencoder {
    encoder: Vec<Stage>,
    decoder: Vec<(Resize, Tensor, Stage)>,
}

impl Autoencoder {
    /// `readable` is what the last layer of the detector reads of the features, rows and columns with the margin.
    fn new(plan: Plan, model: &CalibratedModel, canvas: &Canvas, readable: [usize; 2]) -> Self {
        let architecture = model.architecture();
        let input = architecture.input;
        let mut size = [input.height as usize, input.width as usize];
        let convs = architecture.encoder();
        let mut encoder: Vec<Stage> = Vec::new();
        for (i, conv) in convs.iter().enumerate() {
            let filters = Filters::of(model, &format!("autoencoder.enconv{}", i + 1));
            size = size.map(|s| (s + 2 * conv.padding - conv.kernel) / conv.stride + 1);
            let output = Layout::new(conv.output, size, convs.get(i + 1).map_or(0, |next| next.padding));
            let source = encoder.last().map_or(canvas.distances(), |s| distances(&s.output.layout));
            let then = if conv.relu { Then::Relu } else { Then::Keep };
            encoder.push(Stage::direct(plan, &filters, conv.stride, source, output, then));
        }
        let mut decoder = Vec::new();
        for (i, (conv, to)) in architecture.decoder().iter().zip(architecture.decoder_sizes()).enumerate() {
            let filters = Filters::of(model, &format!("autoencoder.deconv{}", i + 1));
            let resize = Resize::new(plan.isa, size, to);
            let source = Tensor::zeros(source_layout(conv.kernel, conv.input, to, conv.padding));
            size = to.map(|s| s + 2 * conv.padding + 1 - conv.kernel);
            let last = i + 1 == architecture.decoder_sizes().len();
            let output = if last {
                Layout::new(conv.output, size, 1).reaching(readable)
            } else {
                Layout::new(conv.output, size, 0)
            };
            let stage = Stage::new(plan, filters, &source.layout, output, Then::Relu);
            decoder.push((resize, source, stage));
        }
        Self { encoder, decoder }
    }

    fn run(&mut self, pool: &Pool, scratch: &mut [Block], canvas: &Canvas) {
        let (first, others) = self.encoder.split_first_mut().expect("the encoder has layers: this is a bug");
        first.run_on(pool, canvas.source(), 0);
        let mut source = &first.output;
        for stage in others {
            stage.run(pool, scratch, source);
            source = &stage.output;
        }
        for (resize, resized, stage) in &mut self.decoder {
            resize.run(pool, source, resized);
            stage.run(pool, scratch, resized);
            source = &stage.output;
        }
    }

    fn features(&self) -> &Tensor {
        &self.decoder.last().expect("the decoder has layers: this is a bug").2.output
    }
}

/// The last layers: both differences of features, squared and summed over channels.
enum Heads {
    /// 4-wide last layers (PDN-S): one transformed input, two parts.
    Winograd(Winograd),
    /// 1-wide last layers (PDN-M).
    Direct(Box<[Direct; 2]>),
}

/// All networks of a detector.
pub(super) struct Network {
    canvas: Canvas,
    teacher: Trunk,
    student: Trunk,
    autoencoder: Autoencoder,
    heads: Heads,
    /// Sums of squares: student–teacher, autoencoder–student.
    sums: [Tensor; 2],
    scratch: Vec<Block>,
    features: usize,
}

impl Network {
    pub(super) fn new(plan: Plan, model: &CalibratedModel) -> Self {
        let architecture = model.architecture();
        let canvas = Canvas::new(architecture.input);
        let layers = architecture.student();
        let kernel = layers.last().expect("networks have layers: this is a bug").kernel;
        let map = architecture.map_size();
        let readable =
            map.map(|s| if winograd::handles(kernel) { winograd::extent(kernel, s) } else { s + 2 });
        let teacher = Trunk::new(plan, model, "teacher", &architecture.teacher(), &canvas);
        let student = Trunk::new(plan, model, "student", &layers, &canvas);
        let autoencoder = Autoencoder::new(plan, model, &canvas, readable);
        let sources = [teacher.features(), student.features(), autoencoder.features()].map(|t| t.layout);
        let heads = Heads::new(plan, model, layers.len(), &sources);
        let sums = [(); 2].map(|()| Tensor::zeros(Layout::new(1, map, 0)));
        let stages = teacher.0.iter().chain(&student.0).chain(&autoencoder.encoder);
        let stages = stages.chain(autoencoder.decoder.iter().map(|(_, _, stage)| stage));
        let scratch = stages.map(|stage| stage.scratch()).max().unwrap_or(0).max(heads.scratch());
        let scratch = vec![Block::ZERO; scratch];
        Self { canvas, teacher, student, autoencoder, heads, sums, scratch, features: architecture.features }
    }

    /// The raw student–teacher and autoencoder–student maps of `picture`, row by row, into `maps`.
    pub(super) fn run(&mut self, pool: &Pool, picture: &crate::frame::Picture, maps: [&mut [f32]; 2]) {
        self.canvas.draw(pool, picture);
        self.teacher.run(pool, &mut self.scratch, &self.canvas);
        self.student.run(pool, &mut self.scratch, &self.canvas);
        self.autoencoder.run(pool, &mut self.scratch, &self.canvas);
        let sources = [self.teacher.features(), self.student.features(), self.autoencoder.features()];
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
        let scale = 1.0 / self.features as f32;
        for (map, sums) in maps.into_iter().zip(&self.sums) {
            for (value, block) in map.iter_mut().zip(&sums.data) {
                *value = block.0.iter().sum::<f32>() * scale;
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
            Self::Winograd(Winograd::new(plan.isa, plan.threads, &channels, map, parts.into()))
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

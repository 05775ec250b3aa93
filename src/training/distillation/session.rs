//! A distillation from beginning to end, or from where it was interrupted to its end.
//!
//! In: a backbone, pictures, options. Out: the teacher's weights; a checkpoint and the loss log lie beside the file that
//! the teacher is to be written to. Runs on the caller's thread.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::Device;
use serde::Serialize;

use super::error::DistillationError;
use super::log::LossLog;
use super::options::Options;
use super::samples::{Loader, Samples, digest};
use super::step::Distiller;
use super::target::{Moments, Target};
use crate::efficientad::{Backbone, Describer, Weight, Weights};
use crate::shutdown::Shutdown;
use crate::training::checkpoint::{self, CheckpointError, Resumable};
use crate::training::teacher::TeacherSource;

/// What of the loss so far stays in its mean from one step to the next.
const MEAN_KEEPS: f32 = 0.99;
/// What the mean is called in a checkpoint.
const MEAN_LOSS: &str = "mean_loss";

/// What a distillation learns from, and where it leaves its traces.
#[derive(Debug)]
pub struct Inputs {
    /// Whose features are learnt.
    pub backbone: Backbone,
    /// Pictures of anything, sorted by path.
    pub pictures: Vec<PathBuf>,
    /// The teacher to begin with; none begins with a random one.
    pub start: Option<TeacherSource>,
    /// Where the teacher is going to be written; checkpoint and loss log lie beside it.
    pub out: PathBuf,
    /// Whether to go on from the checkpoint; otherwise there must be none.
    pub resume: bool,
}

/// A finished distillation.
#[derive(Debug)]
pub struct Outcome {
    /// The teacher: `conv1.weight` and so on.
    pub weights: Weights,
    /// Mean squared error over the last hundred steps or so, as a share of the targets' variance.
    pub loss: f32,
    /// The checkpoint, to be removed when the teacher is written.
    pub checkpoint: PathBuf,
}

/// What happens in the course of a distillation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    /// The backbone's channels are measured.
    Measuring {
        /// Pictures done.
        done: u64,
        /// Of how many.
        of: u64,
    },
    /// Steps begin, or go on from a checkpoint.
    Distilling {
        /// Steps done before.
        from: u64,
        /// Steps in all.
        steps: u64,
    },
    /// A step is done.
    Step {
        /// Which, counted from 1.
        step: u64,
        /// Its loss.
        loss: f32,
        /// The mean of the last hundred or so.
        mean: f32,
    },
    /// A checkpoint is on disk.
    Saved {
        /// Steps that it holds.
        step: u64,
    },
}

/// Who watches a distillation and may end it.
pub struct Watch<'a> {
    /// Hears of every event.
    pub tell: &'a mut dyn FnMut(Event),
    /// Ends it after the step under way, with a checkpoint.
    pub stop: Shutdown,
}

/// All that decides a distillation's outcome.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Plan {
    #[serde(flatten)]
    options: Options,
    backbone: String,
    pictures: String,
    start: Option<String>,
}

impl Resumable for Plan {
    fn steps(&self) -> u64 {
        self.options.steps
    }
}

/// Distils a teacher.
///
/// # Errors
/// [`DistillationError`]; after `Stopped` a checkpoint is there.
pub fn distill(inputs: Inputs, options: &Options, watch: &mut Watch) -> Result<Outcome, DistillationError> {
    if let Some((key, message)) = options.faults().into_iter().next() {
        return Err(DistillationError::Option { key, message });
    }
    let plan = Plan {
        options: options.clone(),
        backbone: format!("{} {}", inputs.backbone.kind(), inputs.backbone.digest()),
        pictures: digest(&inputs.pictures),
        start: inputs.start.as_ref().map(|teacher| teacher.origin.clone()),
    };
    let path = checkpoint::path_for(&inputs.out);
    if !inputs.resume && path.exists() {
        return Err(CheckpointError::Unasked(path).into());
    }
    let device = inputs.backbone.device().clone();
    let describer = Describer::new(inputs.backbone, options.architecture().features)?;
    let mut samples = Samples::new(inputs.pictures, options.clone());
    let (distiller, mean) = if inputs.resume {
        resume(&path, &plan, describer, &device)?
    } else {
        let target = measure(describer, &mut samples, options, &device, watch)?;
        let start = inputs.start.as_ref().map(|teacher| &teacher.weights);
        (Distiller::new(options, target, start, &device)?, None)
    };
    let log = LossLog::open(&LossLog::path_for(&inputs.out), distiller.steps())?;
    let mut session = Session { distiller, mean, log, plan, path };
    session.run(samples, watch)?;
    let weights = session.distiller.state()?;
    let weights = weights.select(&options.architecture().teacher_tensors());
    let weights = weights.map_err(|e| DistillationError::Device(e.to_string()))?;
    Ok(Outcome { weights, loss: session.mean.unwrap_or(f32::NAN), checkpoint: session.path })
}

fn measure(
    describer: Describer,
    samples: &mut Samples,
    options: &Options,
    device: &Device,
    watch: &mut Watch,
) -> Result<Target, DistillationError> {
    let mut moments = Moments::default();
    for n in 0..options.measured {
        (watch.tell)(Event::Measuring { done: n, of: options.measured });
        if watch.stop.requested() {
            return Err(DistillationError::Unstarted);
        }
        let views = samples.measured(n)?;
        let large: Vec<_> = views.iter().map(|v| &v.large).collect();
        moments.add(&describer.describe(&large)?)?;
    }
    (watch.tell)(Event::Measuring { done: options.measured, of: options.measured });
    Ok(Target::new(describer, &moments, device)?)
}

fn resume(
    path: &Path,
    plan: &Plan,
    describer: Describer,
    device: &Device,
) -> Result<(Distiller, Option<f32>), DistillationError> {
    let (state, step) = checkpoint::load(path, plan)?;
    let unusable =
        |e: candle_core::Error| CheckpointError::Unusable { path: path.to_owned(), message: e.to_string() };
    let target = Target::restore(describer, &state, device).map_err(unusable)?;
    let mut distiller = Distiller::new(&plan.options, target, None, device)?;
    distiller.restore(&state, step).map_err(unusable)?;
    Ok((distiller, state.get(MEAN_LOSS).and_then(|w| w.values.first().copied())))
}

/// A distillation under way.
struct Session {
    distiller: Distiller,
    mean: Option<f32>,
    log: LossLog,
    plan: Plan,
    path: PathBuf,
}

impl Session {
    fn run(&mut self, samples: Samples, watch: &mut Watch) -> Result<(), DistillationError> {
        let steps = self.plan.options.steps;
        let every = Duration::from_secs(self.plan.options.checkpoint_seconds);
        let from = self.distiller.steps();
        (watch.tell)(Event::Distilling { from, steps });
        let mut loader = Loader::start(samples, from, steps)?;
        let mut saved = Instant::now();
        while self.distiller.steps() < steps {
            let rate = self.plan.options.rate(self.distiller.steps());
            let loss = self.distiller.step(&loader.next()?, rate)?;
            let step = self.distiller.steps();
            if !loss.is_finite() {
                return Err(DistillationError::Diverged { step: step + 1, loss });
            }
            let mean = self.mean.map_or(loss, |mean| MEAN_KEEPS * mean + (1.0 - MEAN_KEEPS) * loss);
            self.mean = Some(mean);
            self.log.add(step, loss, rate)?;
            (watch.tell)(Event::Step { step, loss, mean });
            let stop = watch.stop.requested();
            if stop || saved.elapsed() >= every || step == steps {
                self.save(step)?;
                (watch.tell)(Event::Saved { step });
                saved = Instant::now();
            }
            if stop && step < steps {
                return Err(DistillationError::Stopped { step });
            }
        }
        Ok(())
    }

    fn save(&self, step: u64) -> Result<(), DistillationError> {
        let mut state = self.distiller.state()?;
        if let Some(mean) = self.mean {
            state.insert(MEAN_LOSS, Weight { dims: vec![1], values: vec![mean] });
        }
        Ok(checkpoint::save(&self.path, &self.plan, step, &state)?)
    }
}

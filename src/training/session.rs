//! A training from beginning to end, or from where it was interrupted to its end.
//!
//! In: normal pictures, penalty pictures, a teacher, options, and perhaps a model to start from. Out: a calibrated
//! model, not saved yet. Runs on the caller's thread; checkpoints go beside the bundle to be. Not here: one step
//! (`trainer`), progress bars (`cli`).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Device;

use super::augment::{self, Jitter};
use super::calibrate::{Usual, calibrate, grid};
use super::checkpoint::{self, CheckpointError, Plan};
use super::dataset::{Normals, picture_set};
use super::error::TrainingError;
use super::loss::{LossValues, Visible};
use super::memory;
use super::options::Options;
use super::pictures::{Pictures, View};
use super::schedule::{Purpose, Schedule};
use super::teacher::{Teacher, TeacherSource};
use super::trainer::{StepPictures, Trainer};
use crate::efficientad::{
    Architecture, CalibratedModel, PictureSet, TrainedModel, TrainingRecord, Weights, initialise,
};
use crate::imaging::{Mask, Sight};
use crate::shutdown::Shutdown;

/// What a training learns from.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// The model's name.
    pub name: String,
    /// Where the normal pictures came from; for people.
    pub data: PathBuf,
    /// The normal pictures.
    pub normals: Normals,
    /// How they are looked at.
    pub sight: Sight,
    /// How the camera's pictures come to be these, in words, for the model's manifest.
    pub view: Option<String>,
    /// Indices of training pictures that come once more in every epoch, as often as they stand here: few new ones
    /// among many old ones.
    pub again: Vec<usize>,
    /// The model whose student, autoencoder and teacher's statistics are the start; none starts anew.
    pub start: Option<CalibratedModel>,
    /// The folder of pictures of anything else, and those in it.
    pub penalty: Option<(PathBuf, Vec<PathBuf>)>,
    /// The teacher.
    pub teacher: TeacherSource,
    /// The version of the model that the new one is to replace.
    pub parent: Option<String>,
}

/// Where the checkpoint lies, and whether to go on from it.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The file.
    pub path: PathBuf,
    /// Whether to go on from it; otherwise there must be none.
    pub resume: bool,
}

/// What happens in the course of a training.
#[derive(Debug, Clone)]
pub enum Event {
    /// The teacher's statistics are measured.
    Measuring {
        /// Pictures done.
        done: usize,
        /// Of how many.
        of: usize,
    },
    /// Training goes on from a checkpoint, or begins.
    Training {
        /// Steps done before.
        from: u64,
        /// Steps in all.
        steps: u64,
    },
    /// A step is done.
    Step {
        /// Which, counted from 1.
        step: u64,
        /// Its losses.
        losses: LossValues,
    },
    /// A checkpoint is on disk.
    Saved {
        /// Steps that it holds.
        step: u64,
    },
    /// Held-out pictures are looked at.
    Calibrating {
        /// Pictures done.
        done: usize,
        /// Of how many.
        of: usize,
    },
}

/// Who watches a training and may end it.
pub struct Watch<'a> {
    /// Hears of every event.
    pub tell: &'a mut dyn FnMut(Event),
    /// Ends the training after the step under way, with a checkpoint.
    pub stop: Shutdown,
}

/// Trains and calibrates.
///
/// The checkpoint stays until the caller, having saved the model, removes it.
pub fn train(
    inputs: Inputs,
    options: &Options,
    checkpoint: &Checkpoint,
    device: &Device,
    watch: &mut Watch,
) -> Result<CalibratedModel, TrainingError> {
    if let Some((key, message)) = options.faults().into_iter().next() {
        return Err(TrainingError::Option { key, message });
    }
    let architecture = Architecture::new(options.size, options.input)
        .map_err(|e| TrainingError::Option { key: "input".into(), message: e.to_string() })?;
    let wanted = options.cache_mib << 20;
    let room = if device.is_cpu() { memory::room(&architecture, wanted)? } else { wanted };
    let record = record(&inputs, options)?;
    let plan = plan(&inputs, options, &record)?;
    let mut session = Session::open(&inputs, (options, room), &architecture, device)?;
    session.begin(checkpoint, &plan, watch)?;
    session.run(checkpoint, &plan, watch)?;

    let mut weights = session.trainer.state()?;
    weights.insert_all("teacher.", &inputs.teacher.weights);
    drop(session);
    let model = TrainedModel::new(architecture, weights, record)?;
    let (stop, step) = (watch.stop.clone(), plan.steps);
    // The checkpoint of the last step is there.
    let mut tell = |done, of| {
        (watch.tell)(Event::Calibrating { done, of });
        if stop.requested() { Err(TrainingError::Stopped { step }) } else { Ok(()) }
    };
    let seen = (&inputs.normals, &mut inputs.sight.clone());
    calibrate((model, Usual::OfLearnt), seen, options.false_positive_rate, device, &mut tell)
}

/// The weights that training begins with.
fn trained(
    inputs: &Inputs,
    options: &Options,
    architecture: &Architecture,
) -> Result<Weights, TrainingError> {
    let shapes = architecture.trained_tensors();
    match &inputs.start {
        Some(model) => Ok(model.weights().clone().select(&shapes)?),
        None => Ok(initialise::draw(&shapes, options.seed)),
    }
}

fn record(inputs: &Inputs, options: &Options) -> Result<TrainingRecord, TrainingError> {
    let penalty = inputs.penalty.as_ref().map(|(folder, paths)| picture_set(folder, paths)).transpose()?;
    Ok(TrainingRecord {
        name: inputs.name.clone(),
        pictures: picture_set(&inputs.data, &inputs.normals.training)?,
        penalty,
        teacher: inputs.teacher.origin.clone(),
        seed: options.seed,
        steps: options.steps,
        parent: inputs.parent.clone(),
        view: inputs.view.clone(),
    })
}

fn plan(inputs: &Inputs, options: &Options, record: &TrainingRecord) -> Result<Plan, TrainingError> {
    let digest = |set: &PictureSet| set.digest.clone();
    Ok(Plan {
        size: options.size,
        input: options.input,
        steps: options.steps,
        seed: options.seed,
        learning_rate: options.learning_rate,
        training_pictures: digest(&record.pictures),
        held_out_pictures: digest(&picture_set(&inputs.data, &inputs.normals.held_out)?),
        penalty_pictures: record.penalty.as_ref().map(digest),
        teacher: record.teacher.clone(),
        again: inputs.again.clone(),
        view: record.view.clone(),
        start: inputs.start.as_ref().map(|model| model.model_ref().version),
    })
}

/// A training under way.
struct Session {
    trainer: Trainer,
    schedule: Schedule,
    pictures: Pictures,
    /// Which pictures an epoch has.
    epoch: Vec<usize>,
    penalty: Option<Pictures>,
    start: Option<CalibratedModel>,
    checkpoint_every: Duration,
    masks: Masks,
}

/// From masks to the cells that count; a camera's pictures have one mask.
struct Masks {
    architecture: Architecture,
    device: Device,
    last: Option<(Arc<Mask>, Visible)>,
}

impl Masks {
    /// None where the mask hides every cell.
    fn visible(&mut self, mask: &Arc<Mask>) -> Result<Option<Visible>, TrainingError> {
        if let Some((known, visible)) = &self.last
            && Arc::ptr_eq(known, mask)
        {
            return Ok(Some(visible.clone()));
        }
        let grid = grid(&self.architecture);
        let hidden = mask.hidden_cells(grid);
        let visible = Visible::new(&hidden, grid.rows, grid.columns, &self.device)?;
        self.last = visible.clone().map(|visible| (mask.clone(), visible));
        Ok(visible)
    }
}

impl Session {
    fn open(
        inputs: &Inputs,
        (options, room): (&Options, u64),
        architecture: &Architecture,
        device: &Device,
    ) -> Result<Self, TrainingError> {
        let view = View::Line(Box::new(inputs.sight.clone()));
        let pictures = Pictures::new(inputs.normals.training.clone(), view, options.input, room / 2);
        let teacher_weights = inputs.teacher.weights.clone().select(&architecture.teacher_tensors())?;
        let teacher = Teacher::new(architecture, &teacher_weights, device, pictures.len(), room)?;
        Ok(Self {
            trainer: Trainer::new(architecture, teacher, trained(inputs, options, architecture)?, device)?,
            schedule: Schedule {
                seed: options.seed,
                steps: options.steps,
                learning_rate: options.learning_rate,
            },
            epoch: (0..pictures.len()).chain(inputs.again.iter().copied()).collect(),
            pictures,
            start: inputs.start.clone(),
            penalty: inputs
                .penalty
                .as_ref()
                .map(|(_, paths)| Pictures::new(paths.clone(), View::Centre, options.input, room / 2)),
            checkpoint_every: Duration::from_secs(options.checkpoint_seconds),
            masks: Masks { architecture: architecture.clone(), device: device.clone(), last: None },
        })
    }

    /// From the checkpoint, or from the first step.
    fn begin(
        &mut self,
        checkpoint: &Checkpoint,
        plan: &Plan,
        watch: &mut Watch,
    ) -> Result<(), TrainingError> {
        let path = &checkpoint.path;
        if checkpoint.resume {
            let (state, step) = checkpoint::load(path, plan)?;
            self.trainer
                .restore(&state, step)
                .map_err(|e| CheckpointError::Unusable { path: path.clone(), message: e.to_string() })?;
        } else if path.exists() {
            return Err(CheckpointError::Unasked(path.clone()).into());
        } else if let Some(start) = &self.start {
            // What the networks learnt, they learnt with these; pictures of another light must not shift them.
            let values = |name| start.tensor(name).values.as_slice();
            self.trainer.teacher_mut().set_statistics(values("teacher_mean"), values("teacher_std"))?;
        } else {
            let stop = watch.stop.clone();
            let mut tell = |done, of| {
                (watch.tell)(Event::Measuring { done, of });
                if stop.requested() { Err(TrainingError::Unstarted) } else { Ok(()) }
            };
            self.trainer.teacher_mut().measure(&mut self.pictures, &mut tell)?;
        }
        (watch.tell)(Event::Training { from: self.trainer.steps(), steps: plan.steps });
        Ok(())
    }

    fn run(&mut self, checkpoint: &Checkpoint, plan: &Plan, watch: &mut Watch) -> Result<(), TrainingError> {
        let mut saved = Instant::now();
        while self.trainer.steps() < plan.steps {
            let losses = self.step(self.trainer.steps())?;
            let step = self.trainer.steps();
            (watch.tell)(Event::Step { step, losses });
            let stop = watch.stop.requested();
            if stop || saved.elapsed() >= self.checkpoint_every || step == plan.steps {
                let state: Weights = self.trainer.state()?;
                checkpoint::save(&checkpoint.path, plan, step, &state)?;
                (watch.tell)(Event::Saved { step });
                saved = Instant::now();
            }
            if stop {
                return Err(TrainingError::Stopped { step });
            }
        }
        Ok(())
    }

    fn step(&mut self, step: u64) -> Result<LossValues, TrainingError> {
        let schedule = self.schedule;
        let index = self.epoch[schedule.picture(step, self.epoch.len(), Purpose::TrainingOrder)];
        let training = self.pictures.get(index)?;
        let visible = match self.pictures.mask(index) {
            Some(mask) => {
                let hidden = || TrainingError::Hidden(self.pictures.path(index).to_owned());
                Some(self.masks.visible(mask)?.ok_or_else(hidden)?)
            }
            None => None,
        };
        let augmented = Jitter::draw(&mut schedule.chance(step, Purpose::Jitter)).apply(&training);
        let penalty = match &mut self.penalty {
            Some(pictures) => {
                let index = schedule.picture(step, pictures.len(), Purpose::PenaltyOrder);
                let picture = pictures.get(index)?;
                let grey = augment::draw_grey(&mut schedule.chance(step, Purpose::Grey));
                Some(if grey { augment::greyscale(&picture).into() } else { picture })
            }
            None => None,
        };
        let pictures = StepPictures {
            index,
            training: &training,
            augmented: &augmented,
            visible: visible.as_ref(),
            penalty: penalty.as_deref(),
        };
        let mut dropout = schedule.chance(step, Purpose::Dropout);
        let losses = self.trainer.step(&pictures, schedule.pace(step), &mut dropout)?;
        match losses.broken() {
            Some((loss, value)) => Err(TrainingError::Diverged { step: step + 1, loss, value }),
            None => Ok(losses),
        }
    }
}

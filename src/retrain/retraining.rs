//! One retraining from beginning to end, or from where it was interrupted.
//!
//! In: the set, the pictures of the first training, the version that runs. Out: a new version with the gate's report,
//! active if it passed. The plan stands in `work/plan.json` and names every sample, so that what comes in meanwhile
//! waits for the next one, and a process that was killed is continued by the next. Not here: when one begins (`keeper`).

use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use candle_core::Device;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::error::RetrainError;
use super::files;
use super::gate::Limit;
use super::home::{Home, Turn};
use super::intake::Intake;
use super::learnt::{Ending, Learnt, clear_work};
use super::options::Options;
use super::recent;
use super::registry::Registry;
use super::report::Report;
use super::set::{Kind, SampleSet};
use super::sight::Sight;
use super::trial::{self, Pictures, Terms};
use crate::detector;
use crate::efficientad::CalibratedModel;
use crate::frame::CameraId;
use crate::imaging;
use crate::shutdown::Shutdown;
use crate::telemetry::chain;
use crate::training::dataset::{Normals, pictures_in};
use crate::training::session::{self, Checkpoint, Event, Inputs, Watch};
use crate::training::teacher::TeacherSource;
use crate::training::{self, TrainingError, checkpoint};
use crate::verdict::Threshold;

/// Of so many new samples one is held out; always the same ones, since their content decides.
const HOLD_OUT_EVERY: u8 = 5;
/// New samples come as often as makes them at least this share of an epoch.
const SHARE_OF_NEW: f64 = 0.4;
/// But none more often than this.
const MOST_REPEATS: usize = 12;

/// A camera whose model can be retrained.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its name.
    pub camera: CameraId,
    /// The bundle that the settings name.
    pub model: PathBuf,
    /// How its pictures are looked at.
    pub view: imaging::View,
    /// The pictures of the first training.
    pub normals: Option<PathBuf>,
    /// What the model's threshold is overridden with.
    pub threshold: Option<Threshold>,
}

/// What a retraining is to do.
#[derive(Debug, Clone)]
pub struct Job {
    /// For whom.
    pub subject: Subject,
    /// `[retrain]`.
    pub options: Options,
    /// How models are run.
    pub inference: detector::Options,
    /// Whether to train from scratch.
    pub full: bool,
}

/// What happens in the course of it.
#[derive(Debug, Clone)]
pub enum Progress {
    /// The training tells.
    Training(Event),
    /// The gate looks at pictures.
    Gate {
        /// Pictures done.
        done: u64,
        /// Of how many.
        of: u64,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// What the gate said.
    pub report: Report,
    /// How it ended.
    pub ending: Ending,
}

/// `work/plan.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Plan {
    against: String,
    set: String,
    samples: Vec<String>,
    full: bool,
    steps: u64,
    /// How the camera's pictures are looked at, in words.
    view: String,
    normals: Option<PathBuf>,
}

/// Retrains.
///
/// # Errors
/// [`RetrainError::Stopped`] leaves everything for the next one to go on from.
pub fn run(
    job: &Job,
    device: &Device,
    stop: &Shutdown,
    tell: &mut dyn FnMut(Progress),
) -> Result<Outcome, RetrainError> {
    let Job { subject, options, .. } = job;
    let home = Home::new(&options.path, &subject.camera);
    let _turn = Turn::take(&options.path)?;
    let began = Instant::now();
    // What lies there finished is taken; what is still being copied is for the next one.
    Intake::new(&home, &subject.view, Duration::from_millis(200)).look(Duration::from_millis(500))?;
    let registry = Registry::new(&home, &subject.model);
    let active = registry.load_active()?;
    let (plan, set) = plan(job, &home, &active)?;
    let mut lesson = Lesson::assemble(job, &home, &set, &active)?;
    let candidate = train((job, &plan), &home, (&active, &mut lesson), device, (stop, tell))?;

    let terms = Terms {
        sight: &lesson.sight,
        limit: Limit { rate: options.false_positive_rate, given: subject.threshold },
        margin: options.margin,
        seed: active.manifest().training.seed,
        inference: &job.inference,
    };
    let mut show = |done, of| tell(Progress::Gate { done, of });
    let checks = trial::run(&active, &candidate, &lesson.trial, &terms, (stop, &mut show))?;
    let report = Report {
        version: candidate.model_ref().version,
        against: plan.against.clone(),
        set: plan.set.clone(),
        normal: set.of(Kind::Normal).count(),
        anomalous: set.of(Kind::Anomalous).count(),
        at: Timestamp::now(),
        seconds: began.elapsed().as_secs_f64(),
        accepted: checks.iter().all(|check| check.passed),
        checks,
    };
    registry.add(&candidate, &report)?;
    let ending = conclude(&registry, &plan, &report)?;
    Learnt::new(ending, report.version.clone(), report.words(), &set).write(&home)?;
    clear_work(&home)?;
    registry.prune(options.keep_versions)?;
    Ok(Outcome { report, ending })
}

/// Whether a retraining of `home` was interrupted.
pub(super) fn is_unfinished(home: &Home) -> bool {
    plan_path(home).is_file()
}

fn plan_path(home: &Home) -> PathBuf {
    home.work().join("plan.json")
}

/// The plan of an interrupted retraining where it still holds, or a new one.
fn plan(job: &Job, home: &Home, active: &CalibratedModel) -> Result<(Plan, SampleSet), RetrainError> {
    let set = SampleSet::read(home)?;
    let Job { subject, options, full, .. } = job;
    let fresh = Plan {
        against: active.model_ref().version,
        set: set.version(),
        samples: set.samples().iter().map(|sample| sample.sha256.clone()).collect(),
        full: *full,
        steps: if *full { options.full_steps } else { options.steps },
        view: format!("{:?}, {:?}", subject.view.orientation, subject.view.region),
        normals: subject.normals.clone(),
    };
    let path = plan_path(home);
    let old = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Plan>(&text).ok());
    if let Some(old) = old {
        let members: HashSet<String> = old.samples.iter().cloned().collect();
        let then = set.clone().only(&members);
        // `--full` is asked for once; whoever goes on need not ask again.
        let same =
            Plan { set: old.set.clone(), samples: old.samples.clone(), full: old.full, ..fresh.clone() };
        let steps = if old.full { options.full_steps } else { options.steps };
        if then.version() == old.set && (old.full || !full) && old == (Plan { steps, ..same }) {
            return Ok((old, then));
        }
        info!(camera = %subject.camera, "what was to be learnt has changed: the retraining begins anew");
        clear_work(home)?;
    }
    let work = home.work();
    files::make_folder(&work).map_err(RetrainError::file("make", &work))?;
    let text = serde_json::to_vec_pretty(&fresh).expect("a plan is plain data: this is a bug");
    files::replace(&path, &text).map_err(RetrainError::file("write", &path))?;
    Ok((fresh, set))
}

/// What is learnt and what it is tried on.
struct Lesson {
    sight: Sight,
    training: Vec<PathBuf>,
    /// Indices of the new ones among them.
    new: Vec<usize>,
    trial: Pictures,
}

impl Lesson {
    fn assemble(
        job: &Job,
        home: &Home,
        set: &SampleSet,
        active: &CalibratedModel,
    ) -> Result<Self, RetrainError> {
        let subject = &job.subject;
        let sight = Sight::new(&subject.view, &home.work());
        // The seed of the first training, so that what it held out stays unseen.
        let seed = active.manifest().training.seed;
        let old = match &subject.normals {
            Some(folder) => Normals::find(folder, seed)?,
            None => {
                warn!(
                    camera = %subject.camera,
                    "the camera has no `normals`: the new version may forget what is not among the samples"
                );
                Normals { training: Vec::new(), held_out: Vec::new() }
            }
        };
        let (held, learnt) = split(set);
        let count = old.training.len();
        // Those of the first training are taken as it took them.
        let training = [old.training, sight.files(learnt)?].concat();
        let held_out = [old.held_out, sight.files(held)?].concat();
        if training.is_empty() || held_out.is_empty() {
            return Err(RetrainError::NoSamples(home.normal()));
        }
        let new = (count..training.len()).collect();
        let defects = set.of(Kind::Anomalous).map(|s| (set.path(s), s.name.clone())).collect();
        let trial = Pictures { held_out, defects, recent: recent::frames(home) };
        Ok(Self { sight, training, new, trial })
    }

    /// The new ones again, until they are a good share of every epoch.
    fn again(&self) -> Vec<usize> {
        let (new, old) = (self.new.len(), self.training.len() - self.new.len());
        if new == 0 || old == 0 {
            return Vec::new();
        }
        let wanted = SHARE_OF_NEW / (1.0 - SHARE_OF_NEW) * old as f64;
        let repeats = ((wanted / new as f64).ceil() as usize).clamp(1, MOST_REPEATS) - 1;
        self.new.iter().flat_map(|&index| std::iter::repeat_n(index, repeats)).collect()
    }
}

/// New normal samples: held out, and learnt.
fn split(set: &SampleSet) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let first_byte = |sha: &str| sha.get(..2).and_then(|byte| u8::from_str_radix(byte, 16).ok()).unwrap_or(0);
    let mut normal: Vec<_> = set.of(Kind::Normal).collect();
    normal.sort_by(|a, b| a.sha256.cmp(&b.sha256));
    let (mut held, mut learnt): (Vec<_>, Vec<_>) =
        normal.into_iter().partition(|sample| first_byte(&sample.sha256) % HOLD_OUT_EVERY == 0);
    // Of few, chance may hold out none or all.
    if held.is_empty() && learnt.len() > 1 {
        held.push(learnt.remove(0));
    } else if learnt.is_empty() && held.len() > 1 {
        learnt.push(held.remove(0));
    }
    let paths = |samples: Vec<_>| samples.into_iter().map(|sample| set.path(sample)).collect();
    (paths(held), paths(learnt))
}

fn train(
    (job, plan): (&Job, &Plan),
    home: &Home,
    (active, lesson): (&CalibratedModel, &mut Lesson),
    device: &Device,
    (stop, tell): (&Shutdown, &mut dyn FnMut(Progress)),
) -> Result<CalibratedModel, RetrainError> {
    let options = &job.options;
    let record = &active.manifest().training;
    let training = training::Options {
        size: active.architecture().size,
        input: active.architecture().input,
        steps: plan.steps,
        seed: record.seed,
        false_positive_rate: options.false_positive_rate,
        checkpoint_seconds: options.checkpoint_seconds,
        ..training::Options::default()
    };
    let penalty = match &options.penalty {
        Some(folder) => Some((folder.clone(), pictures_in(folder)?)),
        None => None,
    };
    let inputs = Inputs {
        name: record.name.clone(),
        data: home.set(),
        again: lesson.again(),
        normals: Normals {
            training: std::mem::take(&mut lesson.training),
            held_out: lesson.trial.held_out.clone(),
        },
        start: (!plan.full).then(|| active.clone()),
        penalty,
        teacher: TeacherSource::of(active),
        parent: Some(active.model_ref().version),
    };
    let path = home.work().join("candidate.checkpoint");
    let mut checkpoint = Checkpoint { resume: path.is_file(), path };
    let mut show = |event| tell(Progress::Training(event));
    let mut watch = Watch { tell: &mut show, stop: stop.clone() };
    let mut trained = session::train(inputs.clone(), &training, &checkpoint, device, &mut watch);
    if let Err(TrainingError::Checkpoint(error)) = &trained
        && checkpoint.resume
    {
        warn!(camera = %job.subject.camera, error = chain(error), "the training begins anew");
        checkpoint::remove(&checkpoint.path).map_err(TrainingError::from)?;
        checkpoint.resume = false;
        trained = session::train(inputs, &training, &checkpoint, device, &mut watch);
    }
    trained.map_err(|error| match error {
        TrainingError::Stopped { step } => RetrainError::Stopped { step },
        other => other.into(),
    })
}

/// Lets the version go live if the gate does and nobody has chosen another one meanwhile.
fn conclude(registry: &Registry, plan: &Plan, report: &Report) -> Result<Ending, RetrainError> {
    let (camera, version) = (registry.home().camera(), &report.version);
    if !report.accepted {
        warn!(%camera, version, why = report.words(), "the new model version was refused");
        return Ok(Ending::Refused);
    }
    let active = registry.active()?.version;
    if active != plan.against && active != *version {
        warn!(%camera, version, active, "another version was activated meanwhile; the new one waits");
        return Ok(Ending::Accepted);
    }
    registry.activate(version)?;
    Ok(Ending::Activated)
}

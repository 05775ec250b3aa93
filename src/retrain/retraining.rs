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
use super::hard::{Examiner, hardest};
use super::home::{Home, Turn};
use super::intake::Intake;
use super::kind::Kind;
use super::learnt::{Ending, Learnt, clear_work};
use super::lesson::Lesson;
use super::options::Options;
use super::others::make_up;
use super::registry::Registry;
use super::report::{Check, Report};
use super::set::SampleSet;
use super::subject::Subject;
use super::trial::{self, Terms};
use super::tries;
use super::underway::{Notes, Progress};
use crate::detector;
use crate::efficientad::CalibratedModel;
use crate::imaging;
use crate::shutdown::Shutdown;
use crate::telemetry::chain;
use crate::training::dataset::{Normals, pictures_in};
use crate::training::session::{self, Checkpoint, Event, Inputs, Watch};
use crate::training::teacher::TeacherSource;
use crate::training::{self, TrainingError, checkpoint};

/// How often folders are looked at before it begins, and how many times that for files that are being copied.
const INTAKE_EVERY: Duration = Duration::from_millis(200);
const INTAKE_ROUNDS: u32 = 20;

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
    /// How the camera's pictures are looked at, in words, which tell a mask by what is drawn in it.
    view: Option<String>,
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
    take_in(&home, subject, stop)?;
    let registry = Registry::new(&home, &subject.model);
    let active = registry.load_active()?;
    let mut notes = Notes::new(&home);
    let tell: &mut dyn FnMut(Progress) = &mut |progress| {
        if matches!(progress, Progress::Training(Event::Saved { .. })) {
            tries::forget(&home);
        }
        notes.hear(&progress);
        tell(progress);
    };
    let (plan, set) = plan(job, &home, &active)?;
    tries::begin(&home, &SampleSet::read(&home)?.version())?;
    let ended = carry_out((job, &plan, &set), (&home, &active), device, (stop, tell));
    if ended.is_err() {
        tries::forget(&home);
    }
    let (candidate, checks) = ended?;
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

/// Trains a candidate and tries it.
fn carry_out(
    (job, plan, set): (&Job, &Plan, &SampleSet),
    (home, active): (&Home, &CalibratedModel),
    device: &Device,
    (stop, tell): (&Shutdown, &mut dyn FnMut(Progress)),
) -> Result<(CalibratedModel, Vec<Check>), RetrainError> {
    let Job { subject, options, .. } = job;
    let mut lesson = Lesson::assemble(subject, home, set, active, options.recent_frames)?;
    let candidate = train((job, plan), home, (active, &mut lesson), device, (stop, tell))?;
    let terms = Terms {
        sight: &lesson.sight,
        finished: &lesson.finished,
        limit: Limit { rate: options.false_positive_rate, given: subject.threshold },
        margin: options.margin,
        seed: active.manifest().training.seed,
        inference: &job.inference,
    };
    let mut show = |done, of| tell(Progress::Gate { done, of });
    let checks = trial::run(active, &candidate, &lesson.trial, &terms, (stop, &mut show))?;
    Ok((candidate, checks))
}

/// Takes in what lies there finished; what is still being copied is for the next one.
fn take_in(home: &Home, subject: &Subject, stop: &Shutdown) -> Result<(), RetrainError> {
    let mut intake = Intake::new(home, &subject.view, INTAKE_EVERY);
    for _ in 0..INTAKE_ROUNDS {
        intake.look(2 * INTAKE_EVERY, &|| stop.requested())?;
        if stop.requested() {
            return Err(RetrainError::Stopped { step: 0 });
        }
        if !intake.is_waited_for() {
            break;
        }
    }
    Ok(())
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
        view: imaging::Sight::open(&subject.view)?.words(),
        normals: subject.normals.clone(),
    };
    let path = home.plan();
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
        learning_rate: if plan.full {
            training::learning_rate_for(plan.steps)
        } else {
            options.learning_rate
        },
        ..training::Options::default()
    };
    let again = again(job, home, (active, lesson), (stop, tell))?;
    let penalty = match &options.penalty {
        Some(folder) => Some((folder.clone(), pictures_in(folder)?)),
        None => Some(make_up(&lesson.training, training.input, record.seed, &home.work())?),
    };
    let inputs = Inputs {
        name: record.name.clone(),
        data: home.set(),
        again,
        normals: Normals {
            training: std::mem::take(&mut lesson.training),
            held_out: lesson.trial.held_out.iter().map(|(path, _)| path.clone()).collect(),
        },
        sight: lesson.finished.clone(),
        // Where the first training took pictures whole, those of `normals` still are.
        view: record.view.as_ref().and(plan.view.clone()),
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
        TrainingError::Unstarted => RetrainError::Stopped { step: 0 },
        other => other.into(),
    })
}

/// What comes more often than once in an epoch.
fn again(
    job: &Job,
    home: &Home,
    (active, lesson): (&CalibratedModel, &Lesson),
    (stop, tell): (&Shutdown, &mut dyn FnMut(Progress)),
) -> Result<Vec<usize>, RetrainError> {
    let examiner = Examiner { active, inference: &job.inference, sight: lesson.finished.clone() };
    let mut show = |done, of| tell(Progress::Training(Event::Measuring { done, of }));
    Ok(lesson.again(&hardest(lesson.old(), examiner, &home.work(), (stop, &mut show))?))
}

/// Lets the version go live if the gate does, having asked all that it has to, and nobody has chosen another one meanwhile.
fn conclude(registry: &Registry, plan: &Plan, report: &Report) -> Result<Ending, RetrainError> {
    let (camera, version) = (registry.home().camera(), &report.version);
    if !report.accepted {
        warn!(%camera, version, why = report.words(), "the new model version was refused");
        return Ok(Ending::Refused);
    }
    if report.is_untried() {
        warn!(%camera, version, why = report.words(), "the new model version waits for somebody to activate it");
        return Ok(Ending::Accepted);
    }
    if let Some(active) = registry.replace(&plan.against, version)? {
        warn!(%camera, version, active, "another version was activated meanwhile; the new one waits");
        return Ok(Ending::Accepted);
    }
    Ok(Ending::Activated)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::untrained;
    use crate::efficientad::{Architecture, PdnSize};
    use crate::frame::{Picture, Size};
    use crate::imaging::{Areas, View, png};

    fn model(seed: u64) -> CalibratedModel {
        untrained::model(&Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap(), seed)
    }

    fn job(root: &std::path::Path, view: View) -> Job {
        let subject = Subject { view, ..Subject::of(root) };
        let options = Options { path: root.to_owned(), ..Options::default() };
        Job { subject, options, inference: detector::Options::default(), full: false }
    }

    #[test]
    fn a_mask_that_was_drawn_anew_under_its_name_begins_an_interrupted_retraining_anew() {
        let root = tempfile::tempdir().unwrap();
        let drawn = root.path().join("mask.png");
        let draw = |white: usize| {
            let rgb = (0..48).map(|i| if i < white { 255 } else { 0 }).collect();
            fs::write(&drawn, png(&Picture::new(Size::new(4, 4), rgb).unwrap())).unwrap();
        };
        let areas = Areas { ignore_mask: Some(drawn.clone()), ..Areas::default() };
        let job = job(root.path(), View { areas, ..View::default() });
        let home = Home::new(root.path(), &job.subject.camera);
        let begin = || plan(&job, &home, &model(0)).unwrap().0;
        draw(3);
        let first = begin();
        assert!(first.view.as_ref().unwrap().starts_with("mask "), "{first:?}");
        let work = home.work().join("candidate.checkpoint");
        fs::write(&work, "half").unwrap();
        assert_eq!((begin(), work.exists()), (first.clone(), true));
        draw(9);
        assert_ne!(begin(), first);
        assert!(!work.exists());
    }

    #[test]
    fn a_version_that_could_not_be_asked_everything_waits_for_a_person() {
        let root = tempfile::tempdir().unwrap();
        let job = job(root.path(), View::default());
        model(0).save(&job.subject.model).unwrap();
        let home = Home::new(root.path(), &job.subject.camera);
        let registry = Registry::new(&home, &job.subject.model);
        let against = registry.active().unwrap().version;
        let plan = plan(&job, &home, &model(0)).unwrap().0;
        let check = Check {
            name: "planted_defects".into(),
            passed: true,
            untried: true,
            words: "nobody knows".into(),
            figures: serde_json::Map::new(),
        };
        let mut report = Report { accepted: true, checks: vec![check], ..Report::default() };
        report.version = registry.add(&model(1), &report).unwrap().version;
        assert_eq!(conclude(&registry, &plan, &report).unwrap(), Ending::Accepted);
        assert_eq!((registry.active().unwrap().version, report.words()), (against, "nobody knows".into()));
        report.checks[0].untried = false;
        assert_eq!(conclude(&registry, &plan, &report).unwrap(), Ending::Activated);
        assert_eq!(registry.active().unwrap().version, report.version);
    }
}

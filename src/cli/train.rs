//! `inspectord train`: from a folder of normal pictures to a calibrated model bundle.
//!
//! Out: the bundle; progress on standard error, or JSON lines. Not here: the training (`training::session`).

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use tracing::warn;

use super::eyes::Eyes;
use super::progress::Progress;
use super::report::UsageError;
use super::{device, memory, shipped, signals, words};
use crate::detector::options::Device;
use crate::efficientad::{Architecture, CalibratedModel, PdnSize, ThresholdMethod};
use crate::frame::Size;
use crate::training::checkpoint;
use crate::training::dataset::{Normals, pictures_in};
use crate::training::session::{self, Checkpoint, Event, Inputs, Watch};
use crate::training::teacher::TeacherSource;
use crate::training::threshold::FEW_SCORES;
use crate::training::{Options, TrainingError, learning_rate_for};

/// Trains and calibrates a model from normal pictures.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inspectord train --data parts/normal --out models/parts --penalty photos
  inspectord train --data bottle --out models/bottle --steps 2000 --resume
  inspectord train --data frames --camera top --config inspectord.toml --out models/bottle

--data is a flat folder of pictures of good parts, or one laid out as MVTec AD is (train/good, test/...).
Every tenth picture is held out to find the threshold with, unless there is a folder validation/good.
An interrupted training leaves BUNDLE.checkpoint behind, from which --resume goes on.")]
pub struct Args {
    /// The folder of normal pictures.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The folder to write the model to; a model that is there is replaced when the new one is complete.
    #[arg(long, value_name = "BUNDLE")]
    out: PathBuf,
    /// The teacher's file, or `random` for one that was never taught, to try things out [default: the one inside this
    /// program, for tiny and small]
    #[arg(long, value_name = "FILE")]
    teacher: Option<PathBuf>,
    /// The network: tiny, small (the paper's S) or medium (M).
    #[arg(long, default_value_t = Options::default().size)]
    size: PdnSize,
    /// Pixels that the network reads, each side a multiple of 4 from 256 on; pictures are resized to it.
    #[arg(long, value_name = "WxH", default_value_t = Options::default().input)]
    image_size: Size,
    /// Training steps of one picture each; the paper's number is the default, and a few thousand do for many lines.
    #[arg(long, value_name = "N", default_value_t = Options::default().steps)]
    steps: u64,
    /// Adam's learning rate; a tenth of it after 95 % of the steps [default: what suits the steps, from 0.001 for a few
    /// hundred to the paper's 0.0001 for 70,000]
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
    /// A folder of pictures of anything else; without one, accuracy drops on several kinds of parts.
    #[arg(long, value_name = "DIR")]
    penalty: Option<PathBuf>,
    /// The seed of all randomness: the same seed, pictures and machine make the same model.
    #[arg(long, value_name = "N", default_value_t = Options::default().seed)]
    seed: u64,
    #[command(flatten)]
    eyes: Eyes,
    /// The device to train on: auto, cpu or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Auto)]
    device: Device,
    /// The share of normal parts that may be called anomalous.
    #[arg(long, value_name = "F", default_value_t = Options::default().false_positive_rate)]
    false_positive_rate: f64,
    /// The model's name in verdicts [default: the last part of BUNDLE]
    #[arg(long)]
    name: Option<String>,
    /// Seconds between checkpoints.
    #[arg(long, value_name = "S", default_value_t = Options::default().checkpoint_seconds)]
    checkpoint_seconds: u64,
    /// Goes on from the checkpoint of an interrupted training.
    #[arg(long)]
    resume: bool,
    /// Prints progress and outcome as JSON lines.
    #[arg(long)]
    json: bool,
}

/// What came of it, as JSON.
#[derive(Serialize)]
struct Done<'a> {
    event: &'static str,
    bundle: &'a Path,
    name: &'a str,
    version: String,
    threshold: f32,
    method: ThresholdMethod,
    held_out: u64,
    learnt: u64,
    confidence: f64,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    memory::keep();
    let options = args.options()?;
    let architecture = Architecture::new(options.size, options.input)?;
    CalibratedModel::can_be_saved(&args.out)?;
    let sight = args.eyes.open()?;
    let inputs = Inputs {
        view: sight.words(),
        sight,
        name: args.name()?,
        data: args.data.clone(),
        normals: Normals::find(&args.data, options.seed).map_err(TrainingError::from)?,
        again: Vec::new(),
        start: None,
        penalty: penalty(args.penalty.as_deref())?,
        teacher: teacher(args.teacher.as_deref(), &architecture, options.seed)?,
        // What is there may be damaged, and is replaced all the same.
        parent: CalibratedModel::load(&args.out).ok().map(|model| model.model_ref().version),
    };
    let device = device::open(args.device)?;
    let checkpoint = Checkpoint { path: checkpoint::path_for(&args.out), resume: args.resume };
    let mut progress = Progress::new(args.json);
    let stop = signals::shutdown()?;
    let mut watch = Watch { tell: &mut |event| show(&mut progress, &event), stop };
    let trained = session::train(inputs, &options, &checkpoint, &device, &mut watch);
    progress.end();
    let model = trained?;
    let kept = || {
        format!("the training is done and kept in {}: --resume goes on from there", checkpoint.path.display())
    };
    model.save(&args.out).with_context(kept)?;
    checkpoint::remove(&checkpoint.path).map_err(TrainingError::from)?;
    outcome(&model, &args.out, args.json)
}

impl Args {
    fn options(&self) -> Result<Options, UsageError> {
        let options = Options {
            size: self.size,
            input: self.image_size,
            steps: self.steps,
            learning_rate: self.learning_rate.unwrap_or_else(|| learning_rate_for(self.steps)),
            seed: self.seed,
            false_positive_rate: self.false_positive_rate,
            checkpoint_seconds: self.checkpoint_seconds,
            ..Options::default()
        };
        let faults = options.faults();
        if faults.is_empty() {
            return Ok(options);
        }
        let flag = |key: &str| match key {
            "input" => "--image-size".to_owned(),
            other => format!("--{}", other.replace('_', "-")),
        };
        let told: Vec<String> = faults.iter().map(|(key, what)| format!("{}: {what}", flag(key))).collect();
        Err(UsageError(told.join("\n       ")))
    }

    fn name(&self) -> Result<String, UsageError> {
        let last = || self.out.file_name().map(|name| name.to_string_lossy().into_owned());
        self.name.clone().or_else(last).ok_or_else(|| {
            UsageError(format!("--out {} has no last part to name the model by", self.out.display()))
        })
    }
}

fn penalty(folder: Option<&Path>) -> anyhow::Result<Option<(PathBuf, Vec<PathBuf>)>> {
    let Some(folder) = folder else {
        warn!(
            "no penalty pictures: accuracy drops on several kinds of parts; give any photos with --penalty DIR"
        );
        return Ok(None);
    };
    let pictures = pictures_in(folder).context("the penalty pictures cannot be used")?;
    Ok(Some((folder.to_owned(), pictures)))
}

fn teacher(file: Option<&Path>, architecture: &Architecture, seed: u64) -> anyhow::Result<TeacherSource> {
    match file {
        Some(random) if random == Path::new("random") && !random.exists() => {
            warn!("a random teacher was never taught: the model is for trying things out");
            Ok(TeacherSource::random(architecture, seed))
        }
        Some(file) => Ok(TeacherSource::file(file, architecture)?),
        None => {
            let inside = Path::new("the teacher inside this program");
            Ok(TeacherSource::bytes(inside, shipped::teacher(architecture.size), architecture)?)
        }
    }
}

pub(super) fn show(progress: &mut Progress, event: &Event) {
    let nothing = serde_json::Map::new();
    match event {
        Event::Measuring { done, of } => {
            if *done == 0 {
                progress.begin("measuring", 0, *of as u64);
            }
            progress.advance(*done as u64, "", &nothing);
        }
        Event::Training { from, steps } => progress.begin("training", *from, *steps),
        Event::Step { step, losses } => {
            let words = format!(
                "loss {:.3} = hard {:.3} + penalty {:.3} + autoencoder {:.3} + student-autoencoder {:.3}",
                losses.total(),
                losses.hard,
                losses.penalty.unwrap_or(0.0),
                losses.autoencoder,
                losses.student_autoencoder,
            );
            progress.advance(*step, &words, losses);
        }
        Event::Saved { .. } => {}
        Event::Calibrating { done, of } => {
            if *done == 0 {
                progress.begin("calibrating", 0, *of as u64);
            }
            progress.advance(*done as u64, "", &nothing);
        }
    }
}

/// What a calibration found, for people or machines.
pub(super) fn outcome(model: &CalibratedModel, bundle: &Path, json: bool) -> anyhow::Result<()> {
    let (calibration, reference) = (&model.manifest().calibration, model.model_ref());
    let mut out = io::stdout().lock();
    let learnt = calibration.learnt.map_or(0, |learnt| learnt.count);
    if json {
        let done = Done {
            event: "done",
            bundle,
            name: &reference.name,
            version: reference.version.clone(),
            threshold: calibration.threshold.0,
            method: calibration.method,
            held_out: calibration.count,
            learnt,
            confidence: calibration.confidence,
        };
        writeln!(out, "{}", serde_json::to_string(&done)?)?;
    } else {
        writeln!(
            out,
            "model {} {} in {}\nthreshold {}",
            reference.name,
            reference.version,
            bundle.display(),
            words::threshold(calibration),
        )?;
    }
    if calibration.count < FEW_SCORES as u64 {
        warn!(
            held_out = calibration.count,
            "the threshold rests on few pictures: calibrate again when there are more normal ones"
        );
    }
    Ok(())
}

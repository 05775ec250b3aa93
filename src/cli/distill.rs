//! `inspectord distill`: from a pretrained classifier and any pictures to a teacher.
//!
//! Out: the teacher's file, a log of the loss beside it; progress on standard error, or JSON lines. Not here: the
//! distillation (`training::distillation`).

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Serialize;

use super::progress::Progress;
use super::report::UsageError;
use super::{device, memory, signals};
use crate::detector::options::Device;
use crate::efficientad::{Backbone, PdnSize};
use crate::training::checkpoint;
use crate::training::distillation::{self, Event, Inputs, Options, Outcome, Watch};
use crate::training::teacher::TeacherSource;

/// Makes a teacher: the network that training on normal pictures compares with.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inspectord distill --backbone wide_resnet101_2.safetensors --images imagenet/train --out teacher.safetensors
  inspectord distill --backbone efficientnet-lite0.safetensors --images photos --images more --out teacher.safetensors \\
      --steps 4000 --batch 4 --learning-rate 0.001 --decay 1

Backbones: EfficientNet-Lite0, or torchvision's ResNet-18, ResNet-50, WideResNet-50-2 and WideResNet-101-2 (the paper's),
saved with safetensors.torch.save_file(model.state_dict(), FILE). The pictures may show anything but should be many.
An interrupted distillation leaves TEACHER.checkpoint behind, from which --resume goes on.")]
pub struct Args {
    /// The classifier's weights, a safetensors file.
    #[arg(long, value_name = "FILE")]
    backbone: PathBuf,
    /// A folder of pictures, with all folders below it; may be given several times.
    #[arg(long, value_name = "DIR", required = true, num_args = 1..)]
    images: Vec<PathBuf>,
    /// The teacher's file; one that is there is replaced when the new one is complete.
    #[arg(long, value_name = "TEACHER")]
    out: PathBuf,
    /// A teacher of the same size to begin with, rather than a random one.
    #[arg(long, value_name = "TEACHER")]
    from: Option<PathBuf>,
    /// The network: tiny, small (the paper's S) or medium (M).
    #[arg(long, default_value_t = Options::default().size)]
    size: PdnSize,
    /// Steps; the paper's number is the default.
    #[arg(long, value_name = "N", default_value_t = Options::default().steps)]
    steps: u64,
    /// Pictures a step.
    #[arg(long, value_name = "N", default_value_t = Options::default().batch)]
    batch: usize,
    /// The seed of all randomness: the same seed, pictures and machine make the same teacher.
    #[arg(long, value_name = "N", default_value_t = Options::default().seed)]
    seed: u64,
    /// Adam's learning rate; up to 0.001 serves short distillations.
    #[arg(long, value_name = "RATE", default_value_t = Options::default().learning_rate)]
    learning_rate: f64,
    /// The share of the steps, at the end, over which the learning rate falls.
    #[arg(long, value_name = "SHARE", default_value_t = Options::default().decay)]
    decay: f64,
    /// Pixels of a picture's side for the backbone; the teacher sees half as many.
    #[arg(long, value_name = "PIXELS", default_value_t = Options::default().side)]
    side: u32,
    /// The least side of a random crop, as a share of the picture's shorter side.
    #[arg(long, value_name = "SHARE", default_value_t = Options::default().smallest_crop)]
    smallest_crop: f64,
    /// The greatest side of a random crop, as a share of the picture's shorter side.
    #[arg(long, value_name = "SHARE", default_value_t = Options::default().largest_crop)]
    largest_crop: f64,
    /// The greatest factor by which a crop is drawn out in one direction.
    #[arg(long, value_name = "FACTOR", default_value_t = Options::default().stretch)]
    stretch: f64,
    /// The share of pictures that lose their colour.
    #[arg(long, value_name = "SHARE", default_value_t = Options::default().grey)]
    grey: f64,
    /// Neither mirrors pictures nor turns them upside down.
    #[arg(long)]
    no_flips: bool,
    /// Compares only the positions that a detector computes, without padding: for sides below the paper's.
    #[arg(long)]
    no_padding: bool,
    /// Pictures over which the backbone's channels are measured first.
    #[arg(long, value_name = "N", default_value_t = Options::default().measured)]
    measured: u64,
    /// A line for the file's description, such as the licence of weights and pictures.
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// The device to distil on: auto, cpu or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value_t = Device::Auto)]
    device: Device,
    /// Seconds between checkpoints.
    #[arg(long, value_name = "S", default_value_t = Options::default().checkpoint_seconds)]
    checkpoint_seconds: u64,
    /// Goes on from the checkpoint of an interrupted distillation.
    #[arg(long)]
    resume: bool,
    /// Prints progress and outcome as JSON lines.
    #[arg(long)]
    json: bool,
}

/// How a teacher was made, in its file and as JSON.
#[derive(Serialize)]
struct Made<'a> {
    program: &'static str,
    version: &'static str,
    backbone: String,
    pictures: usize,
    #[serde(flatten)]
    options: &'a Options,
    start: Option<String>,
    loss: f32,
    note: Option<&'a str>,
}

#[derive(Serialize)]
struct Done<'a> {
    event: &'static str,
    teacher: &'a Path,
    #[serde(flatten)]
    made: &'a Made<'a>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    memory::keep();
    let options = args.options()?;
    make_room_for(&args.out)?;
    let device = device::open(args.device)?;
    let pictures = distillation::find_pictures(&args.images)?;
    let backbone = Backbone::load(&args.backbone, &device)?;
    let mut made = Made {
        program: "inspectord",
        version: env!("CARGO_PKG_VERSION"),
        backbone: format!("{} {}", backbone.kind(), backbone.digest()),
        pictures: pictures.len(),
        options: &options,
        start: None,
        loss: f32::NAN,
        note: args.note.as_deref(),
    };
    let start =
        args.from.as_deref().map(|path| TeacherSource::file(path, &options.architecture())).transpose()?;
    made.start = start.as_ref().map(|teacher| teacher.origin.clone());
    let inputs = Inputs { backbone, pictures, start, out: args.out.clone(), resume: args.resume };
    let mut progress = Progress::new(args.json);
    let mut watch = Watch { tell: &mut |event| show(&mut progress, event), stop: signals::shutdown()? };
    let distilled = distillation::distill(inputs, &options, &mut watch);
    progress.end();
    let Outcome { weights, loss, checkpoint } = distilled?;
    made.loss = loss;
    distillation::write_teacher(&args.out, &weights, &made)?;
    checkpoint::remove(&checkpoint)?;
    outcome(&args, &made)
}

impl Args {
    fn options(&self) -> Result<Options, UsageError> {
        let options = Options {
            size: self.size,
            steps: self.steps,
            batch: self.batch,
            seed: self.seed,
            learning_rate: self.learning_rate,
            decay: self.decay,
            side: self.side,
            smallest_crop: self.smallest_crop,
            largest_crop: self.largest_crop,
            stretch: self.stretch,
            grey: self.grey,
            flips: !self.no_flips,
            padded: !self.no_padding,
            measured: self.measured,
            checkpoint_seconds: self.checkpoint_seconds,
        };
        let faults = options.faults();
        if faults.is_empty() {
            return Ok(options);
        }
        let told = faults.iter().map(|(key, what)| format!("--{}: {what}", key.replace('_', "-")));
        Err(UsageError(told.collect::<Vec<_>>().join("\n       ")))
    }
}

/// What would keep the teacher from being written is told before the work is done.
fn make_room_for(out: &Path) -> anyhow::Result<()> {
    if out.is_dir() || out.file_name().is_none() {
        return Err(UsageError(format!("--out {} is a folder: name a file in it", out.display())).into());
    }
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

fn show(progress: &mut Progress, event: Event) {
    match event {
        Event::Measuring { done, of } => {
            if done == 0 {
                progress.begin("measuring", 0, of);
            }
            progress.advance(done, "", &serde_json::Map::new());
        }
        Event::Distilling { from, steps } => progress.begin("distilling", from, steps),
        Event::Step { step, loss, mean } => {
            let detail = serde_json::json!({"loss": loss, "mean_loss": mean});
            progress.advance(step, &format!("loss {mean:.4}"), &detail);
        }
        Event::Saved { .. } => {}
    }
}

fn outcome(args: &Args, made: &Made) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if args.json {
        let done = Done { event: "done", teacher: &args.out, made };
        writeln!(out, "{}", serde_json::to_string(&done)?)?;
    } else {
        writeln!(
            out,
            "teacher of size {} in {}\nloss {:.4} of the variance after {} steps of {} pictures",
            made.options.size,
            args.out.display(),
            made.loss,
            made.options.steps,
            made.options.batch,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_teacher_from_being_written_is_told_first() {
        let root = tempfile::tempdir().unwrap();
        let refused = make_room_for(root.path()).unwrap_err();
        assert!(refused.is::<UsageError>() && refused.to_string().contains("name a file in it"));
        make_room_for(&root.path().join("new/teacher.safetensors")).unwrap();
        assert!(root.path().join("new").is_dir());
        fs::write(root.path().join("file"), "").unwrap();
        assert!(
            make_room_for(&root.path().join("file/teacher")).unwrap_err().to_string().contains("cannot make")
        );
    }
}

//! `inspectord retrain`: one retraining of one camera's model, which is also what the daemon runs beside itself.
//!
//! Out: a new version, and what the gate said of it; progress on standard error, or JSON lines. Makes way for a production
//! line that inspects on the same processor, unless the settings say otherwise. Not here: the retraining (`retrain`), how it
//! makes way (`yielding`).

use std::io::{self, Write};

use anyhow::Context as _;
use serde::Serialize;
use tracing::warn;

use super::common::SettingsArgs;
use super::progress::Progress;
use super::{device, keeping, memory, models, signals, train, yielding};
use crate::frame::CameraId;
use crate::retrain::{self, Ending, Job, Outcome, Report, RetrainError};
use crate::telemetry::chain;

/// Trains a camera's model on the samples that were dropped in, and lets it go live if it passes the gate.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  cp good/*.png /var/lib/inspectord/retrain/top/samples/normal/ && inspectord retrain --camera top
  inspectord retrain --camera top --full

It starts from the version that runs and learns the new samples beside the pictures of the first training, which the
camera's `normals` names. A running daemon does this by itself, and takes the new version up between two frames.
One that was interrupted goes on where it was.")]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
    /// The camera; may be left out where there is one only.
    #[arg(long)]
    camera: Option<CameraId>,
    /// Trains from scratch instead of from the version that runs, for retrain.full_steps steps.
    #[arg(long)]
    full: bool,
    /// Prints progress and outcome as JSON lines.
    #[arg(long)]
    json: bool,
    /// Ends when this process does, which must be the one that started it.
    #[arg(long, hide = true, value_name = "PID")]
    with_parent: Option<u32>,
    /// What the daemon that started it runs the camera's line with; it fails if the settings say something else by now.
    #[arg(long, hide = true, value_name = "WHAT")]
    running: Option<String>,
}

/// The last JSON line.
#[derive(Serialize)]
struct Done<'a> {
    event: &'static str,
    ending: Ending,
    words: String,
    report: &'a Report,
}

/// Runs the command.
///
/// # Errors
/// There is nothing to learn, something cannot be read, or somebody asked to stop. A version that the gate refuses is
/// no error: it is what the gate is there for.
pub fn run(args: Args) -> anyhow::Result<()> {
    let json = args.json;
    let ended = retrain(args);
    // Whatever it was, the daemon reads it here and nowhere else.
    if json && let Err(error) = &ended {
        let busy = matches!(error.downcast_ref(), Some(RetrainError::Busy(_)));
        let line = serde_json::json!({"event": "failed", "error": chain(error.as_ref()), "busy": busy});
        writeln!(io::stdout(), "{line}")?;
    }
    ended
}

fn retrain(args: Args) -> anyhow::Result<()> {
    memory::keep();
    yielding::fall_first();
    if let Some(pid) = args.with_parent {
        end_with(pid).context("cannot watch the process that started this one")?;
    }
    let settings = args.settings.load()?;
    let camera = models::one(&settings, args.camera.as_ref())?;
    if let Some(running) = &args.running {
        keeping::check_unchanged(camera, running)?;
    }
    let subject = keeping::subject(camera);
    let enabled = settings.retrain.enabled;
    // Before any thread is there: threads inherit what the first one has.
    let threads = settings.retrain.threads;
    if settings.retrain.idle {
        yielding::step_back();
        yielding::keep_to(threads);
        if args.with_parent.is_some() {
            yielding::stand_apart();
        }
    }
    // Failing means that a pool is there already, which then is as large as the machine: slower for others, not wrong.
    let _pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    let inference = settings.inference.moved_to(settings.retrain.device, threads);
    let device = device::open(settings.retrain.device)?;
    let stop = signals::shutdown()?;
    let job = Job { subject, options: settings.retrain, inference, full: args.full };
    let mut progress = Progress::new(args.json);
    let retrained = retrain::run(&job, &device, &stop, &mut |event| show(&mut progress, &event));
    progress.end();
    let retrained = retrained?;
    if !enabled {
        warn!("{}", models::SWITCHED_OFF);
    }
    tell(&retrained, enabled, args.json)
}

fn show(progress: &mut Progress, event: &retrain::Progress) {
    match event {
        retrain::Progress::Training(event) => train::show(progress, event),
        retrain::Progress::Gate { done, of } => {
            if *done == 0 {
                progress.begin("gate", 0, *of);
            }
            progress.advance(*done, "", &serde_json::Map::new());
        }
    }
}

fn tell(outcome: &Outcome, enabled: bool, json: bool) -> anyhow::Result<()> {
    let Outcome { report, ending } = outcome;
    let mut out = io::stdout().lock();
    if json {
        let done = Done { event: "done", ending: *ending, words: report.words(), report };
        writeln!(out, "{}", serde_json::to_string(&done)?)?;
        return Ok(());
    }
    for check in &report.checks {
        writeln!(out, "{} {:<16} {}", models::mark(check), check.name, check.words)?;
    }
    let version = &report.version;
    match ending {
        Ending::Activated if enabled => writeln!(out, "version {version} is active")?,
        Ending::Activated => {
            writeln!(out, "version {version} passed, and runs once `[retrain]` is switched on")?;
        }
        Ending::Accepted if report.is_untried() => writeln!(
            out,
            "version {version} was not refused and waits for you: `inspectord models activate {version}` if it finds what it \
             should"
        )?,
        Ending::Accepted => {
            writeln!(
                out,
                "version {version} passed, and another was activated meanwhile: see `inspectord models list`"
            )?;
        }
        Ending::Refused => writeln!(out, "version {version} was refused and is kept for looking at")?,
    }
    Ok(())
}

/// A daemon that is killed takes its retraining with it: the next one goes on with it.
fn end_with(pid: u32) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    // It may have ended before it was watched.
    match rustix::process::getppid() {
        Some(parent) if parent.as_raw_nonzero().get().unsigned_abs() == pid => Ok(()),
        _ => Err(io::Error::other(format!("process {pid} did not start this one, or has ended"))),
    }
}

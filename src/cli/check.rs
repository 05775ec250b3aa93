//! `inspectord check`: looks at everything that `run` would need, names every fault, changes nothing.
//!
//! Out: one line per thing looked at, or JSON. Not here: what makes a thing faulty (each room's errors say it).

use std::io::{self, Write};

use serde::Serialize;

use super::common::SettingsArgs;
use super::report::Told;
use crate::efficientad::CalibratedModel;
use crate::settings::{Camera, Settings, SettingsError};
use crate::telemetry::chain;

/// Looks at settings, models, store, cameras and broker, names every fault, and changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inspectord check
  inspectord check --config ./inspectord.toml --json
Exit codes: 0 all is well, 1 something is at fault, 2 the settings are.")]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Fault,
}

/// What came of looking at one thing.
#[derive(Debug, Serialize)]
struct Looked {
    what: &'static str,
    name: String,
    state: State,
    detail: String,
}

#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Looked>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let origin = args.settings.config.display().to_string();
    let loaded = args.settings.load();
    let settings_at_fault = loaded.is_err();
    let checks = match &loaded {
        Ok(settings) => look_at_everything(settings, &origin),
        Err(error) => settings_faults(error, &origin),
    };
    let report = Report { ok: checks.iter().all(|c| c.state == State::Ok), checks };
    print(&report, args.json)?;
    if report.ok { Ok(()) } else { Err(Told { settings: settings_at_fault }.into()) }
}

fn look_at_everything(settings: &Settings, origin: &str) -> Vec<Looked> {
    let cameras = settings.cameras.len();
    let plural = if cameras == 1 { "" } else { "s" };
    let mut checks =
        vec![ok("settings", origin, format!("box {}, {cameras} camera{plural}", settings.box_name))];
    checks.extend(settings.cameras.iter().map(model));
    checks
}

fn settings_faults(error: &SettingsError, origin: &str) -> Vec<Looked> {
    match error {
        SettingsError::Faults { faults, .. } => {
            faults.iter().map(|f| fault("settings", origin, f.to_string())).collect()
        }
        other => vec![fault("settings", origin, chain(other))],
    }
}

fn model(camera: &Camera) -> Looked {
    let name = camera.name.as_str();
    match CalibratedModel::load(&camera.model) {
        Ok(model) => {
            let reference = model.model_ref();
            let threshold = camera.threshold.unwrap_or(model.threshold());
            let input = model.architecture().input;
            let detail =
                format!("{} {}, {input}, threshold {:.4}", reference.name, reference.version, threshold.0);
            ok("model", name, detail)
        }
        Err(error) => fault("model", name, chain(&error)),
    }
}

fn ok(what: &'static str, name: &str, detail: String) -> Looked {
    Looked { what, name: name.to_owned(), state: State::Ok, detail }
}

fn fault(what: &'static str, name: &str, detail: String) -> Looked {
    Looked { what, name: name.to_owned(), state: State::Fault, detail }
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string(report)?);
    }
    for Looked { what, name, state, detail } in &report.checks {
        let state = if *state == State::Ok { "ok   " } else { "FAULT" };
        writeln!(out, "{state}  {what:<9} {name}: {detail}")?;
    }
    let faults = report.checks.iter().filter(|c| c.state == State::Fault).count();
    match faults {
        0 => writeln!(out, "All is well; `inspectord run` can start."),
        1 => writeln!(out, "There is a fault."),
        n => writeln!(out, "There are {n} faults."),
    }
}

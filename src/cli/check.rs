//! `inspectord check`: looks at everything that `run` would need, names every fault, changes nothing.
//!
//! Out: one line per thing looked at, or JSON. Not here: what makes a thing faulty (each room's errors say it).

mod looks;

use std::io::{self, Write};

use serde::Serialize;

use super::common::SettingsArgs;
use super::report::Told;

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
    /// It works less well than it should.
    Warning,
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

impl Looked {
    fn new(what: &'static str, name: &str, state: State, detail: String) -> Self {
        Self { what, name: name.to_owned(), state, detail }
    }
}

#[derive(Debug, Serialize)]
struct Report {
    /// Whether nothing is at fault.
    ok: bool,
    checks: Vec<Looked>,
}

/// Runs the command.
///
/// # Errors
/// When something is at fault, which has been told by then.
pub fn run(args: Args) -> anyhow::Result<()> {
    let origin = args.settings.config.display().to_string();
    let settings = args.settings.load();
    let checks = match &settings {
        Ok(settings) => looks::everything(settings, &origin),
        Err(error) => looks::faults(error, &origin),
    };
    let report = Report { ok: checks.iter().all(|c| c.state != State::Fault), checks };
    print(&report, args.json)?;
    if report.ok { Ok(()) } else { Err(Told { settings: settings.is_err() }.into()) }
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        return writeln!(out, "{}", serde_json::to_string(report)?);
    }
    for Looked { what, name, state, detail } in &report.checks {
        let state = match state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Fault => "FAULT",
        };
        writeln!(out, "{state:<8} {what:<9} {name}: {detail}")?;
    }
    match report.checks.iter().filter(|c| c.state == State::Fault).count() {
        0 => writeln!(out, "\nAll is well: `inspectord run` can start."),
        1 => writeln!(out, "\nThere is a fault."),
        n => writeln!(out, "\nThere are {n} faults."),
    }
}

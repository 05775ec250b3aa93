//! The command line: one file per command, each with its `Args` and its `run`.
//!
//! In: arguments. Out: an exit code – 0 done, 1 failed, 2 wrong usage or invalid settings. Standard output carries what
//! was asked for and nothing else; errors and logs go to standard error.

pub mod bench;
pub mod calibrate;
pub mod cameras;
pub mod check;
mod common;
pub mod demo;
mod device;
pub mod distill;
pub mod evaluate;
mod eyes;
pub mod history;
pub mod inspect;
mod judging;
mod keeping;
mod memory;
pub mod models;
mod progress;
mod report;
pub mod retrain;
pub mod run;
mod shipped;
mod signals;
pub mod snapshot;
pub mod train;
mod words;
mod yielding;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry;

/// Finds what is not normal on a production line: cameras in, EfficientAD verdicts out over MQTT, none lost.
#[derive(Debug, Parser)]
#[command(name = "inspectord", version, propagate_version = true, max_term_width = 110)]
#[command(after_help = EXIT_CODES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong usage or invalid settings.
INSPECTORD_LOG sets what is logged to standard error: error, warn, info, debug or trace.";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Demo(demo::Args),
    Check(check::Args),
    Cameras(cameras::Args),
    Snapshot(snapshot::Args),
    Train(train::Args),
    Calibrate(calibrate::Args),
    Evaluate(evaluate::Args),
    Inspect(inspect::Args),
    Distill(distill::Args),
    Models(models::Args),
    Retrain(retrain::Args),
    History(history::Args),
    Bench(bench::Args),
}

impl Command {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Run(args) => run::run(args),
            Self::Demo(args) => demo::run(args),
            Self::Check(args) => check::run(args),
            Self::Cameras(args) => cameras::run(args),
            Self::Snapshot(args) => snapshot::run(args),
            Self::Train(args) => train::run(args),
            Self::Calibrate(args) => calibrate::run(args),
            Self::Evaluate(args) => evaluate::run(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Distill(args) => distill::run(args),
            Self::Models(args) => models::run(args),
            Self::Retrain(args) => retrain::run(args),
            Self::History(args) => history::run(args),
            Self::Bench(args) => bench::run(args),
        }
    }

    /// What is logged unless `INSPECTORD_LOG` says otherwise: daemons tell what they do, tools only what is wrong.
    fn log_level(&self) -> &'static str {
        match self {
            Self::Run(_) => "info",
            _ => "warn",
        }
    }
}

/// Runs the program named by this process's arguments.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            // A reader that has gone away, as `| head` does, is no failure.
            let _nobody_reads = usage.print();
            return ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2));
        }
    };
    telemetry::init(cli.command.log_level());
    report::hook_panics();
    match catch_unwind(AssertUnwindSafe(|| cli.command.run())) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => report::error(&error),
        Err(panic) => report::panicked(panic.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_is_well_formed_and_documented() {
        let cli = Cli::command();
        cli.clone().debug_assert();
        for command in cli.get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }
}

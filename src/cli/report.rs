//! How a command's failure reaches people: one block on standard error with what, why and remedy; never a backtrace.
//!
//! Not here: the words themselves, which each room's errors carry.

use std::any::Any;
use std::cell::RefCell;
use std::io::{self, ErrorKind, Write};
use std::panic;
use std::process::ExitCode;

use tracing::error;

use crate::settings::SettingsError;

const FAILED: u8 = 1;
const WRONG_USAGE: u8 = 2;

/// Arguments that parse and yet make no sense together: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct UsageError(pub(super) String);

/// A failure that the command has told in full already: only the exit code is left.
#[derive(Debug, thiserror::Error)]
#[error("already reported")]
pub(super) struct Told {
    /// Whether invalid settings are among the causes.
    pub(super) settings: bool,
}

thread_local! {
    /// Where this thread panicked last.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Tells `error` and gives the exit code it deserves.
pub(super) fn error(error: &anyhow::Error) -> ExitCode {
    let nobody_reads = |c: &(dyn std::error::Error + 'static)| {
        c.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::BrokenPipe)
    };
    if error.chain().any(nobody_reads) {
        return ExitCode::SUCCESS;
    }
    if let Some(told) = error.downcast_ref::<Told>() {
        return ExitCode::from(if told.settings { WRONG_USAGE } else { FAILED });
    }
    let _nobody_reads = write!(io::stderr().lock(), "{}", block(error));
    let usage = error.chain().any(|cause| cause.is::<SettingsError>() || cause.is::<UsageError>());
    ExitCode::from(if usage { WRONG_USAGE } else { FAILED })
}

/// What failed, then each cause that its parent has not quoted already.
fn block(error: &anyhow::Error) -> String {
    let mut said = error.to_string();
    let mut block = format!("error: {said}\n");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !said.contains(&cause) {
            block += &format!("  because: {cause}\n");
        }
        said = cause;
    }
    block
}

/// Keeps panics from printing themselves: the main thread's is told by [`panicked`], others' become a log line.
pub(super) fn hook_panics() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        PLACE.with_borrow_mut(|last| last.clone_from(&place));
        let thread = std::thread::current();
        if thread.name() != Some("main") {
            let message = message(info.payload());
            error!(thread = thread.name().unwrap_or("unnamed"), %place, message, "a thread panicked");
        }
    }));
}

/// Apologises for a panic of the main thread.
pub(super) fn panicked(payload: &(dyn Any + Send)) -> ExitCode {
    let message = message(payload);
    // `println!` panics where the reader has gone away, as `| head` does.
    if message.starts_with("failed printing to stdout") {
        return ExitCode::SUCCESS;
    }
    let place = PLACE.with_borrow(Clone::clone);
    let version = env!("CARGO_PKG_VERSION");
    let _nobody_reads = writeln!(
        io::stderr().lock(),
        "error: inspectord {version} has a bug, sorry: {message}\n  at {place}\n  \
         Please report this with what you did; nothing that was recorded is lost."
    );
    ExitCode::from(FAILED)
}

fn message(payload: &dyn Any) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn causes_are_told_once_each() {
        let inner = io::Error::other("disk on fire");
        let error = anyhow::Error::new(inner).context("cannot read x: disk on fire").context("cannot train");
        assert_eq!(block(&error), "error: cannot train\n  because: cannot read x: disk on fire\n");
    }

    #[test]
    fn a_reader_that_went_away_is_no_failure() {
        let gone: anyhow::Result<()> = Err(io::Error::from(ErrorKind::BrokenPipe)).context("cannot print");
        assert_eq!(format!("{:?}", super::error(&gone.unwrap_err())), format!("{:?}", ExitCode::SUCCESS));
    }
}

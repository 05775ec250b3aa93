//! Logs and counters: set up once, spoken everywhere.
//!
//! Log messages are constant and values are fields. Not here: the metrics page (`web`).

use std::error::Error;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing_subscriber::EnvFilter;

/// Sends log lines to standard error, where systemd's journal picks them up; `INSPECTORD_LOG` sets the filter.
///
/// Safe to call more than once; only the first call has an effect.
pub fn init(default_filter: &str) {
    let filter = EnvFilter::try_from_env("INSPECTORD_LOG").unwrap_or_else(|_| EnvFilter::new(default_filter));
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // Under systemd the journal stamps the lines itself.
    let _already_set = if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().with_ansi(false).try_init()
    } else {
        builder.try_init()
    };
}

/// An error with all its causes on one line.
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            let _infallible = write!(line, ": {text}");
        }
        cause = error.source();
    }
    line
}

/// A number that only rises, until the process ends.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

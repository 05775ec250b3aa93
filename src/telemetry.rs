//! Logs, counters and histograms: set up once, spoken everywhere.
//!
//! Log messages are constant and values are fields. Not here: the metrics page (`web`).

use std::any::Any;
use std::env::VarError;
use std::error::Error;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::warn;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::journal::Journal;

mod journal;

/// The variable that sets the filter.
const FILTER: &str = "INSPECTORD_LOG";

/// Sends log lines to systemd's journal where that is behind standard error, and otherwise there; `INSPECTORD_LOG` sets
/// the filter.
///
/// Safe to call more than once; only the first call has an effect.
pub fn init(default_filter: &str) {
    let (filter, unusable) = match std::env::var(FILTER).map(EnvFilter::try_new) {
        Ok(Ok(filter)) => (filter, None),
        Ok(Err(error)) => (EnvFilter::new(default_filter), Some(error.to_string())),
        Err(VarError::NotPresent) => (EnvFilter::new(default_filter), None),
        Err(error) => (EnvFilter::new(default_filter), Some(error.to_string())),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let set = match Journal::behind_stderr() {
        Some(journal) => registry.with(journal).try_init(),
        None => {
            let stderr = std::io::stderr;
            let lines = tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(colours(&stderr()));
            registry.with(lines.with_target(false)).try_init()
        }
    };
    if let (Ok(()), Some(error)) = (set, unusable) {
        warn!(
            error,
            used = default_filter,
            "INSPECTORD_LOG is no filter, such as `debug` or `inspectord=debug,warn`"
        );
    }
}

/// Whether `stream` shows colours and whoever looks at it wants them: `NO_COLOR`, set to anything, says no (no-color.org).
pub fn colours(stream: &impl IsTerminal) -> bool {
    may_colour(stream.is_terminal(), std::env::var_os("NO_COLOR").as_deref())
}

fn may_colour(terminal: bool, no_color: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
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

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// A number that only rises, until the process ends.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// None yet.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

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

/// The upper bounds of a histogram's buckets, in milliseconds: from a fast queue to a hopeless deadline.
pub const BOUNDS_MS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000];

/// How often something took how long, since the process began.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One more than there are bounds: the last takes what is longer than all of them.
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    microseconds: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let bucket = BOUNDS_MS.partition_point(|bound| Duration::from_millis(*bound) < took);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// How many took at most each of [`BOUNDS_MS`], and how many there are.
    pub fn cumulative(&self) -> ([u64; BOUNDS_MS.len()], u64) {
        let mut sum = 0;
        let mut upto = [0; BOUNDS_MS.len()];
        for (upto, bucket) in upto.iter_mut().zip(&self.buckets) {
            sum += bucket.load(Ordering::Relaxed);
            *upto = sum;
        }
        (upto, sum + self.buckets[BOUNDS_MS.len()].load(Ordering::Relaxed))
    }

    /// What they took together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.microseconds.load(Ordering::Relaxed))
    }

    /// The bound that `share` of them did not exceed, in milliseconds; none while there are none, or where they exceed
    /// every bound.
    pub fn quantile_ms(&self, share: f64) -> Option<u64> {
        let (upto, count) = self.cumulative();
        let rank = (share * count as f64).ceil().max(1.0) as u64;
        let at = upto.iter().position(|upto| *upto >= rank).filter(|_| count > 0);
        at.map(|at| BOUNDS_MS[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_whose_readers_want_them() {
        for (terminal, no_color, may) in
            [(true, None, true), (true, Some(""), true), (true, Some("1"), false), (false, None, false)]
        {
            assert_eq!(may_colour(terminal, no_color.map(OsStr::new)), may, "{terminal} {no_color:?}");
        }
    }

    #[test]
    fn a_histogram_counts_what_is_at_its_bound_below_it() {
        let histogram = Histogram::default();
        assert_eq!(histogram.quantile_ms(0.5), None);
        for ms in [1, 2, 3, 20_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let (upto, count) = histogram.cumulative();
        assert_eq!((&upto[..4], count), (&[1, 2, 3, 3][..], 4));
        assert_eq!(histogram.sum(), Duration::from_millis(20_006));
        assert_eq!((histogram.quantile_ms(0.5), histogram.quantile_ms(0.99)), (Some(2), None));
    }
}

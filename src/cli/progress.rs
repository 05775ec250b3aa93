//! How a long command tells how far it is: a bar with the time left on a terminal, plain lines elsewhere, JSON lines
//! where asked for.
//!
//! Bars and plain lines go to standard error, JSON to standard output. Not here: what is being done.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// How often plain lines come, so that a log of a night's training stays readable.
const LINE_EVERY: Duration = Duration::from_secs(30);
/// How often JSON lines come, since whoever reads them wants to draw something.
const JSON_EVERY: Duration = Duration::from_secs(1);

enum Form {
    Bar(ProgressBar),
    Lines,
    Json,
}

/// One stretch of work after the other, each counted from 0.
pub(super) struct Progress {
    form: Form,
    stage: &'static str,
    from: u64,
    of: u64,
    began: Instant,
    told: Option<Instant>,
}

#[derive(Serialize)]
struct Line<'a, D: Serialize> {
    event: &'a str,
    done: u64,
    of: u64,
    seconds_each: Option<f64>,
    seconds_left: Option<u64>,
    #[serde(flatten)]
    detail: &'a D,
}

impl Progress {
    pub(super) fn new(json: bool) -> Self {
        let form = if json {
            Form::Json
        } else if io::stderr().is_terminal() {
            Form::Bar(ProgressBar::no_length())
        } else {
            Form::Lines
        };
        Self { form, stage: "", from: 0, of: 0, began: Instant::now(), told: None }
    }

    /// The next stretch: `of` units, `from` of them done before.
    pub(super) fn begin(&mut self, stage: &'static str, from: u64, of: u64) {
        (self.stage, self.from, self.of) = (stage, from, of);
        (self.began, self.told) = (Instant::now(), None);
        if let Form::Bar(bar) = &mut self.form {
            bar.finish_and_clear();
            let style = ProgressStyle::with_template(
                "{prefix:>12} {wide_bar} {pos}/{len}  {elapsed} gone, {eta} left  {msg}",
            );
            *bar = ProgressBar::new(of).with_position(from).with_prefix(stage);
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.reset_eta();
        }
    }

    /// `done` units are done; `detail` in words, and for JSON in fields.
    pub(super) fn advance<D: Serialize>(&mut self, done: u64, words: &str, detail: &D) {
        let every = match &self.form {
            Form::Bar(bar) => {
                bar.set_position(done);
                bar.set_message(words.to_owned());
                return;
            }
            Form::Lines => LINE_EVERY,
            Form::Json => JSON_EVERY,
        };
        if done < self.of && self.told.is_some_and(|told| told.elapsed() < every) {
            return;
        }
        self.told = Some(Instant::now());
        let each = self.seconds_each(done);
        let left = each.map(|each| (each * self.of.saturating_sub(done) as f64).round() as u64);
        // A reader that has gone away must not end a night's training.
        let _nobody_reads = match &self.form {
            Form::Json => {
                let (event, of) = (self.stage, self.of);
                let line = Line { event, done, of, seconds_each: each, seconds_left: left, detail };
                serde_json::to_string(&line)
                    .map_err(io::Error::other)
                    .and_then(|l| writeln!(io::stdout(), "{l}"))
            }
            _ => {
                let left = left.map_or(String::new(), |s| format!(", {} left", readable(s)));
                writeln!(io::stderr(), "{} {done} of {}{left}  {words}", self.stage, self.of)
            }
        };
    }

    /// The work is over, for better or worse.
    pub(super) fn end(&mut self) {
        if let Form::Bar(bar) = &self.form {
            bar.finish_and_clear();
        }
    }

    fn seconds_each(&self, done: u64) -> Option<f64> {
        let here = done.checked_sub(self.from).filter(|&n| n > 0)?;
        Some(self.began.elapsed().as_secs_f64() / here as f64)
    }
}

fn readable(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_told_in_two_units_at_most() {
        assert_eq!([59, 61, 7_260].map(readable), ["59 s", "1 min 1 s", "2 h 1 min"]);
    }

    #[test]
    fn what_was_done_before_does_not_count_as_speed() {
        let mut progress = Progress::new(true);
        progress.begin("train", 90, 100);
        assert_eq!(progress.seconds_each(90), None);
        assert!(progress.seconds_each(100).is_some());
    }
}

//! A retraining as a process of its own: started, heard, stopped.
//!
//! Its standard output carries JSON lines (`cli::retrain`), its standard error is the daemon's. Owned by the `retrain`
//! thread, whose end is also the child's: the kernel tells it. A second thread reads the lines and ends with them.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tracing::warn;

use super::learnt::Ending;
use super::report::Report;

/// How long a child that is asked to stop may take to save where it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lines that may wait to be heard, many minutes of them; then the child waits.
const LINES: usize = 4096;
/// How long after its end a child's last lines may take to arrive. Something it started may hold its output open for good.
const ECHO: Duration = Duration::from_secs(10);

/// What a child tells.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Said {
    /// How far it is.
    Progress { phase: String, done: u64, of: u64, seconds_left: Option<u64> },
    /// What came of it.
    Done { ending: Ending, report: Report },
    /// Why nothing did.
    Failed(String),
    /// Somebody else retrains on this box.
    Busy,
}

#[derive(Deserialize)]
struct Line {
    event: String,
    #[serde(default)]
    done: u64,
    #[serde(default)]
    of: u64,
    seconds_left: Option<u64>,
    ending: Option<Ending>,
    report: Option<Report>,
    error: Option<String>,
    #[serde(default)]
    busy: bool,
}

impl Said {
    fn read(line: &str) -> Option<Self> {
        let Line { event, done, of, seconds_left, ending, report, error, busy } =
            serde_json::from_str(line).ok()?;
        match (event.as_str(), ending, report, error) {
            ("done", Some(ending), Some(report), _) => Some(Self::Done { ending, report }),
            ("failed", ..) if busy => Some(Self::Busy),
            ("failed", _, _, Some(error)) => Some(Self::Failed(error)),
            ("measuring" | "training" | "calibrating" | "gate", ..) => {
                Some(Self::Progress { phase: event, done, of, seconds_left })
            }
            _ => None,
        }
    }
}

/// A retraining under way.
pub(super) struct Retraining {
    child: Child,
    lines: Receiver<Said>,
    /// Ends when everything the child said is among `lines`.
    listener: Option<JoinHandle<()>>,
    /// When its process was first seen to have ended.
    gone: Option<Instant>,
}

impl Retraining {
    pub(super) fn start(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let (to, lines) = bounded(LINES);
        let mut listener = None;
        if let Some(out) = child.stdout.take() {
            let listen = move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    if let Some(said) = Said::read(&line)
                        && to.send(said).is_err()
                    {
                        return;
                    }
                }
            };
            match thread::Builder::new().name("retraining".into()).spawn(listen) {
                Ok(thread) => listener = Some(thread),
                Err(refused) => {
                    let _may_have_ended = child.kill();
                    let _reaped = child.wait();
                    return Err(refused);
                }
            }
        }
        Ok(Self { child, lines, listener, gone: None })
    }

    /// What it said since it was asked last.
    pub(super) fn said(&self) -> impl Iterator<Item = Said> {
        self.lines.try_iter()
    }

    /// Whether it has ended with nothing left to come, and how: what it said last, or what became of the process.
    pub(super) fn ended(&mut self) -> Option<Result<(), String>> {
        let status = self.child.try_wait().ok()??;
        let gone = *self.gone.get_or_insert_with(Instant::now);
        let heard = self.listener.as_ref().is_none_or(JoinHandle::is_finished);
        if !heard && gone.elapsed() < ECHO {
            return None;
        }
        Some(if status.success() { Ok(()) } else { Err(format!("the retraining's process ended: {status}")) })
    }

    /// Asks it to save where it is and end, and waits for that.
    pub(super) fn stop(mut self) {
        if let Err(error) = kill_process(Pid::from_child(&self.child), Signal::TERM) {
            warn!(%error, "the retraining cannot be asked to stop");
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.child.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        warn!("the retraining did not stop in time and is killed; it goes on from its last checkpoint");
    }
}

impl Drop for Retraining {
    fn drop(&mut self) {
        let _may_have_ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wait_for;

    /// The last line stays in the pipe until the first 5,000 were taken, long after the process is gone.
    #[test]
    fn what_was_said_last_is_heard_before_the_end_is() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            r#"yes '{"event":"gate"}' | head -n 5000; echo '{"event":"failed","error":"x","busy":true}'"#,
        ]);
        let mut retraining = Retraining::start(command).unwrap();
        wait_for("it has ended", || retraining.child.try_wait().unwrap().is_some());
        assert_eq!(retraining.ended(), None, "lines are left");
        let mut said = Vec::new();
        wait_for("all is heard", || {
            said.extend(retraining.said());
            retraining.ended().is_some()
        });
        said.extend(retraining.said());
        assert_eq!((said.len(), said.last()), (5001, Some(&Said::Busy)));
    }

    #[test]
    fn lines_are_understood_and_others_passed_over() {
        let training =
            r#"{"event":"training","done":3,"of":10,"seconds_each":0.1,"seconds_left":7,"hard":1.0}"#;
        let progress = Said::Progress { phase: "training".into(), done: 3, of: 10, seconds_left: Some(7) };
        assert_eq!(Said::read(training), Some(progress));
        let failed = Said::read(r#"{"event":"failed","error":"no samples"}"#);
        assert_eq!(failed, Some(Said::Failed("no samples".into())));
        assert_eq!(Said::read(r#"{"event":"failed","error":"x","busy":true}"#), Some(Said::Busy));
        let report = serde_json::to_string(&Report::default()).unwrap();
        let done = format!(r#"{{"event":"done","ending":"refused","words":"","report":{report}}}"#);
        assert!(matches!(Said::read(&done), Some(Said::Done { ending: Ending::Refused, .. })));
        for other in ["", "{}", "warning: x", r#"{"event":"nap"}"#] {
            assert_eq!(Said::read(other), None, "{other}");
        }
    }
}

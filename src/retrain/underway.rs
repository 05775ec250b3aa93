//! How far a retraining is, for whoever asks beside it: `work/progress.json`.
//!
//! In: what a retraining tells. Out: a small file, replaced once a second at most and not synced, since it means nothing
//! after a power cut. Not here: the state topic, which hears the child itself (`school`).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::home::Home;
use super::learnt::{Learnt, Pending};
use super::set::SampleSet;
use crate::training::session::Event;

const EVERY: Duration = Duration::from_secs(1);

/// What happens in the course of it.
#[derive(Debug, Clone)]
pub enum Progress {
    /// The training tells.
    Training(Event),
    /// The gate looks at pictures.
    Gate {
        /// Pictures done.
        done: u64,
        /// Of how many.
        of: u64,
    },
}

/// How a camera's retraining fares, and what waits for the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Underway {
    /// Normal samples that no retraining has seen.
    pub new_samples: usize,
    /// What is done now: `measuring`, `training`, `calibrating` or `gate`; none where no retraining was begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// How much of that is done, of `of`.
    pub done: u64,
    /// What there is to do.
    pub of: u64,
    /// About how long that will take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// Whether nobody is at it: the next retraining goes on with it.
    pub interrupted: bool,
}

impl Underway {
    /// How it stands in `home`.
    pub fn read(home: &Home) -> Self {
        let set = SampleSet::read(home).ok();
        let pending = set.map(|set| Pending::of(&set, Learnt::read(home).as_ref())).unwrap_or_default();
        let new_samples = pending.count;
        if !home.is_unfinished() {
            return Self { new_samples, ..Self::default() };
        }
        let noted = fs::read(file(home)).ok().and_then(|text| serde_json::from_slice::<Noted>(&text).ok());
        let Noted { phase, done, of, seconds_left, process } = noted.unwrap_or_default();
        let interrupted = !is_alive(process);
        Self { new_samples, phase: Some(phase), done, of, seconds_left, interrupted }
    }

    /// Whether there is anything to tell.
    pub fn is_idle(&self) -> bool {
        *self == Self::default()
    }
}

fn file(home: &Home) -> PathBuf {
    home.work().join("progress.json")
}

fn is_alive(process: u32) -> bool {
    let state = |stat: String| stat.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
    // One that ended stays a zombie until whoever inherited it looks.
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok();
    stat.and_then(state).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Noted {
    phase: String,
    done: u64,
    of: u64,
    seconds_left: Option<u64>,
    process: u32,
}

impl Default for Noted {
    fn default() -> Self {
        Self { phase: "beginning".into(), done: 0, of: 0, seconds_left: None, process: 0 }
    }
}

/// Writes what it hears.
pub(super) struct Notes {
    path: PathBuf,
    noted: Noted,
    from: u64,
    began: Instant,
    written: Option<Instant>,
}

impl Notes {
    pub(super) fn new(home: &Home) -> Self {
        let noted = Noted { process: std::process::id(), ..Noted::default() };
        Self { path: file(home), noted, from: 0, began: Instant::now(), written: None }
    }

    pub(super) fn hear(&mut self, progress: &Progress) {
        match *progress {
            Progress::Training(Event::Training { from, steps }) => self.is_at("training", from, steps),
            Progress::Training(Event::Step { step, .. }) => self.is_at("training", step, self.noted.of),
            Progress::Training(Event::Measuring { done, of }) => {
                self.is_at("measuring", done as u64, of as u64)
            }
            Progress::Training(Event::Calibrating { done, of }) => {
                self.is_at("calibrating", done as u64, of as u64);
            }
            Progress::Training(Event::Saved { .. }) => {}
            Progress::Gate { done, of } => self.is_at("gate", done, of),
        }
    }

    fn is_at(&mut self, phase: &str, done: u64, of: u64) {
        if self.noted.phase != phase {
            (self.from, self.began, self.written) = (done, Instant::now(), None);
            phase.clone_into(&mut self.noted.phase);
        }
        (self.noted.done, self.noted.of) = (done, of);
        if self.written.is_some_and(|written| written.elapsed() < EVERY) {
            return;
        }
        self.written = Some(Instant::now());
        let here = done.saturating_sub(self.from);
        self.noted.seconds_left = (here > 0).then(|| {
            let each = self.began.elapsed().as_secs_f64() / here as f64;
            (each * of.saturating_sub(done) as f64).round() as u64
        });
        // Nobody's work depends on it.
        let _untold = self.write();
    }

    fn write(&self) -> std::io::Result<()> {
        let text = serde_json::to_vec(&self.noted)?;
        let fresh: &Path = &self.path.with_extension("json.new");
        fs::write(fresh, text)?;
        fs::rename(fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_how_far_it_is_and_whether_anybody_is_at_it() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::new(root.path(), &"top".parse().unwrap());
        assert!(Underway::read(&home).is_idle());
        fs::create_dir_all(home.work()).unwrap();
        fs::write(home.work().join("plan.json"), "{}").unwrap();
        let begun = Underway::read(&home);
        assert!(begun.interrupted && begun.phase.as_deref() == Some("beginning"), "{begun:?}");
        let mut notes = Notes::new(&home);
        notes.hear(&Progress::Training(Event::Training { from: 20, steps: 300 }));
        let expected = Underway { phase: Some("training".into()), done: 20, of: 300, ..Underway::default() };
        assert_eq!(Underway::read(&home), expected);
        notes.hear(&Progress::Gate { done: 1, of: 9 });
        notes.noted.process = i32::MAX as u32;
        notes.hear(&Progress::Training(Event::Calibrating { done: 2, of: 4 }));
        let left = Underway::read(&home);
        assert!(left.interrupted && (left.done, left.of) == (2, 4), "{left:?}");
    }
}

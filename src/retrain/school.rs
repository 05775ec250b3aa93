//! The `retrain` thread: takes samples in, begins a retraining where one is due, hears it and notes its end.
//!
//! In: dropped files, orders. Out: the set, and one child process at a time on this box. Ends when asked to stop, the
//! child with a checkpoint. Not here: which version runs (`keeper`).

use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use jiff::Timestamp;
use tracing::{error, info, warn};

use super::child::{Retraining, Said};
use super::due::Situation;
use super::error::RetrainError;
use super::home::Home;
use super::hooks::{Hooks, News, Ordered};
use super::intake::Intake;
use super::learnt::{Ending, Learnt, Pending};
use super::options::Options;
use super::retraining::{Subject, is_unfinished};
use super::set::SampleSet;
use crate::shutdown::Shutdown;
use crate::telemetry::chain;

/// How often samples and the child are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often a folder of samples is listed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a retraining waits for one that somebody else began.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(30);

/// A camera that may learn.
struct Pupil {
    subject: Subject,
    home: Home,
    intake: Intake,
    news: News,
    /// The set over which a retraining failed.
    failed: Option<String>,
    ordered: bool,
    /// It has to wait until then.
    not_before: Option<Instant>,
    /// Something may have changed since it was looked at.
    fresh: bool,
    complained: bool,
}

impl Pupil {
    fn new(subject: Subject, options: &Options) -> Self {
        let home = Home::new(&options.path, &subject.camera);
        let intake = Intake::new(&home, &subject.view, LOOK_EVERY);
        let news = News::default();
        let (failed, ordered, not_before, fresh, complained) = (None, false, None, true, false);
        Self { subject, home, intake, news, failed, ordered, not_before, fresh, complained }
    }

    /// Takes samples in; complains once about what keeps failing.
    fn take_in(&mut self) {
        match self.intake.look(Duration::ZERO) {
            Ok(taken) => {
                self.fresh |= taken.any();
                self.complained = false;
            }
            Err(error) if !self.complained => {
                warn!(camera = %self.subject.camera, error = chain(&error), "samples cannot be taken; trying again");
                self.complained = true;
            }
            Err(_) => {}
        }
    }

    fn situation(&self) -> Result<Situation, RetrainError> {
        let set = SampleSet::read(&self.home)?;
        let pending = Pending::of(&set, Learnt::read(&self.home).as_ref());
        let failed = self.failed.as_ref().is_some_and(|failed| *failed == set.version());
        Ok(Situation { pending, unfinished: is_unfinished(&self.home), failed, ordered: self.ordered })
    }
}

/// See the module.
pub(super) struct School {
    options: Options,
    pupils: Vec<Pupil>,
    hooks: Hooks,
    orders: Receiver<Ordered>,
    stop: Shutdown,
    /// The retraining under way, and whose it is.
    child: Option<(usize, Retraining)>,
}

impl School {
    pub(super) fn new(
        options: Options,
        subjects: Vec<Subject>,
        hooks: Hooks,
        orders: Receiver<Ordered>,
        stop: Shutdown,
    ) -> Self {
        let pupils = subjects.into_iter().map(|subject| Pupil::new(subject, &options)).collect();
        Self { options, pupils, hooks, orders, stop, child: None }
    }

    /// Runs until asked to stop.
    pub(super) fn run(mut self) {
        while !self.stop.sleep(TICK) {
            self.hear_orders();
            self.pupils.iter_mut().for_each(Pupil::take_in);
            self.attend();
            if self.child.is_none() {
                self.begin_what_is_due();
            }
        }
        if let Some((_, retraining)) = self.child.take() {
            retraining.stop();
        }
    }

    fn hear_orders(&mut self) {
        let under_way = self.child.as_ref().map(|(at, _)| *at);
        for (camera, _, answer) in self.orders.try_iter().collect::<Vec<_>>() {
            let Some(at) = self.pupils.iter().position(|p| p.subject.camera == camera) else { continue };
            if under_way == Some(at) {
                answer(Err("a retraining of this camera is under way".into()));
            } else {
                self.pupils[at].ordered = true;
                answer(Ok(None));
            }
        }
    }

    fn begin_what_is_due(&mut self) {
        for at in 0..self.pupils.len() {
            let pupil = &mut self.pupils[at];
            let situation = match pupil.situation() {
                Ok(situation) => situation,
                Err(error) => {
                    if !pupil.complained {
                        warn!(camera = %pupil.subject.camera, error = chain(&error), "the sample set cannot be read");
                        pupil.complained = true;
                    }
                    continue;
                }
            };
            let count = situation.pending.count;
            if std::mem::take(&mut pupil.fresh) && count > 0 {
                pupil.news = News { phase: "waiting".into(), new_samples: count, ..News::default() };
                (self.hooks.tell)(&pupil.subject.camera, pupil.news.clone());
            }
            let waits = pupil.not_before.is_some_and(|until| Instant::now() < until);
            if !waits && situation.is_due(&self.options, Timestamp::now()) {
                return self.begin(at, count);
            }
        }
    }

    fn begin(&mut self, at: usize, new_samples: usize) {
        let pupil = &mut self.pupils[at];
        let camera = pupil.subject.camera.clone();
        pupil.ordered = false;
        info!(%camera, new_samples, "retraining begins");
        pupil.news = News { phase: "training".into(), new_samples, ..News::default() };
        (self.hooks.tell)(&camera, pupil.news.clone());
        match Retraining::start((self.hooks.command)(&camera)) {
            Ok(retraining) => self.child = Some((at, retraining)),
            Err(refused) => self.failed(at, format!("the retraining's process cannot be started: {refused}")),
        }
    }

    /// Hears the child, and notes its end.
    fn attend(&mut self) {
        let Some((at, retraining)) = &mut self.child else { return };
        let at = *at;
        // Asked first, so that nothing is said after it.
        let ended = retraining.ended();
        let said: Vec<Said> = retraining.said().collect();
        let mut last = None;
        for said in said {
            match said {
                Said::Progress { phase, done, of, seconds_left } => {
                    let pupil = &mut self.pupils[at];
                    pupil.news = News { phase, done, of, seconds_left, ..pupil.news.clone() };
                    (self.hooks.tell)(&pupil.subject.camera, pupil.news.clone());
                }
                end => last = Some(end),
            }
        }
        match (last, ended) {
            (None, None) => {}
            (Some(Said::Done { ending, report }), _) => {
                self.child = None;
                self.done(at, ending, report.version.clone(), report.words());
            }
            (Some(Said::Busy), _) => {
                self.child = None;
                let pupil = &mut self.pupils[at];
                pupil.not_before = Some(Instant::now() + WAIT_FOR_OTHERS);
                (pupil.ordered, pupil.fresh) = (true, true);
                info!(camera = %pupil.subject.camera, "somebody else retrains on this box; waiting for that");
            }
            (Some(Said::Failed(why)), _) => {
                self.child = None;
                self.failed(at, why);
            }
            (_, Some(ended)) => {
                self.child = None;
                self.failed(at, ended.err().unwrap_or_else(|| "the retraining ended without a word".into()));
            }
            (Some(Said::Progress { .. }), None) => {}
        }
    }

    fn done(&mut self, at: usize, ending: Ending, version: String, words: String) {
        let phase = match ending {
            Ending::Activated => "activated",
            Ending::Accepted => "accepted",
            Ending::Refused => "refused",
        };
        let pupil = &mut self.pupils[at];
        let new_samples = pupil.situation().map_or(0, |situation| situation.pending.count);
        let (version, detail) = (Some(version), Some(words));
        pupil.news = News { phase: phase.into(), new_samples, version, detail, ..News::default() };
        pupil.failed = None;
        info!(camera = %pupil.subject.camera, phase, version = pupil.news.version, "retraining is done");
        (self.hooks.tell)(&pupil.subject.camera, pupil.news.clone());
    }

    fn failed(&mut self, at: usize, why: String) {
        let pupil = &mut self.pupils[at];
        error!(camera = %pupil.subject.camera, why, "retraining failed; it is tried again with further samples or by command");
        pupil.failed = SampleSet::read(&pupil.home).ok().map(|set| set.version());
        let new_samples = pupil.news.new_samples;
        pupil.news = News { phase: "failed".into(), new_samples, detail: Some(why), ..News::default() };
        (self.hooks.tell)(&pupil.subject.camera, pupil.news.clone());
    }
}

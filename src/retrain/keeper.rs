//! The keeper: takes samples in, begins retrainings, and has the line run the version that `active.json` names.
//!
//! Two threads. `models` owns the question which version runs: it looks at every camera's pointer twice a second, loads
//! what changed and hands it to the line; it also carries orders out. `retrain` owns intake and the one child process.
//! Both end when asked to stop, the child with a checkpoint. Not here: swapping between two frames and who is told,
//! which come in as [`Hooks`].

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use jiff::Timestamp;
use tracing::{error, info, warn};

use super::child::{Retraining, Said};
use super::due::Situation;
use super::error::RetrainError;
use super::home::Home;
use super::intake::Intake;
use super::learnt::{Ending, Learnt, Pending};
use super::options::Options;
use super::registry::Registry;
use super::retraining::{Subject, is_unfinished};
use super::set::SampleSet;
use crate::efficientad::CalibratedModel;
use crate::frame::CameraId;
use crate::shutdown::Shutdown;
use crate::telemetry::chain;

/// How often pointers are looked at.
const POINTER_EVERY: Duration = Duration::from_millis(500);
/// How often samples and the child are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How often a folder of samples is listed.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a retraining waits for one that somebody else began.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(30);

/// What a camera's models can be told to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Retrain now.
    Retrain,
    /// Run this version.
    Activate(String),
    /// Run the version before.
    Rollback,
}

/// What came of an order: the version that runs, or none where it is only taken on; or why not.
pub type Answer = Box<dyn FnOnce(Result<Option<String>, String>) + Send>;

/// How a retraining fares, for whoever shows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct News {
    /// `waiting`, `measuring`, `training`, `calibrating`, `gate`, `activated`, `accepted`, `refused` or `failed`.
    pub phase: String,
    /// Normal samples that no retraining has seen.
    pub new_samples: usize,
    /// How much of the phase is done.
    pub done: u64,
    /// What it has to do.
    pub of: u64,
    /// About how long it will take.
    pub seconds_left: Option<u64>,
    /// The version that came of it.
    pub version: Option<String>,
    /// The gate's words, or why it failed.
    pub detail: Option<String>,
}

/// What the keeper has others do.
#[derive(Clone)]
pub struct Hooks {
    /// Makes the model runnable and hands it to the camera's line; says why not.
    pub swap: Arc<dyn Fn(&CameraId, CalibratedModel) -> Result<(), String> + Send + Sync>,
    /// Shows how a camera's retraining fares.
    pub tell: Arc<dyn Fn(&CameraId, News) + Send + Sync>,
    /// The command that retrains a camera, printing JSON lines and ending with this process.
    pub command: Arc<dyn Fn(&CameraId) -> Command + Send + Sync>,
}

type Ordered = (CameraId, Order, Answer);

/// Where orders are given; clones share it.
#[derive(Clone)]
pub struct Orders(Sender<Ordered>);

impl Orders {
    /// Takes the order on and returns at once; `answer` is called once, on another thread.
    pub fn give(&self, camera: &CameraId, order: Order, answer: Answer) {
        if let Err(refused) = self.0.send((camera.clone(), order, answer)) {
            (refused.0.2)(Err("the program is being stopped".into()));
        }
    }
}

/// The keeper before its threads run.
pub struct Keeper {
    options: Options,
    subjects: Vec<Subject>,
    orders: Receiver<Ordered>,
}

/// The running keeper.
pub struct Keeping {
    stop: Shutdown,
    threads: Vec<JoinHandle<()>>,
}

impl Keeper {
    /// A keeper of these cameras' models, and where it is given orders.
    pub fn new(options: &Options, subjects: Vec<Subject>) -> (Orders, Self) {
        let (to, orders) = unbounded();
        (Orders(to), Self { options: options.clone(), subjects, orders })
    }

    /// The versions of a camera's model.
    pub fn registry(options: &Options, subject: &Subject) -> Registry {
        Registry::new(&Home::new(&options.path, &subject.camera), &subject.model)
    }

    /// Starts the threads. `running` are the versions that the lines run now.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(self, hooks: Hooks, running: HashMap<CameraId, String>) -> std::io::Result<Keeping> {
        let Self { options, subjects, orders } = self;
        let stop = Shutdown::new();
        let (retrain_to, retrain_orders) = bounded(64);
        let watched = subjects.iter().map(|subject| {
            let registry = Self::registry(&options, subject);
            let version = running.get(&subject.camera).cloned().unwrap_or_default();
            Watched { pointer: pointer(registry.home()), registry, version }
        });
        let models = Models {
            watched: watched.collect(),
            hooks: hooks.clone(),
            orders,
            retrain: retrain_to,
            stop: stop.clone(),
        };
        let pupils = subjects.into_iter().map(|subject| Pupil::new(subject, &options)).collect();
        let school =
            School { options, pupils, hooks, orders: retrain_orders, stop: stop.clone(), child: None };
        let spawn =
            |name: &str, body: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.into()).spawn(body);
        let mut keeping = Keeping { stop, threads: Vec::new() };
        for (name, body) in [
            ("models", Box::new(move || models.run()) as Box<dyn FnOnce() + Send>),
            ("retrain", Box::new(move || school.run())),
        ] {
            match spawn(name, body) {
                Ok(thread) => keeping.threads.push(thread),
                Err(refused) => {
                    keeping.stop();
                    return Err(refused);
                }
            }
        }
        Ok(keeping)
    }
}

impl Keeping {
    /// Stops a retraining that is under way, with a checkpoint, and the threads.
    pub fn stop(self) {
        self.stop.request();
        for thread in self.threads {
            if thread.join().is_err() {
                error!("the keeper of models panicked");
            }
        }
    }
}

/// A pointer as it is on disk, to see whether it changed.
fn pointer(home: &Home) -> Option<Vec<u8>> {
    fs::read(home.pointer()).ok()
}

struct Watched {
    registry: Registry,
    pointer: Option<Vec<u8>>,
    /// The version that the line runs.
    version: String,
}

struct Models {
    watched: Vec<Watched>,
    hooks: Hooks,
    orders: Receiver<Ordered>,
    retrain: Sender<Ordered>,
    stop: Shutdown,
}

impl Models {
    fn run(mut self) {
        while !self.stop.requested() {
            match self.orders.recv_timeout(POINTER_EVERY) {
                Ok(ordered) => self.obey(ordered),
                Err(RecvTimeoutError::Timeout) => {}
                // The broker is switched off or gone; pointers still change.
                Err(RecvTimeoutError::Disconnected) => drop(self.stop.sleep(POINTER_EVERY)),
            }
            for watched in &mut self.watched {
                let now = pointer(watched.registry.home());
                if now != watched.pointer {
                    watched.pointer = now;
                    let _told_by_then = watched.follow(&self.hooks);
                }
            }
        }
    }

    fn obey(&mut self, (camera, order, answer): Ordered) {
        let Some(watched) = self.watched.iter_mut().find(|w| *w.registry.home().camera() == camera) else {
            return answer(Err(format!("there is no camera `{camera}` in this box's settings")));
        };
        let registry = &watched.registry;
        let pointed = match &order {
            Order::Retrain => {
                if let Err(refused) = self.retrain.try_send((camera, order, answer)) {
                    (refused.into_inner().2)(Err("too many orders wait already".into()));
                }
                return;
            }
            Order::Activate(version) => registry.activate(version),
            Order::Rollback => registry.rollback(),
        };
        watched.pointer = pointer(watched.registry.home());
        let followed = pointed.map_err(|e| chain(&e)).and_then(|_| watched.follow(&self.hooks));
        answer(followed.map(Some));
    }
}

impl Watched {
    /// Has the line run what the pointer names; gives the version that runs.
    fn follow(&mut self, hooks: &Hooks) -> Result<String, String> {
        let camera = self.registry.home().camera().clone();
        let model = self.registry.load_active().map_err(|e| chain(&e));
        let followed = model.and_then(|model| {
            let version = model.model_ref().version;
            if version != self.version {
                (hooks.swap)(&camera, model)?;
            }
            Ok(version)
        });
        match &followed {
            Ok(version) => self.version.clone_from(version),
            Err(why) => {
                error!(%camera, error = why, "the active version cannot be run; the line goes on as before")
            }
        }
        followed
    }
}

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

struct School {
    options: Options,
    pupils: Vec<Pupil>,
    hooks: Hooks,
    orders: Receiver<Ordered>,
    stop: Shutdown,
    /// The retraining under way, and whose it is.
    child: Option<(usize, Retraining)>,
}

impl School {
    fn run(mut self) {
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

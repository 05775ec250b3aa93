//! The keeper: takes samples in, begins retrainings, and has the line run the version that `active.json` names.
//!
//! Two threads. `models` owns the question which version runs: it looks at every camera's pointer twice a second, loads
//! what changed and hands it to the line; it also carries orders out. `retrain` owns intake and the one child process.
//! Both end when asked to stop, the child with a checkpoint. Not here: swapping between two frames and who is told,
//! which come in as [`Hooks`].

use std::collections::HashMap;
use std::fs;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use tracing::error;

use super::home::Home;
use super::hooks::{Answer, Hooks, Order, Ordered};
use super::options::Options;
use super::registry::Registry;
use super::school::School;
use super::subject::Subject;
use crate::frame::CameraId;
use crate::shutdown::Shutdown;
use crate::telemetry::chain;

/// How often pointers are looked at.
const POINTER_EVERY: Duration = Duration::from_millis(500);
/// How long it takes until a version that could not be run is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// Orders that may wait, for a model to load or for a retraining to be looked at; one more is refused.
const ORDERS: usize = 64;
const TOO_MANY: &str = "too many orders wait already: give this one again";

/// Where orders are given; clones share it.
#[derive(Clone)]
pub struct Orders(Sender<Ordered>);

impl Orders {
    /// Takes the order on and returns at once; `answer` is called once, on another thread.
    pub fn give(&self, camera: &CameraId, order: Order, answer: Answer) {
        match self.0.try_send((camera.clone(), order, answer)) {
            Ok(()) => {}
            Err(TrySendError::Full((_, _, answer))) => answer(Err(TOO_MANY.into())),
            Err(TrySendError::Disconnected((_, _, answer))) => {
                answer(Err("the program is being stopped".into()));
            }
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
        let (to, orders) = bounded(ORDERS);
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
        let (retrain_to, retrain_orders) = bounded(ORDERS);
        let watched = subjects.iter().map(|subject| {
            let registry = Self::registry(&options, subject);
            let version = running.get(&subject.camera).cloned().unwrap_or_default();
            // What the line was opened with may not be what the pointer names by now.
            Watched { pointer: None, registry, version, not_before: None }
        });
        let models = Models {
            watched: watched.collect(),
            hooks: hooks.clone(),
            orders,
            retrain: retrain_to,
            stop: stop.clone(),
        };
        let school = School::new(options, subjects, hooks, retrain_orders, stop.clone());
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
    /// Asks the threads to end, and a retraining that is under way to save where it is.
    pub fn request_stop(&self) {
        self.stop.request();
    }

    /// Stops a retraining that is under way, with a checkpoint, and waits for the threads.
    pub fn stop(self) {
        self.request_stop();
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
    /// What the pointer names could not be run; it is not tried again before then.
    not_before: Option<(Option<Vec<u8>>, Instant)>,
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
                watched.look(&self.hooks);
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
                    (refused.into_inner().2)(Err(TOO_MANY.into()));
                }
                return;
            }
            Order::Activate(version) => registry.activate(version),
            Order::Rollback => registry.rollback(),
        };
        let followed = pointed.map_err(|e| chain(&e)).and_then(|_| watched.follow(&self.hooks));
        answer(followed.map(Some));
    }
}

impl Watched {
    /// Follows the pointer where it has changed, and again after a while where that failed.
    fn look(&mut self, hooks: &Hooks) {
        let now = pointer(self.registry.home());
        let waits = |(failed, until): &(Option<Vec<u8>>, Instant)| *failed == now && Instant::now() < *until;
        if now != self.pointer && !self.not_before.as_ref().is_some_and(waits) {
            let _told_by_then = self.follow(hooks);
        }
    }

    /// Has the line run what the pointer names; gives the version that runs.
    fn follow(&mut self, hooks: &Hooks) -> Result<String, String> {
        let camera = self.registry.home().camera().clone();
        // Read before the version is: one that changes meanwhile is met again.
        let pointer = pointer(self.registry.home());
        let model = self.registry.load_active().map_err(|e| chain(&e));
        let followed = model.and_then(|model| {
            let version = model.model_ref().version;
            if version != self.version {
                (hooks.swap)(&camera, model)?;
            }
            Ok(version)
        });
        match &followed {
            Ok(version) => {
                self.version.clone_from(version);
                (self.pointer, self.not_before) = (pointer, None);
            }
            Err(why) => {
                error!(%camera, error = why, "the active version cannot be run; the line goes on as before");
                self.not_before = Some((pointer, Instant::now() + TRY_AGAIN));
            }
        }
        followed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::detector::untrained;
    use crate::efficientad::{Architecture, PdnSize};
    use crate::frame::Size;

    #[test]
    fn every_order_is_answered_also_when_more_come_than_can_wait() {
        let (orders, keeper) = Keeper::new(&Options::default(), Vec::new());
        let camera: CameraId = "top".parse().unwrap();
        let refused = Arc::new(AtomicUsize::new(0));
        let give = |expected: &'static str| {
            let refused = refused.clone();
            let answer = Box::new(move |answered: Result<Option<String>, String>| {
                assert!(answered.unwrap_err().contains(expected));
                refused.fetch_add(1, Ordering::Relaxed);
            });
            orders.give(&camera, Order::Rollback, answer);
        };
        (0..ORDERS + 3).for_each(|_| give("too many orders"));
        assert_eq!(refused.load(Ordering::Relaxed), 3);
        drop(keeper);
        give("being stopped");
        assert_eq!(refused.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_version_that_was_activated_while_the_daemon_started_is_followed() {
        let root = tempfile::tempdir().unwrap();
        let tiny = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
        let subject = Subject::of(root.path());
        untrained::model(&tiny, 0).save(&subject.model).unwrap();
        let options = Options { path: root.path().to_owned(), ..Options::default() };
        let registry = Keeper::registry(&options, &subject);
        let opened = registry.active().unwrap().version;
        let chosen =
            registry.add(&untrained::model(&tiny, 1), &super::super::Report::default()).unwrap().version;
        registry.activate(&chosen).unwrap();
        let (swapped, heard) = bounded(1);
        let hooks = Hooks {
            swap: Arc::new(move |_, model| {
                swapped.send(model.model_ref().version).map_err(|e| e.to_string())
            }),
            tell: Arc::new(|_, _| {}),
            command: Arc::new(|_| std::process::Command::new("true")),
        };
        let running = HashMap::from([(subject.camera.clone(), opened)]);
        let (_orders, keeper) = Keeper::new(&options, vec![subject]);
        let keeping = keeper.start(hooks, running).unwrap();
        assert_eq!(heard.recv_timeout(Duration::from_secs(60)).unwrap(), chosen);
        keeping.stop();
    }

    #[test]
    fn a_version_that_could_not_be_run_is_tried_again_after_a_while() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::new(root.path(), &"top".parse().unwrap());
        let base = root.path().join("model");
        let tiny = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
        untrained::model(&tiny, 0).save(&base).unwrap();
        let registry = Registry::new(&home, &base);
        let mut watched = Watched { pointer: None, registry, version: String::new(), not_before: None };
        home.make().unwrap();
        fs::write(home.pointer(), "{}").unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let hooks = Hooks {
            swap: Arc::new(move |_, _| match counted.fetch_add(1, Ordering::Relaxed) {
                0 => Err("another one is on its way".into()),
                _ => Ok(()),
            }),
            tell: Arc::new(|_, _| {}),
            command: Arc::new(|_| std::process::Command::new("true")),
        };
        watched.look(&hooks);
        watched.look(&hooks);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(watched.version.is_empty());
        watched.not_before.as_mut().unwrap().1 = Instant::now();
        watched.look(&hooks);
        watched.look(&hooks);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        assert!(!watched.version.is_empty());
    }
}

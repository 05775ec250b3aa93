//! The pipeline: one line per camera, from exposure to record, in stages that overlap.
//!
//! ```text
//! capture ──▶ prepare ──▶ infer ──▶ dispatch ──▶ store
//!    ▲            deadline keeper ──────▲
//! triggers
//! ```
//!
//! Each stage is a thread and each arrow a bounded queue; what happens when one is full stands in each stage's header.
//! Not here: how any stage does its work (`camera`, `imaging`, `detector`, `store`), the broker (`publish`).

mod capture;
mod deadline;
mod delivered;
mod dispatch;
mod drift;
mod expose;
mod golden;
mod inspect;
mod models;
mod opening;
mod options;
mod part;
mod publishing;
mod requests;
mod service;
mod timer;
mod waiting;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError, bounded};
use jiff::Timestamp;
use thiserror::Error;
use tracing::error;

use self::capture::Capture;
use self::deadline::DeadlineKeeper;
use self::dispatch::{LAST_WRITES, Listeners};
pub use self::dispatch::{Observer, Recorded};
pub use self::inspect::{BoxedError, OpenDetector};
pub use self::models::{Answer, FrameTap, Keepers, ModelOrder, Orders};
pub use self::options::{CaptureMode, Views, WhenFull};
use self::part::{Accepted, Outlet, Part};
pub use self::service::{Service, ServiceError, ServicePlan};
use self::waiting::Waiting;
use crate::camera::OpenCamera;
use crate::delivery::Delivery;
use crate::detector::Detector;
use crate::frame::{CameraId, Size};
use crate::health::Stage;
pub use crate::health::{CameraStatus, CounterValues, Counters, LineHealth, Snapshot};
use crate::imaging::{LoadError, Preparation, View};
use crate::shutdown::Shutdown;
use crate::store::{Arrival, StoreError, StoreHandle};
use crate::verdict::{Reason, Threshold, Trigger};

/// Triggers that may wait for the camera at once; one more is answered `uninspected: overload`.
const TRIGGER_QUEUE: usize = 16;
/// Captured parts that may wait to be prepared.
const PREPARE_QUEUE: usize = 2;
/// Prepared parts that may wait for the detector: one, so that it never waits for a decoder.
const INFER_QUEUE: usize = 1;
/// Concluded parts that may wait to be recorded.
const DISPATCH_QUEUE: usize = 64;

/// Everything that makes a camera's line.
pub struct LinePlan {
    /// The camera's name.
    pub camera: CameraId,
    /// Opens it.
    pub open_camera: OpenCamera,
    /// How its picture is looked at.
    pub view: View,
    /// What makes it inspect.
    pub mode: CaptureMode,
    /// How many frames a triggered part takes.
    pub views: Views,
    /// The deadline of triggers that state none.
    pub deadline: Option<Duration>,
    /// How often golden parts are to be shown; none asks for none.
    pub golden_every: Option<Duration>,
    /// Opens its detector.
    pub open_detector: OpenDetector,
}

/// Why a line cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Its model cannot be run.
    #[error("camera `{camera}`: the model cannot be run")]
    Detector {
        /// Whose line.
        camera: CameraId,
        /// Why.
        source: BoxedError,
    },
    /// Its mask cannot be read.
    #[error("camera `{camera}`: its `ignore_mask` cannot be used")]
    View {
        /// Whose line.
        camera: CameraId,
        /// Why.
        source: LoadError,
    },
    /// The machine gives no more threads.
    #[error(
        "camera `{camera}`: the operating system refuses another thread; raise TasksMax or stop other programs"
    )]
    Thread {
        /// Whose line.
        camera: CameraId,
        /// What it said.
        source: std::io::Error,
    },
}

/// A trigger as it came in.
pub struct Call {
    /// What it said.
    pub trigger: Trigger,
    /// When it came; its deadline counts from here.
    pub arrived: Instant,
    /// It had waited at the broker, for nobody knows how long.
    pub late: bool,
    /// The message that it came in, by which it is known when it comes again.
    pub delivery: Option<Delivery>,
    /// Called once it is sure to get a verdict, whatever happens to this program; must return at once.
    pub noted: Box<dyn FnOnce() + Send>,
}

/// A trigger that did not become a part.
#[derive(Debug, Error)]
pub enum TriggerError {
    /// There is no such line.
    #[error("there is no camera `{0}` in this box's settings")]
    UnknownCamera(CameraId),
    /// The line does not wait for triggers.
    #[error("camera `{0}` takes no triggers; set its `trigger` to \"software\" to inspect on request")]
    NotTriggered(CameraId),
    /// The program is on its way out.
    #[error("the program is being stopped")]
    Stopping,
    /// It could not be written down.
    #[error("the trigger could not be recorded")]
    Store(#[from] StoreError),
}

/// Why a line did not take up another detector.
#[derive(Debug, Error)]
pub enum ExchangeError {
    /// There is no such line, or it has ended.
    #[error("camera `{0}` has no line that runs")]
    NoLine(CameraId),
    /// It reads pictures of another size than the line prepares.
    #[error(
        "version {version} reads pictures of {got} and the line of camera `{camera}` prepares {expected}: restart the \
         daemon to run it"
    )]
    Input {
        /// Whose line.
        camera: CameraId,
        /// Which model version.
        version: String,
        /// What the line prepares.
        expected: Size,
        /// What the detector reads.
        got: Size,
    },
}

/// What a stage's thread runs.
type Body = Box<dyn FnOnce() + Send>;

struct Line {
    health: LineHealth,
    /// What the line prepares pictures to.
    input: Size,
    /// Where its infer stage looks for another detector between two parts.
    slot: Sender<Detector>,
    deadline: Option<Duration>,
    triggered: bool,
    /// Closed when the line stops, which lets its stages end one after the other.
    inlets: Mutex<Option<Inlets>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Inlets {
    triggers: Sender<Part>,
    outlet: Outlet,
    keeper: DeadlineKeeper,
}

/// The running lines.
pub struct Pipeline {
    lines: BTreeMap<CameraId, Line>,
    store: StoreHandle,
    shutdown: Shutdown,
}

impl Pipeline {
    /// A pipeline without lines, recording into `store`.
    pub fn new(store: StoreHandle) -> Self {
        Self { lines: BTreeMap::new(), store, shutdown: Shutdown::new() }
    }

    /// Opens the line's detector and starts its threads; the camera is opened by its own thread, again and again.
    ///
    /// # Errors
    /// [`StartError`] if the model cannot be run or a thread cannot be had; nothing is left running then.
    pub(crate) fn start_line(&mut self, plan: LinePlan, listeners: Listeners) -> Result<(), StartError> {
        let LinePlan { camera, open_camera, view, mode, views, deadline, golden_every, mut open_detector } =
            plan;
        let failed = |source| StartError::Detector { camera: camera.clone(), source };
        let detector = open_detector().map_err(failed)?;
        let health = LineHealth::new(camera.clone(), detector.model().clone(), detector.threshold());
        let input = detector.input();
        let failed = |source| StartError::View { camera: camera.clone(), source };
        let preparation = Preparation::open(&view, input).map_err(failed)?;

        let (to_prepare, captured) = bounded(PREPARE_QUEUE);
        let (to_infer, prepared) = bounded(INFER_QUEUE);
        let (dispatch, decided) = bounded(DISPATCH_QUEUE);
        let (to_capture, triggers) = bounded(TRIGGER_QUEUE);
        let (slot, fresh) = bounded(1);
        let (keeper, keep) = DeadlineKeeper::new();
        let outlet = Outlet::new(dispatch, health.clone());
        let capture = Capture {
            camera: camera.clone(),
            mode,
            views,
            judged: {
                let (store, camera) = (self.store.clone(), camera.clone());
                Arc::new(move |there| store.judged(&camera, there))
            },
            triggers: Waiting::new(triggers, mode.expose_within()),
            ready: to_prepare,
            outlet: outlet.clone(),
            health: health.clone(),
            shutdown: self.shutdown.clone(),
        };
        let (h1, h2, h3, store) = (health.clone(), health.clone(), health.clone(), self.store.clone());
        let until_the_last_part = keeper.clone();
        let stages: [(&str, Body); 5] = [
            (
                "dispatch",
                Box::new(move || dispatch::dispatch(&decided, &store, &listeners, (&h1, golden_every))),
            ),
            ("deadline", Box::new(keep)),
            (
                "infer",
                Box::new(move || {
                    let _deadlines_are_kept = until_the_last_part;
                    inspect::infer(detector, open_detector, (&prepared, &fresh), &h2);
                }),
            ),
            ("prepare", Box::new(move || inspect::prepare(preparation, &captured, &to_infer, &h3))),
            ("capture", Box::new(move || capture.run(open_camera))),
        ];
        let mut threads = Vec::with_capacity(stages.len());
        for (stage, body) in stages {
            let thread = std::thread::Builder::new().name(format!("{stage} {camera}")).spawn(body);
            let refused = |source| StartError::Thread { camera: camera.clone(), source };
            threads.push(thread.map_err(refused)?);
        }
        let line = Line {
            health,
            input,
            slot,
            deadline,
            triggered: matches!(mode, CaptureMode::Software { .. }),
            inlets: Mutex::new(Some(Inlets { triggers: to_capture, outlet, keeper })),
            threads: Mutex::new(threads),
        };
        self.lines.insert(camera, line);
        Ok(())
    }

    /// Each line's health.
    pub fn health(&self) -> impl Iterator<Item = &LineHealth> {
        self.lines.values().map(|line| &line.health)
    }

    /// Accepts a trigger: it will get exactly one verdict, by its deadline. One that is `late` is answered at once: its
    /// part is gone.
    ///
    /// # Errors
    /// [`TriggerError`] if it is refused; it gets no verdict then, and the sender is to be told.
    pub fn trigger(&self, camera: &CameraId, call: Call) -> Result<(), TriggerError> {
        let Call { trigger, arrived, late, delivery, noted } = call;
        let unknown = || TriggerError::UnknownCamera(camera.clone());
        let line = self.lines.get(camera).ok_or_else(unknown)?;
        if !line.triggered {
            return Err(TriggerError::NotTriggered(camera.clone()));
        }
        let inlets = line.inlets.lock().unwrap_or_else(PoisonError::into_inner);
        let inlets = inlets.as_ref().ok_or(TriggerError::Stopping)?;
        let arrived_at = Timestamp::now() - arrived.elapsed();
        let arrival = Arrival { camera: camera.clone(), trigger: trigger.clone(), at: arrived_at, delivery };
        let ticket = self.store.accept_then(arrival, noted)?;
        line.health.counters().triggers.increment();
        let stated = trigger.deadline_ms.map(Duration::from_millis);
        let deadline = stated.or(line.deadline).map(|deadline| arrived + deadline);
        let accepted = Accepted { trigger, ticket, arrived, arrived_at, deadline };
        let part = Part::from_trigger(&inlets.outlet, accepted);
        if late {
            let detail = "the trigger had waited at the broker; its part is gone";
            part.give_up(Reason::Deadline, detail);
            return Ok(());
        }
        inlets.keeper.watch(part.core());
        match inlets.triggers.try_send(part) {
            Ok(()) => {
                let queue = &inlets.triggers;
                line.health.queue_holds(Stage::Capture, queue.len(), queue.capacity());
            }
            Err(TrySendError::Full(part)) => {
                let detail = format!("{TRIGGER_QUEUE} triggers were waiting for this camera already");
                part.give_up(Reason::Overload, detail);
            }
            Err(TrySendError::Disconnected(part)) => {
                part.give_up(Reason::Internal, "the program was being stopped when the trigger came");
            }
        }
        Ok(())
    }

    /// Holds a camera's scores against `threshold`, or the model's own, from the next part until the program ends.
    ///
    /// # Errors
    /// [`TriggerError::UnknownCamera`].
    pub fn set_threshold(
        &self,
        camera: &CameraId,
        threshold: Option<Threshold>,
    ) -> Result<Threshold, TriggerError> {
        let line = self.lines.get(camera).ok_or_else(|| TriggerError::UnknownCamera(camera.clone()))?;
        Ok(line.health.set_threshold(threshold))
    }

    /// Gives a camera's line another detector, which judges from the next part on; waits while one is being taken up.
    ///
    /// # Errors
    /// [`ExchangeError`]; the line goes on with the one it has.
    pub fn exchange(&self, camera: &CameraId, detector: Detector) -> Result<(), ExchangeError> {
        let no_line = || ExchangeError::NoLine(camera.clone());
        let line = self.lines.get(camera).ok_or_else(no_line)?;
        let (expected, got) = (line.input, detector.input());
        if expected != got {
            let version = detector.model().version.clone();
            return Err(ExchangeError::Input { camera: camera.clone(), version, expected, got });
        }
        line.slot.send(detector).map_err(|_| no_line())
    }

    /// Whether every line's replay has ended; its last parts may still be under inspection.
    pub fn has_ended(&self) -> bool {
        let ended = |line: &Line| line.health.snapshot().camera == CameraStatus::Ended;
        !self.lines.is_empty() && self.lines.values().all(ended)
    }

    /// Stops capturing, concludes every accepted part in order, and returns when all verdicts are durable, or when the
    /// store has not taken them for ten seconds, which all lines share.
    pub fn stop(&self) {
        self.store.wait_until(Instant::now() + LAST_WRITES);
        self.shutdown.request();
        for line in self.lines.values() {
            drop(line.inlets.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        for (camera, line) in &self.lines {
            let threads = std::mem::take(&mut *line.threads.lock().unwrap_or_else(PoisonError::into_inner));
            for thread in threads.into_iter().rev() {
                if thread.join().is_err() {
                    error!(%camera, "a stage panicked; its parts were concluded as uninspected");
                }
            }
        }
    }
}

//! The prepare and infer stages: from a captured frame to a conclusion.
//!
//! Prepare decodes, cuts out and resizes while infer is busy with the part before; infer owns the detector. One thread
//! each per line. When infer's queue is full prepare waits, then capture decides. Parts conclude in the order in which they
//! come, also those whose picture is of no use. A panic in either concludes the part at hand as `uninspected` and the stage
//! goes on, infer with a detector opened afresh, as after a failure of its device. Between two parts infer takes up a detector
//! that somebody has put in its slot. Not here: cameras, evidence, loading models.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, never, select};
use tracing::{error, warn};

use super::drift::{Drift, Expected};
use super::golden::Golden;
use super::part::{Exhibit, Part};
use crate::backoff::Backoff;
use crate::detector::{Detector, Inspection, InspectorError};
use crate::frame::{Frame, Size};
use crate::health::{LineHealth, Stage};
use crate::imaging::{Preparation, Prepared};
use crate::telemetry;
use crate::verdict::{Finding, Outcome, Reason};

const TICK: Duration = Duration::from_millis(500);

/// A part whose picture is ready for the networks, or will never be.
pub(crate) struct Ready {
    part: Part,
    /// One for each of its frames.
    views: Result<Vec<Prepared>, Unprepared>,
}

/// Decodes, cuts out and resizes until capture has ended.
pub(crate) fn prepare(
    mut preparation: Preparation,
    from: &Receiver<Part>,
    to: &Sender<Ready>,
    health: &LineHealth,
) {
    while let Some(mut part) = next(from, health) {
        part.timings.queue += part.lap();
        if part.is_settled() {
            continue;
        }
        let views = match part.fault() {
            Some(fault) => Err(Unprepared { view: 0, reason: Reason::Camera, detail: fault.to_owned() }),
            None => {
                let views = prepare_views(&mut preparation, part.frames());
                part.timings.prepare = part.lap();
                views
            }
        };
        // A picture that is refused is told with its verdict.
        if let Err(Unprepared { reason: Reason::Internal, detail, .. }) = &views {
            error!(camera = %health.camera(), detail, "preparing a picture failed");
        }
        pass_on(Ready { part, views }, to, health);
    }
    health.retire(Stage::Prepare);
}

/// Why a part's pictures were not made fit.
struct Unprepared {
    view: usize,
    reason: Reason,
    detail: String,
}

fn prepare_views(preparation: &mut Preparation, frames: &[Frame]) -> Result<Vec<Prepared>, Unprepared> {
    if frames.is_empty() {
        let detail = "a part without a frame reached the prepare stage: this is a bug".into();
        return Err(Unprepared { view: 0, reason: Reason::Internal, detail });
    }
    let mut views = Vec::with_capacity(frames.len());
    for (view, frame) in frames.iter().enumerate() {
        match catch_unwind(AssertUnwindSafe(|| preparation.prepare(&frame.pixels))) {
            Ok(Ok(prepared)) => views.push(prepared),
            Ok(Err(failure)) => {
                return Err(Unprepared { view, reason: Reason::Camera, detail: telemetry::chain(&failure) });
            }
            Err(panic) => {
                let detail =
                    format!("preparing the picture panicked: {}", telemetry::panic_message(panic.as_ref()));
                return Err(Unprepared { view, reason: Reason::Internal, detail });
            }
        }
    }
    Ok(views)
}

fn pass_on(mut ready: Ready, to: &Sender<Ready>, health: &LineHealth) {
    loop {
        match to.send_timeout(ready, TICK) {
            Ok(()) => return health.queue_holds(Stage::Infer, to.len(), to.capacity()),
            Err(SendTimeoutError::Timeout(back)) => {
                health.beat(Stage::Prepare);
                ready = back;
            }
            // Dropping the part concludes it.
            Err(SendTimeoutError::Disconnected(_)) => return,
        }
    }
}

/// Opens a line's detector; called at start and again after a panic.
pub type OpenDetector = Box<dyn FnMut() -> Result<Detector, BoxedError> + Send>;
/// Why a detector cannot be opened: its bundle or its engine says.
pub type BoxedError = Box<dyn std::error::Error + Send + Sync>;

/// Runs the detector until prepare has ended, from each part on the newest that lies in `slot`.
pub(crate) fn infer(
    detector: Detector,
    open: OpenDetector,
    (from, slot): (&Receiver<Ready>, &Receiver<Detector>),
    health: &LineHealth,
) {
    let mut judge = Judge::new(detector, open, health);
    let mut slot = slot.clone();
    loop {
        health.beat(Stage::Infer);
        // Waits for both, and takes a detector that waits before a part that waits.
        let ready = select! {
            recv(from) -> ready => Some(ready),
            recv(slot) -> fresh => {
                match fresh {
                    Ok(fresh) => judge.exchange(fresh),
                    Err(_nobody_swaps_any_more) => slot = never(),
                }
                None
            }
            default(TICK) => None,
        };
        health.queue_holds(Stage::Infer, from.len(), from.capacity());
        let Some(ready) = ready else { continue };
        let Ok(Ready { part, views }) = ready else { break };
        let mut part = part.enters(Stage::Infer);
        if let Ok(fresh) = slot.try_recv() {
            judge.exchange(fresh);
        }
        part.timings.queue += part.lap();
        if part.is_settled() {
            continue;
        }
        match views {
            Ok(views) => judge.conclude(part, views),
            Err(Unprepared { view, reason, detail }) => {
                part.give_up_at(view, reason, detail);
            }
        }
    }
    health.retire(Stage::Infer);
}

/// The detector at work, and what is known of it.
struct Judge<'a> {
    detector: Detector,
    open: OpenDetector,
    health: &'a LineHealth,
    drift: Drift,
    /// What the line prepares pictures to.
    input: Size,
    /// Why it judges no more, since it failed.
    broken: Option<String>,
    backoff: Backoff,
    reopen_at: Instant,
}

impl<'a> Judge<'a> {
    fn new(detector: Detector, open: OpenDetector, health: &'a LineHealth) -> Self {
        let (drift, input) = (watch_drift(&detector, health), detector.input());
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let reopen_at = Instant::now();
        Self { detector, open, health, drift, input, broken: None, backoff, reopen_at }
    }

    /// Takes up another version's detector.
    fn exchange(&mut self, fresh: Detector) {
        self.take_up(fresh);
        self.drift = watch_drift(&self.detector, self.health);
    }

    fn take_up(&mut self, fresh: Detector) {
        self.health.runs(fresh.model().clone(), fresh.threshold());
        self.health.detector_is(None);
        (self.detector, self.broken) = (fresh, None);
    }

    fn breaks(&mut self, why: String) {
        self.health.detector_is(Some(why.clone()));
        self.broken = Some(why);
    }

    /// Opens a detector that broke afresh, once it is time for that.
    fn mend(&mut self) {
        if self.broken.is_none() || Instant::now() < self.reopen_at {
            return;
        }
        // One that opens and fails again is not opened for every part.
        self.reopen_at = Instant::now() + self.backoff.pause();
        let why = match (self.open)() {
            Ok(fresh) if fresh.input() == self.input => return self.take_up(fresh),
            Ok(fresh) => {
                let (got, expected) = (fresh.input(), self.input);
                format!(
                    "it now reads pictures of {got} and the line prepares {expected}: restart the daemon to run it"
                )
            }
            Err(failure) => telemetry::chain(failure.as_ref()),
        };
        self.breaks(why);
    }

    fn conclude(&mut self, mut part: Part, views: Vec<Prepared>) {
        self.mend();
        if let Some(why) = &self.broken {
            part.give_up(Reason::Model, format!("the model cannot be run: {why}"));
            return;
        }
        let health = self.health;
        self.detector.set_threshold(health.threshold());
        part.timings.queue += part.lap();
        let result = catch_unwind(AssertUnwindSafe(|| inspect_views(&mut self.detector, &views)));
        part.timings.infer = part.lap();
        match result {
            Ok(Ok((worst, inspection))) => {
                self.backoff.reset();
                self.reopen_at = Instant::now();
                // A golden part is no sample of the line: the bad one is none of its parts.
                if Golden::announced(part.trigger()).is_none() {
                    self.watch(&views[worst], &inspection.finding);
                }
                conclude(part, views, worst, inspection);
            }
            Ok(Err(failure)) => {
                let why = telemetry::chain(&failure);
                error!(camera = %health.camera(), error = why, "inference failed");
                if matches!(failure, InspectorError::Device { .. }) {
                    warn!(camera = %health.camera(), "the detector is opened afresh");
                    self.breaks(why.clone());
                }
                part.give_up(Reason::Model, why);
            }
            Err(panic) => {
                let message = telemetry::panic_message(panic.as_ref());
                error!(camera = %health.camera(), panic = message, "inference panicked; the detector is opened afresh");
                health.counters().inference_restarts.increment();
                part.give_up(Reason::Internal, format!("the inspection panicked: {message}"));
                self.breaks(format!("it panicked: {message}"));
            }
        }
    }

    fn watch(&mut self, view: &Prepared, finding: &Finding) {
        let score = (finding.score.0, finding.threshold);
        if let Some(told) = self.drift.observe(&view.input, score, Instant::now()) {
            self.health.tell(|news| news.drift = told.off);
            if let Some(warning) = told.warning {
                self.health.warn_about(DRIFT, warning);
            }
        }
    }
}

/// What drift's warning goes by.
const DRIFT: &str = "drift";

/// A watch over what this detector's model expects, which knows nothing of the model before.
fn watch_drift(detector: &Detector, health: &LineHealth) -> Drift {
    health.warn_about(DRIFT, None);
    health.tell(|news| news.drift.clear());
    Drift::new(
        detector
            .calibration()
            .map(|calibration| Expected { look: calibration.look, scores: calibration.held_out.clone() }),
    )
}

/// The worst of a part's views decides for the part.
fn inspect_views(detector: &mut Detector, views: &[Prepared]) -> Result<(usize, Inspection), InspectorError> {
    let mut worst: Option<(usize, Inspection)> = None;
    for (view, Prepared { input, viewed, mask, .. }) in views.iter().enumerate() {
        let inspection = detector.inspect_visible(input, *viewed, mask.as_deref())?;
        let worse = |(_, so_far): &(usize, Inspection)| inspection.finding.score > so_far.finding.score;
        if worst.as_ref().is_none_or(worse) {
            worst = Some((view, inspection));
        }
    }
    Ok(worst.expect("a part has at least one view: this is a bug"))
}

fn conclude(part: Part, mut views: Vec<Prepared>, view: usize, inspection: Inspection) {
    let Inspection { finding, map } = inspection;
    let Prepared { captured, viewed, .. } = views.swap_remove(view);
    let exhibit = Exhibit { view, pixels: None, captured: Some(captured), map: Some((map, viewed)) };
    part.conclude(Outcome::Inspected(finding), exhibit);
}

fn next(from: &Receiver<Part>, health: &LineHealth) -> Option<Part> {
    loop {
        health.beat(Stage::Prepare);
        let next = from.recv_timeout(TICK);
        health.queue_holds(Stage::Prepare, from.len(), from.capacity());
        match next {
            Ok(part) => return Some(part.enters(Stage::Prepare)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return None,
        }
    }
}

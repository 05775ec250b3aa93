//! The prepare and infer stages: from a captured frame to a conclusion.
//!
//! Prepare decodes, cuts out and resizes while infer is busy with the part before; infer owns the detector. One thread
//! each per line. When infer's queue is full prepare waits, then capture decides. A panic in either concludes the part
//! at hand as `uninspected` and the stage goes on, infer with a detector opened afresh. Between two
//! parts infer takes up a detector that somebody has put in its slot. Not here: cameras, evidence, loading models.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, never, select};
use tracing::error;

use super::drift::{Drift, Expected};
use super::part::{Exhibit, Part};
use crate::backoff::Backoff;
use crate::detector::{Detector, Inspection, InspectorError};
use crate::frame::Frame;
use crate::health::{LineHealth, Stage};
use crate::imaging::{Preparation, Prepared};
use crate::telemetry;
use crate::verdict::{Outcome, Reason};

const TICK: Duration = Duration::from_millis(500);

/// A part whose picture is ready for the networks.
pub(crate) struct Ready {
    part: Part,
    /// One for each of its frames.
    views: Vec<Prepared>,
    since: Instant,
}

/// Decodes, cuts out and resizes until capture has ended.
pub(crate) fn prepare(
    mut preparation: Preparation,
    from: &Receiver<Part>,
    to: &Sender<Ready>,
    health: &LineHealth,
) {
    while let Some(mut part) = next(from, health) {
        part.timings.queue = part.began().elapsed().as_secs_f32() * 1e3;
        if part.is_settled() {
            continue;
        }
        let start = Instant::now();
        match prepare_views(&mut preparation, part.frames()) {
            Ok(views) => {
                part.timings.prepare = milliseconds_since(start);
                pass_on(Ready { part, views, since: Instant::now() }, to, health);
            }
            Err(Unprepared { view, reason, detail }) => {
                // A picture that is refused is told with its verdict.
                if reason == Reason::Internal {
                    error!(camera = %health.camera(), detail, "preparing a picture failed");
                }
                part.give_up_at(view, reason, detail);
            }
        }
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
                let detail = format!("preparing the picture panicked: {}", panic_message(panic.as_ref()));
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
    mut detector: Detector,
    mut open: OpenDetector,
    (from, slot): (&Receiver<Ready>, &Receiver<Detector>),
    health: &LineHealth,
) {
    let mut broken: Option<String> = None;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let mut reopen_at = Instant::now();
    let mut slot = slot.clone();
    let mut drift = watch_drift(&detector, health);
    loop {
        health.beat(Stage::Infer);
        // Waits for both, and takes a detector that waits before a part that waits.
        let ready = select! {
            recv(from) -> ready => Some(ready),
            recv(slot) -> fresh => {
                match fresh {
                    Ok(fresh) => {
                        (detector, broken) = (taken_up(fresh, health), None);
                        drift = watch_drift(&detector, health);
                    }
                    Err(_nobody_swaps_any_more) => slot = never(),
                }
                None
            }
            default(TICK) => None,
        };
        health.queue_holds(Stage::Infer, from.len(), from.capacity());
        let Some(ready) = ready else { continue };
        let Ok(Ready { part, views, since }) = ready else { break };
        let mut part = part.enters(Stage::Infer);
        if let Ok(fresh) = slot.try_recv() {
            (detector, broken) = (taken_up(fresh, health), None);
            drift = watch_drift(&detector, health);
        }
        part.timings.queue += milliseconds_since(since);
        if part.is_settled() {
            continue;
        }
        if broken.is_some() && Instant::now() >= reopen_at {
            match open() {
                Ok(fresh) => {
                    (detector, broken) = (taken_up(fresh, health), None);
                    backoff.reset();
                }
                Err(failure) => {
                    reopen_at = Instant::now() + backoff.pause();
                    broken = Some(telemetry::chain(failure.as_ref()));
                    health.detector_is(broken.clone());
                }
            }
        }
        if let Some(why) = &broken {
            part.give_up(Reason::Model, format!("the model cannot be run: {why}"));
            continue;
        }
        detector.set_threshold(health.threshold());
        let start = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| inspect_views(&mut detector, &views)));
        part.timings.infer = milliseconds_since(start);
        match result {
            Ok(Ok((worst, inspection))) => {
                let score = inspection.finding.score.0;
                if let Some(told) = drift.observe(&views[worst].input, score, Instant::now()) {
                    health.tell(|news| news.drift = told.off);
                    if let Some(warning) = told.warning {
                        health.warn_about(DRIFT, warning);
                    }
                }
                conclude(part, views, worst, inspection);
            }
            Ok(Err(failure)) => {
                let why = telemetry::chain(&failure);
                error!(camera = %health.camera(), error = why, "inference failed");
                part.give_up(Reason::Model, why);
            }
            Err(panic) => {
                let message = panic_message(panic.as_ref());
                error!(camera = %health.camera(), panic = message, "inference panicked; the detector is opened afresh");
                health.counters().inference_restarts.increment();
                part.give_up(Reason::Internal, format!("the inspection panicked: {message}"));
                broken = Some(format!("it panicked: {message}"));
                health.detector_is(broken.clone());
            }
        }
    }
    health.retire(Stage::Infer);
}

/// What drift's warning goes by.
const DRIFT: &str = "drift";

/// A watch over what this detector's model expects, which knows nothing of the model before.
fn watch_drift(detector: &Detector, health: &LineHealth) -> Drift {
    health.warn_about(DRIFT, None);
    health.tell(|news| news.drift.clear());
    Drift::new(detector.calibration().map(|calibration| Expected {
        look: calibration.look,
        scores: calibration.held_out.clone(),
        threshold: detector.threshold(),
    }))
}

fn taken_up(fresh: Detector, health: &LineHealth) -> Detector {
    health.runs(fresh.model().clone(), fresh.threshold());
    health.detector_is(None);
    fresh
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

fn milliseconds_since(start: Instant) -> f32 {
    start.elapsed().as_secs_f32() * 1e3
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

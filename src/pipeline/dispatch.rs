//! The dispatch stage: draws the evidence of verdicts that are not `ok` and hands every verdict to the store.
//!
//! One thread per line. In: concluded parts, in the order they were concluded. Out: records, in that order. When the
//! store's queue is full it waits, then the stages before it, all of them showing that they live. It ends when the last part
//! of its line has concluded. What panics beside a verdict, such as drawing its evidence, costs what it was to bring, and not
//! the verdict.
//! Not here: files (`store`), topics (`publish`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tracing::{error, info, warn};

use super::golden::{self, Golden, Schedule};
use super::models::FrameTap;
use super::part::{Decided, Exhibit};
use crate::frame::Planted;
use crate::health::{LineHealth, Stage};
use crate::imaging::{Heat, evidence_bytes, heatmap, png};
use crate::store::{Evidence, RecordRequest, StoreHandle};
use crate::telemetry;
use crate::verdict::{Decision, Finding, Judgement, Outcome, Verdict};

const TICK: Duration = Duration::from_millis(500);
/// How long stopping lines wait for a disk that does not take their last verdicts.
pub(super) const LAST_WRITES: Duration = Duration::from_secs(10);
/// How long a line waits at least for its last verdicts to be durable, however long its other stages took.
pub(super) const LEAST_WAIT: Duration = Duration::from_secs(1);

/// Told of every judgement and, on the simulated line, of the truth.
pub type Observer = Arc<dyn Fn(&Judgement, Option<&Planted>) + Send + Sync>;

/// Called with every verdict once it is durable, on the store's thread; must return at once.
pub type Recorded = Arc<dyn Fn(Verdict) + Send + Sync>;

/// Those who are told of verdicts.
#[derive(Clone)]
pub(crate) struct Listeners {
    pub(crate) observer: Option<Observer>,
    pub(crate) recorded: Recorded,
    pub(crate) frames: Option<FrameTap>,
}

/// Dispatches until the line's other stages have ended.
pub(crate) fn dispatch(
    from: &Receiver<Decided>,
    store: &StoreHandle,
    listeners: &Listeners,
    (health, golden_every): (&LineHealth, Option<Duration>),
) {
    let mut schedule = Schedule::new(golden_every, Instant::now());
    let unwritten = Arc::new(AtomicUsize::new(0));
    loop {
        health.beat(Stage::Dispatch);
        let next = from.recv_timeout(TICK);
        health.queue_holds(Stage::Dispatch, from.len(), from.capacity());
        match next {
            Ok(decided) => {
                schedule.judged(&decided.judgement, Instant::now());
                dispatch_one(decided, store, listeners, (health, &unwritten));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if let Some(warning) = schedule.look(Instant::now()) {
            health.warn_about(golden::OVERDUE, warning);
        }
    }
    let give_up = Instant::now() + store.patience().unwrap_or(LAST_WRITES).max(LEAST_WAIT);
    while unwritten.load(Ordering::Acquire) > 0 && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(2));
    }
    health.retire(Stage::Dispatch);
}

fn dispatch_one(
    decided: Decided,
    store: &StoreHandle,
    listeners: &Listeners,
    (health, unwritten): (&LineHealth, &Arc<AtomicUsize>),
) {
    let Decided { judgement, ticket, exhibit, planted } = decided;
    let decision = judgement.outcome.decision();
    let golden = Golden::announced(judgement.trigger.as_ref());
    if let Some(golden) = golden {
        health.warn_about(golden.key(), golden.complaint(&judgement));
    }
    let evidence = if decision == Decision::Ok {
        if golden.is_none()
            && let (Some(tap), Some(pixels), Some(captured)) =
                (&listeners.frames, &exhibit.pixels, &exhibit.captured)
        {
            beside(health, "showing a frame", || tap(&judgement.camera, pixels, captured));
        }
        None
    } else {
        beside(health, "drawing the evidence", || evidence(&judgement.outcome, exhibit)).flatten()
    };
    announce(&judgement, health);
    if let Some(observer) = &listeners.observer {
        beside(health, "telling of a judgement", || observer(&judgement, planted.as_ref()));
    }
    let judged = Instant::now();
    let alive = || health.beat(Stage::Dispatch);
    let (health, unwritten, told) = (health.clone(), unwritten.clone(), listeners.recorded.clone());
    unwritten.fetch_add(1, Ordering::AcqRel);
    store.record_alive(RecordRequest { judgement, evidence, ticket }, alive, move |recorded| {
        match recorded {
            Ok(verdict) => {
                health.latencies().record.observe(judged.elapsed());
                told(verdict);
            }
            Err(failure) => {
                health.counters().unrecorded.increment();
                let error = telemetry::chain(&failure);
                error!(camera = %health.camera(), error, "a verdict was not recorded");
            }
        }
        unwritten.fetch_sub(1, Ordering::AcqRel);
    });
}

/// What `work` brings; nothing if it panics.
fn beside<T>(health: &LineHealth, what: &'static str, work: impl FnOnce() -> T) -> Option<T> {
    let panic = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(brought) => return Some(brought),
        Err(panic) => panic,
    };
    let panic = telemetry::panic_message(panic.as_ref());
    error!(camera = %health.camera(), what, panic, "a panic beside a verdict; the verdict is recorded all the same");
    None
}

fn announce(judgement: &Judgement, health: &LineHealth) {
    let camera = health.camera();
    health.latencies().judged(&judgement.timings);
    match &judgement.outcome {
        Outcome::Inspected(Finding { score, threshold, .. }) => {
            let decision = judgement.outcome.decision();
            health.counters().count(decision, None);
            if decision == Decision::Anomalous {
                info!(%camera, score = score.0, threshold = threshold.0, "part is anomalous");
            }
        }
        Outcome::Uninspected { reason, detail } => {
            health.counters().count(Decision::Uninspected, Some(*reason));
            warn!(%camera, %reason, detail, "part was not inspected");
        }
    }
}

/// The picture as the camera delivered it where that is a file already, otherwise as PNG; and the heat map.
fn evidence(outcome: &Outcome, exhibit: Exhibit) -> Option<Evidence> {
    let Exhibit { view: _, pixels, captured, map } = exhibit;
    let pixels = pixels?;
    let (picture, extension) = evidence_bytes(&pixels);
    let heatmap_png = match (outcome, &captured, &map) {
        (Outcome::Inspected(finding), Some(captured), Some((map, viewed))) => {
            let heat = Heat { values: &map.values, size: map.size, viewed: *viewed, finding };
            match heatmap(captured, &heat) {
                Ok(drawn) => Some(png(&drawn)),
                Err(failure) => {
                    warn!(error = telemetry::chain(&failure), "a verdict is kept without its heat map");
                    None
                }
            }
        }
        _ => None,
    };
    Some(Evidence { picture: picture.into_owned(), extension, heatmap_png })
}

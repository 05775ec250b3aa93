//! A part: the one thing that must end in exactly one verdict.
//!
//! A [`Part`] exists from the moment a frame or trigger is accepted. Whoever concludes it first decides its verdict;
//! later conclusions are void. A part that is dropped undecided (a panic, a bug) concludes itself as `uninspected`,
//! so that no path through the program can end in silence. Not here: how an outcome comes about, or where it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::Sender;
use jiff::Timestamp;
use tracing::error;

use crate::detector::AnomalyMap;
use crate::frame::{CameraId, Frame, Picture, Pixels, Planted, Region, SourceRef};
use crate::store::Ticket;
use crate::verdict::{Judgement, Outcome, Reason, Timings, Trigger, Views};

/// A trigger that was accepted and written down.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// What it said.
    pub(crate) trigger: Trigger,
    /// The store's note that it awaits a verdict.
    pub(crate) ticket: Ticket,
    /// When it arrived, on the monotonic clock.
    pub(crate) arrived: Instant,
    /// When it arrived, in UTC.
    pub(crate) arrived_at: Timestamp,
    /// When its verdict stops being worth having.
    pub(crate) deadline: Option<Instant>,
}

/// What is shown beside a verdict that is not `ok`.
#[derive(Debug, Default)]
pub(crate) struct Exhibit {
    /// Which of the part's frames it is about, from 0.
    pub(crate) view: usize,
    /// The frame as the camera delivered it.
    pub(crate) pixels: Option<Pixels>,
    /// The frame decoded, where that succeeded.
    pub(crate) captured: Option<Picture>,
    /// The anomaly map and the part of the picture it covers.
    pub(crate) map: Option<(AnomalyMap, Region)>,
}

/// A concluded part on its way to the store.
#[derive(Debug)]
pub(crate) struct Decided {
    /// The conclusion.
    pub(crate) judgement: Judgement,
    /// The note to be settled, for a triggered part.
    pub(crate) ticket: Option<Ticket>,
    /// What to keep beside it.
    pub(crate) exhibit: Exhibit,
    /// The simulated line's secret.
    pub(crate) planted: Option<Planted>,
}

/// What is known of a part apart from its pixels, shared with the deadline keeper.
#[derive(Debug)]
pub(crate) struct Core {
    camera: CameraId,
    accepted: Option<Accepted>,
    began: Instant,
    began_at: Timestamp,
    decided: AtomicBool,
    dispatch: Sender<Decided>,
}

impl Core {
    /// When the trigger's verdict stops being worth having.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.accepted.as_ref().and_then(|a| a.deadline)
    }

    /// Concludes as `uninspected` unless someone concluded before; tells whether it did.
    pub(crate) fn give_up(&self, reason: Reason, detail: impl Into<String>) -> bool {
        let total = self.began.elapsed().as_secs_f32() * 1e3;
        self.conclude(Conclusion {
            outcome: Outcome::Uninspected { reason, detail: detail.into() },
            captured_at: self.began_at,
            timings: Timings { total, ..Timings::default() },
            views: None,
            source: None,
            exhibit: Exhibit::default(),
            planted: None,
        })
    }

    fn conclude(&self, conclusion: Conclusion) -> bool {
        if self.decided.swap(true, Ordering::AcqRel) {
            return false;
        }
        let Conclusion { outcome, captured_at, timings, views, source, exhibit, planted } = conclusion;
        let judgement = Judgement {
            camera: self.camera.clone(),
            captured_at,
            outcome,
            timings,
            trigger: self.accepted.as_ref().map(|a| a.trigger.clone()),
            views,
            source,
        };
        let ticket = self.accepted.as_ref().map(|a| a.ticket);
        let decided = Decided { judgement, ticket, exhibit, planted };
        if self.dispatch.send(decided).is_err() {
            error!(camera = %self.camera, "a verdict was concluded after its line had stopped");
        }
        true
    }
}

struct Conclusion {
    outcome: Outcome,
    captured_at: Timestamp,
    timings: Timings,
    views: Option<Views>,
    source: Option<SourceRef>,
    exhibit: Exhibit,
    planted: Option<Planted>,
}

/// A part under inspection, owned by one stage at a time.
#[derive(Debug)]
pub(crate) struct Part {
    core: Arc<Core>,
    /// Its frames as they are captured: one, or a burst's views.
    frames: Vec<Frame>,
    /// Where the time went so far.
    pub(crate) timings: Timings,
}

impl Part {
    /// A part that nothing triggered: free-running capture accepts what the camera delivered at this moment.
    pub(crate) fn free_running(
        camera: CameraId,
        began: Instant,
        began_at: Timestamp,
        dispatch: Sender<Decided>,
    ) -> Self {
        let decided = AtomicBool::new(false);
        let core = Core { camera, accepted: None, began, began_at, decided, dispatch };
        Self { core: Arc::new(core), frames: Vec::new(), timings: Timings::default() }
    }

    /// A trigger, whose frame is still to be captured.
    pub(crate) fn from_trigger(camera: CameraId, accepted: Accepted, dispatch: Sender<Decided>) -> Self {
        let core = Core {
            camera,
            began: accepted.arrived,
            began_at: accepted.arrived_at,
            accepted: Some(accepted),
            decided: AtomicBool::new(false),
            dispatch,
        };
        Self { core: Arc::new(core), frames: Vec::new(), timings: Timings::default() }
    }

    /// The part with the frame that was captured for it.
    pub(crate) fn with_frame(mut self, frame: Frame) -> Self {
        self.timings.capture += frame.capture_time.as_secs_f32() * 1e3;
        self.frames.push(frame);
        self
    }

    /// What the deadline keeper needs.
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// What was captured for it so far.
    pub(crate) fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// When it was triggered, or exposed if nothing triggered it.
    pub(crate) fn began(&self) -> Instant {
        self.core.began
    }

    /// Whether its verdict would come too late, or it already has one.
    pub(crate) fn is_settled(&self) -> bool {
        self.core.decided.load(Ordering::Acquire)
    }

    /// Takes back the acceptance of a free-running frame that no stage has seen: it gets no verdict, and where it can
    /// be met again (a file in its folder) it will be.
    pub(crate) fn withdraw(self) {
        self.core.decided.store(true, Ordering::Release);
    }

    /// Concludes: this is its verdict, unless its deadline came first. Tells whether it was.
    pub(crate) fn conclude(mut self, outcome: Outcome, mut exhibit: Exhibit) -> bool {
        if self.core.deadline().is_some_and(|deadline| deadline < Instant::now()) {
            return self.core.give_up(Reason::Deadline, "the inspection was done only after the deadline");
        }
        self.timings.total = self.core.began.elapsed().as_secs_f32() * 1e3;
        let timings = self.timings;
        let count = self.frames.len();
        let shown = exhibit.view.min(count.saturating_sub(1));
        let views = (count > 1).then_some(Views { count: count as u32, shown: shown as u32 + 1 });
        // What is told and shown is one view's: the one that decided.
        let frame = (shown < count).then(|| self.frames.swap_remove(shown));
        let conclusion = match frame {
            Some(frame) => {
                exhibit.pixels = Some(frame.pixels);
                let (captured_at, source, planted) = (frame.captured_at, frame.source, frame.planted);
                Conclusion { outcome, captured_at, timings, views, source, exhibit, planted }
            }
            None => {
                let captured_at = self.core.began_at;
                Conclusion { outcome, captured_at, timings, views, source: None, exhibit, planted: None }
            }
        };
        self.core.conclude(conclusion)
    }

    /// Concludes as `uninspected`, with the frame as evidence if there is one.
    pub(crate) fn give_up(self, reason: Reason, detail: impl Into<String>) -> bool {
        self.conclude(Outcome::Uninspected { reason, detail: detail.into() }, Exhibit::default())
    }

    /// Concludes as `uninspected` because of one of its views, which is kept as evidence.
    pub(crate) fn give_up_at(self, view: usize, reason: Reason, detail: String) -> bool {
        let count = self.frames.len();
        let detail = if count > 1 { format!("view {} of {count}: {detail}", view + 1) } else { detail };
        let exhibit = Exhibit { view, ..Exhibit::default() };
        self.conclude(Outcome::Uninspected { reason, detail }, exhibit)
    }

    /// Concludes as `uninspected` a frame that could not even be read, remembering which it was.
    pub(crate) fn give_up_on(self, source: Option<SourceRef>, detail: impl Into<String>) -> bool {
        let outcome = Outcome::Uninspected { reason: Reason::Camera, detail: detail.into() };
        self.core.conclude(Conclusion {
            outcome,
            captured_at: self.core.began_at,
            timings: self.timings,
            views: None,
            source,
            exhibit: Exhibit::default(),
            planted: None,
        })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let lost = "the part was lost inside the program; this is a bug, please report it with the log";
        if self.core.give_up(Reason::Internal, lost) {
            error!(camera = %self.core.camera, "a part was dropped without a verdict");
        }
    }
}

//! A part: the one thing that must end in exactly one verdict.
//!
//! A [`Part`] exists from the moment a frame or trigger is accepted. Whoever concludes it first decides its verdict;
//! later conclusions are void. A part that is dropped undecided (a panic, a bug) concludes itself as `uninspected`,
//! so that no path through the program can end in silence. Not here: how an outcome comes about, or where it goes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{SendTimeoutError, Sender};
use jiff::Timestamp;
use tracing::error;

use crate::detector::AnomalyMap;
use crate::frame::{Frame, Picture, Pixels, Planted, Region, SourceRef};
use crate::health::{LineHealth, Stage};
use crate::store::Ticket;
use crate::verdict::{Judgement, Outcome, Reason, Timings, Trigger, Views};

/// How often a stage that waits for dispatch shows that it lives.
const SLICE: Duration = Duration::from_millis(500);

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

/// Where a line's conclusions go: to dispatch, from whatever thread comes by one.
#[derive(Debug, Clone)]
pub(crate) struct Outlet {
    dispatch: Sender<Decided>,
    health: LineHealth,
}

impl Outlet {
    /// The way to `dispatch` for the line whose health this is.
    pub(crate) fn new(dispatch: Sender<Decided>, health: LineHealth) -> Self {
        Self { dispatch, health }
    }

    /// Waits while dispatch has no room, as it does while the disk takes nothing; `stage` has not hung meanwhile.
    fn pass(&self, mut decided: Decided, stage: Option<Stage>) {
        loop {
            match self.dispatch.send_timeout(decided, SLICE) {
                Ok(()) => return,
                Err(SendTimeoutError::Timeout(back)) => decided = back,
                Err(SendTimeoutError::Disconnected(_)) => {
                    error!(camera = %self.health.camera(), "a verdict was concluded after its line had stopped");
                    return;
                }
            }
            if let Some(stage) = stage {
                self.health.beat(stage);
            }
        }
    }
}

/// What is known of a part apart from its pixels, shared with the deadline keeper.
#[derive(Debug)]
pub(crate) struct Core {
    accepted: Option<Accepted>,
    began: Instant,
    began_at: Timestamp,
    decided: AtomicBool,
    /// The files that were taken for it so far: its verdict settles them, whoever concludes it.
    sources: Mutex<Vec<SourceRef>>,
    outlet: Outlet,
}

impl Core {
    fn new(
        outlet: &Outlet,
        (began, began_at): (Instant, Timestamp),
        accepted: Option<Accepted>,
    ) -> Arc<Self> {
        let (decided, sources, outlet) = (AtomicBool::new(false), Mutex::default(), outlet.clone());
        Arc::new(Self { accepted, began, began_at, decided, sources, outlet })
    }

    fn has_taken(&self, source: Option<&SourceRef>) {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner).extend(source.cloned());
    }

    /// When the trigger's verdict stops being worth having.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.accepted.as_ref().and_then(|a| a.deadline)
    }

    /// Concludes as `uninspected` unless someone concluded before; tells whether it did. On the thread of `stage`, if on a
    /// stage's.
    pub(crate) fn give_up(&self, stage: Option<Stage>, reason: Reason, detail: impl Into<String>) -> bool {
        let total = self.began.elapsed().as_secs_f32() * 1e3;
        let conclusion = Conclusion {
            outcome: Outcome::Uninspected { reason, detail: detail.into() },
            captured_at: self.began_at,
            timings: Timings { total, ..Timings::default() },
            views: None,
            source: None,
            exhibit: Exhibit::default(),
            planted: None,
        };
        self.conclude(stage, conclusion)
    }

    fn conclude(&self, stage: Option<Stage>, conclusion: Conclusion) -> bool {
        if self.decided.swap(true, Ordering::AcqRel) {
            return false;
        }
        let Conclusion { outcome, captured_at, timings, views, source, exhibit, planted } = conclusion;
        let mut taken = std::mem::take(&mut *self.sources.lock().unwrap_or_else(PoisonError::into_inner));
        let shown = taken.iter().position(|taken| source.as_ref().is_none_or(|shown| shown == taken));
        let source = shown.map(|shown| taken.remove(shown)).or(source);
        let judgement = Judgement {
            camera: self.outlet.health.camera().clone(),
            captured_at,
            outcome,
            timings,
            trigger: self.accepted.as_ref().map(|a| a.trigger.clone()),
            views,
            source,
            other_sources: taken,
        };
        let ticket = self.accepted.as_ref().map(|a| a.ticket);
        self.outlet.pass(Decided { judgement, ticket, exhibit, planted }, stage);
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
    /// Who has it.
    stage: Stage,
    /// Its frames as they are captured: one, or a burst's views.
    frames: Vec<Frame>,
    /// Why there is none, of a part that goes through the stages so as not to overtake those before it.
    fault: Option<String>,
    /// Up to when its time is accounted for.
    since: Instant,
    /// Where the time went so far.
    pub(crate) timings: Timings,
}

impl Part {
    /// A part that nothing triggered: free-running capture accepts what the camera delivered at this moment.
    pub(crate) fn free_running(outlet: &Outlet, began: Instant, began_at: Timestamp) -> Self {
        Self::new(Core::new(outlet, (began, began_at), None))
    }

    /// A trigger, whose frame is still to be captured.
    pub(crate) fn from_trigger(outlet: &Outlet, accepted: Accepted) -> Self {
        let began = (accepted.arrived, accepted.arrived_at);
        Self::new(Core::new(outlet, began, Some(accepted)))
    }

    fn new(core: Arc<Core>) -> Self {
        let (since, stage) = (core.began, Stage::Capture);
        Self { core, stage, frames: Vec::new(), fault: None, since, timings: Timings::default() }
    }

    /// The part in the hands of the next stage.
    pub(crate) fn enters(mut self, stage: Stage) -> Self {
        self.stage = stage;
        self
    }

    /// The camera was asked for its frame at `at`: until then it waited, and from then on the camera takes the time.
    pub(crate) fn asked(&mut self, at: Instant) {
        let waited = at.saturating_duration_since(self.since);
        self.timings.queue += waited.as_secs_f32() * 1e3;
        self.since += waited;
    }

    /// Milliseconds since its time was last accounted for; they are from now on.
    pub(crate) fn lap(&mut self) -> f32 {
        let before = std::mem::replace(&mut self.since, Instant::now());
        self.since.saturating_duration_since(before).as_secs_f32() * 1e3
    }

    /// The part with the frame that was captured for it.
    pub(crate) fn with_frame(mut self, frame: Frame) -> Self {
        self.timings.capture += self.lap();
        self.core.has_taken(frame.source.as_ref());
        self.frames.push(frame);
        self
    }

    /// The part with a frame that cannot be used, and why; it is concluded in its turn.
    pub(crate) fn with_fault(mut self, source: Option<&SourceRef>, detail: String) -> Self {
        self.core.has_taken(source);
        self.fault = Some(detail);
        self
    }

    /// Why it has no frame, if it came without one.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// What the deadline keeper needs.
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// What triggered it.
    pub(crate) fn trigger(&self) -> Option<&Trigger> {
        self.core.accepted.as_ref().map(|accepted| &accepted.trigger)
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
            let detail = "the inspection was done only after the deadline";
            return self.core.give_up(Some(self.stage), Reason::Deadline, detail);
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
        self.core.conclude(Some(self.stage), conclusion)
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
        self.core.has_taken(source.as_ref());
        let outcome = Outcome::Uninspected { reason: Reason::Camera, detail: detail.into() };
        let conclusion = Conclusion {
            outcome,
            captured_at: self.core.began_at,
            timings: self.timings,
            views: None,
            source,
            exhibit: Exhibit::default(),
            planted: None,
        };
        self.core.conclude(Some(self.stage), conclusion)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let lost = "the part was lost inside the program; this is a bug, please report it with the log";
        if self.core.give_up(Some(self.stage), Reason::Internal, lost) {
            error!(camera = %self.core.outlet.health.camera(), "a part was dropped without a verdict");
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{Receiver, bounded};

    use super::*;
    use crate::frame::{PixelFormat, Samples, Size};
    use crate::testing::{PATIENCE, wait_for};

    #[test]
    fn a_stage_that_waits_for_dispatch_has_not_hung() {
        let (dispatch, decided) = bounded(1);
        let health = LineHealth::for_tests();
        for stage in [Stage::Capture, Stage::Prepare, Stage::Dispatch] {
            health.retire(stage);
        }
        let outlet = Outlet::new(dispatch, health.clone());
        let part = || Part::free_running(&outlet, Instant::now(), Timestamp::now()).enters(Stage::Infer);
        part().give_up(Reason::Model, "fills the queue");
        let another = part();
        let waiting = std::thread::spawn(move || another.give_up(Reason::Model, "waits"));
        let silent = || health.stalled(Duration::from_millis(200));
        wait_for("it waits", || silent() == Some("infer"));
        wait_for("it shows that it lives", || silent().is_none());
        for _ in 0..2 {
            decided.recv_timeout(PATIENCE).unwrap();
        }
        assert!(waiting.join().unwrap());
    }

    fn file(name: &str) -> SourceRef {
        SourceRef { name: name.into(), bytes: 1, modified_ns: 2 }
    }

    /// A part with a frame of each of these files.
    fn burst(files: &[&str]) -> (Part, Receiver<Decided>) {
        let (dispatch, decided) = bounded(1);
        let (now, at) = (Instant::now(), Timestamp::now());
        let part = Part::free_running(&Outlet::new(dispatch, LineHealth::for_tests()), now, at);
        let frame = |name: &&str| Frame {
            pixels: Pixels::Raw {
                size: Size::new(1, 1),
                format: PixelFormat::Mono(Samples::U8),
                stride: 1,
                bytes: vec![0],
            },
            captured_at: at,
            captured: now,
            source: Some(file(name)),
            planted: None,
        };
        (files.iter().map(frame).fold(part, Part::with_frame), decided)
    }

    fn settled(decided: &Receiver<Decided>) -> Vec<String> {
        let judgement = decided.recv().unwrap().judgement;
        judgement.sources().map(|source| source.name.clone()).collect()
    }

    #[test]
    fn a_verdict_settles_every_file_that_was_taken_for_its_part_whoever_concludes_it() {
        let (part, decided) = burst(&["a", "b", "c"]);
        part.give_up_at(1, Reason::Camera, "blurred".into());
        assert_eq!(settled(&decided), ["b", "a", "c"], "the shown one first");
        let (part, decided) = burst(&["a", "b"]);
        part.core().give_up(None, Reason::Deadline, "late");
        assert_eq!(settled(&decided), ["a", "b"]);
        let (part, decided) = burst(&["a", "b"]);
        part.give_up_on(Some(file("c")), "no picture");
        assert_eq!(settled(&decided), ["c", "a", "b"]);
        let (part, decided) = burst(&[]);
        let part = part.with_fault(Some(&file("a")), "no picture".into());
        part.give_up(Reason::Camera, "no picture");
        assert_eq!(settled(&decided), ["a"]);
        let (part, decided) = burst(&["a", "b"]);
        drop(part);
        assert_eq!(settled(&decided), ["a", "b"]);
    }

    #[test]
    fn the_time_before_the_camera_was_asked_is_waiting_and_the_time_after_it_the_cameras() {
        let (dispatch, _decided) = bounded(1);
        let began = Instant::now().checked_sub(Duration::from_secs(5)).unwrap();
        let outlet = Outlet::new(dispatch, LineHealth::for_tests());
        let part = || Part::free_running(&outlet, began, Timestamp::now());
        let mut buffered = part();
        buffered.asked(began + Duration::from_secs(3));
        assert_eq!(buffered.timings.queue, 3000.0);
        assert!(buffered.lap() >= 2000.0);
        buffered.withdraw();
        let mut awaited = part();
        awaited.asked(began.checked_sub(Duration::from_secs(3)).unwrap());
        assert_eq!(awaited.timings.queue, 0.0);
        assert!(awaited.lap() >= 5000.0);
        awaited.withdraw();
    }
}

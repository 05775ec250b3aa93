//! The capture stage: owns one camera, accepts frames, and answers for triggers that get none.
//!
//! In: a camera, and triggers as parts. Out: parts with frames, to the prepare stage. One thread per camera. When the
//! next queue is full, triggered parts wait under their deadline and free-running frames follow [`WhenFull`]. A camera
//! that fails is opened again with jittered back-off, for ever, and touches no other camera.

use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, SendTimeoutError, Sender, TrySendError};
use jiff::Timestamp;

use super::options::{CaptureMode, WhenFull};
use super::part::{Decided, Part};
use crate::backoff::Backoff;
use crate::camera::{self, Camera, CameraError, Next};
use crate::frame::{CameraId, Frame, SourceRef};
use crate::health::{LineHealth, Stage};
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::verdict::Reason;

/// How long the stage waits for anything before it shows a sign of life.
const TICK: Duration = Duration::from_millis(200);
/// The first wait before a failed camera is opened again.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_RETRY: Duration = Duration::from_secs(15);
/// Judged files are known from the store; those still on their way there from this many last deliveries.
const RECENT_SOURCES: usize = 1024;

/// The stage and everything it owns.
pub(crate) struct Capture {
    pub(crate) camera: CameraId,
    pub(crate) source: camera::Options,
    pub(crate) mode: CaptureMode,
    /// Files that have a verdict on disk, asked for whenever the camera is opened.
    pub(crate) judged: Box<dyn Fn() -> HashSet<SourceRef> + Send>,
    pub(crate) triggers: Receiver<Part>,
    pub(crate) ready: Sender<Part>,
    pub(crate) dispatch: Sender<Decided>,
    pub(crate) health: LineHealth,
    pub(crate) shutdown: Shutdown,
}

enum Ended {
    Stopped,
    NoMoreFrames,
}

impl Capture {
    /// Captures until stopped or until a replay has ended.
    pub(crate) fn run(self) {
        let mut backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let mut recent = VecDeque::with_capacity(RECENT_SOURCES);
        while !self.shutdown.requested() {
            match self.run_once(&mut backoff, &mut recent) {
                Ok(Ended::Stopped) => break,
                Ok(Ended::NoMoreFrames) => {
                    self.health.camera_ended();
                    self.answer_without_camera("its replay has ended", None);
                }
                Err(failure) => {
                    let pause = backoff.pause();
                    self.health.camera_failed(&failure, pause);
                    self.answer_without_camera(&telemetry::chain(&failure), Some(pause));
                }
            }
        }
        for part in self.triggers.try_iter() {
            part.give_up(Reason::Internal, "the program was being stopped when the trigger came");
        }
        self.health.retire(Stage::Capture);
    }

    fn run_once(
        &self,
        backoff: &mut Backoff,
        recent: &mut VecDeque<SourceRef>,
    ) -> Result<Ended, CameraError> {
        let mut seen = (self.judged)();
        seen.extend(recent.iter().cloned());
        let mut camera = camera::open(&self.camera, &self.source, seen)?;
        self.health.camera_is_up(camera.describe());
        while !self.shutdown.requested() {
            self.health.beat(Stage::Capture);
            self.health.queue_holds(Stage::Capture, self.triggers.len(), self.triggers.capacity());
            match self.mode {
                CaptureMode::Free { when_full } => match self.next_frame(camera.as_mut(), TICK, recent)? {
                    Taken::Part(part) => {
                        backoff.reset();
                        self.pass_on_free(part, when_full);
                    }
                    Taken::Nothing => {}
                    Taken::End => return Ok(Ended::NoMoreFrames),
                },
                CaptureMode::Software { patience } => match self.triggers.recv_timeout(TICK) {
                    Ok(part) => {
                        self.expose_for(part, camera.as_mut(), patience, recent)?;
                        backoff.reset();
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(Ended::Stopped),
                },
            }
        }
        Ok(Ended::Stopped)
    }

    fn next_frame(
        &self,
        camera: &mut dyn Camera,
        wait: Duration,
        recent: &mut VecDeque<SourceRef>,
    ) -> Result<Taken, CameraError> {
        match camera.next(wait) {
            Ok(Next::Frame(frame)) => {
                remember(recent, frame.source.as_ref());
                self.health.frame_exposed(frame.captured_at);
                let (began, at) = (frame.captured, frame.captured_at);
                let part = Part::free_running(self.camera.clone(), began, at, self.dispatch.clone());
                Ok(Taken::Part(part.with_frame(*frame)))
            }
            Ok(Next::Nothing) => Ok(Taken::Nothing),
            Ok(Next::End) => Ok(Taken::End),
            Err(CameraError::BadFrame { origin, name, message }) => {
                remember(recent, origin.as_ref());
                self.health.counters().accepted.increment();
                let now = (Instant::now(), Timestamp::now());
                let part = Part::free_running(self.camera.clone(), now.0, now.1, self.dispatch.clone());
                part.give_up_on(origin, format!("camera `{name}` delivered a bad frame: {message}"));
                Ok(Taken::Nothing)
            }
            Err(failure) => Err(failure),
        }
    }

    fn pass_on_free(&self, part: Part, when_full: WhenFull) {
        let counters = self.health.counters();
        match (self.ready.try_send(part), when_full) {
            (Ok(()), _) => self.has_passed_on(),
            (Err(TrySendError::Disconnected(part)), _) => part.withdraw(),
            (Err(TrySendError::Full(part)), WhenFull::Skip) => {
                counters.skipped.increment();
                part.withdraw();
            }
            (Err(TrySendError::Full(part)), WhenFull::Uninspected) => {
                counters.accepted.increment();
                part.give_up(Reason::Overload, "frames come faster than this box can inspect them");
            }
            (Err(TrySendError::Full(part)), WhenFull::Wait) => match self.wait_for_room(part) {
                None => self.has_passed_on(),
                Some(part) => part.withdraw(),
            },
        }
    }

    fn has_passed_on(&self) {
        self.health.counters().accepted.increment();
        self.health.queue_holds(Stage::Prepare, self.ready.len(), self.ready.capacity());
    }

    /// Gives the part back if the program is stopped first.
    fn wait_for_room(&self, mut part: Part) -> Option<Part> {
        loop {
            self.health.beat(Stage::Capture);
            match self.ready.send_timeout(part, TICK) {
                Ok(()) => return None,
                Err(SendTimeoutError::Disconnected(part)) => return Some(part),
                Err(SendTimeoutError::Timeout(back)) if self.shutdown.requested() => return Some(back),
                Err(SendTimeoutError::Timeout(back)) => part = back,
            }
        }
    }

    /// Waits for a frame that was exposed after the trigger.
    fn expose_for(
        &self,
        part: Part,
        camera: &mut dyn Camera,
        patience: Duration,
        recent: &mut VecDeque<SourceRef>,
    ) -> Result<(), CameraError> {
        let give_up_at = part.core().deadline().unwrap_or(part.began() + patience);
        loop {
            self.health.beat(Stage::Capture);
            let left = give_up_at.saturating_duration_since(Instant::now());
            if part.is_settled() || self.shutdown.requested() || left.is_zero() {
                part.give_up(Reason::Camera, "the camera gave no frame in time for the trigger");
                return Ok(());
            }
            match camera.next(left.min(TICK)) {
                Ok(Next::Frame(frame)) if frame.captured < part.began() => {}
                Ok(Next::Frame(frame)) => {
                    remember(recent, frame.source.as_ref());
                    self.pass_on_triggered(part, *frame);
                    return Ok(());
                }
                Ok(Next::Nothing) => {}
                Ok(Next::End) => {
                    part.give_up(Reason::Camera, "the camera's replay has ended");
                    return Ok(());
                }
                Err(CameraError::BadFrame { origin, name, message }) => {
                    remember(recent, origin.as_ref());
                    part.give_up_on(origin, format!("camera `{name}` delivered a bad frame: {message}"));
                    return Ok(());
                }
                Err(failure) => {
                    part.give_up(Reason::Camera, telemetry::chain(&failure));
                    return Err(failure);
                }
            }
        }
    }

    fn pass_on_triggered(&self, part: Part, frame: Frame) {
        self.health.frame_exposed(frame.captured_at);
        self.health.counters().accepted.increment();
        if let Some(part) = self.wait_for_room(part.with_frame(frame)) {
            part.give_up(Reason::Internal, "the program was being stopped when the trigger came");
        }
    }

    /// While there is no camera, triggers are answered at once; returns after `pause`, or never without one.
    fn answer_without_camera(&self, why: &str, pause: Option<Duration>) {
        let until = pause.map(|pause| Instant::now() + pause);
        while !self.shutdown.requested() {
            self.health.beat(Stage::Capture);
            let left = until.map_or(TICK, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return;
            }
            match self.triggers.recv_timeout(left.min(TICK)) {
                Ok(part) => {
                    part.give_up(Reason::Camera, format!("the camera is down: {why}"));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.shutdown.sleep(left.min(TICK));
                }
            }
        }
    }
}

enum Taken {
    Part(Part),
    Nothing,
    End,
}

fn remember(recent: &mut VecDeque<SourceRef>, source: Option<&SourceRef>) {
    if let Some(source) = source {
        if recent.len() == RECENT_SOURCES {
            recent.pop_front();
        }
        recent.push_back(source.clone());
    }
}

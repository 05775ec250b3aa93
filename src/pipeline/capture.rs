//! The capture stage: owns one camera, accepts frames, and answers for triggers that get none.
//!
//! In: a camera, and triggers as parts, or a timer's ticks. Out: parts with frames, to the prepare stage. One thread per
//! camera. When the next queue is full, triggered parts wait under their deadline, and the triggers behind them for as long as
//! their picture would still be their own (`waiting`); timed ones are concluded, and
//! free-running frames follow [`WhenFull`]. A camera that fails, or whose library panics, is opened again with jittered
//! back-off, for ever, and touches no other camera.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, SendTimeoutError, Sender, TrySendError, never};
use jiff::Timestamp;

use super::delivered::Delivered;
use super::expose::{Exposed, Exposure};
use super::opening::{self, TICK};
use super::options::{CaptureMode, Views, WhenFull};
use super::part::{Outlet, Part};
use super::timer::Timer;
use super::waiting::Waiting;
use crate::backoff::Backoff;
use crate::camera::{Camera, CameraError, Judged, Next, OpenCamera};
use crate::clock::{self, SystemClock};
use crate::frame::{CameraId, FileKey, Losses};
use crate::health::{LineHealth, Stage};
use crate::shutdown::Shutdown;
use crate::telemetry;
use crate::verdict::Reason;

/// The first wait before a failed camera is opened again.
const FIRST_RETRY: Duration = Duration::from_millis(500);
/// The longest.
const LONGEST_RETRY: Duration = Duration::from_secs(15);
/// Missed ticks of a timer that get a verdict each; of more, as where a camera was away for long, the rest is let go.
const MOST_MISSED_TICKS: u32 = 1024;
/// How long a stop waits for room for a part whose picture is taken: the parts before it are being inspected.
const LAST_ROOM: Duration = Duration::from_secs(5);
const OVERLOAD: &str = "frames come faster than this box can inspect them";

/// The stage and everything it owns.
pub(crate) struct Capture {
    pub(crate) camera: CameraId,
    pub(crate) mode: CaptureMode,
    pub(crate) views: Views,
    /// Which files have a verdict on disk, asked whenever the camera is opened.
    pub(crate) judged: Arc<Judged<'static>>,
    pub(crate) triggers: Waiting,
    pub(crate) ready: Sender<Part>,
    pub(crate) outlet: Outlet,
    pub(crate) health: LineHealth,
    pub(crate) shutdown: Shutdown,
}

/// What outlasts a camera's being lost.
struct Past {
    /// Shared with the thread on which the camera is being opened.
    open: Arc<Mutex<OpenCamera>>,
    backoff: Backoff,
    delivered: Delivered,
    timer: Option<Timer>,
    /// The camera was lost, or has never opened.
    failed: bool,
    /// The camera that was lost, until it is closed.
    lost: Option<Box<dyn Camera>>,
}

enum Ended {
    Stopped,
    NoMoreFrames,
}

impl Capture {
    /// Captures with what `open` opens until stopped or until a replay has ended.
    pub(crate) fn run(self, open: OpenCamera) {
        let timer = match self.mode {
            CaptureMode::Timed { period } => Some(Timer::new(period)),
            CaptureMode::Free { .. } | CaptureMode::Software { .. } => None,
        };
        let backoff = Backoff::new(FIRST_RETRY, LONGEST_RETRY);
        let open = Arc::new(Mutex::new(open));
        let mut past =
            Past { open, backoff, delivered: Delivered::default(), timer, failed: false, lost: None };
        while !self.shutdown.requested() {
            match self.run_guarded(&mut past) {
                Ok(Ended::Stopped) => break,
                Ok(Ended::NoMoreFrames) => {
                    self.health.camera_ended();
                    self.answer_without_camera("its replay has ended", None, None);
                }
                Err(failure) => {
                    past.failed = true;
                    let pause = past.backoff.pause();
                    self.health.camera_failed(&failure, pause);
                    let why = telemetry::chain(&failure);
                    if let Some(camera) = past.lost.take() {
                        let _closed_or_failed_at_it = self.beside(move || drop(camera), past.timer.as_mut());
                    }
                    self.answer_without_camera(&why, Some(pause), past.timer.as_mut());
                }
            }
        }
        while let Some(part) = self.triggers.take() {
            part.give_up(Reason::Internal, "the program was being stopped when the trigger came");
        }
        self.health.retire(Stage::Capture);
    }

    /// A panic is a lost camera; the part at hand, dropped by it, has concluded itself.
    fn run_guarded(&self, past: &mut Past) -> Result<Ended, CameraError> {
        catch_unwind(AssertUnwindSafe(|| self.run_once(past))).unwrap_or_else(|panic| {
            let message = format!("its library panicked: {}", telemetry::panic_message(panic.as_ref()));
            Err(CameraError::Lost { name: self.camera.to_string(), message })
        })
    }

    fn run_once(&self, past: &mut Past) -> Result<Ended, CameraError> {
        let (open, judged, delivered) = (past.open.clone(), self.judged.clone(), past.delivered.clone());
        let open = move || {
            let judged = |there: &HashSet<FileKey>| {
                let mut judged = judged(there);
                judged.extend(delivered.among(there));
                judged
            };
            let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
            open(&judged)
        };
        let opened = if past.failed {
            self.beside(open, past.timer.as_mut())?
        } else {
            // What triggers meanwhile waits for the camera, as it would for a line that is busy: it is not known to be away.
            opening::beside(&self.camera, open, &never(), &self.shutdown, |_| {
                self.health.beat(Stage::Capture);
                self.triggers.give_up_before_opening();
            })?
        };
        let Some(opened) = opened else { return Ok(Ended::Stopped) };
        self.triggers.give_up_before_opening();
        let mut camera = opened?;
        let ended = self.capture_with(camera.as_mut(), past);
        past.lost = ended.is_err().then_some(camera);
        ended
    }

    /// Captures until the camera is lost.
    fn capture_with(&self, camera: &mut dyn Camera, past: &mut Past) -> Result<Ended, CameraError> {
        let Past { backoff, delivered, timer, .. } = past;
        let triggers = self.triggers.queue();
        self.health.camera_is_up(camera.describe());
        let opened = Instant::now();
        let mut asked = opened;
        let mut losses = Losses::default();
        while !self.shutdown.requested() {
            self.health.beat(Stage::Capture);
            self.health.queue_holds(Stage::Capture, triggers.len(), triggers.capacity());
            if !matches!(self.mode, CaptureMode::Free { .. }) {
                camera.check()?;
            }
            if opened.elapsed() > LONGEST_RETRY {
                backoff.reset();
            }
            match (self.mode, timer.as_mut()) {
                (CaptureMode::Free { when_full }, _) => match self.next_frame(camera, asked, delivered)? {
                    Taken::Part(part) => {
                        backoff.reset();
                        self.pass_on_free(part, when_full);
                        asked = Instant::now();
                    }
                    Taken::Nothing => {}
                    Taken::End => return Ok(Ended::NoMoreFrames),
                },
                (CaptureMode::Software { patience, .. }, _) => match self.triggers.fresh(TICK) {
                    Ok(part) => {
                        let patience = patience + part.began().elapsed();
                        match self.exposure().take(part, camera, patience, delivered)? {
                            Exposed::Part(part) => self.pass_on_triggered(part),
                            Exposed::Concluded => {}
                            Exposed::Ended => return Ok(Ended::NoMoreFrames),
                        }
                        backoff.reset();
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return Ok(Ended::Stopped),
                },
                (CaptureMode::Timed { period }, Some(timer)) => {
                    if let Some(part) = self.tick(timer) {
                        match self.exposure().take(part, camera, period, delivered)? {
                            Exposed::Part(part) => {
                                self.health.frames_exposed(part.frames());
                                self.hand_over(part);
                                backoff.reset();
                            }
                            Exposed::Concluded => {}
                            Exposed::Ended => return Ok(Ended::NoMoreFrames),
                        }
                    }
                }
                (CaptureMode::Timed { .. }, None) => return Ok(Ended::Stopped),
            }
            self.count(camera.losses(), &mut losses);
        }
        Ok(Ended::Stopped)
    }

    fn exposure(&self) -> Exposure<'_> {
        Exposure { views: self.views, health: &self.health, shutdown: &self.shutdown }
    }

    /// Counts what the open camera lost beyond `known`, which is renewed.
    fn count(&self, now: Losses, known: &mut Losses) {
        let counters = self.health.counters();
        counters.missed_frames.add(now.missed_frames.saturating_sub(known.missed_frames));
        counters.incomplete_frames.add(now.incomplete_frames.saturating_sub(known.incomplete_frames));
        counters.missing_packets.add(now.missing_packets.saturating_sub(known.missing_packets));
        *known = now;
    }

    /// Waits for the timer's next tick, a moment at most; ticks that nobody could take are concluded at once.
    fn tick(&self, timer: &mut Timer) -> Option<Part> {
        timer.begin(Instant::now());
        self.shutdown.sleep(timer.wait(Instant::now()).min(TICK));
        let tick = timer.take(Instant::now()).filter(|_| !self.shutdown.requested())?;
        let part = |due: Instant| {
            self.health.counters().triggers.increment();
            let at = clock::utc_of(&SystemClock, due);
            Part::free_running(&self.outlet, due, at)
        };
        for count in (1..=tick.missed.min(MOST_MISSED_TICKS)).rev() {
            let missed = part(timer.before(tick, count));
            missed.give_up(Reason::Camera, "the timer's tick came before the camera was ready again");
        }
        Some(part(tick.at))
    }

    fn next_frame(
        &self,
        camera: &mut dyn Camera,
        asked: Instant,
        delivered: &mut Delivered,
    ) -> Result<Taken, CameraError> {
        let free = |taken: (Instant, Timestamp)| {
            let mut part = Part::free_running(&self.outlet, taken.0, taken.1);
            part.asked(asked);
            part
        };
        match camera.next(TICK) {
            Ok(Next::Frame(frame)) => {
                delivered.remember(frame.source.as_ref());
                self.health.frames_exposed(std::slice::from_ref(&*frame));
                let part = free((frame.captured, frame.captured_at));
                Ok(Taken::Part(part.with_frame(*frame)))
            }
            Ok(Next::Nothing) => Ok(Taken::Nothing),
            Ok(Next::End) => Ok(Taken::End),
            Err(CameraError::BadFrame { origin, name, message, taken }) => {
                delivered.remember(origin.as_ref());
                let part = free((taken, clock::utc_of(&SystemClock, taken)));
                let detail = format!("camera `{name}` delivered a bad frame: {message}");
                Ok(Taken::Part(part.with_fault(origin.as_ref(), detail)))
            }
            Err(failure) => Err(failure),
        }
    }

    fn pass_on_free(&self, part: Part, when_full: WhenFull) {
        let counters = self.health.counters();
        match (self.ready.try_send(part), when_full) {
            (Ok(()), _) => self.has_passed_on(),
            (Err(TrySendError::Disconnected(part)), _) => self.let_go(part),
            (Err(TrySendError::Full(part)), WhenFull::Skip | WhenFull::Uninspected)
                if part.fault().is_some() =>
            {
                self.let_go(part);
            }
            (Err(TrySendError::Full(part)), WhenFull::Skip) => {
                counters.skipped.increment();
                part.withdraw();
            }
            (Err(TrySendError::Full(part)), WhenFull::Uninspected) => {
                counters.accepted.increment();
                part.give_up(Reason::Overload, OVERLOAD);
            }
            (Err(TrySendError::Full(part)), WhenFull::Wait) => match self.wait_for_room(part, Duration::ZERO)
            {
                None => self.has_passed_on(),
                Some(part) => self.let_go(part),
            },
        }
    }

    /// Takes a frame's acceptance back; one that came spoiled will not come again, and is concluded.
    fn let_go(&self, part: Part) {
        match part.fault().map(str::to_owned) {
            None => part.withdraw(),
            Some(fault) => {
                self.health.counters().accepted.increment();
                part.give_up(Reason::Camera, fault);
            }
        }
    }

    /// Passes a part on at once, or concludes it where the line is busy.
    fn hand_over(&self, part: Part) {
        self.health.counters().accepted.increment();
        match self.ready.try_send(part) {
            Ok(()) => self.queue_grew(),
            Err(TrySendError::Full(part)) => {
                part.give_up(Reason::Overload, OVERLOAD);
            }
            Err(TrySendError::Disconnected(part)) => {
                part.give_up(Reason::Internal, "the program was being stopped when the picture was taken");
            }
        }
    }

    fn has_passed_on(&self) {
        self.health.counters().accepted.increment();
        self.queue_grew();
    }

    fn queue_grew(&self) {
        self.health.queue_holds(Stage::Prepare, self.ready.len(), self.ready.capacity());
    }

    /// Gives the part back if there is none `after` the program was stopped; nothing where it is answered otherwise.
    fn wait_for_room(&self, mut part: Part, after: Duration) -> Option<Part> {
        let mut stopped = None;
        loop {
            self.health.beat(Stage::Capture);
            self.triggers.give_up_late();
            if part.is_settled() {
                return None;
            }
            let stop = self.shutdown.requested().then(|| *stopped.get_or_insert_with(Instant::now));
            match self.ready.send_timeout(part, TICK) {
                Ok(()) => return None,
                Err(SendTimeoutError::Disconnected(part)) => return Some(part),
                Err(SendTimeoutError::Timeout(back)) if stop.is_some_and(|at| at.elapsed() > after) => {
                    return Some(back);
                }
                Err(SendTimeoutError::Timeout(back)) => part = back,
            }
        }
    }

    fn pass_on_triggered(&self, part: Part) {
        self.health.frames_exposed(part.frames());
        self.health.counters().accepted.increment();
        if let Some(part) = self.wait_for_room(part, LAST_ROOM) {
            let detail = "the program was being stopped, and the part's picture waited for those before it";
            part.give_up(Reason::Internal, detail);
        }
    }

    /// Does what may take a camera's driver or network long, while whatever triggers is answered.
    fn beside<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        mut timer: Option<&mut Timer>,
    ) -> Result<Option<T>, CameraError> {
        let mut answer = |trigger: Option<Part>| {
            self.health.beat(Stage::Capture);
            let tick = timer.as_deref_mut().and_then(|timer| self.tick(timer));
            for part in trigger.into_iter().chain(tick) {
                part.give_up(Reason::Camera, "the camera is down and being opened again");
            }
        };
        while let Some(part) = self.triggers.take() {
            answer(Some(part));
        }
        opening::beside(&self.camera, work, self.triggers.queue(), &self.shutdown, answer)
    }

    /// While there is no camera, triggers and ticks are answered at once; returns after `pause`, or never without one.
    fn answer_without_camera(&self, why: &str, pause: Option<Duration>, mut timer: Option<&mut Timer>) {
        let until = pause.map(|pause| Instant::now() + pause);
        let down = |part: Part| part.give_up(Reason::Camera, format!("the camera is down: {why}"));
        while !self.shutdown.requested() {
            self.health.beat(Stage::Capture);
            let left = until.map_or(TICK, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return;
            }
            if let Some(timer) = timer.as_deref_mut() {
                if let Some(part) = self.tick(timer) {
                    down(part);
                }
                continue;
            }
            match self.triggers.wait(left.min(TICK)) {
                Ok(part) => {
                    down(part);
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

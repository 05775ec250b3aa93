//! What a line knows about itself: counters, latencies, whether its camera is up, which model it runs, signs of life.
//!
//! Written by the line's stages, read by the state topic, the watchdog and the web page. One function per notable event
//! writes the log line and moves the counter. Not here: topics (`publish`), metrics (`web`), systemd.

use std::error::Error;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::{info, warn};

use crate::frame::{CameraId, Frame};
use crate::telemetry;
use crate::verdict::{ModelRef, Threshold};

mod counters;
mod news;

pub use self::counters::{CounterValues, Counters, Latencies};
pub use self::news::{ModelNews, Retraining};

/// A stage without a sign of life for this long has hung: the watchdog is no longer fed, and `/healthz` says so.
pub const STALL: Duration = Duration::from_secs(60);

/// Whether a line's camera delivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CameraStatus {
    /// It has not been opened yet.
    Opening,
    /// It delivers.
    Up {
        /// What it says it is.
        description: String,
    },
    /// It does not; it is opened again and again.
    Down {
        /// Why, and what would help.
        why: String,
    },
    /// Its replay is over; it will deliver nothing more.
    Ended,
}

/// The bounded queue in front of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// The stage that it feeds.
    pub stage: &'static str,
    /// What waits in it.
    pub length: usize,
    /// What fits into it.
    pub capacity: usize,
}

#[derive(Debug, Clone)]
struct Status {
    camera: CameraStatus,
    since: Timestamp,
    last_frame_at: Option<Timestamp>,
    /// Why the model cannot be run, while it cannot.
    detector_fault: Option<String>,
}

/// Who judges, and what it holds scores against unless told otherwise.
#[derive(Debug, Clone)]
struct Judge {
    model: ModelRef,
    own_threshold: Threshold,
}

/// One line's health; clones share it.
#[derive(Debug, Clone)]
pub struct LineHealth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    camera: CameraId,
    judge: Mutex<Judge>,
    news: Mutex<ModelNews>,
    threshold: AtomicU32,
    counters: Counters,
    latencies: Latencies,
    status: Mutex<Status>,
    heartbeats: [Heartbeat; STAGES],
    queues: [Depth; STAGES],
}

/// How much waits in front of a stage, as whoever touched the queue last saw it.
#[derive(Debug, Default)]
struct Depth {
    length: AtomicUsize,
    capacity: AtomicUsize,
}

/// A line's health at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Whether its camera delivers.
    pub camera: CameraStatus,
    /// Since when.
    pub since: Timestamp,
    /// When the newest frame was exposed.
    pub last_frame_at: Option<Timestamp>,
    /// Why the model cannot be run, while it cannot.
    pub detector_fault: Option<String>,
    /// The model it runs.
    pub model: ModelRef,
    /// What it holds scores against.
    pub threshold: Threshold,
    /// What it counted.
    pub counters: CounterValues,
    /// What is told of its models.
    pub news: ModelNews,
}

/// The stages of a line, each of which must show signs of life.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    Capture,
    Prepare,
    Infer,
    Dispatch,
}

const STAGES: usize = 4;
const NAMES: [&str; STAGES] = ["capture", "prepare", "infer", "dispatch"];

#[derive(Debug)]
struct Heartbeat {
    epoch: Instant,
    last_ms: AtomicU64,
}

impl Heartbeat {
    fn silence(&self) -> Duration {
        self.epoch.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

impl LineHealth {
    pub(crate) fn new(camera: CameraId, model: ModelRef, threshold: Threshold) -> Self {
        let status = Status {
            camera: CameraStatus::Opening,
            since: Timestamp::now(),
            last_frame_at: None,
            detector_fault: None,
        };
        let beat = |_| Heartbeat { epoch: Instant::now(), last_ms: AtomicU64::new(0) };
        Self(Arc::new(Inner {
            camera,
            judge: Mutex::new(Judge { model, own_threshold: threshold }),
            news: Mutex::default(),
            threshold: AtomicU32::new(threshold.0.to_bits()),
            counters: Counters::default(),
            latencies: Latencies::default(),
            status: Mutex::new(status),
            heartbeats: std::array::from_fn(beat),
            queues: Default::default(),
        }))
    }

    /// A line's that does not exist.
    #[cfg(test)]
    pub(crate) fn for_tests() -> Self {
        let model = ModelRef { name: "m".into(), version: "v".into() };
        Self::new("top".parse().expect("a name: this is a bug"), model, Threshold(1.0))
    }

    /// The camera whose line this is.
    pub fn camera(&self) -> &CameraId {
        &self.0.camera
    }

    /// What the line counts.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Where its time goes.
    pub fn latencies(&self) -> &Latencies {
        &self.0.latencies
    }

    /// Its queues.
    pub fn queues(&self) -> [Queue; STAGES] {
        std::array::from_fn(|i| Queue {
            stage: NAMES[i],
            length: self.0.queues[i].length.load(Ordering::Relaxed),
            capacity: self.0.queues[i].capacity.load(Ordering::Relaxed),
        })
    }

    /// Notes what waits in front of a stage, and what fits there.
    pub(crate) fn queue_holds(&self, stage: Stage, length: usize, capacity: Option<usize>) {
        let depth = &self.0.queues[stage as usize];
        depth.length.store(length, Ordering::Relaxed);
        depth.capacity.store(capacity.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Everything, now.
    pub fn snapshot(&self) -> Snapshot {
        let Status { camera, since, last_frame_at, detector_fault } = self.status().clone();
        let model = self.judge().model.clone();
        let (threshold, counters) = (self.threshold(), self.0.counters.values());
        let news = self.news().clone();
        Snapshot { camera, since, last_frame_at, detector_fault, model, threshold, counters, news }
    }

    /// Has a warning stand among the camera's state, or takes it back.
    pub(crate) fn warn_about(&self, what: &'static str, warning: Option<String>) {
        let mut news = self.news();
        match warning {
            Some(warning) => {
                warn!(camera = %self.0.camera, warning, "something should be looked into");
                news.warnings.insert(what, warning);
            }
            None => drop(news.warnings.remove(what)),
        }
    }

    /// Changes what is told of the line's models.
    pub fn tell(&self, change: impl FnOnce(&mut ModelNews)) {
        change(&mut self.news());
    }

    fn news(&self) -> MutexGuard<'_, ModelNews> {
        self.0.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the line holds scores against.
    pub fn threshold(&self) -> Threshold {
        Threshold(f32::from_bits(self.0.threshold.load(Ordering::Relaxed)))
    }

    /// Holds scores against another value, or the model's own, from the next part on until the program ends or another
    /// model version runs, whose scores are others.
    pub(crate) fn set_threshold(&self, threshold: Option<Threshold>) -> Threshold {
        let threshold = threshold.unwrap_or(self.judge().own_threshold);
        info!(camera = %self.0.camera, threshold = threshold.0, "threshold changed by command");
        self.0.threshold.store(threshold.0.to_bits(), Ordering::Relaxed);
        threshold
    }

    /// A detector was opened. One of the same model changes nothing: a threshold that was commanded still holds.
    pub(crate) fn runs(&self, model: ModelRef, own_threshold: Threshold) {
        let mut judge = self.judge();
        if judge.model != model {
            let (camera, version) = (&self.0.camera, &model.version);
            info!(%camera, version, threshold = own_threshold.0, "another model version runs");
            *judge = Judge { model, own_threshold };
            self.0.threshold.store(own_threshold.0.to_bits(), Ordering::Relaxed);
        }
    }

    fn judge(&self) -> MutexGuard<'_, Judge> {
        self.0.judge.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stage that has shown no sign of life for longer than `limit`, if there is one.
    pub fn stalled(&self, limit: Duration) -> Option<&'static str> {
        self.0.heartbeats.iter().position(|beat| beat.silence() > limit).map(|stage| NAMES[stage])
    }

    pub(crate) fn beat(&self, stage: Stage) {
        let beat = &self.0.heartbeats[stage as usize];
        beat.last_ms.store(beat.epoch.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// A stage that has ended in order is never stalled.
    pub(crate) fn retire(&self, stage: Stage) {
        self.0.heartbeats[stage as usize].last_ms.store(u64::MAX, Ordering::Relaxed);
    }

    pub(crate) fn camera_is_up(&self, description: String) {
        info!(camera = %self.0.camera, description, "camera opened");
        self.set(CameraStatus::Up { description });
    }

    /// The detector is open, or why it cannot be.
    pub(crate) fn detector_is(&self, fault: Option<String>) {
        self.status().detector_fault = fault;
    }

    pub(crate) fn camera_failed(&self, failure: &dyn Error, again_in: Duration) {
        self.0.counters.camera_failures.increment();
        let why = telemetry::chain(failure);
        warn!(camera = %self.0.camera, error = why, retry_in_ms = again_in.as_millis() as u64, "camera failed");
        self.set(CameraStatus::Down { why });
    }

    pub(crate) fn camera_ended(&self) {
        info!(camera = %self.0.camera, "the camera's replay has ended");
        self.set(CameraStatus::Ended);
    }

    pub(crate) fn frames_exposed(&self, frames: &[Frame]) {
        if let Some(last) = frames.last() {
            self.status().last_frame_at = Some(last.captured_at);
        }
    }

    fn set(&self, camera: CameraStatus) {
        let mut status = self.status();
        if status.camera != camera {
            status.camera = camera;
            status.since = Timestamp::now();
        }
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the whole program makes progress, as its watch sees it: noted at every round on which no stage had hung and nothing
/// was broken.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Heartbeat>, Arc<OnceLock<&'static str>>);

impl Progress {
    /// Progress, just made.
    pub fn new() -> Self {
        Self(Arc::new(Heartbeat { epoch: Instant::now(), last_ms: AtomicU64::new(0) }), Arc::default())
    }

    pub(crate) fn note(&self) {
        self.0.last_ms.store(self.0.epoch.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Something has ended that should not, and only a restart brings it back. Whether this is news.
    pub(crate) fn breaks(&self, what: &'static str) -> bool {
        self.1.set(what).is_ok()
    }

    /// What has ended that should not.
    pub fn broken(&self) -> Option<&'static str> {
        self.1.get().copied()
    }

    /// How long ago it was last made.
    pub fn age(&self) -> Duration {
        self.0.silence()
    }

    /// How long ago it was first made.
    pub fn uptime(&self) -> Duration {
        self.0.epoch.elapsed()
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_stage_is_named_and_a_retired_one_is_not() {
        let health = LineHealth::for_tests();
        for stage in [Stage::Capture, Stage::Prepare, Stage::Dispatch] {
            health.retire(stage);
        }
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(health.stalled(Duration::ZERO), Some("infer"));
        health.retire(Stage::Infer);
        assert_eq!(health.stalled(Duration::ZERO), None);
    }
}

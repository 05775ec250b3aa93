//! What a line knows about itself: counters, whether its camera is up, which model it runs, and signs of life.
//!
//! Written by the line's stages, read by the state topic, the watchdog and `check`. One function per notable event
//! writes the log line and moves the counter. Not here: topics (`publish`), systemd.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use tracing::{info, warn};

use crate::camera::{CameraError, Losses};
use crate::frame::{CameraId, Frame};
use crate::telemetry::{self, Counter};
use crate::verdict::{Decision, ModelRef, Reason, Threshold};

/// A line's counters; each only rises.
#[derive(Debug, Default)]
pub struct Counters {
    /// Frames that became parts.
    pub accepted: Counter,
    /// Frames of a free-running camera that were let go because the line was busy (`when_full = "skip"`).
    pub skipped: Counter,
    /// Triggers that became parts.
    pub triggers: Counter,
    /// Verdicts `ok`.
    pub ok: Counter,
    /// Verdicts `anomalous`.
    pub anomalous: Counter,
    /// Verdicts `uninspected` because of the camera.
    pub uninspected_camera: Counter,
    /// Verdicts `uninspected` because more came than can be inspected.
    pub uninspected_overload: Counter,
    /// Verdicts `uninspected` because the deadline came first.
    pub uninspected_deadline: Counter,
    /// Verdicts `uninspected` because the model could not be run.
    pub uninspected_model: Counter,
    /// Verdicts `uninspected` for any other reason.
    pub uninspected_internal: Counter,
    /// Times the camera was lost or could not be opened.
    pub camera_failures: Counter,
    /// Frames that the camera counted and that never arrived.
    pub missed_frames: Counter,
    /// Frames that arrived in part.
    pub incomplete_frames: Counter,
    /// Network packets of the camera that never arrived.
    pub missing_packets: Counter,
    /// Times the inference stage was restarted after a panic.
    pub inference_restarts: Counter,
    /// Verdicts that the store refused although it had been asked again and again; always 0 on a healthy disk.
    pub unrecorded: Counter,
}

/// [`Counters`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "each field is documented on `Counters`")]
pub struct CounterValues {
    pub accepted: u64,
    pub skipped: u64,
    pub triggers: u64,
    pub ok: u64,
    pub anomalous: u64,
    pub uninspected_camera: u64,
    pub uninspected_overload: u64,
    pub uninspected_deadline: u64,
    pub uninspected_model: u64,
    pub uninspected_internal: u64,
    pub camera_failures: u64,
    pub missed_frames: u64,
    pub incomplete_frames: u64,
    pub missing_packets: u64,
    pub inference_restarts: u64,
    pub unrecorded: u64,
}

impl Counters {
    /// Their values now.
    pub fn values(&self) -> CounterValues {
        CounterValues {
            accepted: self.accepted.get(),
            skipped: self.skipped.get(),
            triggers: self.triggers.get(),
            ok: self.ok.get(),
            anomalous: self.anomalous.get(),
            uninspected_camera: self.uninspected_camera.get(),
            uninspected_overload: self.uninspected_overload.get(),
            uninspected_deadline: self.uninspected_deadline.get(),
            uninspected_model: self.uninspected_model.get(),
            uninspected_internal: self.uninspected_internal.get(),
            camera_failures: self.camera_failures.get(),
            missed_frames: self.missed_frames.get(),
            incomplete_frames: self.incomplete_frames.get(),
            missing_packets: self.missing_packets.get(),
            inference_restarts: self.inference_restarts.get(),
            unrecorded: self.unrecorded.get(),
        }
    }

    pub(crate) fn count(&self, decision: Decision, reason: Option<Reason>) {
        match (decision, reason) {
            (Decision::Ok, _) => &self.ok,
            (Decision::Anomalous, _) => &self.anomalous,
            (Decision::Uninspected, Some(Reason::Camera)) => &self.uninspected_camera,
            (Decision::Uninspected, Some(Reason::Overload)) => &self.uninspected_overload,
            (Decision::Uninspected, Some(Reason::Deadline)) => &self.uninspected_deadline,
            (Decision::Uninspected, Some(Reason::Model)) => &self.uninspected_model,
            (Decision::Uninspected, Some(Reason::Internal) | None) => &self.uninspected_internal,
        }
        .increment();
    }
}

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

#[derive(Debug, Clone)]
struct Status {
    camera: CameraStatus,
    since: Timestamp,
    last_frame_at: Option<Timestamp>,
}

/// One line's health; clones share it.
#[derive(Debug, Clone)]
pub struct LineHealth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    camera: CameraId,
    model: ModelRef,
    threshold: AtomicU32,
    counters: Counters,
    status: Mutex<Status>,
    heartbeats: [Heartbeat; STAGES],
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
    /// The model it runs.
    pub model: ModelRef,
    /// What it holds scores against.
    pub threshold: Threshold,
    /// What it counted.
    pub counters: CounterValues,
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

#[derive(Debug)]
struct Heartbeat {
    epoch: Instant,
    last_ms: AtomicU64,
}

impl LineHealth {
    pub(crate) fn new(camera: CameraId, model: ModelRef, threshold: Threshold) -> Self {
        let status = Status { camera: CameraStatus::Opening, since: Timestamp::now(), last_frame_at: None };
        let beat = |_| Heartbeat { epoch: Instant::now(), last_ms: AtomicU64::new(0) };
        Self(Arc::new(Inner {
            camera,
            model,
            threshold: AtomicU32::new(threshold.0.to_bits()),
            counters: Counters::default(),
            status: Mutex::new(status),
            heartbeats: std::array::from_fn(beat),
        }))
    }

    /// The camera whose line this is.
    pub fn camera(&self) -> &CameraId {
        &self.0.camera
    }

    /// What the line counts.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Everything, now.
    pub fn snapshot(&self) -> Snapshot {
        let Status { camera, since, last_frame_at } = self.status().clone();
        let model = self.0.model.clone();
        let threshold = self.threshold();
        Snapshot { camera, since, last_frame_at, model, threshold, counters: self.0.counters.values() }
    }

    /// What the line holds scores against.
    pub fn threshold(&self) -> Threshold {
        Threshold(f32::from_bits(self.0.threshold.load(Ordering::Relaxed)))
    }

    /// Holds scores against another value from the next part on, until the program ends.
    pub(crate) fn set_threshold(&self, threshold: Threshold) {
        info!(camera = %self.0.camera, threshold = threshold.0, "threshold changed by command");
        self.0.threshold.store(threshold.0.to_bits(), Ordering::Relaxed);
    }

    /// The stage that has shown no sign of life for longer than `limit`, if there is one.
    pub fn stalled(&self, limit: Duration) -> Option<&'static str> {
        const NAMES: [&str; STAGES] = ["capture", "prepare", "infer", "dispatch"];
        let silent = |beat: &Heartbeat| {
            beat.epoch.elapsed().saturating_sub(Duration::from_millis(beat.last_ms.load(Ordering::Relaxed)))
        };
        self.0.heartbeats.iter().position(|beat| silent(beat) > limit).map(|stage| NAMES[stage])
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

    pub(crate) fn camera_failed(&self, failure: &CameraError, again_in: Duration) {
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

    /// Counts what an open camera lost beyond `known`, which it renews.
    pub(crate) fn camera_lost_frames(&self, now: Losses, known: &mut Losses) {
        let counters = self.counters();
        counters.missed_frames.add(now.missed_frames.saturating_sub(known.missed_frames));
        counters.incomplete_frames.add(now.incomplete_frames.saturating_sub(known.incomplete_frames));
        counters.missing_packets.add(now.missing_packets.saturating_sub(known.missing_packets));
        *known = now;
    }

    fn set(&self, camera: CameraStatus) {
        let mut status = self.status();
        if status.camera != camera {
            *status = Status { camera, since: Timestamp::now(), ..*status };
        }
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.0.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_stage_is_named_and_a_retired_one_is_not() {
        let model = ModelRef { name: "m".into(), version: "v".into() };
        let health = LineHealth::new("top".parse().unwrap(), model, Threshold(1.0));
        for stage in [Stage::Capture, Stage::Prepare, Stage::Dispatch] {
            health.retire(stage);
        }
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(health.stalled(Duration::ZERO), Some("infer"));
        health.retire(Stage::Infer);
        assert_eq!(health.stalled(Duration::ZERO), None);
    }
}

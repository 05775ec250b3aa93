//! What a line counts, and where its time goes.

use std::time::Duration;

use serde::Serialize;

use crate::telemetry::{Counter, Histogram};
use crate::verdict::{Decision, Reason, Timings};

/// A line's counters; each only rises.
#[derive(Debug, Default)]
pub struct Counters {
    /// Parts that were taken up with their pictures: one for a part of several views.
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

impl CounterValues {
    /// Verdicts `uninspected`, whatever the reason.
    pub fn uninspected(&self) -> u64 {
        self.uninspected_camera
            + self.uninspected_overload
            + self.uninspected_deadline
            + self.uninspected_model
            + self.uninspected_internal
    }
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

/// Where a line's time goes, in one histogram per stage; stages that a part did not reach do not count.
#[derive(Debug, Default)]
pub struct Latencies {
    /// The camera: from asking it, or from the exposure where that came later, until all of the part's frames were there.
    pub capture: Histogram,
    /// Waiting: for the camera to be free, and between the stages.
    pub queue: Histogram,
    /// Decoding, cutting out, resizing.
    pub prepare: Histogram,
    /// The networks, the map and the score.
    pub infer: Histogram,
    /// From exposure to judgement.
    pub total: Histogram,
    /// From judgement to being durable on disk.
    pub record: Histogram,
}

impl Latencies {
    /// Each with its name.
    pub fn stages(&self) -> [(&'static str, &Histogram); 6] {
        let Self { capture, queue, prepare, infer, total, record } = self;
        [
            ("capture", capture),
            ("queue", queue),
            ("prepare", prepare),
            ("infer", infer),
            ("total", total),
            ("record", record),
        ]
    }

    pub(crate) fn judged(&self, timings: &Timings) {
        let Timings { capture, queue, prepare, infer, total } = *timings;
        let stages = [
            (&self.capture, capture),
            (&self.queue, queue),
            (&self.prepare, prepare),
            (&self.infer, infer),
            (&self.total, total),
        ];
        for (histogram, milliseconds) in stages {
            if milliseconds > 0.0 {
                histogram.observe(Duration::try_from_secs_f32(milliseconds / 1e3).unwrap_or_default());
            }
        }
    }
}

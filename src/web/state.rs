//! Everything that the page shows, as JSON.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::View;
use super::ready;
use crate::health::{CameraStatus, LineHealth, STALL};
use crate::publish::Link;
use crate::verdict::{Outcome, Verdict};

pub(super) fn state(view: &View) -> Value {
    let watched = &view.watched;
    let alarms: Vec<Value> = view.recent.alarms().iter().map(brief).collect();
    json!({
        "box": watched.box_name,
        "version": env!("CARGO_PKG_VERSION"),
        "now": Timestamp::now(),
        "uptime_seconds": watched.progress.uptime().as_secs(),
        "faults": ready::readiness(view).0,
        "broker": broker(view),
        "store": store(view),
        "cameras": watched.lines.iter().map(|line| camera(view, line, STALL)).collect::<Vec<_>>(),
        "alarms": alarms,
    })
}

fn broker(view: &View) -> Value {
    let Some(monitor) = &view.watched.broker else { return json!({"state": "disabled"}) };
    let health = monitor.health.borrow();
    let state = match health.link {
        Link::Up => "up",
        Link::Down => "down",
        Link::Stopped => "stopped",
    };
    json!({
        "state": state, "since": health.since, "last_error": health.last_error, "warning": health.warning,
    })
}

fn store(view: &View) -> Value {
    let health = view.watched.store.health();
    let mut value = json!(health);
    value["oldest_unpublished"] = json!(view.oldest_unpublished());
    value
}

/// What the page shows of a camera; a stage that was silent for `stall` has hung.
pub(super) fn camera(view: &View, line: &LineHealth, stall: Duration) -> Value {
    let snapshot = line.snapshot();
    let state = match &snapshot.camera {
        CameraStatus::Up { .. } => "up",
        CameraStatus::Opening => "opening",
        CameraStatus::Ended => "ended",
        CameraStatus::Down { .. } => "down",
    };
    let total = &line.latencies().total;
    json!({
        "name": line.camera(),
        "stalled": line.stalled(stall),
        "state": state,
        "reason": ready::camera_fault(&snapshot.camera),
        "since": snapshot.since,
        "last_frame_at": snapshot.last_frame_at,
        "model": snapshot.model,
        "model_fault": snapshot.detector_fault,
        "threshold": snapshot.threshold,
        "warnings": snapshot.news.warnings.values().collect::<Vec<_>>(),
        "counters": snapshot.counters,
        "latency_ms": {"p50": total.quantile_ms(0.5), "p99": total.quantile_ms(0.99)},
        "last": view.recent.last(line.camera()).as_ref().map(brief),
    })
}

/// What the page shows of a verdict.
fn brief(verdict: &Verdict) -> Value {
    let judgement = &verdict.judgement;
    let mut brief = json!({
        "id": verdict.id,
        "camera": verdict.camera(),
        "sequence": verdict.sequence,
        "captured_at": judgement.captured_at,
        "part_id": judgement.trigger.as_ref().and_then(|trigger| trigger.part_id.as_ref()),
        "decision": verdict.decision(),
        "evidence": verdict.evidence.is_some(),
    });
    match &judgement.outcome {
        Outcome::Inspected(finding) => {
            brief["score"] = json!(finding.score);
            brief["threshold"] = json!(finding.threshold);
        }
        Outcome::Uninspected { reason, detail } => {
            brief["reason"] = json!(reason);
            brief["detail"] = json!(detail);
        }
    }
    brief
}

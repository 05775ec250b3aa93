//! Whether the program lives, and whether it is ready to inspect: in words, and as a status that machines heed.

use hyper::StatusCode;

use super::View;
use super::answer::Answer;
use crate::health::{CameraStatus, STALL, Snapshot};
use crate::publish::Link;

/// What is at fault; nothing if all is well.
pub(super) struct Faults(pub(super) Vec<String>);

impl Faults {
    pub(super) fn answer(self) -> Answer {
        match self.0.as_slice() {
            [] => Answer::text(StatusCode::OK, "ok"),
            faults => Answer::text(StatusCode::SERVICE_UNAVAILABLE, faults.join("\n")),
        }
    }
}

/// Whether the program makes progress: what the watchdog is fed by.
pub(super) fn health(view: &View) -> Faults {
    let hung = view.watched.lines.iter().filter_map(|line| {
        line.stalled(STALL).map(|stage| format!("camera {}: the {stage} stage has hung", line.camera()))
    });
    let broken = view
        .watched
        .progress
        .broken()
        .map(|what| format!("{what} has ended by a fault: restart the program"));
    let mut faults: Vec<_> = hung.chain(broken).collect();
    let age = view.watched.progress.age();
    if faults.is_empty() && age > STALL {
        faults.push(format!("nothing has watched over the program for {} s", age.as_secs()));
    }
    Faults(faults)
}

/// Whether the next part would be heard of, inspected, recorded and published.
pub(super) fn readiness(view: &View) -> Faults {
    let mut faults = health(view).0;
    let store = view.watched.store.health();
    let told = [(store.failing, "written"), (store.unread, "read to be published")];
    for (failing, done) in told.into_iter().filter_map(|(failing, done)| Some((failing?, done))) {
        faults
            .push(format!("store: verdicts cannot be {done} since {:.0}: {}", failing.since, failing.error));
    }
    if let Some(monitor) = &view.watched.broker {
        let health = monitor.health.borrow();
        if health.link != Link::Up {
            let why = health.last_error.as_deref().unwrap_or("it is being connected to");
            faults.push(format!("broker: {why}"));
        } else if let (true, Some(warning)) = (health.deaf, &health.warning) {
            faults.push(format!("broker: {warning}"));
        }
    }
    for line in &view.watched.lines {
        let snapshot = line.snapshot();
        if let Some(why) = camera_fault(&snapshot.camera) {
            faults.push(format!("camera {}: {why}", line.camera()));
        }
        if let Snapshot { detector_fault: Some(why), .. } = snapshot {
            faults.push(format!("camera {}: the model cannot be run: {why}", line.camera()));
        }
    }
    Faults(faults)
}

/// Why a camera delivers nothing, if it does not.
pub(super) fn camera_fault(camera: &CameraStatus) -> Option<&str> {
    match camera {
        CameraStatus::Up { .. } => None,
        CameraStatus::Opening => Some("it is being opened"),
        CameraStatus::Ended => Some("its replay has ended"),
        CameraStatus::Down { why } => Some(why),
    }
}

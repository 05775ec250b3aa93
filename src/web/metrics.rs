//! Everything that is counted, in Prometheus' text format 0.0.4.
//!
//! Written by hand: the format is a dozen lines, and the counters live where they are counted. Names end in their unit,
//! counters in `_total`; `config/alerts.yml` and `config/grafana-dashboard.json` rely on them.

use std::fmt::{Display, Write as _};

use jiff::Timestamp;

use super::View;
use super::ready;
use crate::detector;
use crate::health::{CameraStatus, LineHealth, Snapshot};
use crate::publish::Link;
use crate::telemetry::{BOUNDS_MS, Histogram};

pub(super) fn text(view: &View) -> String {
    let mut page = Page::default();
    program(&mut page, view);
    lines(&mut page, &view.watched.lines);
    latencies(&mut page, &view.watched.lines);
    store(&mut page, view);
    broker(&mut page, view);
    page.text
}

#[derive(Clone, Copy)]
enum Type {
    Counter,
    Gauge,
    Histogram,
}

type Label<'a> = (&'a str, &'a str);

/// The text so far.
#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    /// A metric, of which any number of samples follow.
    fn metric(&mut self, name: &str, kind: Type, help: &str) -> Metric<'_> {
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        let name = format!("inspectord_{name}");
        let _infallible = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Metric { text: &mut self.text, name }
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric(name, Type::Counter, help).sample(&[], value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.metric(name, Type::Gauge, help).sample(&[], value);
    }
}

struct Metric<'a> {
    text: &'a mut String,
    name: String,
}

impl Metric<'_> {
    fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.suffixed("", labels, value);
    }

    fn suffixed(&mut self, suffix: &str, labels: &[Label<'_>], value: impl Display) {
        let labels: Vec<_> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        let _infallible = writeln!(self.text, "{}{suffix}{labels} {value}", self.name);
    }

    fn histogram(&mut self, labels: &[Label<'_>], histogram: &Histogram) {
        let (upto, count) = histogram.cumulative();
        for (bound, upto) in BOUNDS_MS.iter().zip(upto) {
            let bound = (*bound as f64 / 1e3).to_string();
            self.suffixed("_bucket", &[labels, &[("le", &bound)]].concat(), upto);
        }
        self.suffixed("_bucket", &[labels, &[("le", "+Inf")]].concat(), count);
        self.suffixed("_sum", labels, histogram.sum().as_secs_f64());
        self.suffixed("_count", labels, count);
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn program(page: &mut Page, view: &View) {
    let watched = &view.watched;
    let labels = [("version", env!("CARGO_PKG_VERSION")), ("box", watched.box_name.as_str())];
    page.metric("build_info", Type::Gauge, "Always 1; the program's version and the box's name.")
        .sample(&labels, 1);
    page.gauge("uptime_seconds", "Seconds since the start.", watched.progress.uptime().as_secs());
    let age = watched.progress.age().as_secs_f64();
    page.gauge("progress_age_seconds", "Seconds since every stage was last seen to make progress.", age);
    let ready = u8::from(ready::readiness(view).0.is_empty());
    page.gauge("ready", "1 while store, models, broker and cameras are all there, as /readyz says.", ready);
    let help = "Times an NVIDIA card was there and models ran on the processor all the same.";
    page.counter("engine_fallbacks_total", help, detector::engine_fallbacks());
    if let Some(bytes) = resident_bytes() {
        page.gauge("resident_memory_bytes", "Memory that the program occupies.", bytes);
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

fn lines(page: &mut Page, lines: &[LineHealth]) {
    use Type::{Counter, Gauge};
    let snapshots: Vec<(&str, Snapshot)> =
        lines.iter().map(|line| (line.camera().as_str(), line.snapshot())).collect();
    let mut each = |name: &str, kind, help: &str, value: &dyn Fn(&Snapshot) -> Option<f64>| {
        let mut metric = page.metric(name, kind, help);
        for (camera, snapshot) in &snapshots {
            if let Some(value) = value(snapshot) {
                metric.sample(&[("camera", camera)], value);
            }
        }
    };
    let one_if = |is: bool| Some(f64::from(u8::from(is)));
    each("camera_up", Gauge, "1 while the camera delivers.", &|s| {
        one_if(matches!(s.camera, CameraStatus::Up { .. }))
    });
    each("camera_ended", Gauge, "1 when the camera's replay is over.", &|s| {
        one_if(s.camera == CameraStatus::Ended)
    });
    each("model_up", Gauge, "1 while the camera's model can be run.", &|s| {
        one_if(s.detector_fault.is_none())
    });
    each("threshold", Gauge, "What scores are held against.", &|s| Some(s.threshold.0.into()));
    each("last_frame_timestamp_seconds", Gauge, "When the last frame was exposed.", &|s| {
        s.last_frame_at.map(|at| at.as_millisecond() as f64 / 1e3)
    });
    each("frames_total", Counter, "Frames that became parts.", &|s| Some(s.counters.accepted as f64));
    each("frames_skipped_total", Counter, "Frames let go because the line was busy.", &|s| {
        Some(s.counters.skipped as f64)
    });
    each("triggers_total", Counter, "Triggers that became parts.", &|s| Some(s.counters.triggers as f64));
    each("camera_failures_total", Counter, "Times the camera was lost or not to be opened.", &|s| {
        Some(s.counters.camera_failures as f64)
    });
    each("frames_missed_total", Counter, "Frames that the camera counted and that never arrived.", &|s| {
        Some(s.counters.missed_frames as f64)
    });
    each("frames_incomplete_total", Counter, "Frames of the camera that arrived in part.", &|s| {
        Some(s.counters.incomplete_frames as f64)
    });
    each("packets_missing_total", Counter, "Network packets of the camera that never arrived.", &|s| {
        Some(s.counters.missing_packets as f64)
    });
    each("inference_restarts_total", Counter, "Times the detector was opened afresh after a panic.", &|s| {
        Some(s.counters.inference_restarts as f64)
    });
    each("unrecorded_total", Counter, "Verdicts that could not be recorded before the end.", &|s| {
        Some(s.counters.unrecorded as f64)
    });
    let mut models =
        page.metric("model_info", Gauge, "Always 1; the model that judges the camera's pictures.");
    for (camera, Snapshot { model, .. }) in &snapshots {
        models.sample(&[("camera", camera), ("name", &model.name), ("version", &model.version)], 1);
    }
    let help = "How far pictures and scores are from what the model learnt, over the last 60; above 1 the state warns.";
    let mut drift = page.metric("drift_ratio", Gauge, help);
    for (camera, Snapshot { news, .. }) in &snapshots {
        for (of, off) in &news.drift {
            drift.sample(&[("camera", camera), ("of", of)], off);
        }
    }
    let mut verdicts = page.metric("verdicts_total", Counter, "Verdicts, by decision and reason.");
    for (camera, Snapshot { counters: c, .. }) in &snapshots {
        for (decision, reason, count) in [
            ("ok", "", c.ok),
            ("anomalous", "", c.anomalous),
            ("uninspected", "camera", c.uninspected_camera),
            ("uninspected", "overload", c.uninspected_overload),
            ("uninspected", "deadline", c.uninspected_deadline),
            ("uninspected", "model", c.uninspected_model),
            ("uninspected", "internal", c.uninspected_internal),
        ] {
            verdicts.sample(&[("camera", camera), ("decision", decision), ("reason", reason)], count);
        }
    }
}

fn latencies(page: &mut Page, lines: &[LineHealth]) {
    let help = "Where a part's time goes, by stage; total is from exposure to judgement.";
    let mut metric = page.metric("stage_seconds", Type::Histogram, help);
    for line in lines {
        for (stage, histogram) in line.latencies().stages() {
            metric.histogram(&[("camera", line.camera().as_str()), ("stage", stage)], histogram);
        }
    }
    let mut metric = page.metric("queue_length", Type::Gauge, "What waits in front of a stage.");
    for line in lines {
        for queue in line.queues() {
            metric.sample(&[("camera", line.camera().as_str()), ("stage", queue.stage)], queue.length);
        }
    }
    let mut metric = page.metric("queue_capacity", Type::Gauge, "What fits in front of a stage.");
    for line in lines {
        for queue in line.queues().iter().filter(|queue| queue.capacity > 0) {
            metric.sample(&[("camera", line.camera().as_str()), ("stage", queue.stage)], queue.capacity);
        }
    }
}

fn store(page: &mut Page, view: &View) {
    let health = view.watched.store.health();
    let up = u8::from(health.failing.is_none());
    page.gauge("store_up", "1 while verdicts can be written; otherwise they wait.", up);
    page.gauge("store_waiting", "Judgements that are not durable yet.", health.waiting);
    page.counter("store_verdicts_total", "Verdicts ever recorded in this store.", health.newest.0);
    page.gauge("store_open_triggers", "Accepted triggers without a verdict.", health.open_triggers);
    page.counter("store_write_failures_total", "Failed attempts to write verdicts.", health.write_failures);
    page.counter(
        "store_unsent_total",
        "Recorded verdicts, at most, that could not be read, and so were not published.",
        health.unsent,
    );
    page.gauge("store_damaged", "Damaged places found in the journal at the start.", health.damaged);
    page.gauge(
        "outbox_verdicts",
        "Recorded verdicts that the broker has not acknowledged.",
        health.unpublished,
    );
    let age = view
        .oldest_unpublished()
        .map_or(0.0, |oldest| Timestamp::now().duration_since(oldest).as_secs_f64().max(0.0));
    page.gauge("outbox_oldest_age_seconds", "Age of the oldest of them; 0 if there is none.", age);
    page.counter("evidence_lost_total", "Verdicts whose evidence was not kept.", health.evidence_lost);
    page.gauge("evidence_waiting_bytes", "Evidence that waits to be written.", health.evidence_waiting);
    page.gauge("evidence_bytes", "Evidence on disk, about.", health.evidence_bytes);
    page.counter("evidence_deleted_total", "Evidence folders deleted to make room.", health.evidence_deleted);
    page.counter("segments_deleted_total", "Journal segments deleted to make room.", health.segments_deleted);
    page.gauge("index_ready", "1 while the history has its index.", u8::from(health.index.ready));
    page.counter("index_damaged_total", "Times the index was damaged and rebuilt.", health.index.damaged);
    if let (Some(free), Some(all)) = (health.free_bytes, health.disk_bytes) {
        page.gauge("disk_free_bytes", "Free on the store's disk.", free);
        page.gauge("disk_size_bytes", "Size of the store's disk.", all);
    }
}

fn broker(page: &mut Page, view: &View) {
    let Some(monitor) = &view.watched.broker else { return };
    let up = u8::from(monitor.health.borrow().link == Link::Up);
    page.gauge("broker_up", "1 while there is a connection to the broker.", up);
    let c = &monitor.counters;
    for (name, help, counter) in [
        ("broker_connections_total", "Connections that were made.", &c.connections),
        ("broker_failures_total", "Attempts that failed and connections that were lost.", &c.failures),
        ("broker_sent_total", "Packets that went out, repeats included.", &c.sent),
        ("broker_sent_again_total", "Packets that went out again after a reconnect.", &c.sent_again),
        ("broker_acknowledged_total", "Packets that the broker acknowledged.", &c.acknowledged),
        ("broker_trimmed_total", "Verdicts and replies that were cut to the packet size.", &c.trimmed),
        (
            "broker_alarms_in_turn_total",
            "Alarms for which there was no room ahead of their turn.",
            &c.alarms_in_turn,
        ),
        ("broker_triggers_total", "Triggers that came.", &c.triggers),
        ("broker_late_triggers_total", "Triggers that had waited at the broker.", &c.late_triggers),
        ("broker_commands_total", "Commands that came.", &c.commands),
        ("broker_refused_total", "Triggers and commands that were refused.", &c.refused),
        ("broker_overloaded_total", "Triggers and commands refused because more came.", &c.overloaded),
        ("broker_repeated_total", "Triggers and commands that came again.", &c.repeated),
        ("broker_unanswered_total", "Refusals that got no answer.", &c.unanswered),
    ] {
        page.counter(name, help, counter.get());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut page = Page::default();
        page.metric("x", Type::Gauge, "h").sample(&[("a", "q\"b\\s\nn")], 1);
        assert!(page.text.ends_with("inspectord_x{a=\"q\\\"b\\\\s\\nn\"} 1\n"), "{}", page.text);
    }
}

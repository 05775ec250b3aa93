//! What the pages say of a small box: with nothing wrong, and with everything.

use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::health::Stage;
use crate::store::{self, Evidence, RecordRequest, Store, StoreThread};
use crate::verdict::tests::judgement;
use crate::verdict::{Decision, ModelRef, Threshold};

struct Box {
    view: View,
    line: LineHealth,
    _thread: StoreThread,
    folder: tempfile::TempDir,
}

impl Box {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = store::Options {
            path: folder.path().join("store"),
            min_free_megabytes: 0,
            ..store::Options::default()
        };
        let (store, thread) = Store::open(&options, "box").unwrap();
        let model = ModelRef { name: "bottle".into(), version: "0123".into() };
        let line = LineHealth::new("top".parse().unwrap(), model, Threshold(0.5));
        let watched = Watched {
            box_name: "line \"3\"".into(),
            lines: vec![line.clone()],
            store,
            broker: None,
            progress: Progress::new(),
        };
        let view = View { watched, recent: Recent::default(), oldest_unpublished: Mutex::default() };
        Self { view, line, _thread: thread, folder }
    }
}

#[test]
fn a_camera_that_is_down_makes_the_box_unready_and_not_dead() {
    let b = Box::new();
    assert_eq!(ready::readiness(&b.view).0, ["camera top: it is being opened"]);
    b.line.camera_is_up("a camera".into());
    assert!(ready::readiness(&b.view).0.is_empty());
    b.line.camera_failed(&std::io::Error::other("no cable"), Duration::from_secs(1));
    b.line.detector_is(Some("no memory".into()));
    let faults = ready::readiness(&b.view).0;
    assert_eq!(faults, ["camera top: no cable", "camera top: the model cannot be run: no memory"]);
    assert!(ready::health(&b.view).0.is_empty());
}

#[test]
fn metrics_tell_what_was_counted() {
    let b = Box::new();
    b.line.counters().count(Decision::Ok, None);
    b.line.counters().count(Decision::Uninspected, Some(crate::verdict::Reason::Deadline));
    b.line.latencies().infer.observe(Duration::from_millis(30));
    b.line.queue_holds(Stage::Infer, 1, Some(1));
    b.line.tell(|news| news.drift = [("brightness", 0.5)].into());
    b.view
        .watched
        .store
        .record(RecordRequest { judgement: judgement("top", 0.1), evidence: None, ticket: None })
        .wait()
        .unwrap();
    let text = metrics::text(&b.view);
    for line in [
        "inspectord_build_info{version=\"0.1.0\",box=\"line \\\"3\\\"\"} 1",
        "inspectord_verdicts_total{camera=\"top\",decision=\"ok\",reason=\"\"} 1",
        "inspectord_verdicts_total{camera=\"top\",decision=\"uninspected\",reason=\"deadline\"} 1",
        "inspectord_stage_seconds_bucket{camera=\"top\",stage=\"infer\",le=\"0.02\"} 0",
        "inspectord_stage_seconds_bucket{camera=\"top\",stage=\"infer\",le=\"0.05\"} 1",
        "inspectord_stage_seconds_sum{camera=\"top\",stage=\"infer\"} 0.03",
        "inspectord_queue_length{camera=\"top\",stage=\"infer\"} 1",
        "inspectord_drift_ratio{camera=\"top\",of=\"brightness\"} 0.5",
        "inspectord_outbox_verdicts 1",
        "inspectord_store_up 1",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert!(!text.contains("inspectord_broker_up"), "there is no broker");
    let names: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let once: std::collections::BTreeSet<_> = names.iter().collect();
    assert_eq!(once.len(), names.len(), "a metric is told twice");
}

#[test]
fn the_age_of_the_outbox_is_known() {
    let b = Box::new();
    assert_eq!(b.view.oldest_unpublished(), None);
    let before = Timestamp::now();
    let request = RecordRequest { judgement: judgement("top", 0.1), evidence: None, ticket: None };
    b.view.watched.store.record(request).wait().unwrap();
    let oldest = b.view.oldest_unpublished().unwrap();
    assert!(oldest.duration_since(before).as_secs().abs() < 60, "{oldest}");
}

#[test]
fn evidence_is_found_by_camera_and_sequence_and_never_by_path() {
    let b = Box::new();
    let picture =
        crate::imaging::png(&crate::detector::untrained::picture(crate::frame::Size::new(900, 30), 1));
    let evidence = Evidence { picture, extension: "png", heatmap_png: None };
    let request = RecordRequest { judgement: judgement("top", 0.9), evidence: Some(evidence), ticket: None };
    b.view.watched.store.record(request).wait().unwrap();
    std::fs::write(b.folder.path().join("secret"), "x").unwrap();
    let ask = |path: &str| match route::Route::of(path, None) {
        Ok(route) => route.answer(&b.view).status_and_length(),
        Err(refusal) => refusal.status_and_length(),
    };
    let (status, length) = ask("/evidence/top/1/picture/small");
    assert_eq!(status, 200);
    assert!(length > 100, "{length}");
    assert_eq!(ask("/evidence/top/1/picture").0, 200);
    assert_eq!(ask("/evidence/top/1/heatmap").0, 404);
    assert_eq!(ask("/evidence/top/2/picture").0, 404);
    assert_eq!(ask("/evidence/side/1/picture").0, 404);
    assert_eq!(ask("/evidence/../secret").0, 404);
}

#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    let source = include_str!("metrics.rs");
    for text in [include_str!("../../config/alerts.yml"), include_str!("../../config/grafana-dashboard.json")]
    {
        let named = text.split("inspectord_").skip(1);
        let names =
            named.map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap());
        for name in names {
            let name = name.strip_suffix("_bucket").unwrap_or(name);
            assert!(source.contains(&format!("\"{name}\"")), "there is no metric inspectord_{name}");
        }
    }
}

#[test]
fn the_alert_for_a_line_that_hangs_fires_before_the_watchdog_restarts_the_program() {
    let number = |text: &str, before: &str| -> f64 {
        let rest = text.split(before).nth(1).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let alert = number(include_str!("../../config/alerts.yml"), "expr: inspectord_progress_age_seconds > ");
    let watchdog = number(include_str!("../../systemd/inspectord.service"), "WatchdogSec=");
    // The last sign of life may be half of it old, and Prometheus looks every 15 s unless told otherwise.
    assert!(alert < watchdog / 2.0, "{alert} of {watchdog}");
}

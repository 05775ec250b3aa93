//! What the pages say of a small box: with nothing wrong, and with everything.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::health::Stage;
use crate::publish::{Health, Link, Monitor};
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
        Self { view: View::new(watched), line, _thread: thread, folder }
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
fn a_box_that_hears_no_triggers_is_not_ready() {
    let mut b = Box::new();
    b.line.camera_is_up("a camera".into());
    let (tell, health) = tokio::sync::watch::channel(Health {
        link: Link::Up,
        since: Timestamp::now(),
        last_error: None,
        warning: Some("its status does not come back".into()),
        deaf: false,
    });
    b.view.watched.broker = Some(Monitor { health, counters: Default::default() });
    assert!(ready::readiness(&b.view).0.is_empty());
    tell.send_modify(|health| (health.warning, health.deaf) = (Some("no triggers come".into()), true));
    assert_eq!(ready::readiness(&b.view).0, ["broker: no triggers come"]);
    assert!(ready::health(&b.view).0.is_empty(), "a restart changes nothing");
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
fn a_picture_that_is_named_by_its_id_is_never_another_parts() {
    let b = Box::new();
    let evidence = Evidence { picture: vec![1; 100], extension: "png", heatmap_png: None };
    let request = RecordRequest { judgement: judgement("top", 0.9), evidence: Some(evidence), ticket: None };
    let verdict = b.view.watched.store.record(request).wait().unwrap();
    let ask = |query: &str| {
        let answer = route::Route::of("/evidence/top/1/picture", Some(query)).ok().unwrap().answer(&b.view);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _inside = runtime.enter();
        let response = answer.into_response();
        let lasts = response.headers()[hyper::header::CACHE_CONTROL].to_str().unwrap().contains("immutable");
        (response.status().as_u16(), lasts)
    };
    assert_eq!(ask(&format!("id={}", verdict.id)), (200, true));
    assert_eq!(ask(""), (200, false));
    assert_eq!(ask(&format!("id={}", uuid::Uuid::nil())), (404, false), "of another store");
}

#[test]
fn what_has_ended_by_a_fault_makes_the_program_unhealthy() {
    let b = Box::new();
    b.line.camera_is_up("a camera".into());
    assert!(b.view.watched.progress.breaks("reading the outbox"));
    assert!(!b.view.watched.progress.breaks("answering requests"), "it is told once");
    let told = ["reading the outbox has ended by a fault: restart the program"];
    assert_eq!(ready::health(&b.view).0, told);
    assert_eq!(ready::readiness(&b.view).0, told);
}

#[test]
fn a_line_that_hangs_and_what_is_odd_about_it_show_in_the_state() {
    let b = Box::new();
    b.line.camera_is_up("a camera".into());
    let shown = &state::state(&b.view)["cameras"][0];
    assert_eq!((&shown["stalled"], &shown["warnings"]), (&json!(null), &json!([])));
    b.line.tell(|news| drop(news.warnings.insert("drift", "it looks darker".into())));
    b.line.retire(Stage::Capture);
    let shown = state::camera(&b.view, &b.line, Duration::ZERO);
    assert_eq!((&shown["stalled"], &shown["warnings"]), (&json!("prepare"), &json!(["it looks darker"])));
    let page = include_str!("page/page.js");
    for field in ["camera.stalled", "camera.warnings", "broker.warning"] {
        assert!(page.contains(field), "the page does not show {field}");
    }
}

#[test]
fn clients_that_do_not_read_their_pictures_keep_nobody_from_metrics_and_page() {
    let b = Box::new();
    // More than the kernel takes for a client that does not read.
    let evidence = Evidence { picture: vec![1; 48 << 20], extension: "png", heatmap_png: None };
    let request = RecordRequest { judgement: judgement("top", 0.9), evidence: Some(evidence), ticket: None };
    b.view.watched.store.record(request).wait().unwrap();
    let Box { view, _thread, folder: _folder, .. } = b;
    let options = Options { address: "127.0.0.1:0".parse().unwrap(), ..Options::default() };
    let web = Web::start(&options, view.watched).unwrap();
    let address = loop {
        match web.address() {
            Some(address) => break address,
            None => std::thread::yield_now(),
        }
    };
    let ask = |path: &str| {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(client, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        client
    };
    let held: Vec<TcpStream> = (0..2 * serve::WORKERS).map(|_| ask("/evidence/top/1/picture")).collect();
    let answered = |client: &TcpStream| client.peek(&mut [0]).is_ok_and(|count| count == 1);
    held.iter().for_each(|client| client.set_nonblocking(true).unwrap());
    while held.iter().filter(|client| answered(client)).count() < serve::TURNS {
        std::thread::yield_now();
    }
    for _ in 0..20 {
        for path in ["/metrics", "/api/state"] {
            let mut head = [0; 12];
            ask(path).read_exact(&mut head).unwrap();
            assert_eq!(&head, b"HTTP/1.1 200", "{path}");
        }
    }
    assert_eq!(held.iter().filter(|client| answered(client)).count(), serve::TURNS);
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
    let alerts = include_str!("../../config/alerts.yml");
    let alert = number(alerts, "expr: inspectord_progress_age_seconds > ");
    let watchdog = number(include_str!("../../systemd/inspectord.service"), "WatchdogSec=");
    let seconds = |key: &str| -> f64 {
        alerts.split(key).nth(1).and_then(|rest| rest.split('s').next()).unwrap().trim().parse().unwrap()
    };
    let (scrape, evaluation) = (seconds("scrape_interval:"), seconds("evaluation_interval:"));
    // The last sign of life may be half of the watchdog's time old. Prometheus asks at least once in the rest, and rules are
    // looked at before it asks again.
    assert!(alert + scrape <= watchdog / 2.0, "{alert} and {scrape} of {watchdog}");
    assert!(evaluation <= scrape, "{evaluation} of {scrape}");
}

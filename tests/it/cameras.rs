//! Cameras, triggers and pictures from end to end: a camera that is really there, the built program, a real broker.

use std::fs;

use inspectord::camera::normal_part;
use inspectord::frame::{Picture, Size};
use inspectord::imaging;
use jiff::Timestamp;
use serde_json::Value;

use crate::daemon::{Floor, complete};
use crate::gige::{Gige, Order, Scene};
use crate::http::Page;
use crate::inspectord::arg;
use crate::subscriber::eventually;
use crate::tampering::Tampering;

/// What the verdict on a part says.
fn said(verdict: &Value) -> (&str, &str, &str) {
    let text = |key: &str| verdict[key].as_str().unwrap_or_default();
    (text("decision"), text("reason"), text("detail"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gige_camera_that_dies_gets_its_line_back_by_itself() {
    let Some(mut gige) = Gige::start(Order::default()) else { return };
    let floor = Floor::new().await;
    floor.configure(
        // Powered on again, it serves the same parts from the first one on, without a sensor's noise.
        "trigger = \"software\"\nregion = { x = 0, y = 0, width = 200, height = 100 }\npicture = { frozen = false }",
        "kind = \"genicam\"\ncamera = \"127.0.0.1\"\nexpose = \"software\"\nexposure_us = 8000",
    );
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    subscriber.wait_until("/state", |state| state["state"] == "up").await;
    subscriber.publish("inspectord/floor/top/trigger", r#"{"part_id":"before"}"#).await;
    let verdict = subscriber.wait_for("/verdict", 1).await.remove(0);
    assert_ne!(verdict["decision"], "uninspected", "{verdict}");
    gige.kill();
    subscriber.wait_until("/state", |state| state["state"] == "down").await;
    subscriber.publish("inspectord/floor/top/trigger", r#"{"part_id":"meanwhile"}"#).await;
    let verdict = subscriber.wait_for("/verdict", 2).await.remove(1);
    assert_eq!((&verdict["decision"], &verdict["reason"]), (&"uninspected".into(), &"camera".into()));
    let told = subscriber.on("/state").len();
    gige.run();
    eventually("the camera is back", || {
        subscriber.on("/state")[told..].iter().any(|state| state["state"] == "up")
    })
    .await;
    subscriber.publish("inspectord/floor/top/trigger", r#"{"part_id":"after"}"#).await;
    let verdict = subscriber.wait_for("/verdict", 3).await.remove(2);
    assert_ne!(verdict["decision"], "uninspected", "{verdict}");
    daemon.stops();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_no_thread_can_be_started_for_is_opened_once_one_can() {
    let floor = Floor::new().await;
    let folder = floor.path("moved away");
    floor.configure("trigger = \"software\"", &format!("kind = \"folder\"\npath = \"{}\"", arg(&folder)));
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    let down = async |why: &str| {
        subscriber
            .wait_until("/state", |s| s["state"] == "down" && s["reason"].to_string().contains(why))
            .await
    };
    down("moved away").await;
    let no_threads = match Tampering::with(&daemon, "clone,clone3", "error=EAGAIN") {
        Ok(no_threads) => no_threads,
        Err(why) => return println!("left out: {why}"),
    };
    fs::create_dir(&folder).unwrap();
    down("no thread can be started").await;
    subscriber.publish("inspectord/floor/top/trigger", r#"{"part_id":"lonely"}"#).await;
    let verdict = subscriber.wait_for("/verdict", 1).await.remove(0);
    assert_eq!((said(&verdict).0, said(&verdict).1), ("uninspected", "camera"), "{verdict}");
    drop(no_threads);
    subscriber.wait_until("/state", |state| state["state"] == "up").await;
    daemon.stops();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_is_answered_at_its_deadline_though_the_cameras_firmware_hangs() {
    let Some(gige) = Gige::start(Order::default()) else { return };
    let floor = Floor::new().await;
    let source = "kind = \"genicam\"\ncamera = \"127.0.0.1\"\nexpose = \"software\"";
    floor.configure("trigger = \"software\"", source);
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    subscriber.wait_until("/state", |state| state["state"] == "up").await;
    let became = |state: &str, after: usize| {
        subscriber.on("/state")[after..].iter().any(|told| told["state"] == state)
    };
    let told = subscriber.on("/state").len();
    gige.signal("STOP");
    subscriber.publish("inspectord/floor/top/trigger", r#"{"part_id":"A","deadline_ms":150}"#).await;
    let verdict = subscriber.wait_for("/verdict", 1).await.remove(0);
    assert_eq!((said(&verdict).0, said(&verdict).1), ("uninspected", "deadline"), "{verdict}");
    eventually("the camera is given up", || became("down", told)).await;
    let told = subscriber.on("/state").len();
    gige.signal("CONT");
    eventually("the camera is back", || became("up", told)).await;
    subscriber.publish("inspectord/floor/top/trigger", r#"{"part_id":"B"}"#).await;
    let verdict = subscriber.wait_for("/verdict", 2).await.remove(1);
    assert_ne!(verdict["decision"], "uninspected", "{verdict}");
    daemon.stops();
    complete(&subscriber.on("/verdict"));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_signal_on_the_cameras_line_gets_its_verdict_also_where_the_frame_never_arrives() {
    let Some(mut gige) = Gige::start(Order::default()) else { return };
    let floor = Floor::new().await;
    floor.configure("", "kind = \"genicam\"\ncamera = \"127.0.0.1\"\nexpose = \"Line1\"");
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    subscriber.wait_until("/state", |state| state["state"] == "up").await;
    for parts in 1..=3 {
        gige.pulse();
        subscriber.wait_for("/verdict", parts).await;
    }
    gige.skip(2);
    gige.pulse();
    let verdicts = subscriber.wait_for("/verdict", 6).await;
    // Whoever counts parts must not give one its neighbour's verdict.
    let inspected: Vec<bool> = verdicts.iter().map(|v| v["decision"] != "uninspected").collect();
    assert_eq!(inspected, [true, true, true, false, false, true], "{verdicts:?}");
    for (_, reason, detail) in verdicts[3..5].iter().map(said) {
        assert!(reason == "camera" && detail.contains("never arrived"), "{verdicts:?}");
    }
    let exposed: Vec<Timestamp> =
        verdicts.iter().map(|v| v["captured_at"].as_str().unwrap().parse().unwrap()).collect();
    assert!(exposed.is_sorted_by(|a, b| a < b), "{exposed:?}");
    let state = subscriber.wait_until("/state", |s| s["counters"]["missed_frames"] == 2).await;
    assert_eq!(state["counters"]["uninspected"], 2, "{state}");
    daemon.stops();
    complete(&subscriber.on("/verdict"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_on_the_way_stands_in_the_state_and_in_the_metrics() {
    let Some(_gige) = Gige::start(Order { lost: 30, ..Order::default() }) else { return };
    let floor = Floor::new().await;
    floor.configure("", "kind = \"genicam\"\ncamera = \"127.0.0.1\"\nrate = 20");
    let subscriber = floor.subscribe().await;
    let web = ["--set", "web.enabled=true", "--set", "web.address=127.0.0.1:0"];
    let daemon = floor.start(&[&web[..], &["--set", "mqtt.state_seconds=1"]].concat());
    let page = Page::of(&daemon);
    let counted = |state: &Value, key: &str| state["counters"][key].as_u64().unwrap_or(0);
    let state = subscriber
        .wait_until("/state", |s| counted(s, "incomplete_frames") > 2 && counted(s, "missing_packets") > 2)
        .await;
    for (key, metric) in
        [("incomplete_frames", "frames_incomplete_total"), ("missing_packets", "packets_missing_total")]
    {
        let value = page.metric(&format!("inspectord_{metric}{{camera=\"top\"}}")).unwrap();
        assert!(value >= counted(&state, key) as f64, "{metric}: {value}, {state}");
    }
    let bad = subscriber.wait_until("/verdict", |v| v["decision"] == "uninspected").await;
    assert!(said(&bad).2.contains("lost on the way"), "{bad}");
    daemon.stops();
    complete(&subscriber.on("/verdict"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_camera_that_shows_the_very_same_picture_again_is_frozen() {
    let Some(mut gige) = Gige::start(Order::default()) else { return };
    let floor = Floor::new().await;
    floor.configure("", "kind = \"genicam\"\ncamera = \"127.0.0.1\"\nrate = 20");
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    subscriber.wait_until("/verdict", |v| v["decision"] != "uninspected").await;
    gige.show(Scene::Frozen);
    let frozen = subscriber.wait_until("/verdict", |v| said(v).2.contains("frozen")).await;
    assert_eq!((said(&frozen).0, said(&frozen).1), ("uninspected", "camera"));
    let told = subscriber.count("/verdict");
    gige.show(Scene::Line);
    eventually("parts are inspected again", || {
        subscriber.on("/verdict")[told..].iter().any(|v| v["decision"] != "uninspected")
    })
    .await;
    daemon.stops();
    complete(&subscriber.on("/verdict"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_is_dark_bright_blurred_or_the_one_before_is_not_judged() {
    let floor = Floor::new().await;
    let part = normal_part(3, 1, Size::new(256, 256));
    let shaded = |light: f32, lift: f32| {
        let rgb = part.rgb().iter().map(|v| (f32::from(*v) * light + lift).min(255.0) as u8).collect();
        Picture::new(part.size(), rgb).unwrap()
    };
    let grey = Picture::new(part.size(), vec![128; 256 * 256 * 3]).unwrap();
    let pictures = [
        ("0-good", part.clone()),
        ("1-dark", shaded(0.05, 0.0)),
        ("2-bright", shaded(0.1, 229.0)),
        ("3-blurred", grey),
        ("4-good", part.clone()),
        ("5-frozen", part.clone()),
    ];
    for (name, picture) in &pictures {
        fs::write(floor.path("in").join(format!("{name}.png")), imaging::png(picture)).unwrap();
    }
    floor.replay(
        "picture = { min_brightness = 40, max_brightness = 215, min_sharpness = 1.0, frozen = true }",
    );
    let subscriber = floor.subscribe().await;
    let ended = floor.start(&["--until-end"]).ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let verdicts = complete(&subscriber.wait_for("/verdict", pictures.len()).await);
    for verdict in verdicts.values() {
        let name = verdict["source"]["name"].as_str().unwrap();
        let (decision, reason, detail) = said(verdict);
        let wrong = match name {
            "1-dark.png" => "too dark",
            "2-bright.png" => "too bright",
            "3-blurred.png" => "blurred",
            "5-frozen.png" => "frozen",
            _ => {
                assert_ne!(decision, "uninspected", "{verdict}");
                continue;
            }
        };
        assert_eq!((decision, reason), ("uninspected", "camera"), "{verdict}");
        assert!(detail.contains(wrong), "{verdict}");
        // Whoever looks into it sees what the camera saw.
        let evidence = floor.path("store").join(verdict["evidence"].as_str().unwrap());
        assert!(fs::read_dir(evidence).unwrap().count() > 0, "{verdict}");
    }
}

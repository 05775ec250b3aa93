//! The daemon from end to end: real files, a real broker, a real process that is really killed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use inspectord::detector::untrained;
use inspectord::efficientad::{Architecture, PdnSize};
use inspectord::frame::Size;
use inspectord::imaging;
use serde_json::Value;
use tempfile::TempDir;

use crate::inspectord::{PATIENCE, Running, arg, command, run};
use crate::mosquitto::{Access, Mosquitto};
use crate::proxy::{Mode, Proxy};
use crate::subscriber::{Subscriber, eventually};

/// A box with one camera, its model, its store and its broker.
pub(crate) struct Floor {
    folder: TempDir,
    pub(crate) broker: Mosquitto,
}

impl Floor {
    pub(crate) async fn new() -> Self {
        Self::with(Access::Open).await
    }

    pub(crate) async fn with(access: Access) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let architecture = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
        untrained::model(&architecture, 1).save(&folder.path().join("model")).unwrap();
        fs::create_dir(folder.path().join("in")).unwrap();
        Self { folder, broker: Mosquitto::start(access).await }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Drops `count` different pictures into the camera's folder.
    pub(crate) fn drop_pictures(&self, from: usize, count: usize) {
        for i in from..from + count {
            let picture = untrained::picture(Size::new(96, 80), i as u64);
            fs::write(self.path("in").join(format!("{i:04}.png")), imaging::png(&picture)).unwrap();
        }
    }

    /// Settings with this `[[camera]]` section's further lines and this source.
    pub(crate) fn configure(&self, camera: &str, source: &str) {
        let settings = format!(
            "[box]\nname = \"floor\"\n\
             [mqtt]\nhost = \"127.0.0.1\"\nport = {}\nback_off_min_ms = 20\nback_off_max_ms = 200\n\
             [web]\nenabled = false\n[store]\npath = \"{}\"\n\
             [[camera]]\nname = \"top\"\nmodel = \"{}\"\n{camera}\n[camera.source]\n{source}\n",
            self.broker.port(),
            arg(&self.path("store")),
            arg(&self.path("model")),
        );
        fs::write(self.path("inspectord.toml"), settings).unwrap();
    }

    pub(crate) fn replay(&self, camera: &str) {
        self.configure(
            camera,
            &format!("kind = \"folder\"\nmode = \"replay\"\npath = \"{}\"", arg(&self.path("in"))),
        );
    }

    /// A camera that takes files as they are dropped.
    pub(crate) fn watch(&self, camera: &str) {
        let folder = self.path("in");
        self.configure(
            camera,
            &format!("kind = \"folder\"\npath = \"{}\"\nlook_every_ms = 20", arg(&folder)),
        );
    }

    pub(crate) fn simulated(&self, camera: &str) {
        self.configure(camera, "kind = \"simulated\"\nrate = 0");
    }

    pub(crate) fn start(&self, more: &[&str]) -> Running {
        Running::start(self.command(more))
    }

    /// The daemon, not yet started.
    pub(crate) fn command(&self, more: &[&str]) -> Command {
        let settings = self.path("inspectord.toml");
        let mut arguments = vec!["run", "--config", arg(&settings)];
        arguments.extend(more);
        command(&arguments)
    }

    pub(crate) async fn subscribe(&self) -> Subscriber {
        Subscriber::start(self.broker.port(), "inspectord/floor/#").await
    }
}

/// Asserts that sequences run from 1 without a gap and that a repeat is the very same verdict; returns the verdicts by
/// sequence.
#[track_caller]
pub(crate) fn complete(verdicts: &[Value]) -> BTreeMap<u64, Value> {
    let mut by_sequence: BTreeMap<u64, Value> = BTreeMap::new();
    for verdict in verdicts {
        let sequence = verdict["sequence"].as_u64().unwrap();
        if let Some(earlier) = by_sequence.insert(sequence, verdict.clone()) {
            assert_eq!(earlier, *verdict, "a repeat differs");
        }
    }
    let expected: Vec<u64> = (1..=by_sequence.len() as u64).collect();
    assert_eq!(by_sequence.keys().copied().collect::<Vec<_>>(), expected, "there is a gap");
    let ids: BTreeSet<String> = by_sequence.values().map(|v| v["id"].to_string()).collect();
    assert_eq!(ids.len(), by_sequence.len(), "an id came twice");
    by_sequence
}

/// Asserts that each of `count` files has exactly one verdict.
#[track_caller]
fn one_verdict_per_file(verdicts: &BTreeMap<u64, Value>, count: usize) {
    let names: BTreeSet<&str> = verdicts.values().map(|v| v["source"]["name"].as_str().unwrap()).collect();
    assert_eq!((verdicts.len(), names.len()), (count, count));
}

fn decisions<'a>(verdicts: impl IntoIterator<Item = &'a Value>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for verdict in verdicts {
        *counts.entry(verdict["decision"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_gets_one_verdict_and_every_alarm_its_evidence() {
    let floor = Floor::new().await;
    floor.drop_pictures(0, 12);
    fs::write(floor.path("in").join("0005b.png"), "this is no picture").unwrap();
    floor.replay("threshold = -1000.0");
    let subscriber = floor.subscribe().await;
    let ended = floor.start(&["--until-end"]).ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let verdicts = complete(&subscriber.wait_for("/verdict", 13).await);
    one_verdict_per_file(&verdicts, 13);
    let counted = decisions(verdicts.values());
    assert_eq!((counted["anomalous"], counted["uninspected"]), (12, 1));
    let alarms = subscriber.wait_for("/alarm", 13).await;
    for alarm in &alarms {
        let evidence = floor.path("store").join(alarm["evidence"].as_str().unwrap());
        let original = floor.path("in").join(alarm["source"]["name"].as_str().unwrap());
        let kept = fs::read_dir(&evidence)
            .unwrap()
            .map(|e| e.unwrap().path())
            .find(|p| p.file_stem().unwrap() == "picture");
        assert_eq!(fs::read(kept.unwrap()).unwrap(), fs::read(original).unwrap());
        assert_eq!(evidence.join("heatmap.png").exists(), alarm["decision"] == "anomalous");
    }
    let unreadable = verdicts.values().find(|v| v["decision"] == "uninspected").unwrap();
    assert_eq!(
        (&unreadable["reason"], &unreadable["source"]["name"]),
        (&"camera".into(), &"0005b.png".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_again_and_again_ends_with_every_files_verdict() {
    let floor = Floor::new().await;
    floor.drop_pictures(0, 60);
    floor.replay("");
    let subscriber = floor.subscribe().await;
    for seen in [7, 23, 41] {
        let daemon = floor.start(&[]);
        subscriber.wait_for("/verdict", seen).await;
        daemon.signal("KILL");
        daemon.ended();
    }
    assert_eq!(floor.start(&["--until-end"]).ended().code, Some(0));
    eventually("every file has its verdict", || {
        let names: BTreeSet<String> =
            subscriber.on("/verdict").iter().map(|v| v["source"]["name"].to_string()).collect();
        names.len() == 60
    })
    .await;
    one_verdict_per_file(&complete(&subscriber.on("/verdict")), 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_late_gets_everything_in_order() {
    let floor = Floor::new().await;
    floor.drop_pictures(0, 15);
    floor.replay("");
    // It comes late for the daemon alone: the subscriber is there before.
    let subscriber = floor.subscribe().await;
    let proxy = Proxy::start(floor.broker.port()).await;
    proxy.set(Mode::Cut);
    let daemon = floor.start(&["--until-end", "--set", &format!("mqtt.port={}", proxy.port())]);
    daemon.wait_for_log("the camera's replay has ended");
    assert_eq!(subscriber.count("/verdict"), 0);
    proxy.set(Mode::Pass(Duration::ZERO));
    let ended = daemon.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let verdicts = subscriber.wait_for("/verdict", 15).await;
    let sequences: Vec<_> = verdicts.iter().map(|v| v["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=15).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_filled_on_request() {
    let floor = Floor::new().await;
    floor.drop_pictures(0, 9);
    floor.replay("");
    assert_eq!(floor.start(&["--until-end"]).ended().code, Some(0));
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    subscriber.wait_until("/status", |status| status["state"] == "online").await;
    subscriber
        .publish("inspectord/floor/top/command", r#"{"id":"gap","command":"replay","from":3,"to":6}"#)
        .await;
    let reply = subscriber.wait_for("/reply", 1).await.remove(0);
    assert_eq!(reply["id"], "gap", "{reply}");
    let ends = &reply["result"];
    assert_eq!(
        (&ends["replayed"], &ends["first"], &ends["last"]),
        (&4.into(), &3.into(), &6.into()),
        "{reply}"
    );
    // The answer came behind them.
    let sequences: Vec<u64> =
        subscriber.on("/verdict").iter().map(|v| v["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, [3, 4, 5, 6]);
    daemon.stops();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_gets_one_verdict_that_echoes_its_fields() {
    let floor = Floor::new().await;
    floor.simulated("trigger = \"software\"");
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    subscriber.wait_until("/state", |state| state["state"] == "up").await;
    let trigger = r#"{"part_id":"A-17","deadline_ms":60000,"order":{"line":4,"shift":"night"}}"#;
    subscriber.publish("inspectord/floor/top/trigger", trigger).await;
    let verdict = subscriber.wait_for("/verdict", 1).await.remove(0);
    assert_ne!(verdict["decision"], "uninspected", "{verdict}");
    assert_eq!((&verdict["part_id"], &verdict["sequence"]), (&"A-17".into(), &1.into()));
    assert_eq!(verdict["trigger"]["order"]["shift"], "night");
    subscriber.publish("inspectord/floor/top/trigger", r#"{"part_id":"A-18","deadline_ms":1}"#).await;
    let verdict = subscriber.wait_for("/verdict", 2).await.remove(1);
    assert_eq!((&verdict["part_id"], &verdict["decision"]), (&"A-18".into(), &"uninspected".into()));
    assert_eq!(verdict["reason"], "deadline");
    daemon.stops();
    subscriber.wait_until("/status", |status| status["state"] == "stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_golden_part_with_the_wrong_verdict_stands_in_the_cameras_state_until_it_gets_the_right_one() {
    let floor = Floor::new().await;
    floor.simulated("trigger = \"software\"\nthreshold = -1000.0");
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    subscriber.wait_until("/state", |state| state["state"] == "up").await;
    subscriber.publish("inspectord/floor/top/trigger", r#"{"part_id":"g1","golden":"good"}"#).await;
    let warned = |state: &Value| state["warnings"][0].to_string().contains("golden good part");
    subscriber.wait_until("/state", warned).await;
    let raise = r#"{"id":"1","command":"threshold","value":1000000.0}"#;
    subscriber.publish("inspectord/floor/top/command", raise).await;
    subscriber.wait_for("/reply", 1).await;
    subscriber.publish("inspectord/floor/top/trigger", r#"{"part_id":"g2","golden":"good"}"#).await;
    let verdict = subscriber.wait_for("/verdict", 2).await.remove(1);
    assert_eq!((&verdict["decision"], &verdict["trigger"]["golden"]), (&"ok".into(), &"good".into()));
    let newest = || subscriber.on("/state").pop().unwrap();
    eventually("the warning is taken back", || newest()["warnings"].is_null()).await;
    daemon.stops();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_storm_gets_exactly_one_verdict_each() {
    let floor = Floor::new().await;
    // However slow the machine, those that wait get their frame.
    floor.simulated("trigger = \"software\"\npatience_ms = 600000\nexpose_within_ms = 600000");
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    subscriber.wait_until("/state", |state| state["state"] == "up").await;
    // Ten times and more of what may wait for the camera.
    for part in 0..200 {
        subscriber.publish("inspectord/floor/top/trigger", format!(r#"{{"part_id":"{part}"}}"#)).await;
    }
    // A message that finds the inbox full is answered on `reply` instead of becoming a part.
    eventually("every trigger is answered", || {
        subscriber.count("/verdict") + subscriber.count("/reply") >= 200
    })
    .await;
    daemon.stops();
    let verdicts = complete(&subscriber.on("/verdict"));
    let answered: Vec<String> = verdicts
        .values()
        .map(|v| v["part_id"].to_string())
        .chain(subscriber.on("/reply").iter().map(|r| r["part_id"].to_string()))
        .collect();
    let parts: BTreeSet<&String> = answered.iter().collect();
    assert_eq!((answered.len(), parts.len()), (200, 200));
    let counted = decisions(verdicts.values());
    let inspected = counted.get("ok").unwrap_or(&0) + counted.get("anomalous").unwrap_or(&0);
    assert!(inspected > 0, "{counted:?}");
    for verdict in verdicts.values().filter(|v| v["decision"] == "uninspected") {
        assert_eq!(verdict["reason"], "overload", "{verdict}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_camera_is_down_triggers_are_answered_at_once() {
    let floor = Floor::new().await;
    let nowhere = floor.path("nowhere");
    floor.configure("trigger = \"software\"", &format!("kind = \"folder\"\npath = \"{}\"", arg(&nowhere)));
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    let state = subscriber
        .wait_until("/state", |s| s["state"] == "down" && s["reason"].to_string().contains("nowhere"))
        .await;
    assert_eq!(state["model"]["name"], "untrained");
    subscriber.publish("inspectord/floor/top/trigger", r#"{"part_id":"lonely"}"#).await;
    let verdict = subscriber.wait_for("/verdict", 1).await.remove(0);
    assert_eq!((&verdict["decision"], &verdict["reason"]), (&"uninspected".into(), &"camera".into()));
    assert!(verdict["detail"].as_str().unwrap().contains("nowhere"), "{verdict}");
    // The camera comes back by itself.
    fs::create_dir(&nowhere).unwrap();
    subscriber.wait_until("/state", |state| state["state"] == "up").await;
    daemon.stops();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_under_inspection_when_the_daemon_is_killed_still_gets_its_verdict() {
    let floor = Floor::new().await;
    // The folder stays empty, so that the trigger waits for its frame.
    let waiting = format!("kind = \"folder\"\npath = \"{}\"", arg(&floor.path("in")));
    floor.configure("trigger = \"software\"\npatience_ms = 600000", &waiting);
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    subscriber.wait_until("/state", |state| state["state"] == "up").await;
    subscriber.publish("inspectord/floor/top/trigger", r#"{"part_id":"cut short"}"#).await;
    subscriber.wait_until("/state", |state| state["counters"]["triggers"] == 1).await;
    daemon.signal("KILL");
    daemon.ended();
    let daemon = floor.start(&[]);
    let verdict = subscriber.wait_for("/verdict", 1).await.remove(0);
    assert_eq!((&verdict["part_id"], &verdict["decision"]), (&"cut short".into(), &"uninspected".into()));
    daemon.stops();
    complete(&subscriber.on("/verdict"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_dropped_in_while_the_daemon_runs_are_judged() {
    let floor = Floor::new().await;
    floor.drop_pictures(0, 2);
    floor.configure(
        "",
        &format!("kind = \"folder\"\npath = \"{}\"\nlook_every_ms = 20", arg(&floor.path("in"))),
    );
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    subscriber.wait_for("/verdict", 2).await;
    floor.drop_pictures(2, 3);
    subscriber.wait_for("/verdict", 5).await;
    daemon.stops();
    one_verdict_per_file(&complete(&subscriber.on("/verdict")), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_store_is_refused() {
    let floor = Floor::new().await;
    floor.simulated("trigger = \"software\"");
    let subscriber = floor.subscribe().await;
    let first = floor.start(&[]);
    subscriber.wait_until("/state", |state| state["state"] == "up").await;
    let second = floor.start(&[]).ended();
    second.refuses(1, &["store"]);
    assert!(Path::new(&floor.path("store")).exists());
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_triggers_at_once_and_for_one_part_get_a_verdict_each() {
    let floor = Floor::new().await;
    floor.simulated("trigger = \"software\"");
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    subscriber.wait_until("/state", |state| state["state"] == "up").await;
    for turn in ["first", "second"] {
        let trigger = format!(r#"{{"part_id":"twin","turn":"{turn}"}}"#);
        subscriber.publish("inspectord/floor/top/trigger", trigger).await;
    }
    let verdicts = subscriber.wait_for("/verdict", 2).await;
    let told: Vec<_> = verdicts.iter().map(|v| (&v["part_id"], &v["trigger"]["turn"])).collect();
    assert_eq!(told, [(&"twin".into(), &"first".into()), (&"twin".into(), &"second".into())]);
    assert_ne!(verdicts[0]["id"], verdicts[1]["id"]);
    daemon.stops();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_views_is_one_part_with_the_verdict_of_the_worst() {
    let floor = Floor::new().await;
    floor.drop_pictures(0, 5);
    // A picture that cannot be read makes the part that it belongs to uninspected.
    fs::write(floor.path("in").join("0004b.png"), "this is no picture").unwrap();
    let replay = format!("kind = \"folder\"\nmode = \"replay\"\npath = \"{}\"", arg(&floor.path("in")));
    floor.configure("trigger = \"software\"\nviews = 3\nview_every_ms = 5\nthreshold = -1000.0", &replay);
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    subscriber.wait_until("/state", |state| state["state"] == "up").await;
    for part in ["A", "B", "C"] {
        subscriber.publish("inspectord/floor/top/trigger", format!(r#"{{"part_id":"{part}"}}"#)).await;
        eventually("the part has its verdict", || {
            subscriber.on("/verdict").iter().any(|v| v["part_id"] == part)
        })
        .await;
    }
    let verdicts = subscriber.on("/verdict");
    let burst = &verdicts[0];
    assert_eq!((&burst["decision"], &burst["views"]["count"]), (&"anomalous".into(), &3.into()), "{burst}");
    let shown = burst["views"]["shown"].as_u64().unwrap();
    assert_eq!(burst["source"]["name"], format!("{:04}.png", shown - 1), "the evidence is another view's");
    let torn = &verdicts[1];
    assert_eq!((&torn["decision"], &torn["reason"]), (&"uninspected".into(), &"camera".into()));
    assert!(torn["detail"].as_str().unwrap().contains("view 3 of 3"), "{torn}");
    // The replay has ended: the third part gets no frame, and its verdict says so.
    assert_eq!((&verdicts[2]["reason"], verdicts.len()), (&"camera".into(), 3));
    daemon.stops();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_gets_a_verdict_for_every_tick_also_while_the_camera_is_down() {
    let floor = Floor::new().await;
    let later = floor.path("later");
    floor.drop_pictures(0, 3);
    floor.configure(
        "trigger = \"timed\"\nevery_ms = 300",
        &format!("kind = \"folder\"\npath = \"{}\"\nlook_every_ms = 20", arg(&later)),
    );
    let subscriber = floor.subscribe().await;
    let daemon = floor.start(&[]);
    for verdict in subscriber.wait_for("/verdict", 2).await {
        assert_eq!((&verdict["decision"], &verdict["reason"]), (&"uninspected".into(), &"camera".into()));
    }
    fs::rename(floor.path("in"), &later).unwrap();
    eventually("a tick was answered with a picture", || {
        subscriber.on("/verdict").iter().any(|v| v["decision"] != "uninspected")
    })
    .await;
    subscriber.publish("inspectord/floor/top/trigger", r#"{"part_id":"uninvited"}"#).await;
    let reply = subscriber.wait_for("/reply", 1).await.remove(0);
    assert!(reply["error"].as_str().unwrap().contains("takes no triggers"), "{reply}");
    daemon.stops();
    complete(&subscriber.on("/verdict"));
}

#[test]
fn a_snapshot_shows_what_the_detector_would_see() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let architecture = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
    untrained::model(&architecture, 1).save(&path("model")).unwrap();
    let settings = |more: &str| {
        let text = format!(
            "[store]\npath = \"{}\"\n[[camera]]\nname = \"top\"\nmodel = \"{}\"\n{more}\n\
             source = {{ kind = \"simulated\", size = \"200x120\" }}\n",
            arg(&path("store")),
            arg(&path("model")),
        );
        fs::write(path("inspectord.toml"), text).unwrap();
    };
    let snapshot = |more: &[&str]| {
        let (settings, out) = (path("inspectord.toml"), path("out.png"));
        let mut arguments = vec!["snapshot", "--config", arg(&settings), "--out", arg(&out), "--json"];
        arguments.extend(more);
        run(&arguments)
    };
    settings(
        "rotate = 90\nignore = [[[0, 0], [60, 0], [60, 200], [0, 200]]]\npicture = { min_brightness = 250 }",
    );
    let ended = snapshot(&["--camera", "top"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&told["size"]["width"], &told["hidden"]), (&120.into(), &0.5.into()), "{told}");
    assert!(told["unfit"].as_str().unwrap().contains("too dark"), "{told}");
    assert_eq!(imaging::load(&path("out.png")).unwrap().size(), Size::new(120, 200));
    assert!(!path("store").exists());
    settings("region = { x = 150, y = 0, width = 100, height = 100 }");
    snapshot(&[]).refuses(1, &["200x120", "region"]);
    snapshot(&["--camera", "side"]).refuses(2, &["side", "top"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told_how_it_fares_also_without_a_watchdog() {
    let floor = Floor::new().await;
    let later = floor.path("later");
    floor.configure("", &format!("kind = \"folder\"\npath = \"{}\"", arg(&later)));
    let manager = UnixDatagram::bind(floor.path("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hears = |what: &str| {
        let mut message = [0; 4096];
        loop {
            let length = manager.recv(&mut message).expect("the service manager is told");
            if String::from_utf8_lossy(&message[..length]).contains(what) {
                return;
            }
        }
    };
    let mut command = floor.command(&[]);
    command.env("NOTIFY_SOCKET", floor.path("notify")).env_remove("WATCHDOG_USEC");
    let daemon = Running::start(command);
    hears("STATUS=0 of 1 cameras up");
    fs::create_dir(&later).unwrap();
    hears("STATUS=1 of 1 cameras up");
    daemon.stops();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_filter_that_cannot_be_read_is_told_of() {
    let floor = Floor::new().await;
    floor.drop_pictures(0, 1);
    floor.replay("");
    let mut command = floor.command(&["--until-end"]);
    command.env("INSPECTORD_LOG", "inspectord=loud");
    let ended = Running::start(command).ended();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("INSPECTORD_LOG is no filter"), "{}", ended.stderr);
}

//! Retraining from end to end: false alarms after the light has changed, samples dropped in, a version that knows the
//! new light, defects still caught; killed in the middle, and rolled back.
//!
//! The parts are the simulated line's, the model is the one that ships with the demo, and the gate asks what it asks of every
//! version. Fewer steps are trained than on a line, as many as this light takes: with four of them the new light is not
//! learnt, and the gate refuses. What a real retraining is worth stands in `docs/adr/0004-retraining.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use inspectord::camera::normal_part;
use inspectord::frame::{Picture, Size};
use inspectord::imaging;
use serde_json::Value;
use tempfile::TempDir;

use crate::inspectord::{Ended, Running, arg, command};
use crate::mosquitto::{Access, Mosquitto};
use crate::subscriber::{Subscriber, eventually};
use crate::tampering;

const LINE: u64 = 7;
const SIZE: Size = Size::new(320, 320);

/// The part with a label on it that does not belong there.
fn with_a_label(mut picture: Picture) -> Picture {
    for (at, pixel) in picture.rgb_mut().chunks_exact_mut(3).enumerate() {
        let (x, y) = (at % SIZE.width as usize, at / SIZE.width as usize);
        if (130..200).contains(&x) && (120..190).contains(&y) {
            let checked = (x / 8 + y / 8).is_multiple_of(2);
            pixel.copy_from_slice(if checked { &[250, 20, 20] } else { &[10, 10, 200] });
        }
    }
    picture
}

/// The line under a warmer, slightly dimmer lamp.
fn under_another_lamp(mut picture: Picture) -> Picture {
    for pixel in picture.rgb_mut().chunks_exact_mut(3) {
        for (value, factor) in pixel.iter_mut().zip([0.95, 0.87, 0.76]) {
            *value = (f32::from(*value) * factor) as u8;
        }
    }
    picture
}

/// A box with a folder camera on the simulated line.
struct Box {
    folder: TempDir,
    broker: Mosquitto,
}

impl Box {
    async fn new(retrain: &str) -> Self {
        let b = Self { folder: tempfile::tempdir().unwrap(), broker: Mosquitto::start(Access::Open).await };
        for folder in ["in", "normals", "others"] {
            fs::create_dir(b.path(folder)).unwrap();
        }
        // Two pictures of anything else, for tests that need not wait until some are made up.
        for n in 0..2 {
            drop_in(&b.path("others"), &format!("{n}.png"), &normal_part(LINE + 1, n, SIZE));
        }
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        fs::write(
            b.path("inspectord.toml"),
            format!(
                "[box]\nname = \"floor\"\n\
                 [mqtt]\nhost = \"127.0.0.1\"\nport = {}\nback_off_min_ms = 20\nback_off_max_ms = 200\nstate_seconds = 1\n\
                 [store]\npath = \"store\"\nmin_free_megabytes = 0\n\
                 [retrain]\npath = \"retrain\"\n{retrain}\n\
                 [[camera]]\nname = \"top\"\nmodel = \"{}\"\nnormals = \"normals\"\n\
                 [camera.source]\nkind = \"folder\"\npath = \"in\"\nlook_every_ms = 20\n",
                b.broker.port(),
                demo.display(),
            ),
        )
        .unwrap();
        b
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One with eight pictures of good parts.
    async fn with_normals() -> Self {
        let b = Self::new("").await;
        for (name, picture) in parts("old", 100..108, |n| normal_part(LINE, n, SIZE)) {
            drop_in(&b.path("normals"), &name, &picture);
        }
        b
    }

    fn command(&self, args: &[&str]) -> Command {
        command(&[args, &["--config", arg(&self.path("inspectord.toml"))]].concat())
    }

    fn start(&self) -> Running {
        Running::start(self.command(&["run"]))
    }

    /// Waits until it is `retraining` that retrains.
    async fn retrains(&self, retraining: &Running) {
        let (lock, pid) = (self.path("retrain/retraining.lock"), retraining.id().to_string());
        eventually("it has begun", || fs::read_to_string(&lock).is_ok_and(|holder| holder.trim() == pid))
            .await;
    }

    fn run(&self, args: &[&str]) -> Ended {
        Running::start(self.command(args)).ended()
    }

    /// Runs a command that prints JSON lines.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Vec<Value> {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn subscribe(&self) -> Subscriber {
        Subscriber::start(self.broker.port(), "inspectord/floor/#").await
    }

    /// Shows parts to the camera, and gives their verdicts by file.
    async fn inspect(&self, subscriber: &Subscriber, parts: &[(String, Picture)]) -> BTreeMap<String, Value> {
        for (name, picture) in parts {
            drop_in(&self.path("in"), name, picture);
        }
        let judged = || -> BTreeMap<String, Value> {
            let verdicts = subscriber.on("/verdict").into_iter();
            verdicts.map(|v| (v["source"]["name"].as_str().unwrap().to_owned(), v)).collect()
        };
        eventually("every part has its verdict", || {
            parts.iter().all(|(name, _)| judged().contains_key(name))
        })
        .await;
        let mut judged = judged();
        parts.iter().map(|(name, _)| (name.clone(), judged.remove(name).unwrap())).collect()
    }
}

fn drop_in(folder: &Path, name: &str, picture: &Picture) {
    let hidden = folder.join(format!(".{name}.tmp"));
    fs::write(&hidden, imaging::png(picture)).unwrap();
    fs::rename(hidden, folder.join(name)).unwrap();
}

fn parts(
    prefix: &str,
    numbers: std::ops::Range<u64>,
    draw: impl Fn(u64) -> Picture,
) -> Vec<(String, Picture)> {
    numbers.map(|n| (format!("{prefix}{n:03}.png"), draw(n))).collect()
}

fn alarms(verdicts: &BTreeMap<String, Value>) -> usize {
    verdicts.values().filter(|v| v["decision"] == "anomalous").count()
}

fn kill(pid: &str) {
    assert!(Command::new("kill").args(["-KILL", pid]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retraining_makes_way_for_whoever_inspects() {
    let floor = Box::with_normals().await;
    let retraining = Running::start(floor.command(&["retrain"]));
    floor.retrains(&retraining).await;
    assert_makes_way(&retraining.id().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retraining_that_may_not_make_way_says_so_and_goes_on() {
    let floor = Box::with_normals().await;
    let calls = "sched_setaffinity,sched_setscheduler,setpriority";
    let refused = match tampering::from_the_start(&floor.command(&["retrain"]), calls, "error=EPERM") {
        Ok(refused) => refused,
        Err(why) => return println!("left out: {why}"),
    };
    let retraining = Running::start(refused);
    floor.retrains(&retraining).await;
    for said in ["cannot lower the priority", "cannot be scheduled as idle", "cannot stay on one part"] {
        assert!(retraining.wait_for_log(said).contains("Operation not permitted"), "{said}");
    }
}

/// The idle policy, the lowest priority, and the last of the processors.
fn assert_makes_way(pid: &str) {
    const SCHED_IDLE: &str = "5";
    let told = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    // Behind the name, which may hold blanks: `man 5 proc`.
    let stat = told("stat");
    let behind: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let (nice, policy) = (behind[19 - 3], behind[41 - 3]);
    assert_eq!((nice, policy), ("19", SCHED_IDLE), "{stat}");
    // Where memory runs short, it is what the kernel ends first.
    assert_eq!(told("oom_score_adj").trim(), "1000");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let processors = |status: &str| {
        status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned()
    };
    let last = processors(&own).rsplit([',', '-']).next().unwrap().to_owned();
    assert_eq!(processors(&told("status")), last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_light_is_learnt_from_false_alarms_although_everything_is_killed_in_the_middle() {
    let floor =
        Box::new("new_samples = 8\nsteps = 120\ncheckpoint_seconds = 0\nthreads = 2\nidle = false").await;
    for (name, picture) in parts("old", 100..140, |n| normal_part(LINE, n, SIZE)) {
        drop_in(&floor.path("normals"), &name, &picture);
    }
    let subscriber = floor.subscribe().await;
    let daemon = floor.start();

    // A warm lamp: every good part is called anomalous.
    let dim = |n| under_another_lamp(normal_part(LINE, n, SIZE));
    let before = floor.inspect(&subscriber, &parts("dim", 200..208, dim)).await;
    assert_eq!(alarms(&before), 8, "{before:?}");
    let base = before["dim200.png"]["model"]["version"].as_str().unwrap().to_owned();
    let labelled = |n| with_a_label(normal_part(LINE, n, SIZE));
    let defects = floor.inspect(&subscriber, &parts("bad", 300..303, labelled)).await;
    assert_eq!(alarms(&defects), 3, "{defects:?}");
    let caught: Vec<&Value> = defects.values().collect();

    // The engineer says which is which. A retraining begins by itself.
    let ids = |verdicts: &[&Value]| -> Vec<String> {
        verdicts.iter().map(|v| v["id"].as_str().unwrap().to_owned()).collect()
    };
    let tell = |action: &str, ids: &[String]| {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let ended = floor.run(&[&["history", action], &ids[..]].concat());
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    };
    tell("confirm", &ids(&caught));
    tell("accept", &ids(&before.values().collect::<Vec<_>>()));
    let state = subscriber.wait_until("/top/state", |s| s["retraining"]["phase"] == "training").await;
    assert_eq!(state["retraining"]["new_samples"], 8, "{state}");
    let underway = || floor.json(&["models", "list", "--json"]).pop().unwrap()["retraining"].clone();
    assert_eq!(underway()["new_samples"], 8);

    // Everything is killed in the middle, and what was under way is continued.
    let home = floor.path("retrain/top");
    eventually("there is a checkpoint", || home.join("work/candidate.checkpoint").exists()).await;
    daemon.signal("KILL");
    daemon.ended();
    let child = fs::read_to_string(floor.path("retrain/retraining.lock")).unwrap();
    kill(child.trim());
    let plan = fs::read(home.join("work/plan.json")).unwrap();
    eventually("it is known to be interrupted", || underway()["interrupted"] == true).await;
    let daemon = floor.start();
    daemon.wait_for_log("retraining begins");
    assert_eq!(fs::read(home.join("work/plan.json")).unwrap(), plan);
    daemon.wait_for_log("retraining is done");
    let over =
        |s: &Value| matches!(s["retraining"]["phase"].as_str(), Some("activated" | "refused" | "failed"));
    let state = subscriber.wait_until("/top/state", over).await;
    assert_eq!(state["retraining"]["phase"], "activated", "{state}");
    let version = state["retraining"]["version"].as_str().unwrap().to_owned();
    subscriber.wait_until("/top/state", |s| s["model"]["version"] == version.as_str()).await;

    // No false alarm on parts that neither version has seen, and defects are caught under both lamps.
    let after = floor.inspect(&subscriber, &parts("new", 400..408, dim)).await;
    assert!(after.values().all(|v| v["model"]["version"] == version.as_str()), "{after:?}");
    assert_eq!(alarms(&after), 0, "{after:?}");
    let under_the_new = parts("worse", 600..603, |n| with_a_label(dim(n)));
    for defects in [under_the_new, parts("still", 603..606, labelled)] {
        let defects = floor.inspect(&subscriber, &defects).await;
        assert_eq!(alarms(&defects), 3, "{defects:?}");
    }
    let listed = floor.json(&["models", "list", "--json"]);
    assert_eq!((&listed[0]["version"], &listed[0]["standing"]), (&base.as_str().into(), &"accepted".into()));
    assert_eq!((&listed[1]["version"], &listed[1]["standing"]), (&version.as_str().into(), &"active".into()));
    let report = &listed[1]["report"];
    assert_eq!((&report["normal"], &report["anomalous"]), (&8.into(), &caught.len().into()));
    let known = report["checks"].as_array().unwrap().iter().find(|c| c["name"] == "known_defects").unwrap();
    assert_eq!(known["figures"]["missed"], Value::Array(Vec::new()), "{known}");

    // The way back, over MQTT.
    subscriber.publish("inspectord/floor/top/command", r#"{"id":"back","command":"rollback"}"#).await;
    let reply = subscriber.wait_until("/reply", |r| r["id"] == "back").await;
    assert_eq!((&reply["ok"], &reply["result"]["active"]), (&true.into(), &base.as_str().into()), "{reply}");
    let again = floor.inspect(&subscriber, &parts("back", 500..502, dim)).await;
    assert!(again.values().all(|v| v["model"]["version"] == base.as_str()), "{again:?}");
    daemon.stops();
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_change_over_by_command_beside_a_running_daemon_and_no_part_is_lost() {
    let floor = Box::new(
        "new_samples = 0\nquiet_minutes = 0\npenalty = \"others\"\nsteps = 1\nthreads = 2\nidle = false",
    )
    .await;
    for (name, picture) in parts("old", 100..108, |n| normal_part(LINE, n, SIZE)) {
        drop_in(&floor.path("normals"), &name, &picture);
    }
    let samples = floor.path("retrain/top/samples/normal");
    fs::create_dir_all(&samples).unwrap();
    let dim = |n| under_another_lamp(normal_part(LINE, n, SIZE));
    for (name, picture) in parts("dim", 0..5, dim) {
        drop_in(&samples, &name, &picture);
    }
    fs::write(samples.join("notes.png"), "no picture at all").unwrap();
    // Beside no daemon at all.
    let last = floor.json(&["retrain", "--json"]).pop().unwrap();
    assert_eq!(last["event"], "done", "{last}");
    let version = last["report"]["version"].as_str().unwrap().to_owned();
    floor.run(&["models", "activate", "nothing"]).refuses(1, &["no model version `nothing`", &version]);

    let subscriber = floor.subscribe().await;
    floor.json(&["models", "activate", &version[..6], "--json"]);
    let daemon = floor.start();
    subscriber.wait_until("/top/state", |s| s["model"]["version"] == version.as_str()).await;
    let shown = parts("part", 0..12, |n| normal_part(LINE, n, SIZE));
    let (first, rest) = shown.split_at(4);
    floor.inspect(&subscriber, first).await;
    floor.json(&["models", "rollback", "--json"]);
    floor.inspect(&subscriber, rest).await;
    let base = subscriber
        .wait_until("/top/state", |s| s["model"]["version"] != version.as_str() && s["state"] == "up")
        .await["model"]["version"]
        .clone();
    subscriber
        .publish(
            "inspectord/floor/top/command",
            format!(r#"{{"id":"on","command":"activate","name":"{version}"}}"#),
        )
        .await;
    let reply = subscriber.wait_until("/reply", |r| r["id"] == "on").await;
    assert_eq!(reply["result"]["active"], version.as_str(), "{reply}");
    let last = floor.inspect(&subscriber, &parts("last", 0..3, |n| normal_part(LINE, n + 50, SIZE))).await;
    assert!(last.values().all(|v| v["model"]["version"] == version.as_str()), "{last:?}");
    daemon.stops();
    let verdicts = subscriber.on("/verdict");
    let sequences: Vec<u64> = verdicts.iter().map(|v| v["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=15).collect::<Vec<_>>());
    for verdict in &verdicts {
        let by = &verdict["model"]["version"];
        assert!(*by == base || *by == version.as_str(), "{verdict}");
        assert_ne!(verdict["decision"], "uninspected", "{verdict}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retraining_for_settings_that_the_daemon_does_not_run_with_fails_and_says_what_to_do() {
    let floor = Box::with_normals().await;
    let subscriber = floor.subscribe().await;
    let daemon = floor.start();
    subscriber.wait_until("/top/state", |s| s["state"] == "up").await;
    let file = floor.path("inspectord.toml");
    let settings = fs::read_to_string(&file).unwrap();
    fs::write(&file, settings.replace("normals =", "rotate = 180\nnormals =")).unwrap();
    subscriber.publish("inspectord/floor/top/command", r#"{"id":"go","command":"retrain"}"#).await;
    let state = subscriber.wait_until("/top/state", |s| s["retraining"]["phase"] == "failed").await;
    assert!(state["retraining"]["detail"].as_str().unwrap().contains("restart the daemon"), "{state}");
    daemon.stops();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retraining_that_was_ordered_over_mqtt_ends_with_the_daemon_and_can_go_on() {
    let floor =
        Box::new("new_samples = 0\nquiet_minutes = 0\nsteps = 100000\ncheckpoint_seconds = 0\nthreads = 2\nidle = false")
            .await;
    for (name, picture) in parts("old", 100..108, |n| normal_part(LINE, n, SIZE)) {
        drop_in(&floor.path("normals"), &name, &picture);
    }
    let subscriber = floor.subscribe().await;
    let daemon = floor.start();
    subscriber.wait_until("/top/state", |s| s["state"] == "up").await;
    let samples = floor.path("retrain/top/samples/normal");
    eventually("there is a folder for samples", || samples.is_dir()).await;
    for (name, picture) in parts("new", 0..3, |n| normal_part(LINE, n, SIZE)) {
        drop_in(&samples, &name, &picture);
    }
    subscriber.wait_until("/top/state", |s| s["retraining"]["new_samples"] == 3).await;
    subscriber.publish("inspectord/floor/top/command", r#"{"id":"go","command":"retrain"}"#).await;
    let reply = subscriber.wait_until("/reply", |r| r["id"] == "go").await;
    assert_eq!(reply["ok"], true, "{reply}");
    let trains = |s: &Value| {
        s["retraining"]["phase"] == "training"
            && s["retraining"]["done"].as_u64().is_some_and(|done| done > 0)
    };
    subscriber.wait_until("/top/state", trains).await;
    let underway = || floor.json(&["models", "list", "--json"]).pop().unwrap()["retraining"].clone();
    let now = underway();
    assert_eq!(
        (&now["phase"], &now["of"], &now["interrupted"]),
        (&"training".into(), &100_000.into(), &false.into())
    );

    daemon.stops();
    assert_eq!(underway()["interrupted"], true);
    assert!(floor.path("retrain/top/work/candidate.checkpoint").exists());
    let told = floor.run(&["models", "list"]).stdout;
    assert!(told.contains("interrupted, it goes on where it was"), "{told}");
}

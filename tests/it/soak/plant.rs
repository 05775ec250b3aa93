//! The plant around the box: cameras, a PLC that sends triggers, disk, network, broker, and the daemon's lives.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use inspectord::detector::untrained;
use inspectord::efficientad::{Architecture, PdnSize};
use inspectord::frame::Size;
use inspectord::imaging;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::balance::Balance;
use super::heard::{CAMERAS, Ledger};
use crate::inspectord::{Running, arg, command};
use crate::mosquitto::{Access, Mosquitto};
use crate::proxy::Proxy;
use crate::small_disk::SmallDisk;
use crate::subscriber::{Subscriber, eventually};

/// Between two files, and between two triggers.
const PACE: Duration = Duration::from_millis(40);
/// Between two looks for gaps.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// Files that may wait for their verdicts.
const MOST_WAITING: usize = 100;
/// So small that the oldest verdicts are deleted within minutes.
const DISK_MEGABYTES: u32 = 24;
/// Where Debian keeps the false clock.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

pub(super) struct Plant {
    pub(super) broker: Mosquitto,
    pub(super) proxy: Proxy,
    pub(super) disk: SmallDisk,
    folder: Arc<TempDir>,
    subscriber: Arc<Subscriber>,
    daemon: Option<Running>,
    lives: usize,
    works: Arc<Works>,
    tasks: Vec<JoinHandle<()>>,
}

/// What the cameras and the PLC have sent.
#[derive(Default)]
struct Works {
    over: AtomicBool,
    files: AtomicUsize,
    triggers: AtomicUsize,
    /// Triggers that were not answered yet when the broker was killed.
    at_risk: Mutex<BTreeSet<String>>,
    heard: Mutex<Ledger>,
    /// Gaps that were asked for.
    asked: AtomicUsize,
    /// Held while a file is dropped, or the folder moved.
    camera: Mutex<()>,
}

impl Works {
    /// What `plc` has heard by now.
    fn heard(&self, plc: &Subscriber) -> MutexGuard<'_, Ledger> {
        let mut heard = self.heard.lock().unwrap();
        heard.read(plc);
        heard
    }

    /// Asks for the first gap of each camera, and tells whether there is none, if `files` were dropped: their newest verdicts
    /// may be missing, too, and of triggers nobody knows how many were answered.
    async fn ask_for_gaps(&self, plc: &Subscriber, files: u64) -> bool {
        let gaps: Vec<_> = {
            let heard = self.heard(plc);
            let gap = |camera| Some((camera, heard.gap(camera, if camera == "files" { files } else { 0 })?));
            CAMERAS.into_iter().filter_map(gap).collect()
        };
        for (camera, (from, to)) in &gaps {
            let asked = self.asked.fetch_add(1, Ordering::SeqCst);
            let command = format!(r#"{{"id":"gap-{asked}","command":"replay","from":{from},"to":{to}}}"#);
            plc.publish(&format!("inspectord/soak/{camera}/command"), command).await;
        }
        gaps.is_empty()
    }
}

impl Plant {
    pub(super) async fn start() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let path = |name: &str| folder.path().join(name);
        let architecture = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
        untrained::model(&architecture, 1).save(&path("model")).unwrap();
        for name in ["in", "store", "drop"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("clock"), "+0").unwrap();
        let broker = Mosquitto::start(Access::Open).await;
        let proxy = Proxy::start(broker.port()).await;
        fs::write(path("inspectord.toml"), settings(folder.path(), proxy.port())).unwrap();
        let subscriber = Arc::new(Subscriber::start(broker.port(), "inspectord/soak/#").await);
        let disk = SmallDisk::mount(&path("store"), DISK_MEGABYTES);
        let works = Arc::new(Works::default());
        let mut plant = Self {
            broker,
            proxy,
            disk,
            folder,
            subscriber,
            daemon: None,
            lives: 0,
            works,
            tasks: Vec::new(),
        };
        plant.start_daemon().await;
        plant.tasks = vec![plant.drop_files(), plant.send_triggers(), plant.ask_for_gaps()];
        plant.sees_progress().await;
        plant
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(super) fn daemon(&self) -> &Running {
        self.daemon.as_ref().unwrap()
    }

    /// Starts the daemon, again and again as systemd would.
    pub(super) async fn start_daemon(&mut self) {
        let settings = self.path("inspectord.toml");
        // Every other life finds verdicts waiting in memory when the disk is full.
        let reserve = format!("store.reserve_megabytes={}", self.lives % 2);
        let mut command = self.disk.inside(command(&["run", "--config", arg(&settings), "--set", &reserve]));
        if Path::new(FAKETIME).exists() {
            command.env("LD_PRELOAD", FAKETIME);
            command.env("FAKETIME_TIMESTAMP_FILE", self.path("clock"));
            command.envs([("FAKETIME_NO_CACHE", "1"), ("DONT_FAKE_MONOTONIC", "1")]);
        }
        self.daemon = Some(Running::start(command));
        self.lives += 1;
    }

    pub(super) fn kill(&mut self) {
        let daemon = self.daemon.take().unwrap();
        daemon.signal("KILL");
        daemon.ended();
    }

    pub(super) fn stop_daemon(&mut self) {
        let daemon = self.daemon.take().unwrap();
        daemon.signal("TERM");
        let ended = daemon.ended();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    }

    /// Waits until files and triggers that come from now on are answered.
    pub(super) async fn sees_progress(&self) {
        let (files, triggers) = (self.count("files"), self.count("parts"));
        eventually("verdicts of both cameras come after the injection", || {
            self.count("files") > files + 2 && self.count("parts") > triggers + 2
        })
        .await;
    }

    fn count(&self, camera: &str) -> usize {
        self.subscriber.count(&format!("/{camera}/verdict"))
    }

    /// Triggers that are not answered by now may have been lost with the broker.
    pub(super) fn risk_what_is_open(&self) {
        let sent = self.works.triggers.load(Ordering::SeqCst);
        // The next one may be on its way by the time the signal arrives.
        let open = self.works.heard(&self.subscriber).open(sent + 1);
        self.works.at_risk.lock().unwrap().extend(open);
    }

    pub(super) fn take_camera_away(&self) {
        let _nobody_drops = self.works.camera.lock().unwrap();
        fs::rename(self.path("in"), self.path("away")).unwrap();
    }

    pub(super) fn bring_camera_back(&self) {
        let _nobody_drops = self.works.camera.lock().unwrap();
        fs::rename(self.path("away"), self.path("in")).unwrap();
    }

    pub(super) fn jump_clock(&self, hours: i64) -> Result<(), String> {
        if !Path::new(FAKETIME).exists() {
            return Err(format!("there is no {FAKETIME}: `apt-get install libfaketime`"));
        }
        // Replaced, not written into: the daemon reads it all the time.
        fs::write(self.path("clock.new"), format!("{hours:+}h")).unwrap();
        fs::rename(self.path("clock.new"), self.path("clock")).unwrap();
        Ok(())
    }

    fn drop_files(&self) -> JoinHandle<()> {
        let (works, folder, plc) = (self.works.clone(), self.folder.clone(), self.subscriber.clone());
        let pictures: Vec<_> =
            (0..8).map(|i| imaging::png(&untrained::picture(Size::new(96, 80), i))).collect();
        tokio::spawn(async move {
            while !works.over.load(Ordering::SeqCst) {
                let number = works.files.load(Ordering::SeqCst);
                // A slow machine gets no more than it can judge by the end.
                if number > plc.count("/files/verdict") + MOST_WAITING {
                    tokio::time::sleep(PACE).await;
                    continue;
                }
                let name = format!("{number:06}.png");
                {
                    let _not_moved_now = works.camera.lock().unwrap();
                    let path = |name: &str| folder.path().join(name);
                    let there = if path("in").exists() { "in" } else { "away" };
                    fs::write(path("drop").join(&name), &pictures[number % pictures.len()]).unwrap();
                    fs::rename(path("drop").join(&name), path(there).join(&name)).unwrap();
                }
                works.files.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(PACE).await;
            }
        })
    }

    fn send_triggers(&self) -> JoinHandle<()> {
        let (works, plc) = (self.works.clone(), self.subscriber.clone());
        tokio::spawn(async move {
            while !works.over.load(Ordering::SeqCst) {
                let part = works.triggers.fetch_add(1, Ordering::SeqCst);
                plc.publish("inspectord/soak/parts/trigger", format!("{{\"part_id\":\"{part}\"}}")).await;
                tokio::time::sleep(PACE).await;
            }
        })
    }

    /// Asks for what a dying broker took along, soon: the box's small disk does not keep verdicts for long.
    fn ask_for_gaps(&self) -> JoinHandle<()> {
        let (works, plc) = (self.works.clone(), self.subscriber.clone());
        tokio::spawn(async move {
            while !works.over.load(Ordering::SeqCst) {
                works.ask_for_gaps(&plc, 0).await;
                tokio::time::sleep(ASK_EVERY).await;
            }
        })
    }

    /// Ends the work, waits for every answer, asks for what a dying broker lost, and counts.
    pub(super) async fn settle(mut self) -> Balance {
        self.works.over.store(true, Ordering::SeqCst);
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
        let (files, triggers) =
            (self.works.files.load(Ordering::SeqCst), self.works.triggers.load(Ordering::SeqCst));
        let at_risk = self.works.at_risk.lock().unwrap().clone();
        let deadline = tokio::time::Instant::now() + crate::mosquitto::PATIENCE;
        loop {
            let open = self.works.heard(&self.subscriber).open(triggers);
            let whole = self.works.ask_for_gaps(&self.subscriber, files as u64).await;
            if (open.is_subset(&at_risk) && whole) || tokio::time::Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
        self.stop_daemon();
        self.balance(files, triggers, &at_risk)
    }

    fn balance(&self, files: usize, triggers: usize, at_risk: &BTreeSet<String>) -> Balance {
        let mut balance = Balance { files, triggers, lives: self.lives, ..Balance::default() };
        let text = |value: &Value| value.as_str().unwrap_or("nothing").to_owned();
        let of_files = self.subscriber.on("/files/verdict");
        let judged = balance.count("files", &of_files, |v| text(&v["source"]["name"]));
        for number in 0..files {
            let name = format!("{number:06}.png");
            if !judged.contains(&name) {
                balance.wrong.push(format!("the file {name} has no verdict"));
            }
        }
        let of_parts = self.subscriber.on("/parts/verdict");
        let inspected = balance.count("parts", &of_parts, |v| text(&v["part_id"]));
        let replies = self.subscriber.on("/parts/reply");
        let refused: BTreeSet<String> = replies.iter().map(|reply| text(&reply["part_id"])).collect();
        for number in 0..triggers {
            let part = number.to_string();
            match (inspected.contains(&part), refused.contains(&part)) {
                (true, true) => balance.wrong.push(format!("part {part} was refused and has a verdict")),
                (false, true) => balance.refused += 1,
                (false, false) if at_risk.contains(&part) => balance.lost_by_broker += 1,
                (false, false) => balance.wrong.push(format!("part {part} was never answered")),
                (true, false) => {}
            }
        }
        balance
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn settings(folder: &Path, port: u16) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    format!(
        "[box]\nname = \"soak\"\n\
         [mqtt]\nhost = \"127.0.0.1\"\nport = {port}\nback_off_min_ms = 20\nback_off_max_ms = 200\n\
         keep_alive_seconds = 1\n\
         [web]\nenabled = false\n\
         [store]\npath = \"{}\"\nmin_free_megabytes = 2\nsegment_megabytes = 1\n\
         [[camera]]\nname = \"files\"\nmodel = \"{model}\"\n\
         source = {{ kind = \"folder\", path = \"{}\", look_every_ms = 20 }}\n\
         [[camera]]\nname = \"parts\"\nmodel = \"{model}\"\ntrigger = \"software\"\n\
         source = {{ kind = \"simulated\", rate = 0, size = \"96x80\" }}\n",
        path("store"),
        path("in"),
        model = path("model"),
    )
}

//! Somebody on the broker means harm: no file is read or written that is not the store's, and memory stays bounded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::daemon::{Floor, complete};
use crate::inspectord::Running;
use crate::subscriber::eventually;

/// Triggers of about the largest size; together far more than may be held.
const HEAVY: usize = 200;
/// What the daemon may take more at its peak than before, in bytes. All of what is sent, parsed, would be four times it.
const MORE: u64 = 96 << 20;

/// Every file below `folder` but the store's, with its content.
fn files(folder: &Path, store: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path == store {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, store));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

/// The most memory that the daemon has held, in bytes.
fn peak(daemon: &Running) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_paths_in_messages_lead_nowhere() {
    let floor = Floor::new().await;
    fs::write(floor.path("secret"), "root:x:0:0").unwrap();
    fs::create_dir(floor.path("models")).unwrap();
    floor.simulated("trigger = \"software\"\nthreshold = -1000.0");
    let plc = floor.subscribe().await;
    let daemon = floor.start(&[]);
    plc.wait_until("/state", |state| state["state"] == "up").await;
    let before = files(&floor.path("."), &floor.path("./store"));
    let bad = [
        "../../secret",
        "/etc/passwd",
        "..",
        "file:///etc/passwd",
        "a\u{0}b",
        "$(touch x)",
        "%2e%2e%2fsecret",
    ];
    for name in bad {
        let fields = json!({"part_id": name.replace('\0', ""), "evidence": name, "camera": name, "source": {"name": name},
            "model": {"name": name}, "sequence": 1, "path": name});
        plc.publish("inspectord/floor/top/trigger", fields.to_string()).await;
        for command in ["activate", "rollback", "retrain", "replay", "threshold", name] {
            let order = json!({"id": name.replace('\0', "-"), "command": command, "name": name, "from": name, "value": name});
            plc.publish("inspectord/floor/top/command", order.to_string()).await;
        }
        if !name.contains('\0') {
            plc.publish(&format!("inspectord/floor/{}/trigger", name.replace('/', "\\")), "{}").await;
        }
    }
    plc.wait_for("/top/verdict", bad.len()).await;
    plc.wait_for("/top/reply", 6 * bad.len()).await;
    assert!(plc.on("/top/reply").iter().all(|reply| reply["ok"] == false));
    let said = [plc.on("/top/reply"), plc.on("/top/verdict")].concat();
    assert!(said.iter().all(|message| !message.to_string().contains("root:x:0:0")), "a file was read");
    daemon.stops();
    let evidence = files(&floor.path("store/evidence"), Path::new("none"));
    assert_eq!(evidence.keys().filter(|path| path.ends_with("verdict.json")).count(), bad.len());
    assert_eq!(files(&floor.path("."), &floor.path("./store")), before, "something was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_the_largest_messages_takes_bounded_memory_and_each_is_answered() {
    let floor = Floor::new().await;
    floor.simulated("trigger = \"software\"");
    let plc = floor.subscribe().await;
    let daemon = floor.start(&[]);
    plc.wait_until("/state", |state| state["state"] == "up").await;
    plc.publish("inspectord/floor/top/trigger", "{}").await;
    plc.wait_for("/verdict", 1).await;
    let before = peak(&daemon);
    // Many small values would take the most memory for their bytes.
    let small_values = json!({"part_id": "small", "fields": vec![0; 30_000]}).to_string();
    let heavy = json!({"part_id": "heavy", "text": "x".repeat(60_000)}).to_string();
    for _ in 0..HEAVY {
        plc.publish("inspectord/floor/top/trigger", heavy.clone()).await;
        plc.publish("inspectord/floor/top/trigger", small_values.clone()).await;
        plc.publish("inspectord/floor/top/command", "[".repeat(60_000)).await;
    }
    eventually("each is answered", || plc.count("/verdict") + plc.count("/reply") > 3 * HEAVY).await;
    let more = peak(&daemon) - before;
    assert!(more < MORE, "{} MiB more", more >> 20);
    daemon.stops();
    complete(&plc.on("/verdict"));
}

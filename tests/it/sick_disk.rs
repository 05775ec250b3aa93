//! A disk that is slow, one that takes nothing any more, and one that is full, each apart.

use crate::daemon::{Floor, complete};
use crate::inspectord::Running;
use crate::mosquitto::Access;
use crate::small_disk::SmallDisk;
use crate::subscriber::eventually;
use crate::tampering::Tampering;

/// What makes data, names and lengths durable; only the store asks for that.
const SYNCS: &str = "fsync,fdatasync";
/// What changes a disk and no socket or terminal.
const CHANGES: &str = "pwrite64,fsync,fdatasync,ftruncate,mkdir,mkdirat,rename,renameat,renameat2,unlink,unlinkat,rmdir,\
                       sync_file_range,fallocate";

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_a_second_for_every_sync_costs_evidence_and_no_verdict() {
    let floor = Floor::with(Access::Bounded).await;
    floor.simulated("trigger = \"software\"\nthreshold = -1000.0\nexpose_within_ms = 600000");
    let plc = floor.subscribe().await;
    let daemon = floor.start(&[]);
    plc.wait_until("/state", |state| state["state"] == "up").await;
    let send = async |from: usize, to: usize| {
        for n in from..to {
            plc.publish("inspectord/floor/top/trigger", format!("{{\"part_id\":\"{n}\"}}")).await;
            plc.wait_for("/trigger", n + 1).await;
        }
    };
    send(0, 3).await;
    plc.wait_for("/verdict", 3).await;
    let slow = match Tampering::with(&daemon, SYNCS, "delay_enter=1000000") {
        Ok(slow) => slow,
        Err(why) => return println!("left out: {why}"),
    };
    send(3, 13).await;
    plc.wait_until("/state", |state| state["warnings"].to_string().contains("the disk is slow")).await;
    eventually("every trigger is answered", || plc.count("/verdict") + plc.count("/reply") >= 13).await;
    drop(slow);
    send(13, 14).await;
    plc.wait_until("/verdict", |verdict| verdict["part_id"] == "13" && verdict["evidence"].is_string()).await;
    plc.wait_until("/state", |state| state["warnings"].is_null() && state["counters"]["triggers"] == 14)
        .await;
    daemon.stops();
    let verdicts = complete(&plc.on("/verdict"));
    assert_eq!(verdicts.len(), 14);
    let without =
        verdicts.values().filter(|v| v["decision"] == "anomalous" && v["evidence"].is_null()).count();
    assert!(without > 0, "evidence was not given up first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_nothing_any_more_costs_evidence_and_no_verdict() {
    let floor = Floor::with(Access::Bounded).await;
    floor.watch("threshold = -1000.0");
    let plc = floor.subscribe().await;
    let daemon = floor.start(&[]);
    floor.drop_pictures(0, 3);
    plc.wait_for("/verdict", 3).await;
    let sick = match Tampering::with(&daemon, CHANGES, "error=EROFS") {
        Ok(sick) => sick,
        Err(why) => return println!("left out: {why}"),
    };
    floor.drop_pictures(3, 12);
    let state =
        plc.wait_until("/state", |state| state["warnings"].to_string().contains("cannot be written")).await;
    assert!(state["warnings"].to_string().contains("Read-only file system"), "{state}");
    assert_eq!(state["state"], "up", "inspection goes on");
    eventually("all are judged meanwhile", || {
        plc.on("/state").last().is_some_and(|state| state["counters"]["anomalous"] == 15)
    })
    .await;
    drop(sick);
    plc.wait_for("/verdict", 15).await;
    plc.wait_until("/state", |state| state["warnings"].is_null() && state["counters"]["anomalous"] == 15)
        .await;
    floor.drop_pictures(15, 1);
    let last = plc.wait_until("/verdict", |verdict| verdict["sequence"] == 16).await;
    assert!(last["evidence"].is_string(), "evidence is kept again");
    daemon.stops();
    assert_eq!(complete(&plc.on("/verdict")).len(), 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_though_the_disk_takes_nothing_and_costs_no_verdict() {
    let floor = Floor::with(Access::Bounded).await;
    floor.watch("threshold = -1000.0");
    let plc = floor.subscribe().await;
    let daemon = floor.start(&["--set", "store.queue=2"]);
    floor.drop_pictures(0, 2);
    plc.wait_for("/verdict", 2).await;
    let sick = match Tampering::with(&daemon, CHANGES, "error=EROFS") {
        Ok(sick) => sick,
        Err(why) => return println!("left out: {why}"),
    };
    floor.drop_pictures(2, 20);
    plc.wait_until("/state", |state| state["warnings"].to_string().contains("cannot be written")).await;
    daemon.signal("TERM");
    let ended = daemon.ended();
    drop(sick);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("records that could not be written"), "{}", ended.stderr);
    let daemon = floor.start(&[]);
    plc.wait_for("/verdict", 22).await;
    daemon.stops();
    assert_eq!(complete(&plc.on("/verdict")).len(), 22);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_up_no_verdict_while_the_reserve_lasts() {
    let floor = Floor::with(Access::Bounded).await;
    floor.watch("threshold = -1000.0");
    std::fs::create_dir(floor.path("store")).unwrap();
    let disk = SmallDisk::mount(&floor.path("store"), 64);
    if let Some(why) = disk.why_not() {
        return println!("left out: {why}");
    }
    let small = ["--set", "store.min_free_megabytes=1", "--set", "store.segment_megabytes=1"];
    let plc = floor.subscribe().await;
    let daemon = Running::start(disk.inside(floor.command(&small)));
    floor.drop_pictures(0, 3);
    let before = plc.wait_for("/verdict", 3).await;
    assert!(before.iter().all(|verdict| verdict["evidence"].is_string()), "{before:?}");
    eventually("room is kept free", || disk.holds("reserve") == Some(4 << 20)).await;
    let mut parts = 3;
    // Pictures that are thinned out make room for a while.
    while disk.holds("reserve") == Some(4 << 20) {
        disk.fill().unwrap();
        floor.drop_pictures(parts, 1);
        parts += 1;
        plc.wait_for("/verdict", parts).await;
    }
    disk.fill().unwrap();
    floor.drop_pictures(parts, 3);
    parts += 3;
    let all = plc.wait_for("/verdict", parts).await;
    assert!(all.last().unwrap()["evidence"].is_null(), "evidence is given up first");
    let state = plc.wait_until("/state", |state| state["warnings"].to_string().contains("kept free")).await;
    assert!(state["warnings"].to_string().contains("pictures are not kept"), "{state}");
    assert!(!state["warnings"].to_string().contains("cannot be written"), "{state}");
    disk.make_room();
    eventually("room is kept free again", || disk.holds("reserve") == Some(4 << 20)).await;
    floor.drop_pictures(parts, 1);
    parts += 1;
    plc.wait_until("/verdict", |verdict| verdict["sequence"] == parts && verdict["evidence"].is_string())
        .await;
    plc.wait_until("/state", |state| state["warnings"].is_null() && state["counters"]["anomalous"] == parts)
        .await;
    daemon.stops();
    assert_eq!(complete(&plc.on("/verdict")).len(), parts);
}

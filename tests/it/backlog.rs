//! A long backlog: fresh alarms are not held up behind it, and a subscriber can still prove that nothing is missing.

use std::collections::BTreeSet;
use std::time::Duration;

use inspectord::store::{Options, RecordRequest, Store};

use crate::daemon::Floor;
use crate::inspectord::arg;
use crate::proxy::{Mode, Proxy};
use crate::session_rig::verdict;
use crate::subscriber::eventually;

const BACKLOG: u64 = 5000;

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_alarm_is_not_held_up_behind_a_long_backlog() {
    let floor = Floor::new().await;
    // What hours without a broker have left behind; none of it is an alarm.
    let options = Options { path: floor.path("store"), min_free_megabytes: 0, ..Options::default() };
    let (store, thread) = Store::open(&options, "floor").unwrap();
    for _ in 0..BACKLOG {
        let judgement = verdict("top", 1).judgement;
        store.record_then(RecordRequest { judgement, evidence: None, ticket: None }, |recorded| {
            recorded.unwrap();
        });
    }
    thread.close(Duration::from_secs(60)).unwrap();

    // A far and narrow line, which takes minutes for all of it.
    let proxy = Proxy::start(floor.broker.port()).await;
    proxy.set(Mode::Pass(Duration::from_millis(100)));
    floor.watch("threshold = -1000.0");
    let plc = floor.subscribe().await;
    let port = format!("mqtt.port={}", proxy.port());
    let daemon = floor.start(&["--set", &port, "--set", "mqtt.inflight=8"]);
    plc.wait_for("/verdict", 20).await;
    floor.drop_pictures(0, 1);
    let alarm = plc.wait_for("/alarm", 1).await.remove(0);
    let published = plc.count("/verdict") as u64;
    assert_eq!(alarm["sequence"], BACKLOG + 1, "{}", arg(&floor.path("store")));
    assert!(published < BACKLOG, "the backlog was over before the alarm came");

    // In its turn it comes again, the same, and nothing is missing before it.
    proxy.set(Mode::Pass(Duration::ZERO));
    plc.wait_until("/verdict", |verdict| verdict["sequence"] == BACKLOG + 1).await;
    eventually("it comes as an alarm again", || plc.count("/alarm") >= 2).await;
    assert!(plc.on("/alarm").iter().all(|again| *again == alarm));
    let sequences: BTreeSet<u64> = plc.on("/verdict").iter().filter_map(|v| v["sequence"].as_u64()).collect();
    assert!(sequences.into_iter().eq(1..=BACKLOG + 1));
    daemon.stops();
}

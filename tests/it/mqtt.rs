//! The session against a real broker: nothing lost, in order, whatever happens to the connection.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use inspectord::publish::{
    Availability, CameraCounters, CameraState, Command, Incoming, Link, Options, Outgoing, PublishError,
    Replayed, Reply, RequestId, Tls, probe,
};
use inspectord::verdict::{AnomalousRegion, Outcome, Score};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::mosquitto::{Access, Mosquitto, certificates, free_port};
use crate::proxy::{Mode, Proxy};
use crate::session_rig::{Rig, camera, options, verdict};
use crate::subscriber::{Subscriber, eventually};

/// Hands in `count` verdicts, in turn of both cameras, and tells what they were.
async fn feed(outgoing: mpsc::Sender<Outgoing>, count: u64) -> BTreeMap<(String, u64), String> {
    let mut fed = BTreeMap::new();
    for position in 1..=count {
        let (name, sequence) = (["side", "top"][(position % 2) as usize], position.div_ceil(2));
        let verdict = verdict(name, sequence);
        fed.insert((name.to_owned(), sequence), verdict.id.to_string());
        outgoing.send(Outgoing { position, verdict }).await.unwrap();
    }
    fed
}

/// Every verdict came with its own id, each camera's first appearances in order, every alarm came too, and nothing else.
/// Returns how many came more than once.
fn check_complete(subscriber: &Subscriber, fed: &BTreeMap<(String, u64), String>) -> usize {
    let received = subscriber.on("/verdict");
    let mut highest: BTreeMap<String, u64> = BTreeMap::new();
    for verdict in &received {
        let key = (verdict["camera"].as_str().unwrap().to_owned(), verdict["sequence"].as_u64().unwrap());
        assert_eq!(fed.get(&key).map(String::as_str), verdict["id"].as_str(), "{key:?}");
        let highest = highest.entry(key.0.clone()).or_insert(0);
        assert!(key.1 <= *highest + 1, "{} came after {highest}: out of order, or one is missing", key.1);
        *highest = key.1.max(*highest);
    }
    let ids = |values: &[Value]| {
        values.iter().map(|v| v["id"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eq!(ids(&received).len(), fed.len(), "missing verdicts");
    let alarms = fed.iter().filter(|((_, sequence), _)| sequence % 10 == 0).map(|(_, id)| id.clone());
    assert_eq!(ids(&subscriber.on("/alarm")), alarms.collect(), "missing alarms");
    received.len() - fed.len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verdict_arrives_across_killed_brokers() {
    let mut broker = Mosquitto::start(Access::Open).await;
    let proxy = Proxy::start(broker.port()).await;
    let subscriber = Subscriber::start(broker.port(), "inspectord/#").await;
    let mut rig = Rig::start(&options(proxy.port()), 16);
    let feeder = tokio::spawn(feed(rig.outgoing.clone(), 3000));
    for (kills, so_far) in [700, 1900].into_iter().enumerate() {
        subscriber.wait_for("/verdict", so_far).await;
        let before = subscriber.subscriptions();
        // A broker takes along what it has acknowledged and not yet handed on, which a subscriber asks for again; here
        // nobody does. Messages come in order: behind this one, none is left.
        proxy.set(Mode::Cut);
        subscriber.publish("inspectord/all/before", "").await;
        subscriber.wait_for("/all/before", kills + 1).await;
        broker.kill();
        // It forgets its subscribers, too; whoever publishes must not be back before them.
        broker.run().await;
        subscriber.subscribed(before + 1).await;
        proxy.set(Mode::Pass(Duration::ZERO));
    }
    rig.acknowledged_to(3000).await;
    let fed = feeder.await.unwrap();
    let ids = || {
        subscriber.on("/verdict").iter().map(|v| v["id"].clone().to_string()).collect::<BTreeSet<_>>().len()
    };
    eventually("all verdicts have come", || ids() == 3000).await;
    let repeats = check_complete(&subscriber, &fed);
    assert!(rig.monitor.counters.sent_again.get() > 0, "no kill met a packet on its way");
    assert!(repeats <= 2 * 100, "{repeats} repeats: more than two windows");
    assert_eq!(rig.monitor.counters.connections.get(), 3);
    rig.stop().await;
}

#[tokio::test]
async fn a_slow_line_loses_nothing() {
    let broker = Mosquitto::start(Access::Open).await;
    let proxy = Proxy::start(broker.port()).await;
    proxy.set(Mode::Pass(Duration::from_millis(100)));
    let subscriber = Subscriber::start(broker.port(), "inspectord/#").await;
    let mut rig = Rig::start(&options(proxy.port()), 16);
    let fed = feed(rig.outgoing.clone(), 600).await;
    rig.acknowledged_to(600).await;
    subscriber.wait_for("/verdict", 600).await;
    assert_eq!(check_complete(&subscriber, &fed), 0, "one connection repeats nothing");
    rig.stop().await;
}

#[tokio::test]
async fn a_dead_connection_is_noticed_and_nothing_is_lost() {
    let broker = Mosquitto::start(Access::Open).await;
    let proxy = Proxy::start(broker.port()).await;
    let subscriber = Subscriber::start(broker.port(), "inspectord/#").await;
    let mut rig = Rig::start(&options(proxy.port()), 16);
    rig.connected().await;
    proxy.set(Mode::Swallow);
    let fed = feed(rig.outgoing.clone(), 50).await;
    eventually("the dead connection is noticed", || rig.link() == Link::Down).await;
    let error = rig.monitor.health.borrow().last_error.clone().unwrap();
    assert!(error.contains("stopped answering"), "{error}");
    proxy.set(Mode::Pass(Duration::ZERO));
    rig.acknowledged_to(50).await;
    subscriber.wait_for("/verdict", 50).await;
    check_complete(&subscriber, &fed);
    // The will of the dead connection must not have the last word.
    eventually("the box is online again", || {
        subscriber.on("/status").last().is_some_and(|v| v["state"] == "online")
    })
    .await;
    rig.stop().await;
}

#[tokio::test]
async fn a_line_that_is_cut_again_and_again_loses_nothing() {
    let broker = Mosquitto::start(Access::Open).await;
    let proxy = Proxy::start(broker.port()).await;
    let subscriber = Subscriber::start(broker.port(), "inspectord/#").await;
    let mut rig = Rig::start(&options(proxy.port()), 16);
    proxy.set(Mode::Pass(Duration::from_millis(1)));
    let feeder = tokio::spawn(feed(rig.outgoing.clone(), 2000));
    for cuts in 1..=20 {
        subscriber.wait_for("/verdict", cuts * 90).await;
        proxy.sever();
        eventually("the session is back", || rig.monitor.counters.connections.get() > cuts as u64).await;
    }
    rig.acknowledged_to(2000).await;
    let fed = feeder.await.unwrap();
    let ids = || subscriber.on("/verdict").iter().map(|v| v["id"].to_string()).collect::<BTreeSet<_>>();
    eventually("all have come", || ids().len() == 2000).await;
    check_complete(&subscriber, &fed);
    assert!(rig.monitor.counters.sent_again.get() > 0, "no cut met a packet on its way");
    rig.stop().await;
}

/// `RECONNECTS=10000 cargo test --test it reconnects_leave -- --ignored`, alone: it looks at this process's own memory.
#[tokio::test]
#[ignore = "takes minutes, and this process to itself"]
async fn reconnects_leave_nothing_behind() {
    let broker = Mosquitto::start(Access::Open).await;
    let proxy = Proxy::start(broker.port()).await;
    let quick = Options { back_off_min_ms: 10, back_off_max_ms: 10, ..options(proxy.port()) };
    let mut rig = Rig::start(&quick, 16);
    // Hears nothing, since what it heard would be in this process's memory, too.
    let plc = Subscriber::start(broker.port(), "nobody/says/anything").await;
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        4 * pages.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let times = std::env::var("RECONNECTS").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let mut settled = 0;
    for n in 1..=times {
        eventually("it connects", || rig.monitor.counters.connections.get() >= n).await;
        if n % 100 == 0 {
            // Some leave a trigger half taken.
            plc.publish("inspectord/box/top/trigger", "{}").await;
            rig.next_incoming().await;
        }
        proxy.sever();
        if n == times / 10 {
            settled = resident();
        }
    }
    let end = resident();
    println!("resident after {} reconnects {settled} KiB, after {times} {end} KiB", times / 10);
    assert!(end < settled + settled / 8 + 1024, "{settled} KiB became {end} KiB");
    rig.stop().await;
}

#[tokio::test]
async fn the_box_says_when_it_comes_and_goes() {
    let broker = Mosquitto::start(Access::Open).await;
    let rig = Rig::start(&options(broker.port()), 16);
    let subscriber = Subscriber::start(broker.port(), "inspectord/box/status").await;
    let online = subscriber.wait_until("/status", |v| v["state"] == "online").await;
    assert_eq!(online["version"], env!("CARGO_PKG_VERSION"));
    assert!(online["since"].as_str().unwrap().ends_with('Z'));
    rig.stop().await;
    subscriber.wait_until("/status", |v| v["state"] == "stopped").await;
    // Retained: also for whoever comes later.
    let later = Subscriber::start(broker.port(), "inspectord/box/status").await;
    later.wait_until("/status", |v| v["state"] == "stopped").await;

    let rig = Rig::start(&options(broker.port()), 16);
    subscriber.wait_until("/status", |v| v["state"] == "online" && v["since"] != online["since"]).await;
    rig.task.abort();
    subscriber.wait_until("/status", |v| v["state"] == "offline").await;
}

#[tokio::test]
async fn a_stop_brings_out_what_was_handed_in() {
    let broker = Mosquitto::start(Access::Open).await;
    let proxy = Proxy::start(broker.port()).await;
    proxy.set(Mode::Pass(Duration::from_millis(20)));
    let subscriber = Subscriber::start(broker.port(), "inspectord/#").await;
    let mut rig = Rig::start(&options(proxy.port()), 16);
    let fed = feed(rig.outgoing.clone(), 200).await;
    rig.shutdown.request();
    rig.acknowledged_to(200).await;
    rig.stop().await;
    subscriber.wait_until("/status", |v| v["state"] == "stopped").await;
    check_complete(&subscriber, &fed);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_broker_that_is_away() {
    let rig = Rig::start(&Options { drain_seconds: 1, ..options(free_port()) }, 16);
    eventually("an attempt fails", || rig.monitor.counters.failures.get() > 0).await;
    let error = rig.monitor.health.borrow().last_error.clone().unwrap();
    assert!(error.contains("nothing listens"), "{error}");
    rig.outgoing.send(Outgoing { position: 1, verdict: verdict("top", 1) }).await.unwrap();
    rig.stop().await;

    let broker = Mosquitto::start(Access::Open).await;
    let proxy = Proxy::start(broker.port()).await;
    let rig = Rig::start(&Options { drain_seconds: 1, keep_alive_seconds: 60, ..options(proxy.port()) }, 16);
    rig.connected().await;
    proxy.set(Mode::Swallow);
    rig.outgoing.send(Outgoing { position: 1, verdict: verdict("top", 1) }).await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn states_are_retained_and_the_latest_wins() {
    let broker = Mosquitto::start(Access::Open).await;
    let rig = Rig::start(&options(broker.port()), 16);
    let state = |up: bool, ok: u64| CameraState {
        availability: if up { Availability::Up } else { Availability::Down { reason: "unplugged".into() } },
        since: "2026-01-02T03:04:05Z".parse().unwrap(),
        model: None,
        threshold: None,
        counters: CameraCounters { ok, ..CameraCounters::default() },
        last_frame_at: None,
        retraining: None,
        warnings: Vec::new(),
    };
    for ok in 1..=500 {
        rig.states.send_modify(|states| drop(states.insert(camera("top"), state(true, ok))));
        tokio::task::yield_now().await;
    }
    let subscriber = Subscriber::start(broker.port(), "inspectord/box/+/state").await;
    subscriber.wait_until("/top/state", |v| v["counters"]["ok"] == 500).await;
    rig.states.send_modify(|states| drop(states.insert(camera("top"), state(true, 501))));
    rig.states.send_modify(|states| drop(states.insert(camera("top"), state(false, 501))));
    let down = subscriber.wait_until("/top/state", |v| v["state"] == "down").await;
    assert_eq!(down["reason"], "unplugged");
    assert!(subscriber.count("/top/state") < 20, "counters alone are published now and then only");
    let later = Subscriber::start(broker.port(), "inspectord/box/+/state").await;
    later.wait_until("/top/state", |v| v["state"] == "down").await;
    rig.states.send_modify(|states| drop(states.insert(camera("top"), state(false, 777))));
    rig.stop().await;
    let last = subscriber.wait_until("/top/state", |v| v["counters"]["ok"] == 777).await;
    assert_eq!(last["state"], "down", "a stop publishes what had been held back");
}

#[tokio::test]
async fn a_verdict_that_is_too_large_is_shortened_and_holds_nobody_up() {
    let broker = Mosquitto::start(Access::Open).await;
    let subscriber = Subscriber::start(broker.port(), "inspectord/#").await;
    let mut rig = Rig::start(&Options { max_packet_kilobytes: 8, ..options(broker.port()) }, 16);
    let mut huge = verdict("top", 10);
    if let Outcome::Inspected(finding) = &mut huge.judgement.outcome {
        finding.regions = vec![AnomalousRegion { x: 1, y: 2, width: 3, height: 4, score: Score(0.7) }; 5000];
    }
    rig.outgoing.send(Outgoing { position: 1, verdict: huge }).await.unwrap();
    rig.outgoing.send(Outgoing { position: 2, verdict: verdict("top", 11) }).await.unwrap();
    rig.acknowledged_to(2).await;
    let verdicts = subscriber.wait_for("/verdict", 2).await;
    assert_eq!(verdicts[0]["truncated"], json!(["regions"]));
    assert_eq!(verdicts[1]["sequence"], 11);
    assert_eq!(subscriber.wait_for("/alarm", 1).await[0]["decision"], "anomalous");
    assert_eq!(rig.monitor.counters.trimmed.get(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn verdicts_outside_the_order_go_where_they_belong() {
    let broker = Mosquitto::start(Access::Open).await;
    let subscriber = Subscriber::start(broker.port(), "inspectord/#").await;
    let rig = Rig::start(&options(broker.port()), 16);
    let replayed = verdict("top", 10);
    let ahead = verdict("side", 20);
    rig.replayed.send(Replayed::Verdict(Box::new(replayed.clone()))).await.unwrap();
    rig.alarms.send(ahead.clone()).unwrap();
    assert_eq!(subscriber.wait_for("/top/verdict", 1).await[0]["id"], replayed.id.to_string());
    assert_eq!(subscriber.wait_for("/side/alarm", 1).await[0]["id"], ahead.id.to_string());
    rig.stop().await;
    assert_eq!((subscriber.count("/top/alarm"), subscriber.count("/side/verdict")), (0, 0));
}

#[tokio::test]
async fn an_early_alarm_does_not_wait_for_a_replay_and_the_replays_answer_does() {
    const REPLAYED: u64 = 400;
    let broker = Mosquitto::start(Access::Open).await;
    let proxy = Proxy::start(broker.port()).await;
    proxy.set(Mode::Pass(Duration::from_millis(50)));
    let rig = Rig::start(&Options { inflight: 8, ..options(proxy.port()) }, 16);
    let subscriber = Subscriber::start(broker.port(), "inspectord/#").await;
    let to = rig.replayed.clone();
    let replay = tokio::spawn(async move {
        for sequence in 1..=REPLAYED {
            to.send(Replayed::Verdict(Box::new(verdict("top", sequence)))).await.unwrap();
        }
        let id = RequestId::new("gap").unwrap();
        to.send(Replayed::Over(Reply::done(camera("top"), id, json!({})))).await.unwrap();
    });
    subscriber.wait_for("/verdict", 1).await;
    rig.alarms.send(verdict("side", 20)).unwrap();
    subscriber.wait_for("/alarm", 1).await;
    assert!((subscriber.count("/verdict") as u64) < REPLAYED, "it waited for the replay");
    proxy.set(Mode::Pass(Duration::ZERO));
    subscriber.wait_for("/reply", 1).await;
    assert_eq!(subscriber.count("/verdict") as u64, REPLAYED, "the answer overtook what it answers");
    replay.await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn of_the_alarms_of_an_outage_the_newest_go_ahead_and_the_others_are_counted() {
    let broker = Mosquitto::start(Access::Open).await;
    let proxy = Proxy::start(broker.port()).await;
    proxy.set(Mode::Swallow);
    let rig = Rig::start(&options(proxy.port()), 16);
    for sequence in 1..=40 {
        rig.alarms.send(verdict("top", sequence)).unwrap();
    }
    let subscriber = Subscriber::start(broker.port(), "inspectord/#").await;
    proxy.set(Mode::Pass(Duration::ZERO));
    let alarms = subscriber.wait_for("/alarm", 16).await;
    assert_eq!((&alarms[0]["sequence"], &alarms[15]["sequence"]), (&json!(25), &json!(40)));
    assert_eq!(rig.monitor.counters.alarms_in_turn.get(), 24);
    rig.stop().await;
}

#[tokio::test]
async fn a_session_that_is_stopped_before_it_has_subscribed_leaves_stopped_behind() {
    let broker = Mosquitto::start(Access::Open).await;
    // It is asked to stop before it has begun to connect.
    Rig::start(&options(broker.port()), 16).stop().await;
    let later = Subscriber::start(broker.port(), "inspectord/box/status").await;
    assert_eq!(later.wait_for("/status", 1).await[0]["state"], "stopped");
}

#[tokio::test]
async fn triggers_and_commands_come_in_and_replies_go_out() {
    let broker = Mosquitto::start(Access::Open).await;
    let mut rig = Rig::start(&options(broker.port()), 16);
    let plc = Subscriber::start(broker.port(), "inspectord/#").await;
    plc.wait_until("/status", |v| v["state"] == "online").await;
    plc.publish("inspectord/box/top/trigger", r#"{"part_id":"p-1","deadline_ms":250,"lot":7}"#).await;
    let Incoming::Trigger { camera: which, trigger, late, .. } = rig.next_incoming().await else { panic!() };
    assert_eq!((which.as_str(), late), ("top", false));
    assert_eq!((trigger.part_id.as_deref(), trigger.deadline_ms), (Some("p-1"), Some(250)));
    assert_eq!(trigger.fields["lot"], 7);

    plc.publish("inspectord/box/side/command", r#"{"id":"r1","command":"replay","from":3,"to":5}"#).await;
    let Incoming::Command { camera: which, id, command } = rig.next_incoming().await else { panic!() };
    assert_eq!((which.as_str(), command), ("side", Command::Replay { from: 3, to: 5 }));
    rig.replies.send(Reply::done(which, id, json!({"replayed": 3}))).await.unwrap();
    let reply = plc.wait_until("/side/reply", |v| v["id"] == "r1").await;
    assert_eq!((&reply["ok"], &reply["result"]["replayed"]), (&json!(true), &json!(3)));
    rig.stop().await;
}

#[tokio::test]
async fn what_cannot_be_used_is_answered() {
    let broker = Mosquitto::start(Access::Open).await;
    let plc = Subscriber::start(broker.port(), "inspectord/#").await;
    plc.retain("inspectord/box/side/trigger", "{\"part_id\":\"old\"}").await;
    plc.wait_for("/side/trigger", 1).await;
    let mut rig = Rig::start(&options(broker.port()), 1);
    let refusal = plc.wait_until("/side/reply", |v| v["part_id"] == "old").await;
    assert!(refusal["error"].as_str().unwrap().contains("retained"), "{refusal}");

    plc.wait_until("/status", |v| v["state"] == "online").await;
    for (topic, payload, about) in [
        ("top/trigger", "not json".to_owned(), "JSON"),
        ("top/trigger", String::new(), "empty"),
        ("top/trigger", format!("\"{}\"", "x".repeat(70_000)), "65536"),
        ("left/trigger", "{}".into(), "no camera `left`"),
        ("top/command", "{\"id\":\"a\",\"command\":\"explode\"}".into(), "replay"),
    ] {
        let before = plc.count("/reply");
        plc.publish(&format!("inspectord/box/{topic}"), payload).await;
        let replies = plc.wait_for("/reply", before + 1).await;
        let error = replies.last().unwrap()["error"].as_str().unwrap();
        assert!(error.contains(about), "{error}");
    }
    assert_eq!(rig.monitor.counters.refused.get(), 6);

    // One fits, the second meets a full channel.
    plc.publish("inspectord/box/top/trigger", "{\"part_id\":\"1\"}").await;
    plc.publish("inspectord/box/top/trigger", "{\"part_id\":\"2\"}").await;
    let refusal = plc.wait_until("/top/reply", |v| v["part_id"] == "2").await;
    assert!(refusal["error"].as_str().unwrap().contains("more came"), "{refusal}");
    assert!(
        matches!(rig.next_incoming().await, Incoming::Trigger { trigger, .. } if trigger.part_id.as_deref() == Some("1"))
    );
    assert_eq!(rig.monitor.counters.overloaded.get(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn every_refused_trigger_is_answered_however_many_come_at_once() {
    let broker = Mosquitto::start(Access::Open).await;
    // Nobody takes triggers, and one packet is under way at a time.
    let rig = Rig::start(&Options { inflight: 1, ..options(broker.port()) }, 1);
    let plc = Subscriber::start(broker.port(), "inspectord/#").await;
    plc.wait_until("/status", |v| v["state"] == "online").await;
    for part in 0..150 {
        plc.publish("inspectord/box/top/trigger", format!("{{\"part_id\":\"{part}\"}}")).await;
    }
    let replies = plc.wait_for("/reply", 149).await;
    let answered: std::collections::BTreeSet<_> = replies.iter().map(|r| r["part_id"].to_string()).collect();
    assert_eq!(answered.len(), 149, "all but the one that was taken");
    assert!(replies.iter().all(|r| r["ok"] == false));
    assert_eq!(rig.monitor.counters.unanswered.get(), 0);
    rig.stop().await;
}

#[tokio::test]
async fn triggers_that_waited_at_the_broker_are_known_to_be_late() {
    let broker = Mosquitto::start(Access::Open).await;
    let rig = Rig::start(&options(broker.port()), 16);
    let plc = Subscriber::start(broker.port(), "inspectord/#").await;
    plc.wait_until("/status", |v| v["state"] == "online").await;
    rig.stop().await;
    // More than the 20 that mosquitto sends before it wants an acknowledgement, were it at its default.
    for part in 0..50 {
        plc.publish("inspectord/box/top/trigger", format!("{{\"part_id\":\"{part}\"}}")).await;
    }
    plc.wait_for("/top/trigger", 50).await;
    let mut rig = Rig::start(&options(broker.port()), 100);
    for part in 0..50 {
        let Incoming::Trigger { trigger, late, .. } = rig.next_incoming().await else { panic!() };
        assert_eq!((trigger.part_id, late), (Some(part.to_string()), true));
    }
    let online = |plc: &Subscriber| plc.on("/status").iter().filter(|v| v["state"] == "online").count();
    eventually("the box is online again", || online(&plc) == 2).await;
    plc.publish("inspectord/box/top/trigger", "{\"part_id\":\"fresh\"}").await;
    assert!(matches!(rig.next_incoming().await, Incoming::Trigger { late: false, .. }));
    assert_eq!(rig.monitor.counters.late_triggers.get(), 50);
    rig.stop().await;
}

#[tokio::test]
async fn a_broker_that_silently_withholds_is_told_of() {
    let broker = Mosquitto::start(Access::TriggersOnly).await;
    let options = options(broker.port());
    // A session that the broker resumes, so that what comes first may be old.
    let first = Rig::start(&options, 16);
    first.connected().await;
    eventually("it subscribes", || first.monitor.counters.acknowledged.get() > 0).await;
    first.stop().await;
    let mut rig = Rig::start(&options, 16);
    let warning = || rig.monitor.health.borrow().warning.clone().unwrap_or_default();
    eventually("the warning shows", || warning().contains("access rules")).await;
    assert!(warning().contains("`inspectord/box`"), "{}", warning());
    let plc = Subscriber::start(broker.port(), "none").await;
    plc.publish("inspectord/box/top/trigger", "{}").await;
    assert!(matches!(rig.next_incoming().await, Incoming::Trigger { late: false, .. }));
    rig.stop().await;
}

#[tokio::test]
async fn oversize_messages_cannot_keep_verdicts_from_going_out() {
    let broker = Mosquitto::start(Access::Open).await;
    let plc = Subscriber::start(broker.port(), "inspectord/+/+/verdict").await;
    plc.retain("inspectord/box/top/trigger", vec![b' '; 2_000_000]).await;
    let mut rig = Rig::start(&Options { max_packet_kilobytes: 16, ..options(broker.port()) }, 16);
    eventually("the inputs are closed", || {
        rig.link() == Link::Up
            && rig.monitor.health.borrow().warning.as_ref().is_some_and(|w| w.contains("larger"))
    })
    .await;
    assert!(rig.monitor.health.borrow().deaf, "nobody is told that triggers are lost");
    rig.outgoing.send(Outgoing { position: 1, verdict: verdict("top", 1) }).await.unwrap();
    rig.acknowledged_to(1).await;
    plc.wait_for("/verdict", 1).await;
    assert_eq!(rig.monitor.counters.failures.get(), 2);
    rig.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_told_apart_from_a_wrong_address() {
    let broker = Mosquitto::start(Access::Password).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    let with = |password: &str| {
        std::fs::write(&file, password).unwrap();
        Options { username: Some("box".into()), password_file: Some(file.clone()), ..options(broker.port()) }
    };
    let error = probe(&with("wrong"), "box").await.unwrap_err();
    assert!(matches!(&error, PublishError::Login { .. }), "{error}");
    assert!(
        error.to_string().contains("`box`") && error.to_string().contains("mqtt.password_file"),
        "{error}"
    );
    let error = probe(&options(broker.port()), "box").await.unwrap_err();
    assert!(error.to_string().contains("a client without a user"), "{error}");
    assert_eq!(probe(&with("right\n"), "box").await.unwrap().warnings, [""; 0]);

    let rig = Rig::start(&with("wrong"), 16);
    eventually("the refusal shows", || {
        rig.monitor.health.borrow().last_error.as_ref().is_some_and(|e| e.contains("password is wrong"))
    })
    .await;
    // A password that is put right is used without a restart.
    std::fs::write(&file, "right").unwrap();
    rig.connected().await;
    rig.stop().await;
}

#[tokio::test]
async fn a_probe_tells_what_is_wrong_with_the_address() {
    let at = |host: &str, port| Options { host: host.into(), ..options(port) };
    let error = probe(&at("no-such-host.invalid", 1883), "box").await.unwrap_err();
    assert!(matches!(error, PublishError::UnknownHost { .. }), "{error:?}");
    let error = probe(&at("127.0.0.1", free_port()), "box").await.unwrap_err();
    assert!(matches!(error, PublishError::NothingListens { .. }), "{error:?}");
    let broker = Mosquitto::start(Access::Open).await;
    let proxy = Proxy::start(broker.port()).await;
    proxy.set(Mode::Swallow);
    let error = probe(&at("127.0.0.1", proxy.port()), "box").await.unwrap_err();
    assert!(matches!(error, PublishError::Silent { .. }), "{error:?}");
}

#[tokio::test]
async fn a_probe_leaves_a_running_daemon_alone() {
    let broker = Mosquitto::start(Access::Open).await;
    let rig = Rig::start(&options(broker.port()), 16);
    let subscriber = Subscriber::start(broker.port(), "#").await;
    subscriber.wait_until("/status", |v| v["state"] == "online").await;
    let found = probe(&options(broker.port()), "box").await.unwrap();
    assert_eq!((found.broker, found.encrypted), (format!("127.0.0.1:{}", broker.port()), false));
    assert_eq!(rig.monitor.counters.connections.get(), 1);
    rig.stop().await;
    subscriber.wait_until("/status", |v| v["state"] == "stopped").await;
    assert_eq!(subscriber.count(""), 2, "online and stopped, nothing of the probe");
}

#[tokio::test]
async fn tls_is_verified_and_its_failures_are_told_apart() {
    let broker = Mosquitto::start(Access::Tls).await;
    let with = |ca, server_name: Option<&str>| Options {
        tls: Tls {
            enabled: true,
            ca_file: Some(ca),
            server_name: server_name.map(Into::into),
            ..Tls::default()
        },
        ..options(broker.port())
    };
    let found = probe(&with(broker.ca(), Some("broker.test")), "box").await.unwrap();
    assert!(found.encrypted);
    let reason = async |options: Options| probe(&options, "box").await.unwrap_err().to_string();
    let other_name = reason(with(broker.ca(), None)).await;
    assert!(other_name.contains("another name"), "{other_name}");
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    let stranger = reason(with(other.path().join("ca.pem"), Some("broker.test"))).await;
    assert!(stranger.contains("does not vouch"), "{stranger}");
    let missing = reason(with(other.path().join("none.pem"), None)).await;
    assert!(missing.contains("mqtt.tls.ca_file"), "{missing}");
    let plain = reason(options(broker.port())).await;
    assert!(plain.contains("expect TLS"), "{plain}");
    let open = Mosquitto::start(Access::Open).await;
    let no_tls = reason(Options { port: Some(open.port()), ..with(broker.ca(), Some("broker.test")) }).await;
    assert!(no_tls.contains("expect TLS") || no_tls.contains("does not speak TLS"), "{no_tls}");

    let mut rig = Rig::start(&with(broker.ca(), Some("broker.test")), 16);
    rig.outgoing.send(Outgoing { position: 1, verdict: verdict("top", 1) }).await.unwrap();
    rig.acknowledged_to(1).await;
    rig.stop().await;
}

//! Triggers are acknowledged to the broker when they are sure to be answered, and judged once however often they come.

use std::collections::BTreeSet;
use std::time::Duration;

use inspectord::delivery::Deliveries;
use inspectord::publish::{Incoming, Options, Reply, Request};

use crate::daemon::{Floor, complete};
use crate::inspectord::Running;
use crate::mosquitto::{Access, Mosquitto};
use crate::proxy::{Mode, Proxy};
use crate::session_rig::{Rig, camera, options};
use crate::small_disk::SmallDisk;
use crate::subscriber::{Subscriber, eventually};

const TRIGGER: &str = "inspectord/box/top/trigger";

fn part(name: &str) -> String {
    format!("{{\"part_id\":\"{name}\"}}")
}

/// The part that a request is about, and whether it had waited at the broker.
#[track_caller]
fn trigger(request: &Request) -> (String, bool) {
    let Incoming::Trigger { trigger, late, .. } = &request.incoming else { panic!("{request:?}") };
    (trigger.part_id.clone().unwrap_or_default(), *late)
}

impl Rig {
    /// Ends it as a crash would: nothing more is said.
    async fn crash(self) {
        self.task.abort();
        assert!(self.task.await.is_err(), "it had ended already");
    }
}

async fn with_plc(options: &Options, port: u16) -> (Rig, Subscriber) {
    let rig = Rig::start(options, 100);
    let plc = Subscriber::start(port, "inspectord/#").await;
    plc.wait_until("/status", |v| v["state"] == "online").await;
    (rig, plc)
}

#[tokio::test]
async fn a_trigger_stays_with_the_broker_until_its_receipt_is_given() {
    let broker = Mosquitto::start(Access::Bounded).await;
    let options = options(broker.port());
    let (mut rig, plc) = with_plc(&options, broker.port()).await;
    plc.publish(TRIGGER, part("a")).await;
    assert_eq!(trigger(&rig.next_request().await), ("a".into(), false));
    rig.crash().await;

    let mut rig = Rig::start(&options, 100);
    let again = rig.next_request().await;
    assert_eq!(trigger(&again), ("a".into(), true));
    again.receipt.give();
    // What the broker passes on after an acknowledgement, it passes on knowing it.
    rig.replies.send(Reply::refused(camera("top"), None, "heard")).await.unwrap();
    plc.wait_until("/reply", |reply| reply["error"] == "heard").await;
    rig.crash().await;

    let mut rig = Rig::start(&options, 100);
    plc.publish(TRIGGER, part("b")).await;
    assert_eq!(trigger(&rig.next_request().await).0, "b");
    rig.stop().await;
}

#[tokio::test]
async fn a_trigger_that_was_noted_before_a_crash_is_acknowledged_after_it_and_not_taken_again() {
    let broker = Mosquitto::start(Access::Bounded).await;
    let options = options(broker.port());
    let (mut rig, plc) = with_plc(&options, broker.port()).await;
    let mut noted = Deliveries::default();
    // The same words twice are two triggers; only the first was noted.
    for which in 0..2 {
        plc.publish(TRIGGER, "{}").await;
        let Incoming::Trigger { delivery, .. } = rig.next_request().await.incoming else { panic!() };
        if which == 0 {
            noted.add(delivery.unwrap());
        }
    }
    rig.crash().await;

    let mut rig = Rig::start_after(&options, 100, noted);
    plc.publish(TRIGGER, part("fresh")).await;
    let seen = [rig.next_request().await, rig.next_request().await];
    assert_eq!(seen.each_ref().map(|request| trigger(request).0), ["".to_owned(), "fresh".to_owned()]);
    assert_eq!(rig.monitor.counters.repeated.get(), 1);
    rig.stop().await;
}

#[tokio::test]
async fn a_trigger_delivered_again_while_its_note_waits_for_the_disk_is_taken_once() {
    let broker = Mosquitto::start(Access::Bounded).await;
    let proxy = Proxy::start(broker.port()).await;
    let options = options(proxy.port());
    let (mut rig, plc) = with_plc(&options, broker.port()).await;
    plc.publish(TRIGGER, part("a")).await;
    let first = rig.next_request().await;
    proxy.sever();
    eventually("it is delivered again", || rig.monitor.counters.repeated.get() == 1).await;
    first.receipt.give();
    plc.publish(TRIGGER, part("b")).await;
    let next = rig.next_request().await;
    assert_eq!(trigger(&next).0, "b");
    next.receipt.give();
    rig.stop().await;

    let mut rig = Rig::start(&options, 100);
    plc.publish(TRIGGER, part("c")).await;
    assert_eq!(trigger(&rig.next_request().await).0, "c", "all before it were acknowledged");
    rig.stop().await;
}

#[tokio::test]
async fn a_refused_trigger_whose_answer_was_lost_is_answered_after_a_crash() {
    let broker = Mosquitto::start(Access::Bounded).await;
    let proxy = Proxy::start(broker.port()).await;
    let options = options(proxy.port());
    let (mut rig, plc) = with_plc(&options, broker.port()).await;
    plc.publish(TRIGGER, part("a")).await;
    let refuse =
        |request: Request| Reply::refused(camera("top"), Some("a".into()), "no").settling(request.receipt);
    let request = rig.next_request().await;
    proxy.set(Mode::Swallow);
    let sent = rig.monitor.counters.sent.get();
    rig.replies.send(refuse(request)).await.unwrap();
    eventually("the answer is under way", || rig.monitor.counters.sent.get() > sent).await;
    rig.crash().await;
    assert_eq!(plc.count("/reply"), 0, "the answer was not lost");
    proxy.set(Mode::Pass(Duration::ZERO));
    let mut rig = Rig::start(&options, 100);
    rig.replies.send(refuse(rig.incoming.recv().await.unwrap())).await.unwrap();
    plc.wait_until("/reply", |v| v["part_id"] == "a").await;
    rig.stop().await;
    let mut rig = Rig::start(&options, 100);
    plc.publish(TRIGGER, part("b")).await;
    assert_eq!(trigger(&rig.next_request().await).0, "b");
    rig.stop().await;
}

#[tokio::test]
async fn what_the_broker_holds_back_for_want_of_acknowledgements_is_known_to_be_late() {
    let broker = Mosquitto::start(Access::Bounded).await;
    let (mut rig, plc) = with_plc(&options(broker.port()), broker.port()).await;
    let online = |plc: &Subscriber| plc.on("/status").iter().filter(|v| v["state"] == "online").count();
    for n in 0..60 {
        plc.publish(TRIGGER, part(&n.to_string())).await;
    }
    let mut held = Vec::new();
    for n in 0..20 {
        let request = rig.next_request().await;
        assert_eq!(trigger(&request), (n.to_string(), false));
        held.push(request);
    }
    // The session wonders why, asks, and hears nothing for longer than a trigger may wait.
    eventually("it says again that it is online", || online(&plc) == 2).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(rig.incoming.try_recv().is_err(), "mosquitto sent more than 20");
    held.iter().for_each(|request| request.receipt.give());
    for n in 20..60 {
        let request = rig.next_request().await;
        assert_eq!(trigger(&request), (n.to_string(), true));
        request.receipt.give();
    }
    eventually("nothing is held back any more", || online(&plc) == 3).await;
    let mut n = 0;
    loop {
        n += 1;
        plc.publish(TRIGGER, part(&format!("fresh {n}"))).await;
        let request = rig.next_request().await;
        request.receipt.give();
        if !trigger(&request).1 {
            break;
        }
        assert!(n < 1000, "it never catches up");
    }
    rig.stop().await;
}

#[tokio::test]
async fn a_busy_line_whose_broker_withholds_the_status_is_inspected_and_told_of_it() {
    let broker = Mosquitto::start(Access::TriggersOnly).await;
    let options = options(broker.port());
    let first = Rig::start(&options, 16);
    eventually("it subscribes", || first.monitor.counters.acknowledged.get() > 0).await;
    first.stop().await;
    // The broker resumes the session, and from then on the line is never silent.
    let plc = Subscriber::start(broker.port(), "none").await;
    plc.publish(TRIGGER, part("waited")).await;
    let mut rig = Rig::start(&options, 100);
    let mut late = Vec::new();
    while !late.ends_with(&[false]) {
        assert!(late.len() < 1000, "every part of a line that runs is called late");
        let request = rig.next_request().await;
        request.receipt.give();
        late.push(trigger(&request).1);
        tokio::time::sleep(Duration::from_millis(50)).await;
        plc.publish(TRIGGER, "{}").await;
    }
    assert!(late[0], "what had waited is");
    let warning = rig.monitor.health.borrow().warning.clone().unwrap_or_default();
    assert!(warning.contains("access rules") && warning.contains("`inspectord/box/status`"), "{warning}");
    rig.stop().await;
}

#[tokio::test]
async fn triggers_that_come_while_the_box_is_away_survive_an_oversize_message_before_that() {
    let broker = Mosquitto::start(Access::Open).await;
    let options = options(broker.port());
    let (rig, plc) = with_plc(&options, broker.port()).await;
    plc.publish(TRIGGER, vec![b' '; 300_000]).await;
    let refusal = plc.wait_until("/reply", |reply| reply["ok"] == false).await;
    assert!(refusal["error"].as_str().unwrap().contains("300000 bytes"), "{refusal}");
    assert_eq!(rig.monitor.counters.failures.get(), 0, "the connection is kept");
    plc.publish(TRIGGER, vec![b' '; 2_000_000]).await;
    let online = || plc.on("/status").iter().filter(|v| v["state"] == "online").count();
    eventually("it has connected and subscribed anew", || online() == 2).await;
    rig.crash().await;
    plc.publish(TRIGGER, part("while away")).await;
    // The broker has it before the box is back.
    plc.wait_until("/trigger", |trigger| trigger["part_id"] == "while away").await;
    let mut rig = Rig::start(&options, 100);
    assert_eq!(trigger(&rig.next_request().await), ("while away".into(), true));
    rig.stop().await;
}

#[tokio::test]
async fn a_disk_that_is_slow_to_note_triggers_makes_none_late_that_the_broker_did_not_hold() {
    let broker = Mosquitto::start(Access::Bounded).await;
    let (mut rig, plc) = with_plc(&options(broker.port()), broker.port()).await;
    let online = |plc: &Subscriber| plc.on("/status").iter().filter(|v| v["state"] == "online").count();
    plc.publish(TRIGGER, part("slow")).await;
    let slow = rig.next_request().await;
    eventually("it says again that it is online", || online(&plc) == 2).await;
    for n in 0..10 {
        plc.publish(TRIGGER, part(&n.to_string())).await;
        assert_eq!(trigger(&rig.next_request().await), (n.to_string(), false));
    }
    slow.receipt.give();
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn triggers_that_come_while_the_disk_is_full_are_answered_though_the_daemon_is_killed() {
    let floor = Floor::with(Access::Bounded).await;
    floor.simulated("trigger = \"software\"");
    std::fs::create_dir(floor.path("store")).unwrap();
    let disk = SmallDisk::mount(&floor.path("store"), 16);
    if let Some(why) = disk.why_not() {
        return println!("left out: {why}");
    }
    let small =
        ["min_free_megabytes=1", "segment_megabytes=1", "reserve_megabytes=0"].map(|s| format!("store.{s}"));
    let small: Vec<&str> = small.iter().flat_map(|set| ["--set", set]).collect();
    let plc = floor.subscribe().await;
    let daemon = Running::start(disk.inside(floor.command(&small)));
    plc.wait_until("/state", |state| state["state"] == "up").await;
    let send = async |from: usize, to: usize| {
        for n in from..to {
            plc.publish("inspectord/floor/top/trigger", part(&n.to_string())).await;
        }
    };
    send(0, 5).await;
    plc.wait_for("/verdict", 5).await;
    let answered = || {
        let said = [plc.on("/verdict"), plc.on("/reply")].concat();
        said.iter().map(|v| v["part_id"].to_string()).collect::<BTreeSet<_>>().len()
    };
    let full = || plc.on("/state").iter().any(|s| s["warnings"].to_string().contains("cannot be written"));
    let mut sent = 5;
    while !full() {
        send(sent, sent + 1).await;
        sent += 1;
        // Pictures that are thinned out make room for a while.
        eventually("it is answered or cannot be", || {
            disk.fill().unwrap();
            answered() == sent || full()
        })
        .await;
    }
    send(sent, sent + 40).await;
    sent += 40;
    daemon.signal("KILL");
    daemon.ended();
    disk.make_room();
    let daemon = Running::start(disk.inside(floor.command(&small)));
    eventually("every trigger is answered", || answered() == sent).await;
    daemon.stops();
    let verdicts = complete(&plc.on("/verdict"));
    assert_eq!(verdicts.len() + plc.on("/reply").len(), sent, "none is answered twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_is_killed_again_and_again_answers_every_trigger_once() {
    let floor = Floor::with(Access::Bounded).await;
    floor.simulated("trigger = \"software\"");
    let plc = floor.subscribe().await;
    let mut sent = 0;
    for round in 1..=4 {
        let daemon = floor.start(&[]);
        eventually("it is there", || {
            plc.on("/status").iter().filter(|status| status["state"] == "online").count() >= round
        })
        .await;
        // Killed in the middle of the last ones, which nobody waits for.
        for _ in 0..40 {
            plc.publish("inspectord/floor/top/trigger", part(&sent.to_string())).await;
            sent += 1;
            if sent % 4 == 0 {
                tokio::task::yield_now().await;
            }
        }
        eventually("some are answered", || plc.count("/verdict") > 20 * round).await;
        daemon.signal("KILL");
        daemon.ended();
    }
    let daemon = floor.start(&[]);
    let answered = || {
        let said = [plc.on("/verdict"), plc.on("/reply")].concat();
        said.iter().map(|v| v["part_id"].to_string()).collect::<BTreeSet<_>>().len()
    };
    eventually("every trigger is answered", || answered() == sent).await;
    daemon.stops();
    let verdicts = complete(&plc.on("/verdict"));
    let parts: BTreeSet<String> = verdicts.values().map(|v| v["part_id"].to_string()).collect();
    assert_eq!(parts.len(), verdicts.len(), "a part was judged twice");
}

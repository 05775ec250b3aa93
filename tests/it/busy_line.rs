//! Lines that are busy, that are being opened, or that stop: no trigger gets the picture of another part, none waits without
//! end, and what has its picture is judged.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use inspectord::detector::Detector;
use inspectord::health::LineHealth;
use inspectord::pipeline::{BoxedError, CaptureMode, LinePlan, TriggerError, Views};
use inspectord::verdict::{Decision, Reason};

use crate::inspectord::PATIENCE;
use crate::line::{Act, Floor, Nothing, SOFTWARE, call, decisions, line, reason};

/// What a line holds while its detector does nothing: one part there, one before it, one that is prepared, two before that,
/// and one whose picture is taken.
const FULL: u64 = 6;

#[track_caller]
fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A line that inspects on request, and whose detector waits until the sender is let go.
fn held(script: Vec<Act>) -> (LinePlan, Sender<()>) {
    let ((hold, gate), (begins, _)) = (bounded(0), unbounded());
    let open = move || -> Result<Detector, BoxedError> {
        Ok(Nothing { gate: Some((begins.clone(), gate.clone())), ..Nothing::default() }.detector())
    };
    (LinePlan { mode: SOFTWARE, open_detector: Box::new(open), ..line("top", script) }, hold)
}

/// Triggers as many parts as the line holds, and waits until it holds them.
fn fill(floor: &Floor) -> LineHealth {
    let health = floor.service.lines().remove(0);
    for part in 1..=FULL {
        floor.trigger(&format!(r#"{{"part_id":"{part}"}}"#));
        wait_for("the part's picture is taken", || health.counters().accepted.get() == part);
    }
    health
}

fn now(count: u64) -> Vec<Act> {
    (0..count).map(|_| Act::Now).chain([Act::Mute]).collect()
}

#[test]
fn a_trigger_that_a_busy_line_kept_waiting_gets_no_other_parts_picture() {
    let folder = tempfile::tempdir().unwrap();
    let floor = Floor::start(folder.path(), vec![LinePlan { mode: SOFTWARE, ..line("top", now(3)) }]);
    floor.trigger(r#"{"part_id":"the camera has opened"}"#);
    assert_eq!(floor.judged().outcome.decision(), Decision::Ok);
    floor.trigger_late(r#"{"part_id":"moved on"}"#, 2 * PATIENCE);
    let judged = floor.judged();
    let (why, detail) = reason(&judged.outcome);
    assert!(why == Reason::Overload && detail.contains("ms for the line"), "{why}: {detail}");
    floor.trigger(r#"{"part_id":"there"}"#);
    assert_eq!(floor.judged().outcome.decision(), Decision::Ok);
    floor.stop();
}

#[test]
fn a_trigger_that_has_waited_too_long_is_answered_while_the_line_is_still_busy() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, hold) = held(now(FULL + 1));
    let floor = Floor::start(folder.path(), vec![plan]);
    fill(&floor);
    floor.trigger_late(r#"{"part_id":"moved on"}"#, 2 * PATIENCE);
    floor.trigger(r#"{"part_id":"waits"}"#);
    let judged = floor.judged();
    assert_eq!(judged.trigger.as_ref().unwrap().part_id.as_deref(), Some("moved on"));
    assert_eq!(reason(&judged.outcome).0, Reason::Overload);
    drop(hold);
    let inspected: Vec<Decision> = (0..=FULL).map(|_| floor.judged().outcome.decision()).collect();
    assert!(inspected.iter().all(|decision| *decision == Decision::Ok), "{inspected:?}");
    floor.stop();
}

#[test]
fn the_camera_is_waited_for_from_when_it_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let mode = CaptureMode::Software { patience: PATIENCE, expose_within: 4 * PATIENCE };
    let views = Views { count: 2, every: Duration::from_millis(1) };
    let floor = Floor::start(folder.path(), vec![LinePlan { mode, views, ..line("top", now(2)) }]);
    floor.trigger_late("{}", 2 * PATIENCE);
    assert_eq!(floor.judged().outcome.decision(), Decision::Ok);
    floor.stop();
}

/// A line that inspects on request, and whose camera opens when told to or when the sender is let go; the receiver hears when it
/// begins to.
fn slow_to_open(name: &str, script: Vec<Act>) -> (LinePlan, Sender<()>, Receiver<()>) {
    let ((let_it_open, may_open), (begins, begun)) = (unbounded(), unbounded());
    let mut slow = LinePlan { mode: SOFTWARE, ..line(name, script) };
    let mut open = slow.open_camera;
    slow.open_camera = Box::new(move |judged| {
        let _nobody_asks = begins.send(());
        let _told_or_let_go = may_open.recv();
        open(judged)
    });
    (slow, let_it_open, begun)
}

#[test]
fn a_trigger_that_waits_too_long_for_the_first_opening_is_answered_while_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (slow, let_it_open, _begun) = slow_to_open("top", now(1));
    let floor = Floor::start(folder.path(), vec![slow]);
    floor.trigger_late(r#"{"part_id":"moved on"}"#, 2 * PATIENCE);
    floor.trigger(r#"{"part_id":"waits"}"#);
    let judged = floor.judged();
    let (why, detail) = reason(&judged.outcome);
    assert!(why == Reason::Camera && detail.contains("is being opened"), "{why}: {detail}");
    let_it_open.send(()).unwrap();
    assert_eq!(floor.judged().outcome.decision(), Decision::Ok);
    floor.stop();
}

#[test]
fn a_camera_that_never_opens_does_not_hold_up_a_stop_nor_other_cameras_last_verdicts() {
    let folder = tempfile::tempdir().unwrap();
    let (hangs, let_it_open, begun) = slow_to_open("a-hangs", Vec::new());
    let works = LinePlan { mode: SOFTWARE, ..line("works", now(1)) };
    let floor = Floor::start(folder.path(), vec![works, hangs]);
    floor.trigger("{}");
    floor.judged();
    begun.recv_timeout(PATIENCE).expect("it begins to open");
    let (done, stopped) = bounded(1);
    let stopping = std::thread::spawn(move || done.send(floor.stop()));
    let recorded = stopped.recv_timeout(PATIENCE);
    drop(let_it_open);
    assert_eq!(decisions(&recorded.expect("it stops while the camera hangs")[0]), ["ok"]);
    stopping.join().unwrap().unwrap();
}

#[test]
fn a_part_whose_picture_is_taken_is_judged_although_the_program_stops() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, hold) = held(now(FULL));
    let floor = Floor::start(folder.path(), vec![plan]);
    let health = fill(&floor);
    let pipeline = floor.service.pipeline().clone();
    let stopping = std::thread::spawn(move || floor.stop());
    wait_for("it stops", || {
        let refused = pipeline.trigger(health.camera(), call("{}", Instant::now()));
        matches!(refused, Err(TriggerError::Stopping))
    });
    // Rounds of capture's waiting begin and end after the stop was asked for.
    for silent in [true, false, true, false, true, false] {
        wait_for("capture waits on", || {
            (health.stalled(Duration::from_millis(100)) == Some("capture")) == silent
        });
    }
    drop(hold);
    // Without those by which the stop was waited for.
    let mut recorded = stopping.join().unwrap().remove(0);
    recorded.retain(|verdict| verdict.judgement.trigger.as_ref().unwrap().part_id.is_some());
    assert_eq!(decisions(&recorded), vec!["ok"; FULL as usize]);
}

#[test]
fn what_cannot_be_started_beside_the_service_costs_no_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let (plan, hold) = held(now(FULL));
    let floor = Floor::start(folder.path(), vec![plan]);
    fill(&floor);
    let store = floor.service.store().clone();
    let failed = floor.service.beside(|_| {
        drop(hold);
        Err::<(), _>("no thread for the page")
    });
    assert_eq!(failed.err(), Some("no thread for the page"));
    let recorded = store.replay(&"top".parse().unwrap(), (1, 1000), 1000).unwrap();
    assert_eq!(decisions(&recorded), vec!["ok"; FULL as usize]);
}

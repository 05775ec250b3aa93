//! Lines whose camera and detector follow a script: clocks that jump, devices that fail, and what becomes of the parts.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use inspectord::camera::{self, Camera, CameraError, FolderMode, FolderOptions, Next};
use inspectord::clock::{SystemClock, Turned, utc_of};
use inspectord::detector::{AnomalyMap, Detector, Inspector, InspectorError};
use inspectord::frame::{CameraId, Frame, Picture, PixelFormat, Pixels, Samples, Size};
use inspectord::imaging::{self, View};
use inspectord::pipeline::{
    BoxedError, Call, CaptureMode, Keepers, LinePlan, Service, ServicePlan, Views, WhenFull,
};
use inspectord::shutdown::Shutdown;
use inspectord::store;
use inspectord::verdict::{Decision, Judgement, ModelRef, Outcome, Reason, Threshold, Verdict};
use jiff::{SignedDuration, Timestamp};

use crate::inspectord::PATIENCE;

const INPUT: Size = Size::new(64, 64);
/// However slow the machine, a part that waits gets its picture.
pub(crate) const SOFTWARE: CaptureMode =
    CaptureMode::Software { patience: PATIENCE, expose_within: PATIENCE };

/// Finds nothing, in pictures of `input`: at once, or, having said that it has begun, once nobody holds the gate's other end.
pub(crate) struct Nothing {
    pub(crate) input: Size,
    pub(crate) gate: Option<(Sender<()>, Receiver<()>)>,
    pub(crate) fails: bool,
}

impl Default for Nothing {
    fn default() -> Self {
        Self { input: INPUT, gate: None, fails: false }
    }
}

impl Inspector for Nothing {
    fn describe(&self) -> String {
        "scripted".into()
    }

    fn input(&self) -> Size {
        self.input
    }

    fn infer(&mut self, pictures: &[&Picture]) -> Result<Vec<AnomalyMap>, InspectorError> {
        if let Some((begun, gate)) = &self.gate {
            let _nobody_asks = begun.send(());
            let _opens_by_being_let_go = gate.recv();
        }
        if self.fails {
            return Err(InspectorError::Device { engine: "scripted", message: "it fell off the bus".into() });
        }
        Ok(vec![AnomalyMap { size: Size::new(4, 4), values: vec![0.0; 16] }; pictures.len()])
    }
}

impl Nothing {
    pub(crate) fn detector(self) -> Detector {
        let model = ModelRef { name: "scripted".into(), version: "0".into() };
        Detector::new(Box::new(self), model, Threshold(1.0))
    }
}

/// What a camera does next.
pub(crate) enum Act {
    Frame(Box<Frame>),
    /// A frame that is taken when it is asked for.
    Now,
    /// Nothing comes for so long.
    Silent(Duration),
    /// Nothing comes, for ever.
    Mute,
    /// A frame that was taken then is spoiled.
    Spoiled(Instant),
    Lost,
    Panics,
    /// Something happens elsewhere, and nothing comes.
    Do(Box<dyn FnOnce() + Send>),
}

/// Does one act after the other, over all its openings, and ends.
struct Scripted(Arc<Mutex<VecDeque<Act>>>);

impl Camera for Scripted {
    fn describe(&self) -> String {
        "scripted".into()
    }

    fn next(&mut self, wait: Duration) -> Result<Next, CameraError> {
        let (name, message) = ("scripted".into(), "as the script says".into());
        let act = self.0.lock().unwrap().pop_front();
        match act {
            Some(Act::Frame(frame)) => return Ok(Next::Frame(frame)),
            Some(Act::Now) => {
                let now = Instant::now();
                return Ok(Next::Frame(grey(now, utc_of(&SystemClock, now))));
            }
            Some(Act::Silent(time)) => std::thread::sleep(time),
            Some(Act::Mute) => {
                std::thread::sleep(wait);
                self.0.lock().unwrap().push_front(Act::Mute);
            }
            Some(Act::Spoiled(taken)) => {
                return Err(CameraError::BadFrame { name, message, taken, origin: None });
            }
            Some(Act::Lost) => return Err(CameraError::Lost { name, message }),
            Some(Act::Panics) => panic!("as the script says"),
            Some(Act::Do(what)) => what(),
            None => return Ok(Next::End),
        }
        Ok(Next::Nothing)
    }
}

fn grey(captured: Instant, captured_at: Timestamp) -> Box<Frame> {
    let pixels = Pixels::Raw {
        size: INPUT,
        format: PixelFormat::Mono(Samples::U8),
        stride: 64,
        bytes: vec![100; 64 * 64],
    };
    Box::new(Frame { pixels, captured_at, captured, source: None, planted: None })
}

pub(crate) fn line(camera: &str, script: Vec<Act>) -> LinePlan {
    let acts = Arc::new(Mutex::new(VecDeque::from(script)));
    LinePlan {
        camera: camera.parse().unwrap(),
        open_camera: Box::new(move |_| Ok(Box::new(Scripted(acts.clone())))),
        view: View::default(),
        mode: CaptureMode::Free { when_full: WhenFull::Wait },
        views: Views::default(),
        golden_every: None,
        deadline: None,
        open_detector: Box::new(|| Ok(Nothing::default().detector())),
    }
}

/// A trigger that arrived then.
pub(crate) fn call(json: &str, arrived: Instant) -> Call {
    let trigger = serde_json::from_str(json).unwrap();
    Call { trigger, arrived, late: false, delivery: None, noted: Box::new(|| ()) }
}

/// Lines at work.
pub(crate) struct Floor {
    pub(crate) service: Service,
    cameras: Vec<CameraId>,
    judged: Receiver<Judgement>,
}

impl Floor {
    /// Lines that record into the store at `path`.
    pub(crate) fn start(path: &Path, lines: Vec<LinePlan>) -> Self {
        let (tell, judged) = unbounded();
        Self::with(path, lines, Keepers::default(), (tell, judged), |_| ())
    }

    /// The same, where `also` is told of every judgement after others have been.
    fn with(
        path: &Path,
        lines: Vec<LinePlan>,
        keepers: Keepers,
        (tell, judged): (Sender<Judgement>, Receiver<Judgement>),
        also: impl Fn(&Judgement) + Send + Sync + 'static,
    ) -> Self {
        let cameras = lines.iter().map(|line| line.camera.clone()).collect();
        let observer = move |judgement: &Judgement, _: Option<&_>| {
            let _nobody_asks = tell.send(judgement.clone());
            also(judgement);
        };
        let plan = ServicePlan {
            box_name: "floor".into(),
            lines,
            store: store::Options { path: path.to_owned(), ..store::Options::default() },
            mqtt: None,
            observer: Some(Arc::new(observer)),
            keepers,
        };
        Self { service: Service::start(plan).unwrap(), cameras, judged }
    }

    /// Triggers the first line.
    pub(crate) fn trigger(&self, json: &str) {
        self.service.pipeline().trigger(&self.cameras[0], call(json, Instant::now())).unwrap();
    }

    /// The same, by a trigger that arrived so long ago.
    pub(crate) fn trigger_late(&self, json: &str, by: Duration) {
        self.service.pipeline().trigger(&self.cameras[0], call(json, Instant::now() - by)).unwrap();
    }

    /// The next judgement.
    pub(crate) fn judged(&self) -> Judgement {
        self.judged.recv_timeout(PATIENCE).expect("a part is judged")
    }

    /// Waits until every camera has ended.
    fn ends(&self) {
        let give_up = Instant::now() + PATIENCE;
        while !self.service.pipeline().has_ended() {
            assert!(Instant::now() < give_up, "the replay never ends");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops, and gives the record of each camera, in its order.
    pub(crate) fn stop(self) -> Vec<Vec<Verdict>> {
        let store = self.service.store().clone();
        self.service.stop();
        self.cameras.iter().map(|camera| store.replay(camera, (1, 1000), 1000).unwrap()).collect()
    }
}

/// Runs the lines to their end and gives the record of each camera, in its order.
fn record(lines: Vec<LinePlan>) -> Vec<Vec<Verdict>> {
    let folder = tempfile::tempdir().unwrap();
    let floor = Floor::start(&folder.path().join("store"), lines);
    floor.service.run(&Shutdown::new(), true);
    floor.stop()
}

pub(crate) fn decisions(verdicts: &[Verdict]) -> Vec<String> {
    verdicts.iter().map(|verdict| verdict.decision().to_string()).collect()
}

/// Reason and detail of a part that was not inspected.
#[track_caller]
pub(crate) fn reason(outcome: &Outcome) -> (Reason, &str) {
    match outcome {
        Outcome::Uninspected { reason, detail } => (*reason, detail),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_camera_that_takes_long_to_open_has_not_hung_and_what_triggers_first_waits_for_it() {
    let store = tempfile::tempdir().unwrap();
    let (let_it_open, may_open) = unbounded();
    let mut slow = line("top", vec![Act::Now, Act::Mute]);
    slow.mode = SOFTWARE;
    let mut open = slow.open_camera;
    slow.open_camera = Box::new(move |judged| {
        may_open.recv_timeout(PATIENCE).unwrap();
        open(judged)
    });
    let floor = Floor::start(store.path(), vec![slow]);
    floor.trigger(r#"{"part_id":"first"}"#);
    let health = floor.service.lines().remove(0);
    for silent in [true, false] {
        let give_up = Instant::now() + PATIENCE;
        while (health.stalled(Duration::from_millis(100)) == Some("capture")) != silent {
            assert!(Instant::now() < give_up, "capture is taken for hung while its camera opens");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(floor.judged.is_empty());
    let_it_open.send(()).unwrap();
    assert!(matches!(floor.judged().outcome, Outcome::Inspected(_)));
    floor.stop();
}

#[test]
fn a_wall_clock_that_jumps_reorders_and_loses_nothing() {
    let mut clock = Turned { monotonic: Instant::now(), utc: "2026-11-02T06:00:00Z".parse().unwrap() };
    let mut script = Vec::new();
    let mut exposed = Vec::new();
    for n in 0..40 {
        // Every tenth frame somebody sets the clock: back, forth by days, back again.
        let jump = [0, -3_600, 200_000, -400_000][n / 10];
        if n % 10 == 0 {
            clock.utc = clock.utc.checked_add(SignedDuration::from_secs(jump)).unwrap();
        }
        clock.monotonic += Duration::from_millis(20);
        clock.utc = clock.utc.checked_add(SignedDuration::from_millis(20)).unwrap();
        // It was exposed 5 ms before anybody looked at a clock.
        let captured = clock.monotonic - Duration::from_millis(5);
        exposed.push(utc_of(&clock, captured));
        script.push(Act::Frame(grey(captured, utc_of(&clock, captured))));
    }
    let recorded = record(vec![line("top", script)]);
    let sequences: Vec<u64> = recorded[0].iter().map(|verdict| verdict.sequence).collect();
    assert_eq!(sequences, (1..=40).collect::<Vec<_>>());
    let captured: Vec<Timestamp> = recorded[0].iter().map(|verdict| verdict.judgement.captured_at).collect();
    assert_eq!(captured, exposed, "in the order of exposure, each at its own time");
    assert!(recorded[0].iter().all(|verdict| verdict.decision() == Decision::Ok));
}

#[test]
fn a_camera_that_fails_again_and_again_costs_its_own_line_nothing_but_time_and_the_other_not_even_that() {
    let failing = vec![
        Act::Now,
        Act::Lost,
        Act::Now,
        Act::Spoiled(Instant::now()),
        Act::Now,
        Act::Panics,
        Act::Now,
        Act::Lost,
        Act::Now,
    ];
    let mut failing = line("failing", failing);
    // It opens again only once the other line is done.
    let (done, others) = bounded::<()>(25);
    let mut open = failing.open_camera;
    let mut opened = 0;
    failing.open_camera = Box::new(move |seen| {
        if opened == 1 {
            (0..25).for_each(|_| others.recv_timeout(PATIENCE).expect("the other line goes on"));
        }
        opened += 1;
        open(seen)
    });
    let folder = tempfile::tempdir().unwrap();
    let lines = vec![failing, line("other", (0..25).map(|_| Act::Now).collect())];
    let count = move |judgement: &Judgement| {
        if judgement.camera.as_str() == "other" {
            done.send(()).unwrap();
        }
    };
    let floor = Floor::with(folder.path(), lines, Keepers::default(), unbounded(), count);
    floor.service.run(&Shutdown::new(), true);
    let recorded = floor.stop();
    assert_eq!(decisions(&recorded[0]), ["ok", "ok", "uninspected", "ok", "ok", "ok"]);
    assert_eq!(decisions(&recorded[1]), ["ok"; 25]);
}

#[test]
fn a_part_without_a_picture_does_not_overtake_those_before_it() {
    let ((hold, gate), (begins, _)) = (bounded(0), unbounded());
    let junk = Frame { pixels: Pixels::Encoded(vec![1, 2, 3]), ..*grey(Instant::now(), Timestamp::now()) };
    let script = vec![
        Act::Now,
        Act::Spoiled(Instant::now()),
        Act::Frame(Box::new(junk)),
        Act::Now,
        // By now all of them have been captured, and the first is still being looked at.
        Act::Do(Box::new(move || drop::<Sender<()>>(hold))),
    ];
    let open = move || -> Result<Detector, BoxedError> {
        Ok(Nothing { gate: Some((begins.clone(), gate.clone())), ..Nothing::default() }.detector())
    };
    let recorded = record(vec![LinePlan { open_detector: Box::new(open), ..line("top", script) }]);
    assert_eq!(decisions(&recorded[0]), ["ok", "uninspected", "uninspected", "ok"]);
    assert!(reason(&recorded[0][1].judgement.outcome).1.contains("bad frame"));
}

#[test]
fn what_panics_beside_a_verdict_costs_no_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let keepers = Keepers { frames: Some(Arc::new(|_, _, _| panic!("a tap"))), orders: None };
    let lines = vec![line("top", vec![Act::Now, Act::Spoiled(Instant::now()), Act::Now])];
    let floor = Floor::with(folder.path(), lines, keepers, unbounded(), |_| panic!("an observer"));
    floor.service.run(&Shutdown::new(), true);
    assert_eq!(decisions(&floor.stop()[0]), ["ok", "uninspected", "ok"]);
}

#[test]
fn a_detector_whose_device_fails_is_opened_afresh_but_not_for_pictures_of_another_size() {
    for (input, second) in [(INPUT, "ok"), (Size::new(128, 64), "uninspected")] {
        let openings = Arc::new(AtomicUsize::new(0));
        let open = move || -> Result<Detector, BoxedError> {
            let first = openings.fetch_add(1, Ordering::Relaxed) == 0;
            let input = if first { INPUT } else { input };
            Ok(Nothing { input, fails: first, ..Nothing::default() }.detector())
        };
        let script = vec![Act::Now, Act::Now];
        let recorded = record(vec![LinePlan { open_detector: Box::new(open), ..line("top", script) }]);
        assert_eq!(decisions(&recorded[0]), ["uninspected", second]);
        let (why, detail) = reason(&recorded[0][0].judgement.outcome);
        assert!(why == Reason::Model && detail.contains("fell off the bus"), "{detail}");
        if second != "ok" {
            let (why, detail) = reason(&recorded[0][1].judgement.outcome);
            assert!(why == Reason::Model && detail.contains("128x64"), "{detail}");
        }
    }
}

#[test]
fn the_cameras_time_is_told_as_the_cameras() {
    let slow = Duration::from_millis(40);
    let folder = tempfile::tempdir().unwrap();
    let script = vec![Act::Silent(slow), Act::Now, Act::Silent(slow), Act::Now, Act::Mute];
    let views = Views { count: 2, every: Duration::ZERO };
    let floor = Floor::start(folder.path(), vec![LinePlan { mode: SOFTWARE, views, ..line("top", script) }]);
    floor.trigger("{}");
    let timings = floor.judged().timings;
    assert!(timings.capture >= 80.0, "{timings:?}");
    let parts = timings.capture + timings.queue + timings.prepare + timings.infer;
    assert!(parts <= timings.total * 1.001, "time is told twice: {timings:?}");
    floor.stop();
}

#[test]
fn a_frame_that_was_spoiled_before_the_trigger_is_not_its_parts() {
    let folder = tempfile::tempdir().unwrap();
    let script = vec![Act::Spoiled(Instant::now()), Act::Now, Act::Mute];
    let floor = Floor::start(folder.path(), vec![LinePlan { mode: SOFTWARE, ..line("top", script) }]);
    floor.trigger("{}");
    assert_eq!(floor.judged().outcome.decision(), Decision::Ok);
    floor.stop();
}

#[test]
fn a_part_that_waits_for_its_picture_when_the_program_stops_is_no_fault_of_the_camera() {
    let folder = tempfile::tempdir().unwrap();
    let (asks, asked) = bounded(1);
    let script = vec![Act::Do(Box::new(move || asks.send(()).unwrap())), Act::Mute];
    let floor = Floor::start(folder.path(), vec![LinePlan { mode: SOFTWARE, ..line("top", script) }]);
    floor.trigger("{}");
    asked.recv_timeout(PATIENCE).unwrap();
    let recorded = floor.stop();
    let (why, detail) = reason(&recorded[0][0].judgement.outcome);
    assert!(why == Reason::Internal && detail.contains("being stopped"), "{detail}");
}

#[test]
fn a_deadline_is_kept_while_the_program_stops() {
    let folder = tempfile::tempdir().unwrap();
    let ((hold, gate), (begins, begun)) = (bounded::<()>(0), unbounded());
    let open = move || -> Result<Detector, BoxedError> {
        Ok(Nothing { gate: Some((begins.clone(), gate.clone())), ..Nothing::default() }.detector())
    };
    let plan = line("top", vec![Act::Now, Act::Mute]);
    let plan = LinePlan { mode: SOFTWARE, open_detector: Box::new(open), ..plan };
    let floor = Floor::start(folder.path(), vec![plan]);
    floor.trigger(r#"{"deadline_ms":500}"#);
    begun.recv_timeout(PATIENCE).expect("the part is looked at");
    let judged = floor.judged.clone();
    let stopping = std::thread::spawn(move || floor.stop());
    let told = judged.recv_timeout(PATIENCE);
    drop(hold);
    assert_eq!(stopping.join().unwrap()[0].len(), 1);
    assert_eq!(reason(&told.expect("the deadline is kept").outcome).0, Reason::Deadline);
}

#[test]
fn a_replay_ends_whatever_triggers() {
    let folder = tempfile::tempdir().unwrap();
    for (name, mode) in
        [("asked", SOFTWARE), ("timed", CaptureMode::Timed { period: Duration::from_millis(5) })]
    {
        let plan = LinePlan { mode, ..line(name, vec![Act::Now]) };
        let floor = Floor::start(&folder.path().join(name), vec![plan]);
        if mode == SOFTWARE {
            floor.trigger("{}");
            assert_eq!(floor.judged().outcome.decision(), Decision::Ok);
            floor.trigger("{}");
            assert!(reason(&floor.judged().outcome).1.contains("replay has ended"));
        }
        floor.ends();
        if mode == SOFTWARE {
            floor.trigger("{}");
            assert!(reason(&floor.judged().outcome).1.contains("replay has ended"));
        }
        floor.stop();
    }
}

#[test]
fn the_files_of_a_parts_other_views_are_not_another_parts_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = folder.path().join("in");
    std::fs::create_dir(&pictures).unwrap();
    for n in 0..6u8 {
        let rgb = (0..64 * 64 * 3).map(|i| (i % 7) as u8 * (n + 1)).collect();
        let png = imaging::png(&Picture::new(INPUT, rgb).unwrap());
        std::fs::write(pictures.join(format!("{n}.png")), png).unwrap();
    }
    let of_next_part = |part: &str| {
        let source = FolderOptions { path: pictures.clone(), mode: FolderMode::Replay, ..Default::default() };
        let plan = LinePlan {
            open_camera: camera::opener("top".parse().unwrap(), camera::Options::Folder(source)),
            mode: SOFTWARE,
            views: Views { count: 3, every: Duration::ZERO },
            ..line("top", Vec::new())
        };
        let floor = Floor::start(&folder.path().join("store"), vec![plan]);
        floor.trigger(&format!(r#"{{"part_id":"{part}"}}"#));
        let judgement = floor.judged();
        floor.stop();
        let mut names: Vec<String> = judgement.sources().map(|source| source.name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(of_next_part("A"), ["0.png", "1.png", "2.png"]);
    assert_eq!(of_next_part("B"), ["3.png", "4.png", "5.png"]);
}

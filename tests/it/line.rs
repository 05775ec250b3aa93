//! Lines whose camera follows a script: clocks that jump, cameras that fail, and what becomes of the frames.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inspectord::camera::{Camera, CameraError, Next};
use inspectord::clock::{Turned, utc_of};
use inspectord::detector::{AnomalyMap, Detector, Inspector, InspectorError};
use inspectord::frame::{CameraId, Frame, Picture, PixelFormat, Pixels, Samples, Size};
use inspectord::imaging::View;
use inspectord::pipeline::{
    BoxedError, CaptureMode, Keepers, LinePlan, Service, ServicePlan, Views, WhenFull,
};
use inspectord::shutdown::Shutdown;
use inspectord::store;
use inspectord::verdict::{Decision, ModelRef, Threshold, Verdict};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

const INPUT: Size = Size::new(64, 64);

/// Finds nothing, at once.
struct Nothing;

impl Inspector for Nothing {
    fn describe(&self) -> String {
        "scripted".into()
    }

    fn input(&self) -> Size {
        INPUT
    }

    fn infer(&mut self, pictures: &[&Picture]) -> Result<Vec<AnomalyMap>, InspectorError> {
        Ok(vec![AnomalyMap { size: Size::new(4, 4), values: vec![0.0; 16] }; pictures.len()])
    }
}

/// What a camera does next.
enum Act {
    Frame(Box<Frame>),
    Spoiled,
    Lost,
}

/// Does one act after the other, over all its openings, and ends.
struct Scripted(Arc<Mutex<VecDeque<Act>>>);

impl Camera for Scripted {
    fn describe(&self) -> String {
        "scripted".into()
    }

    fn next(&mut self, _: Duration) -> Result<Next, CameraError> {
        let (name, message) = ("scripted".into(), "as the script says".into());
        match self.0.lock().unwrap().pop_front() {
            Some(Act::Frame(frame)) => Ok(Next::Frame(frame)),
            Some(Act::Spoiled) => Err(CameraError::BadFrame { name, message, origin: None }),
            Some(Act::Lost) => Err(CameraError::Lost { name, message }),
            None => Ok(Next::End),
        }
    }
}

fn frame(captured: Instant, captured_at: Timestamp) -> Act {
    let pixels = Pixels::Raw {
        size: INPUT,
        format: PixelFormat::Mono(Samples::U8),
        stride: 64,
        bytes: vec![100; 64 * 64],
    };
    let capture_time = Duration::ZERO;
    Act::Frame(Box::new(Frame { pixels, captured_at, captured, capture_time, source: None, planted: None }))
}

fn line(camera: &str, script: Vec<Act>) -> LinePlan {
    let acts = Arc::new(Mutex::new(VecDeque::from(script)));
    LinePlan {
        camera: camera.parse().unwrap(),
        open_camera: Box::new(move |_| Ok(Box::new(Scripted(acts.clone())))),
        view: View::default(),
        mode: CaptureMode::Free { when_full: WhenFull::Wait },
        views: Views::default(),
        golden_every: None,
        deadline: None,
        open_detector: Box::new(|| -> Result<Detector, BoxedError> {
            let model = ModelRef { name: "scripted".into(), version: "0".into() };
            Ok(Detector::new(Box::new(Nothing), model, Threshold(1.0)))
        }),
    }
}

/// Runs the lines to their end and gives the record of each camera, in its order.
fn record(lines: Vec<LinePlan>) -> (TempDir, Vec<Vec<Verdict>>) {
    let folder = tempfile::tempdir().unwrap();
    let cameras: Vec<CameraId> = lines.iter().map(|line| line.camera.clone()).collect();
    let plan = ServicePlan {
        box_name: "floor".into(),
        lines,
        store: store::Options { path: folder.path().join("store"), ..store::Options::default() },
        mqtt: None,
        observer: None,
        keepers: Keepers::default(),
    };
    let service = Service::start(plan).unwrap();
    service.run(&Shutdown::new(), true);
    let recorded =
        cameras.iter().map(|camera| service.store().replay(camera, (1, 1000), 1000).unwrap()).collect();
    service.stop();
    (folder, recorded)
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
        script.push(frame(captured, utc_of(&clock, captured)));
    }
    let (_folder, recorded) = record(vec![line("top", script)]);
    let sequences: Vec<u64> = recorded[0].iter().map(|verdict| verdict.sequence).collect();
    assert_eq!(sequences, (1..=40).collect::<Vec<_>>());
    let captured: Vec<Timestamp> = recorded[0].iter().map(|verdict| verdict.judgement.captured_at).collect();
    assert_eq!(captured, exposed, "in the order of exposure, each at its own time");
    assert!(recorded[0].iter().all(|verdict| verdict.decision() == Decision::Ok));
}

#[test]
fn a_camera_that_fails_again_and_again_costs_its_own_line_nothing_but_time_and_the_other_not_even_that() {
    let now = || frame(Instant::now(), Timestamp::now());
    let failing = vec![now(), Act::Lost, now(), Act::Spoiled, now(), Act::Lost, now()];
    let (_folder, recorded) =
        record(vec![line("failing", failing), line("other", (0..25).map(|_| now()).collect())]);
    // A frame that arrived in part is a part all the same; its verdict may overtake those still being looked at.
    let mut decisions: Vec<String> =
        recorded[0].iter().map(|verdict| verdict.decision().to_string()).collect();
    decisions.sort();
    assert_eq!(decisions, ["ok", "ok", "ok", "ok", "uninspected"]);
    assert_eq!(recorded[1].len(), 25);
}

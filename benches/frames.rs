//! How long frames take beside inference: decoding, demosaicing and resizing large ones, and whole lines around a detector
//! that answers at once.
//!
//! Plain figures rather than a harness, since the tail is what a line feels. The targets: two cameras of 1920x1200 Bayer at
//! 60 frames a second on two cores without a dropped frame, and a p99 below 3 ms for the pipeline at 640x480. Beside the time
//! that passed stands the processor time that a frame took, which other work on the machine does not change. Run with
//! `cargo bench --bench frames`; `benches/README.md` has results.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and ends on a failure"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inspectord::camera::{Camera, CameraError, Next};
use inspectord::clock::{self, SystemClock};
use inspectord::detector::{AnomalyMap, Detector, Inspector, InspectorError};
use inspectord::frame::{Frame, Mosaic, Picture, PixelFormat, Pixels, Range, Samples, Size};
use inspectord::imaging::{Bounds, Preparation, View};
use inspectord::pipeline::{
    BoxedError, CaptureMode, Keepers, LinePlan, Service, ServicePlan, Views, WhenFull,
};
use inspectord::shutdown::Shutdown;
use inspectord::store;
use inspectord::verdict::{ModelRef, Threshold};
use rustix::time::{ClockId, clock_gettime};

const INPUT: Size = Size::new(256, 256);
const LARGE: Size = Size::new(1920, 1200);
const BAYER8: PixelFormat = PixelFormat::Bayer(Mosaic::RgGb, Samples::U8);
const RATE: u32 = 60;

fn main() {
    println!("one frame of {LARGE} to {INPUT}, two cameras at once");
    for (name, format) in [
        ("Mono8", PixelFormat::Mono(Samples::U8)),
        ("BayerRG8", BAYER8),
        ("BayerRG12p", PixelFormat::Bayer(Mosaic::RgGb, Samples::U12p)),
        ("RGB8", PixelFormat::Rgb8),
        ("YUV422_8", PixelFormat::Yuyv(Range::Full)),
    ] {
        let cameras: Vec<_> = (0..2).map(|_| std::thread::spawn(move || prepare(format))).collect();
        let (mut passed, mut used) = (Vec::new(), Vec::new());
        for camera in cameras {
            let (times, processor) = camera.join().unwrap();
            passed.extend(times);
            used.extend(processor);
        }
        println!("  {name:<12} {}   processor {}", Figures::of(passed), Figures::of(used));
    }
    println!(
        "lines around a detector that answers at once, {RATE} frames a second each, none may be dropped"
    );
    lines("640x480 RGB8, one camera", 1, Size::new(640, 480), PixelFormat::Rgb8, 1800);
    lines("1920x1200 BayerRG8, two cameras", 2, LARGE, BAYER8, 1200);
}

fn raw(size: Size, format: PixelFormat, seed: usize) -> Pixels {
    let stride = format.row_bytes(size.width as usize).unwrap();
    let noise = |i: usize| ((i + seed).wrapping_mul(2_654_435_761) >> 7) as u8;
    let bytes = (0..stride * size.height as usize).map(noise).collect();
    Pixels::Raw { size, format, stride, bytes }
}

/// What each of some frames took: time that passed, and of the processor.
fn prepare(format: PixelFormat) -> (Vec<f64>, Vec<f64>) {
    let pixels = raw(LARGE, format, 0);
    let mut preparation = Preparation::open(&live(), INPUT).unwrap();
    let mut once = || {
        let (began, used) = (Instant::now(), processor(ClockId::ThreadCPUTime));
        let prepared = preparation.look(&pixels).unwrap();
        let times = (began.elapsed(), processor(ClockId::ThreadCPUTime) - used);
        drop(prepared);
        (times.0.as_secs_f64() * 1e3, times.1.as_secs_f64() * 1e3)
    };
    for _ in 0..20 {
        once();
    }
    (0..300).map(|_| once()).unzip()
}

/// As a live camera's settings have it: every frame is also looked at for being the one before.
fn live() -> View {
    View { bounds: Bounds { frozen: true, ..Bounds::default() }, ..View::default() }
}

fn processor(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// A camera that has a frame ready at every tick, whether somebody takes it or not; one that nobody took is gone, as the
/// driver's buffers would have it.
struct Metronome {
    frames: Vec<Pixels>,
    began: Instant,
    next: u32,
    count: u32,
    gone: Arc<Mutex<u32>>,
}

/// Frames that wait in a driver's buffers.
const BUFFERS: u32 = 4;

impl Camera for Metronome {
    fn describe(&self) -> String {
        "metronome".into()
    }

    fn next(&mut self, wait: Duration) -> Result<Next, CameraError> {
        let asked = Instant::now();
        let ticks = (asked - self.began).as_secs_f64() * f64::from(RATE);
        let oldest = (ticks as u32).saturating_sub(BUFFERS).min(self.count);
        if oldest > self.next {
            *self.gone.lock().unwrap() += oldest - self.next;
            self.next = oldest;
        }
        if self.next >= self.count {
            return Ok(Next::End);
        }
        let captured = self.began + Duration::from_secs(1) * self.next / RATE;
        let left = captured.saturating_duration_since(asked);
        std::thread::sleep(left.min(wait));
        if left > wait {
            return Ok(Next::Nothing);
        }
        // The copy out of the driver's memory, as every live camera makes it.
        let pixels = self.frames[self.next as usize % self.frames.len()].clone();
        self.next += 1;
        Ok(Next::Frame(Box::new(Frame {
            pixels,
            captured_at: clock::utc_of(&SystemClock, captured),
            captured,
            source: None,
            planted: None,
        })))
    }
}

/// Finds nothing, at once.
struct Scripted;

impl Inspector for Scripted {
    fn describe(&self) -> String {
        "scripted".into()
    }

    fn input(&self) -> Size {
        INPUT
    }

    fn infer(&mut self, pictures: &[&Picture]) -> Result<Vec<AnomalyMap>, InspectorError> {
        let map = AnomalyMap { size: Size::new(56, 56), values: vec![0.0; 56 * 56] };
        Ok(vec![map; pictures.len()])
    }
}

/// Lines of `cameras` at once, each of `frames`; prints from exposure to judgement, without inference, and what was lost.
fn lines(name: &str, cameras: usize, size: Size, format: PixelFormat, frames: u32) {
    let folder = tempfile::tempdir().unwrap();
    let times: Arc<Mutex<BTreeMap<String, Vec<f64>>>> = Arc::default();
    let (heard, gone) = (times.clone(), Arc::new(Mutex::new(0)));
    let line = |n: usize| {
        let pictures: Vec<_> = (0..3).map(|i| raw(size, format, 1000 * n + i)).collect();
        let gone = gone.clone();
        LinePlan {
            camera: format!("bench{n}").parse().unwrap(),
            open_camera: Box::new(move |_| {
                let (frames_of, gone) = (pictures.clone(), gone.clone());
                let began = Instant::now();
                Ok(Box::new(Metronome { frames: frames_of, began, next: 0, count: frames, gone }))
            }),
            view: live(),
            mode: CaptureMode::Free { when_full: WhenFull::Uninspected },
            views: Views::default(),
            deadline: None::<Duration>,
            golden_every: None,
            open_detector: Box::new(|| -> Result<Detector, BoxedError> {
                let model = ModelRef { name: "scripted".into(), version: "0".into() };
                Ok(Detector::new(Box::new(Scripted), model, Threshold(1.0)))
            }),
        }
    };
    let plan = ServicePlan {
        box_name: "bench".into(),
        lines: (0..cameras).map(line).collect(),
        store: store::Options { path: folder.path().join("store"), ..Default::default() },
        mqtt: None,
        observer: Some(Arc::new(move |judgement, _| {
            let t = judgement.timings;
            let mut heard = heard.lock().unwrap();
            heard.entry(judgement.camera.to_string()).or_default().push(f64::from(t.total - t.infer));
        })),
        keepers: Keepers::default(),
    };
    let used = processor(ClockId::ProcessCPUTime);
    let service = Service::start(plan).unwrap();
    service.run(&Shutdown::new(), true);
    let lost: u64 = service.lines().iter().map(|l| l.counters().values().uninspected()).sum();
    service.stop();
    let all = f64::from(frames) * cameras as f64;
    let each = (processor(ClockId::ProcessCPUTime) - used).as_secs_f64() * 1e3 / all;
    // The first frames find cold memory.
    let times = times.lock().unwrap().values().flat_map(|t| t[t.len().min(20)..].to_vec()).collect();
    println!(
        "  {name:<32} {}   processor {each:.2} ms a frame, {lost} uninspected and {} missed of {all}",
        Figures::of(times),
        gone.lock().unwrap()
    );
}

struct Figures(Vec<f64>);

impl Figures {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        Self(times)
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = |q: f64| self.0[((self.0.len() - 1) as f64 * q).round() as usize];
        write!(f, "min {:5.2}  p50 {:5.2}  p99 {:5.2} ms", at(0.0), at(0.5), at(0.99))
    }
}

//! How long frames take beside inference: decoding, demosaicing and resizing large ones, and the pipeline around a
//! detector that answers at once.
//!
//! Plain figures rather than a harness, since the tail is what a line feels. The targets: two cameras of 1920x1200 Bayer at
//! 60 frames a second on two cores, and a p99 below 3 ms for the pipeline at 640x480. Run with `cargo bench --bench frames`.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints its figures and ends on a failure"
)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inspectord::camera::{Options, SimulatedOptions};
use inspectord::detector::{AnomalyMap, Detector, Inspector, InspectorError};
use inspectord::frame::{Mosaic, Picture, PixelFormat, Pixels, Samples, Size};
use inspectord::imaging::{Preparation, View};
use inspectord::pipeline::{
    BoxedError, CaptureMode, Keepers, LinePlan, Service, ServicePlan, Views, WhenFull,
};
use inspectord::shutdown::Shutdown;
use inspectord::store;
use inspectord::verdict::{ModelRef, Threshold};

const INPUT: Size = Size::new(256, 256);

fn main() {
    println!("one frame of 1920x1200 to 256x256, two cameras at once; 16.7 ms would be 60 a second each");
    for (name, format) in [
        ("Mono8", PixelFormat::Mono(Samples::U8)),
        ("BayerRG8", PixelFormat::Bayer(Mosaic::RgGb, Samples::U8)),
        ("BayerRG12p", PixelFormat::Bayer(Mosaic::RgGb, Samples::U12p)),
        ("RGB8", PixelFormat::Rgb8),
        ("YUV422_8", PixelFormat::Yuyv),
    ] {
        let cameras: Vec<_> = (0..2).map(|_| std::thread::spawn(move || prepare(format))).collect();
        let times = cameras.into_iter().flat_map(|camera| camera.join().unwrap()).collect();
        report(name, times);
    }
    println!("the pipeline around a detector that answers at once, 640x480, 60 frames a second");
    report("from exposure to judgement", pipeline());
}

fn prepare(format: PixelFormat) -> Vec<f64> {
    let size = Size::new(1920, 1200);
    let stride = format.row_bytes(1920).unwrap();
    let bytes = (0..stride * 1200).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8).collect();
    let pixels = Pixels::Raw { size, format, stride, bytes };
    let mut preparation = Preparation::open(&View::default(), INPUT).unwrap();
    let mut once = || {
        let began = Instant::now();
        preparation.prepare(&pixels).unwrap();
        began.elapsed().as_secs_f64() * 1e3
    };
    for _ in 0..20 {
        once();
    }
    (0..300).map(|_| once()).collect()
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

/// Everything but drawing and inferring, over two thousand frames.
fn pipeline() -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    let times = Arc::new(Mutex::new(Vec::new()));
    let heard = times.clone();
    let open_detector = Box::new(|| -> Result<Detector, BoxedError> {
        let model = ModelRef { name: "scripted".into(), version: "0".into() };
        Ok(Detector::new(Box::new(Scripted), model, Threshold(1.0)))
    });
    let source =
        SimulatedOptions { rate: 60.0, size: Size::new(640, 480), parts: 2000, ..Default::default() };
    let line = LinePlan {
        camera: "bench".parse().unwrap(),
        source: Options::Simulated(source),
        view: View::default(),
        mode: CaptureMode::Free { when_full: WhenFull::Wait },
        views: Views::default(),
        deadline: None::<Duration>,
        golden_every: None,
        open_detector,
    };
    let plan = ServicePlan {
        box_name: "bench".into(),
        lines: vec![line],
        store: store::Options { path: folder.path().join("store"), ..Default::default() },
        mqtt: None,
        observer: Some(Arc::new(move |judgement, _| {
            let t = judgement.timings;
            heard.lock().unwrap().push(f64::from(t.total - t.capture - t.infer));
        })),
        keepers: Keepers::default(),
    };
    let service = Service::start(plan).unwrap();
    service.run(&Shutdown::new(), true);
    service.stop();
    let times = times.lock().unwrap();
    times[20..].to_vec()
}

fn report(name: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |q: f64| times[((times.len() - 1) as f64 * q).round() as usize];
    println!("  {name:<28} p50 {:6.2} ms  p99 {:6.2} ms  of {}", at(0.5), at(0.99), times.len());
}

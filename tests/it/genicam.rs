//! GigE Vision: against Aravis' fake camera, a process of its own that is really killed and started again.
//!
//! It answers on the loopback address, of which there is one: these tests take turns. They are skipped, saying why, where
//! the program was built without `genicam` or the fake camera is not installed.

use std::collections::HashSet;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use inspectord::camera::{self, Camera, CameraError, Exposure, GenicamOptions, Next, Options};
use inspectord::frame::{Frame, PixelFormat, Pixels, Region, Samples, Size};
use inspectord::imaging;

use crate::inspectord::PATIENCE;

const FAKE: &str = "arv-fake-gv-camera-0.8";
const ADDRESS: &str = "127.0.0.1";

static TURN: Mutex<()> = Mutex::new(());

/// A fake camera; killed when dropped.
pub(crate) struct Fake {
    process: Option<Child>,
    arguments: Vec<String>,
    _turn: MutexGuard<'static, ()>,
}

impl Fake {
    /// None, with the reason printed, where it cannot be had.
    #[expect(clippy::print_stderr, reason = "a skipped test says why")]
    pub(crate) fn start(more: &[&str]) -> Option<Self> {
        if !camera::HARDWARE.contains(&"genicam") {
            eprintln!("skipped: built without the feature `genicam`");
            return None;
        }
        let there = Command::new(FAKE).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if there.is_err() {
            eprintln!("skipped: {FAKE} is not installed (Debian: aravis-tools)");
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let arguments = ["-i", ADDRESS, "-s", "FAKE01"].iter().chain(more).map(ToString::to_string).collect();
        let mut fake = Self { process: None, arguments, _turn: turn };
        fake.run();
        Some(fake)
    }

    pub(crate) fn run(&mut self) {
        let mut command = Command::new(FAKE);
        command.args(&self.arguments).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().unwrap());
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.kill();
    }
}

fn options() -> GenicamOptions {
    GenicamOptions { camera: ADDRESS.into(), format: "Mono8".into(), ..GenicamOptions::default() }
}

fn open(options: GenicamOptions) -> Result<Box<dyn Camera>, CameraError> {
    camera::open(&"top".parse().unwrap(), &Options::Genicam(options), HashSet::new())
}

/// Opens it once it answers: a camera that was started a moment ago may not yet.
fn opened(options: GenicamOptions) -> Box<dyn Camera> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match open(options.clone()) {
            Ok(camera) => return camera,
            Err(error) => assert!(Instant::now() < give_up, "{error}"),
        }
    }
}

fn frame(camera: &mut dyn Camera) -> Box<Frame> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match camera.next(Duration::from_millis(200)) {
            Ok(Next::Frame(frame)) => return frame,
            // A busy machine may lose one.
            Ok(Next::Nothing) | Err(CameraError::BadFrame { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(Instant::now() < give_up, "no frame came");
    }
}

#[test]
fn frames_come_as_the_settings_ask_and_in_the_order_in_which_they_were_taken() {
    let Some(_fake) = Fake::start(&[]) else { return };
    let sensor = Region { x: 0, y: 0, width: 320, height: 240 };
    let mut camera = opened(GenicamOptions {
        sensor: Some(sensor),
        rate: 50.0,
        exposure_us: Some(5_000.0),
        gain: Some(1.0),
        ..options()
    });
    assert!(camera.describe().contains("320x240 Mono8, free-running"), "{}", camera.describe());
    let mut last = None;
    for _ in 0..20 {
        let frame = frame(camera.as_mut());
        let Pixels::Raw { size, format, .. } = &frame.pixels else { panic!("{:?}", frame.pixels) };
        assert_eq!((*size, *format), (Size::new(320, 240), PixelFormat::Mono(Samples::U8)));
        assert!(imaging::decode(&frame.pixels).is_ok());
        assert!(frame.captured <= Instant::now() && last.is_none_or(|last| last < frame.captured));
        last = Some(frame.captured);
    }
}

#[test]
fn what_the_camera_refuses_is_named_with_what_it_can() {
    let Some(_fake) = Fake::start(&[]) else { return };
    drop(opened(options()));
    let refused = |options: GenicamOptions| open(options).err().unwrap().to_string();
    let format = refused(GenicamOptions { format: "BayerRG12p".into(), ..options() });
    assert!(format.contains("BayerRG12p") && format.contains("Mono8"), "{format}");
    let line = refused(GenicamOptions { expose: Exposure::Line("Line99".into()), ..options() });
    assert!(line.contains("Line99") && line.contains("Software"), "{line}");
    let features = toml::from_str("camera = \"x\"\nfeatures = { NoSuchThing = 3 }").unwrap();
    let feature = refused(GenicamOptions { camera: ADDRESS.into(), ..features });
    assert!(feature.contains("NoSuchThing"), "{feature}");
}

#[test]
fn a_camera_that_exposes_on_request_gives_one_frame_for_each() {
    let Some(_fake) = Fake::start(&[]) else { return };
    let mut camera = opened(GenicamOptions { expose: Exposure::Software, ..options() });
    for _ in 0..5 {
        let asked = Instant::now();
        camera.expose().unwrap();
        let frame = frame(camera.as_mut());
        assert!(frame.captured >= asked, "a frame from before its trigger");
        assert!(matches!(camera.next(Duration::from_millis(60)), Ok(Next::Nothing)));
    }
}

#[test]
fn a_camera_that_dies_is_lost_and_opens_again_when_it_is_back() {
    let Some(mut fake) = Fake::start(&[]) else { return };
    let mut camera = opened(options());
    frame(camera.as_mut());
    fake.kill();
    let give_up = Instant::now() + PATIENCE;
    let error = loop {
        match camera.next(Duration::from_millis(200)) {
            Ok(_) | Err(CameraError::BadFrame { .. }) => assert!(Instant::now() < give_up, "never noticed"),
            Err(error) => break error,
        }
    };
    assert!(error.needs_reopening(), "{error}");
    drop(camera);
    assert!(matches!(open(options()), Err(CameraError::NotFound { .. })));
    fake.run();
    frame(opened(options()).as_mut());
}

#[test]
fn frames_that_lose_packets_are_bad_and_counted() {
    // Of a thousand packets, so many get lost.
    let Some(_fake) = Fake::start(&["-r", "20"]) else { return };
    let mut camera = opened(options());
    let give_up = Instant::now() + PATIENCE;
    let (mut whole, mut bad) = (0, 0);
    while whole == 0 || bad == 0 {
        match camera.next(Duration::from_millis(200)) {
            Ok(Next::Frame(_)) => whole += 1,
            Err(CameraError::BadFrame { message, .. }) => {
                assert!(message.contains("lost on the way"), "{message}");
                bad += 1;
            }
            other => assert!(other.is_ok(), "{other:?}"),
        }
        assert!(Instant::now() < give_up, "{whole} whole, {bad} bad");
    }
    assert!(camera.losses().incomplete_frames >= bad && camera.losses().missing_packets > 0);
}

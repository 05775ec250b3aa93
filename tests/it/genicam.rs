//! GigE Vision: what the camera room makes of a camera that is really there, and of one that is dying.

use std::time::{Duration, Instant};

use inspectord::camera::{self, Camera, CameraError, Exposure, GenicamOptions, Next, Options, WhiteBalance};
use inspectord::frame::{Frame, Mosaic, PixelFormat, Pixels, Region, Samples, Size};
use inspectord::imaging;

use crate::gige::chart::{self, Layout};
use crate::gige::{Gige, Order, Scene};
use crate::inspectord::PATIENCE;

// Registers of Aravis' fake camera, of the ones that tests add, and of every GigE Vision camera.
const EXPOSURE: u32 = 0x120;
const GAIN: u32 = 0x110;
const FRAME_PERIOD: u32 = 0x138;
const TRIGGER_MODE: u32 = 0x300;
const TRIGGER_SOURCE: u32 = 0x304;
const TRIGGER_ACTIVATION: u32 = 0x308;
const BALANCE_AUTO: u32 = 0x2000;
const BALANCE_RED: u32 = 0x2010;
const BALANCE_BLUE: u32 = 0x2014;
const REVERSE_X: u32 = 0x2020;
const PACKET_SIZE: u32 = 0xd04;

fn options(camera: &Gige) -> GenicamOptions {
    GenicamOptions { camera: camera.address().into(), format: "Mono8".into(), ..GenicamOptions::default() }
}

fn open(options: GenicamOptions) -> Result<Box<dyn Camera>, CameraError> {
    camera::open(&"top".parse().unwrap(), &Options::Genicam(options), &camera::none_judged)
}

/// Opens it once it answers: a camera that was started or plugged in a moment ago may not yet.
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

/// Takes frames until the camera is lost.
fn lost(camera: &mut dyn Camera) -> CameraError {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match camera.next(Duration::from_millis(200)) {
            Ok(_) | Err(CameraError::BadFrame { .. }) => assert!(Instant::now() < give_up, "never noticed"),
            Err(error) => return error,
        }
    }
}

/// The error's message, where opening is refused.
fn refused(options: GenicamOptions) -> String {
    open(options).err().expect("the camera refuses").to_string()
}

#[test]
fn frames_come_as_the_settings_ask_and_in_the_order_in_which_they_were_taken() {
    let Some(gige) = Gige::start(Order::default()) else { return };
    let sensor = Region { x: 0, y: 0, width: 320, height: 240 };
    let mut camera = opened(GenicamOptions { sensor: Some(sensor), rate: 50.0, ..options(&gige) });
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
fn every_pixel_format_shows_the_chart_in_its_colours() {
    let order = Order { scene: Scene::Chart, width: 64, height: 48, ..Order::default() };
    let Some(gige) = Gige::start(order) else { return };
    let mut names: Vec<String> =
        ["RGB8", "BGR8", "YUV422_8", "YUV422_8_UYVY", "Mono16"].map(String::from).into();
    for depth in ["8", "10", "10p", "10Packed", "12", "12p", "12Packed"] {
        names.extend(
            ["Mono", "BayerRG", "BayerBG", "BayerGR", "BayerGB"].map(|pattern| format!("{pattern}{depth}")),
        );
    }
    for name in names {
        let mut camera = opened(GenicamOptions { format: name.clone(), ..options(&gige) });
        let picture = imaging::decode(&frame(camera.as_mut()).pixels).unwrap();
        assert_eq!(picture.size(), Size::new(64, 48), "{name}");
        let layout = Layout::named(&name);
        for (i, pixel) in picture.rgb().chunks_exact(3).enumerate() {
            let (x, y) = (i as u32 % 64, i as u32 / 64);
            let truth = chart::colour(x, y);
            match layout {
                Layout::Mono(..) => assert_eq!(pixel, [truth[1]; 3], "{name} at {x},{y}"),
                Layout::Rgb | Layout::Bgr => assert_eq!(pixel, truth, "{name} at {x},{y}"),
                // The colours between are means of neighbours, which have tests of their own.
                Layout::Bayer(pattern, ..) => {
                    let own = pattern[(y % 2 * 2 + x % 2) as usize];
                    assert_eq!(pixel[own], truth[own], "{name} at {x},{y}");
                }
                // Two roundings to eight bits, of which blue's is the coarsest.
                Layout::Yuyv | Layout::Uyvy => {
                    let far = pixel.iter().zip(truth).map(|(a, b)| a.abs_diff(b)).max();
                    assert!(far <= Some(3), "{name} at {x},{y}: {pixel:?}, not {truth:?}");
                }
            }
        }
    }
}

#[test]
fn left_open_the_format_is_the_best_of_eight_bits() {
    let Some(gige) = Gige::start(Order::default()) else { return };
    let mut camera = opened(GenicamOptions { format: "auto".into(), ..options(&gige) });
    let frame = frame(camera.as_mut());
    let Pixels::Raw { format, .. } = frame.pixels else { panic!("{:?}", frame.pixels) };
    assert_eq!(format, PixelFormat::Bayer(Mosaic::RgGb, Samples::U8));
}

#[test]
fn a_camera_is_opened_by_any_of_its_names() {
    let order = Order { serial: "SN4711".into(), user_name: "left-of-belt".into(), ..Order::default() };
    let Some(gige) = Gige::start(order) else { return };
    drop(opened(options(&gige)));
    let listed = camera::list().into_iter().find(|listing| listing.device == "SN4711").unwrap();
    assert_eq!(listed.node, gige.address());
    for name in ["SN4711", "left-of-belt", "Aravis-SN4711", "Aravis-Fake-SN4711", gige.address()] {
        let mut camera = open(GenicamOptions { camera: name.into(), ..options(&gige) })
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        frame(camera.as_mut());
    }
    let unknown = refused(GenicamOptions { camera: "SN4712".into(), ..options(&gige) });
    assert!(unknown.contains("SN4712") && unknown.contains("SN4711"), "{unknown}");
}

#[test]
fn what_the_camera_refuses_is_named_with_what_it_can() {
    let Some(gige) = Gige::start(Order::default()) else { return };
    drop(opened(options(&gige)));
    let format = refused(GenicamOptions { format: "BayerRG16".into(), ..options(&gige) });
    assert!(format.contains("BayerRG16") && format.contains("Mono8"), "{format}");
    let line = refused(GenicamOptions { expose: Exposure::Line("Line99".into()), ..options(&gige) });
    assert!(line.contains("Line99") && line.contains("Line1"), "{line}");
    let features = toml::from_str("camera = \"x\"\nfeatures = { NoSuchThing = 3 }").unwrap();
    let feature = refused(GenicamOptions { camera: gige.address().into(), ..features });
    assert!(feature.contains("NoSuchThing"), "{feature}");
}

/// Everything that settings can write.
fn everything(gige: &Gige) -> GenicamOptions {
    let features: GenicamOptions =
        toml::from_str("features = [{ ReverseX = true }, { GainAuto = \"Continuous\" }]").unwrap();
    GenicamOptions {
        rate: 40.0,
        exposure_us: Some(5_000.0),
        gain: Some(3.0),
        white_balance: Some(WhiteBalance { red: 1.5, blue: 2.25 }),
        packet_size: 1200,
        ..GenicamOptions { features: features.features, ..options(gige) }
    }
}

#[track_caller]
fn has_everything(gige: &mut Gige) {
    let written = [
        EXPOSURE,
        GAIN,
        FRAME_PERIOD,
        TRIGGER_MODE,
        BALANCE_AUTO,
        BALANCE_RED,
        BALANCE_BLUE,
        REVERSE_X,
        PACKET_SIZE,
    ]
    .map(|register| gige.register(register));
    // The upper bits of the packet size forbid fragments.
    assert_eq!(
        (written[..8].to_vec(), written[8] & 0xffff),
        (vec![5_000, 3, 25_000, 0, 0, 1_500, 2_250, 1], 1200)
    );
}

#[test]
fn every_setting_is_written_and_written_again_after_a_power_cut() {
    let Some(mut gige) = Gige::start(Order::default()) else { return };
    let mut camera = opened(everything(&gige));
    frame(camera.as_mut());
    has_everything(&mut gige);
    gige.kill();
    let error = lost(camera.as_mut());
    assert!(matches!(error, CameraError::Lost { .. }), "{error}");
    drop(camera);
    assert!(matches!(open(everything(&gige)), Err(CameraError::NotFound { .. })));
    gige.run();
    assert_ne!(gige.register(EXPOSURE), 5_000, "it has forgotten everything");
    frame(opened(everything(&gige)).as_mut());
    has_everything(&mut gige);
}

#[test]
fn a_camera_that_exposes_on_request_gives_one_frame_for_each() {
    let Some(gige) = Gige::start(Order::default()) else { return };
    let mut camera = opened(GenicamOptions { expose: Exposure::Software, ..options(&gige) });
    for _ in 0..5 {
        let asked = Instant::now();
        camera.expose().unwrap();
        let frame = frame(camera.as_mut());
        assert!(frame.captured >= asked, "a frame from before its trigger");
        assert!(matches!(camera.next(Duration::from_millis(60)), Ok(Next::Nothing)));
    }
}

#[test]
fn a_free_running_camera_that_nobody_asked_for_long_answers_the_next_trigger_with_a_new_picture() {
    let Some(gige) = Gige::start(Order::default()) else { return };
    let stall = Duration::from_millis(500);
    let mut camera =
        opened(GenicamOptions { stall_ms: stall.as_millis() as u64, rate: 50.0, ..options(&gige) });
    frame(camera.as_mut());
    for _ in 0..2 {
        let idle = Instant::now();
        // As long as it takes to count as silent, and for its buffers to be full.
        while idle.elapsed() < 2 * stall {
            camera.check().unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        let asked = Instant::now();
        camera.expose().unwrap();
        let mut first = frame(camera.as_mut());
        // One may have been on its way, which triggers pass over; what lay in the buffers is gone.
        if first.captured < asked {
            assert!(asked - first.captured < stall, "a picture from {:?} before it", asked - first.captured);
            first = frame(camera.as_mut());
        }
        assert!(first.captured >= asked, "a picture from {:?} before its trigger", asked - first.captured);
    }
    assert_eq!(camera.losses().missed_frames, 0, "what nobody asked for is not lost");
}

#[test]
fn a_free_running_camera_that_goes_silent_while_nobody_asks_is_noticed() {
    let Some(gige) = Gige::start(Order::default()) else { return };
    let mut camera = opened(GenicamOptions { stall_ms: 500, ..options(&gige) });
    frame(camera.as_mut());
    gige.signal("STOP");
    let give_up = Instant::now() + PATIENCE;
    let error = loop {
        match camera.check() {
            Ok(()) => assert!(Instant::now() < give_up, "never noticed"),
            Err(error) => break error,
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    gige.signal("CONT");
    assert!(matches!(error, CameraError::Lost { .. }), "{error}");
}

#[test]
fn a_camera_that_exposes_on_request_and_goes_away_while_nobody_asks_is_noticed() {
    let Some(mut gige) = Gige::start(Order::default()) else { return };
    let mut camera = opened(GenicamOptions { expose: Exposure::Software, ..options(&gige) });
    gige.kill();
    let give_up = Instant::now() + PATIENCE;
    while camera.check().is_ok() {
        assert!(Instant::now() < give_up, "never noticed");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_signal_on_the_cameras_line_is_a_frame_and_one_that_never_arrives_is_reported() {
    let Some(mut gige) = Gige::start(Order::default()) else { return };
    let expose = Exposure::Line("Line1".into());
    let mut camera = opened(GenicamOptions { expose, edge: camera::Edge::Falling, ..options(&gige) });
    assert!(camera.describe().contains("exposing by Line1"), "{}", camera.describe());
    let written = [TRIGGER_MODE, TRIGGER_SOURCE, TRIGGER_ACTIVATION].map(|r| gige.register(r));
    assert_eq!(written, [1, 1, 1], "mode on, Line1, falling edge");
    let mut taken = Vec::new();
    for _ in 0..3 {
        assert!(matches!(camera.next(Duration::from_millis(60)), Ok(Next::Nothing)));
        gige.pulse();
        taken.push(frame(camera.as_mut()).captured);
    }
    gige.skip(2);
    gige.pulse();
    let give_up = Instant::now() + PATIENCE;
    let mut whole = Vec::new();
    while whole.len() < 3 {
        match camera.next(Duration::from_millis(200)) {
            Ok(Next::Frame(frame)) => {
                taken.push(frame.captured);
                whole.push(true);
            }
            Err(CameraError::BadFrame { message, taken: at, .. }) => {
                assert!(message.contains("never arrived"), "{message}");
                taken.push(at);
                whole.push(false);
            }
            other => assert!(other.is_ok(), "{other:?}"),
        }
        assert!(Instant::now() < give_up, "{whole:?}");
    }
    assert_eq!(whole, [false, false, true], "whoever counts parts needs them in order");
    assert!(taken.is_sorted_by(|a, b| a < b), "{taken:?}");
    assert_eq!(camera.losses().missed_frames, 2);
}

#[test]
fn frames_that_were_counted_and_never_came_are_counted_here() {
    let Some(mut gige) = Gige::start(Order::default()) else { return };
    let mut camera = opened(options(&gige));
    frame(camera.as_mut());
    gige.skip(7);
    let give_up = Instant::now() + PATIENCE;
    while camera.losses().missed_frames < 7 {
        frame(camera.as_mut());
        assert!(Instant::now() < give_up, "{:?}", camera.losses());
    }
}

#[test]
fn frames_that_lose_packets_are_bad_and_counted() {
    let Some(gige) = Gige::start(Order { lost: 20, ..Order::default() }) else { return };
    let mut camera = opened(options(&gige));
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

#[test]
fn a_camera_whose_firmware_hangs_is_lost_and_opens_again_when_it_goes_on() {
    let Some(gige) = Gige::start(Order::default()) else { return };
    let hasty = || GenicamOptions { stall_ms: 500, ..options(&gige) };
    let mut camera = opened(hasty());
    frame(camera.as_mut());
    gige.signal("STOP");
    let error = lost(camera.as_mut());
    assert!(
        matches!(error, CameraError::Lost { .. }) && error.to_string().contains("no frame came"),
        "{error}"
    );
    drop(camera);
    assert!(open(hasty()).is_err());
    gige.signal("CONT");
    frame(opened(hasty()).as_mut());
}

#[test]
fn a_camera_whose_cable_is_pulled_is_lost_and_opens_again_when_it_is_back() {
    let Some(mut gige) = Gige::behind_cable(Order::default()) else { return };
    let settings = |gige: &Gige| GenicamOptions { packet_size: 8000, stall_ms: 500, ..everything(gige) };
    let mut camera = opened(settings(&gige));
    frame(camera.as_mut());
    assert_eq!(gige.register(PACKET_SIZE) & 0xffff, 8000, "jumbo packets get through");
    gige.plug(false);
    let error = lost(camera.as_mut());
    assert!(matches!(error, CameraError::Lost { .. }), "{error}");
    drop(camera);
    assert!(matches!(open(settings(&gige)), Err(CameraError::NotFound { .. })));
    gige.plug(true);
    frame(opened(settings(&gige)).as_mut());
}

//! Training through the binary: to its end, killed and resumed, and what the trained model is good for.
//!
//! The parts are drawn here; the teacher is a random one of the tiny size, so that a step takes moments.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use image::{GrayImage, Luma, Rgb, RgbImage};

use crate::inspectord::{Ended, PATIENCE, Running, command, run};

/// A striped part of some brightness, with a dark spot if it is defective.
fn part(number: u32, spot: bool) -> RgbImage {
    RgbImage::from_fn(96, 72, |x, y| {
        if spot && (40..56).contains(&x) && (30..46).contains(&y) {
            return Rgb([10, 10, 10]);
        }
        let stripe = if (x / 8) % 2 == 0 { 150 } else { 110 };
        Rgb([stripe + (number % 7) as u8, stripe, 90 + (y / 3) as u8])
    })
}

/// A labelled set in the MVTec AD layout, and a folder of other pictures.
fn draw_data(root: &Path) {
    let folder = |name: &str| {
        let path = root.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    for i in 0..10 {
        part(i, false).save(folder("set/train/good").join(format!("{i:03}.png"))).unwrap();
    }
    for i in 10..13 {
        part(i, false).save(folder("set/test/good").join(format!("{i}.png"))).unwrap();
        part(i, true).save(folder("set/test/spot").join(format!("{i}.png"))).unwrap();
        let inside = |x, y| (40..56).contains(&x) && (30..46).contains(&y);
        GrayImage::from_fn(96, 72, |x, y| Luma([255 * u8::from(inside(x, y))]))
            .save(folder("set/ground_truth/spot").join(format!("{i}_mask.png")))
            .unwrap();
    }
    for i in 0..3u32 {
        RgbImage::from_fn(60, 60, |x, y| Rgb([(x * 4) as u8, (y * (i + 1)) as u8, (x * y) as u8]))
            .save(folder("other").join(format!("{i}.png")))
            .unwrap();
    }
}

struct Workshop {
    root: tempfile::TempDir,
}

impl Workshop {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        draw_data(root.path());
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// `inspectord train` to the bundle `out`, with a checkpoint after every step.
    fn train_arguments(&self, out: &str, more: &[&str]) -> Vec<String> {
        let (data, penalty, out) = (self.text("set"), self.text("other"), self.text(out));
        let mut all: Vec<String> = ["train", "--data", &data, "--penalty", &penalty, "--out", &out]
            .into_iter()
            .chain(["--teacher", "random", "--size", "tiny", "--device", "cpu", "--checkpoint-seconds", "0"])
            .map(str::to_owned)
            .collect();
        all.extend(more.iter().map(|&s| s.to_owned()));
        all
    }

    fn train(&self, out: &str, more: &[&str]) -> Ended {
        let arguments = self.train_arguments(out, more);
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

#[track_caller]
fn succeeded(ended: Ended) -> Ended {
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    ended
}

#[track_caller]
fn wait_for_file(path: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(Instant::now() < deadline, "{} never came", path.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_training_killed_and_resumed_makes_the_same_model() {
    let shop = Workshop::new();
    let steps = ["--steps", "6", "--seed", "3"];
    succeeded(shop.train("whole", &steps));
    assert!(!shop.path("whole.checkpoint").exists(), "a finished training leaves no checkpoint");

    let arguments = shop.train_arguments("killed", &steps);
    let killed = Running::start(command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    wait_for_file(&shop.path("killed.checkpoint"));
    killed.signal("KILL");
    assert_eq!(killed.ended().code, None);
    assert!(!shop.path("killed").exists(), "it was killed on its way");

    shop.train("killed", &steps).refuses(1, &["killed.checkpoint", "--resume"]);
    let other = ["--steps", "6", "--seed", "4", "--resume"];
    shop.train("killed", &other).refuses(1, &["killed.checkpoint", "`seed` was 3 and is 4"]);
    succeeded(shop.train("killed", &[&steps[..], &["--resume"]].concat()));

    let tensors = |bundle: &str| fs::read(shop.path(bundle).join("model.safetensors")).unwrap();
    assert!(tensors("whole") == tensors("killed"), "the weights differ");
}

#[test]
fn a_folder_that_is_no_models_is_refused_before_the_training() {
    let shop = Workshop::new();
    shop.train("other", &["--steps", "2"]).refuses(1, &["other", "no model bundle"]);
    assert!(!shop.path("other.checkpoint").exists());
}

#[test]
fn a_training_told_to_stop_leaves_a_checkpoint() {
    let shop = Workshop::new();
    let steps = ["--steps", "5000"];
    let arguments = shop.train_arguments("model", &steps);
    let training = Running::start(command(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    wait_for_file(&shop.path("model.checkpoint"));
    training.signal("TERM");
    training.ended().refuses(1, &["stopped after step", "--resume"]);
    assert!(shop.path("model.checkpoint").exists());
}

#[test]
fn a_trained_model_judges_pictures_and_is_calibrated_anew() {
    let shop = Workshop::new();
    let trained = succeeded(shop.train("model", &["--steps", "2", "--json"]));
    let last: serde_json::Value = serde_json::from_str(trained.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&last["event"], &last["name"]), (&"done".into(), &"model".into()));

    let (model, data) = (shop.text("model"), shop.text("set"));
    let calibrate = ["calibrate", "--model", &model, "--data", &data, "--false-positive-rate", "0.02"];
    let calibrated = succeeded(run(&calibrate));
    assert!(calibrated.stdout.contains("2 % of normal parts"), "{}", calibrated.stdout);
    // Of the folder that it was trained on, all are looked at: those held out and those learnt.
    assert!(calibrated.stderr.contains("calibrating 10 of 10"), "{}", calibrated.stderr);

    let maps = shop.text("maps");
    let evaluate = ["evaluate", "--model", &model, "--data", &data, "--maps", &maps, "--json"];
    let figures: serde_json::Value = serde_json::from_str(&succeeded(run(&evaluate)).stdout).unwrap();
    assert_eq!(figures["images"], 6);
    for figure in ["image_auroc", "image_ap", "image_f1_max", "pixel_auroc", "aupro_30", "aupro_05"] {
        let value = figures[figure].as_f64().unwrap_or_else(|| panic!("{figure}: {figures}"));
        assert!((0.0..=1.0).contains(&value), "{figure}: {value}");
    }
    assert_eq!(figures["per_defect"]["spot"]["images"], 3);
    assert!(figures["latency_ms"]["p99"].as_f64() >= figures["latency_ms"]["p50"].as_f64());
    for picture in ["good/10.png", "spot/12.png"] {
        assert!(image::open(Path::new(&maps).join(picture)).is_ok());
    }

    let text = shop.path("text.png");
    fs::write(&text, "this is no picture").unwrap();
    let (good, text) = (shop.text("set/test/good/10.png"), text.display().to_string());
    let ended = run(&["inspect", "--model", &model, "--json", &good, &text]);
    assert_eq!(ended.code, Some(1), "{}{}", ended.stdout, ended.stderr);
    let lines: Vec<serde_json::Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["path"], good.as_str());
    let decision =
        if lines[0]["score"].as_f64() > lines[0]["threshold"].as_f64() { "anomalous" } else { "ok" };
    assert_eq!(lines[0]["decision"], decision);
    assert!(lines[1]["error"].as_str().unwrap().contains("text.png"), "{}", lines[1]);
}

#[test]
fn a_training_that_cannot_work_says_why() {
    let shop = Workshop::new();
    fs::create_dir(shop.path("empty")).unwrap();
    let (out, empty, set) = (shop.text("out"), shop.text("empty"), shop.text("set"));
    let train = |data: &str, more: &[&str]| {
        run(&[&["train", "--data", data, "--out", &out, "--size", "tiny", "--steps", "1"], more].concat())
    };
    train(&empty, &["--teacher", "random"]).refuses(1, &["no picture in", "empty"]);
    train(&set, &["--teacher", &shop.text("gone.safetensors")]).refuses(1, &["gone.safetensors"]);
    train(&set, &["--teacher", "random", "--image-size", "100x256"]).refuses(2, &["--image-size", "100x256"]);
    train(&set, &["--teacher", "random", "--false-positive-rate", "7"])
        .refuses(2, &["--false-positive-rate"]);
    train(&set, &["--teacher", "random", "--resume"]).refuses(1, &["out.checkpoint", "without --resume"]);
    fs::write(shop.path("set/train/good/005.png"), "no picture").unwrap();
    train(&set, &["--teacher", "random"]).refuses(1, &["005.png"]);
    run(&["calibrate", "--model", &out, "--data", &set]).refuses(1, &["no model bundle", "out"]);
    run(&["evaluate", "--model", &out, "--data", &empty]).refuses(1, &["empty", "test"]);
}

//! Training, calibrating and judging through a camera's eyes: what they make of picture files is what the line makes of its
//! frames.

use std::fs;
use std::path::{Path, PathBuf};

use inspectord::camera::normal_part;
use inspectord::frame::{Picture, Size};
use inspectord::imaging::{self, Flip, Orientation, Rotation, crop};
use serde_json::Value;
use tempfile::TempDir;

use crate::inspectord::{arg, run};

/// A folder with settings for one camera, whose model need not be there.
struct Bench(TempDir);

impl Bench {
    fn new(camera: &str) -> Self {
        let bench = Self(tempfile::tempdir().unwrap());
        let settings = format!(
            "[box]\nname = \"bench\"\nmodels = \".\"\n[mqtt]\nenabled = false\n[web]\nenabled = false\n\
             [retrain]\nenabled = false\n[store]\npath = \"store\"\n[[camera]]\nname = \"top\"\nmodel = \"model\"\n{camera}\n\
             [camera.source]\nkind = \"folder\"\nmode = \"replay\"\npath = \"frames\"\n"
        );
        fs::write(bench.path("inspectord.toml"), settings).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn save(&self, folder: &str, pictures: impl Iterator<Item = Picture>) {
        fs::create_dir(self.path(folder)).unwrap();
        for (i, picture) in pictures.enumerate() {
            fs::write(self.path(folder).join(format!("{i:02}.png")), imaging::png(&picture)).unwrap();
        }
    }

    /// The shipped model, to be judged with and calibrated.
    fn take_demo_model(&self) {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        fs::create_dir(self.path("model")).unwrap();
        for file in fs::read_dir(shipped).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), self.path("model").join(file.file_name())).unwrap();
        }
    }

    /// Runs a command, through the camera's eyes where it is `seeing`, and gives the last line that it prints.
    fn run(&self, arguments: &[&str], seeing: bool) -> Value {
        let config = self.path("inspectord.toml");
        let eyes = ["--camera", "top", "--config", arg(&config)];
        let ended = run(&[arguments, if seeing { &eyes } else { &[] }].concat());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        serde_json::from_str(ended.stdout.lines().next_back().unwrap()).unwrap()
    }
}

const UPRIGHT: Size = Size::new(300, 280);

fn upright(n: u64) -> Picture {
    normal_part(7, n, UPRIGHT)
}

/// As a camera that hangs on its side delivers it.
fn hanging(n: u64) -> Picture {
    Orientation { rotate: Rotation::Left, flip: Flip::None }.apply(upright(n))
}

#[test]
fn a_model_learns_the_cameras_region_as_if_it_had_been_cut_out_by_hand() {
    let region = inspectord::frame::Region { x: 20, y: 10, width: 260, height: 256 };
    let bench = Bench::new("rotate = 90\nregion = { x = 20, y = 10, width = 260, height = 256 }");
    bench.save("frames", (0..8).map(hanging));
    bench.save("by-hand", (0..8).map(|n| crop(&upright(n), region).unwrap()));
    let train = |data: &str, out: &str, seeing: bool| {
        let (data, out) = (bench.path(data), bench.path(out));
        let arguments =
            ["train", "--data", arg(&data), "--out", arg(&out), "--size", "tiny", "--steps", "2", "--json"];
        bench.run(&arguments, seeing)
    };
    let (seen, by_hand) = (train("frames", "model", true), train("by-hand", "other", false));
    // The version is the digest of everything that was learnt.
    assert_eq!((&seen["version"], &seen["threshold"]), (&by_hand["version"], &by_hand["threshold"]));
    let manifest = fs::read_to_string(bench.path("model/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["training"]["view"], "rotate 90, flip none, region 260x256 at (20, 10)");
    // Of another picture it says so before it learns anything.
    bench.save("small", (0..4).map(|n| normal_part(7, n, Size::new(100, 90))));
    let (data, out, config) = (bench.path("small"), bench.path("none"), bench.path("inspectord.toml"));
    let arguments = ["train", "--data", arg(&data), "--out", arg(&out), "--size", "tiny", "--steps", "2"];
    run(&[&arguments[..], &["--camera", "top", "--config", arg(&config)]].concat())
        .refuses(1, &["small", "region of 260x256", "90x100"]);
    run(&[&arguments[..], &["--camera", "side", "--config", arg(&config)]].concat())
        .refuses(2, &["side", "top"]);
}

#[test]
fn what_a_mask_hides_counts_neither_in_calibration_nor_in_judging_as_in_the_daemon() {
    let bench = Bench::new("rotate = 90\nignore = [[[0, 0], [150, 0], [150, 150], [0, 150]]]");
    bench.take_demo_model();
    let with_a_hand_in_the_corner = |n: u64| {
        let mut picture = upright(n);
        let row = UPRIGHT.width as usize * 3;
        for y in 10..60 {
            for x in 10..60 {
                let stripe = if (x + y * n as usize) % 6 < 3 { 255 } else { 0 };
                picture.rgb_mut()[y * row + 3 * x..][..3].copy_from_slice(&[stripe, 0, 255 - stripe]);
            }
        }
        Orientation { rotate: Rotation::Left, flip: Flip::None }.apply(picture)
    };
    bench.save("frames", (0..6).map(with_a_hand_in_the_corner));
    let (model, frames) = (bench.path("model"), bench.path("frames"));
    let inspect = |seeing| {
        let picture = frames.join("03.png");
        bench.run(&["inspect", "--model", arg(&model), "--json", arg(&picture)], seeing)
    };
    let (seen, whole) = (inspect(true), inspect(false));
    let number = |value: &Value, key: &str| value[key].as_f64().unwrap();
    assert!(number(&seen, "score") < number(&whole, "score"), "{seen} {whole}");
    let peak = |i: usize| seen["peak"][i].as_u64().unwrap();
    assert!(peak(0) >= 150 || peak(1) >= 150, "{seen}");

    let config = bench.path("inspectord.toml");
    let ended = run(&["run", "--config", arg(&config), "--until-end"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let history = run(&["history", "--config", arg(&config), "--json"]);
    let verdicts: Vec<Value> =
        history.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let same = verdicts.iter().find(|verdict| verdict["source"]["name"] == "03.png").unwrap();
    assert_eq!((&same["score"], &same["peak"]), (&seen["score"], &seen["peak"]));

    // The top of the normal maps' range, which a hand in one cell of thirty raises unless it is hidden.
    let calibrated = |seeing| {
        bench.run(&["calibrate", "--model", arg(&model), "--data", arg(&frames), "--json"], seeing);
        let manifest = fs::read_to_string(model.join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        manifest["quantiles"]["student_teacher"]["b"].as_f64().unwrap()
    };
    let (whole, seen) = (calibrated(false), calibrated(true));
    assert!(seen < whole, "{seen} and {whole}");
}

#[test]
fn a_snapshot_needs_no_model_yet() {
    let bench = Bench::new("");
    bench.save("frames", (0..1).map(upright));
    let out = bench.path("out.png");
    let told = bench.run(&["snapshot", "--out", arg(&out), "--json"], true);
    assert_eq!((&told["size"]["width"], &told["input"]["width"]), (&300.into(), &256.into()), "{told}");
}

//! Bad input through the binary: each is refused with an exit code, and a message that names the thing and the remedy.

use std::fs;
use std::path::PathBuf;

use inspectord::detector::untrained;
use inspectord::efficientad::{Architecture, CalibratedModel, PdnSize};
use inspectord::frame::Size;
use inspectord::imaging;
use tempfile::TempDir;

use crate::inspectord::{self as program, Ended, arg};
use crate::mosquitto::{Access, Mosquitto, free_port};

/// A folder with settings that are without fault but for what a test adds, and without a broker.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("models")).unwrap();
        fs::create_dir_all(folder.path().join("pictures")).unwrap();
        let common = "[box]\nname = \"bench\"\nmodels = \"models\"\n\
                      [[camera]]\nname = \"top\"\nmodel = \"bottle\"\n\
                      source = { kind = \"folder\", path = \"pictures\" }\n";
        fs::write(folder.path().join("inspectord.toml"), format!("{common}{settings}")).unwrap();
        Self { folder }
    }

    /// The same with a model, and a store in the folder.
    fn with_model(settings: &str) -> Self {
        let bench = Self::new(settings);
        let architecture = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
        untrained::model(&architecture, 1).save(&bench.path("models/bottle")).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, command: &str, more: &[&str]) -> Ended {
        let (config, store) =
            (self.path("inspectord.toml"), format!("store.path={}", arg(&self.path("store"))));
        program::run(&[&[command, "--config", arg(&config), "--set", &store], more].concat())
    }

    fn check(&self) -> Ended {
        self.run("check", &[])
    }

    fn inspect(&self, picture: &str) -> Ended {
        let (model, picture) = (self.path("models/bottle"), self.path(picture));
        program::run(&["inspect", "--model", arg(&model), arg(&picture)])
    }
}

const NO_BROKER: &str = "[mqtt]\nenabled = false\n";

#[test]
fn a_missing_settings_file_is_named_with_the_way_to_another() {
    let ended = program::run(&["check", "--config", "/nowhere/inspectord.toml"]);
    ended.refuses(2, &["/nowhere/inspectord.toml", "--config", "No such file"]);
}

#[test]
fn an_unknown_key_is_named_with_the_one_that_was_meant() {
    let bench = Bench::new("[mqtt]\nhots = \"broker\"\n[store]\nkeep_dais = 3\n");
    bench.check().refuses(2, &["mqtt.hots", "did you mean `host`?", "store.keep_dais", "`keep_days`"]);
    let json = bench.run("check", &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((json.code, &report["ok"]), (Some(2), &serde_json::json!(false)));
    assert_eq!(report["checks"].as_array().unwrap().len(), 3, "{}", json.stdout);
}

#[test]
fn a_missing_model_is_named_with_the_command_that_makes_one() {
    let bench = Bench::new("");
    let place = bench.path("models/bottle");
    bench.check().refuses(2, &["camera[0].model", arg(&place), "inspectord train"]);
    fs::write(bench.path("part.png"), "").unwrap();
    bench.inspect("part.png").refuses(1, &[arg(&place), "inspectord train"]);
}

#[test]
fn a_truncated_bundle_is_told_from_one_of_another_version() {
    let bench = Bench::with_model(NO_BROKER);
    let tensors = bench.path("models/bottle/model.safetensors");
    let whole = fs::read(&tensors).unwrap();
    fs::write(&tensors, &whole[..whole.len() / 2]).unwrap();
    bench.check().refuses(1, &["model.safetensors", "truncated", "copy the bundle again"]);
    fs::write(&tensors, whole).unwrap();
    let manifest = bench.path("models/bottle/manifest.json");
    let mut other: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    other["format"] = 99.into();
    fs::write(&manifest, other.to_string()).unwrap();
    bench.check().refuses(1, &["models/bottle", "format 99", "train it again"]);
    fs::write(&manifest, "{").unwrap();
    bench.check().refuses(1, &["manifest.json", "not a model's manifest"]);
}

#[test]
fn a_picture_that_is_none_is_named_with_what_it_is() {
    let bench = Bench::with_model(NO_BROKER);
    fs::write(bench.path("text.png"), "this is no picture").unwrap();
    bench.inspect("text.png").refuses(1, &["text.png", "text"]);
    let mut cut = imaging::png(&untrained::picture(Size::new(64, 64), 1));
    cut.truncate(cut.len() / 2);
    fs::write(bench.path("cut.png"), cut).unwrap();
    bench.inspect("cut.png").refuses(1, &["cut.png", "cut off"]);
    bench.inspect("nowhere.png").refuses(1, &["nowhere.png"]);
}

#[test]
fn a_picture_of_thirty_thousand_a_side_is_refused_before_memory_is_taken() {
    let bench = Bench::with_model(NO_BROKER);
    fs::write(bench.path("huge.png"), png_header(30_000, 30_000)).unwrap();
    bench.inspect("huge.png").refuses(1, &["huge.png", "30000x30000", "16384"]);
}

/// A PNG that claims to be this large: signature, header and an empty body.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(width.to_be_bytes());
    chunk.extend(height.to_be_bytes());
    chunk.extend([8, 2, 0, 0, 0]);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(&chunk);
    png.extend(crc32(&chunk).to_be_bytes());
    png.extend(b"\0\0\0\0IDAT");
    png.extend(crc32(b"IDAT").to_be_bytes());
    png.extend(b"\0\0\0\0IEND");
    png.extend(crc32(b"IEND").to_be_bytes());
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_refuses_is_told_from_a_wrong_password() {
    let port = free_port();
    let bench = Bench::with_model(&format!("[mqtt]\nhost = \"127.0.0.1\"\nport = {port}\n"));
    bench.check().refuses(1, &["nothing listens on", &format!("127.0.0.1:{port}"), "is the broker running"]);

    let broker = Mosquitto::start(Access::Password).await;
    fs::write(bench.path("password"), "wrong\n").unwrap();
    let (port, file) = (format!("mqtt.port={}", broker.port()), bench.path("password"));
    let file = format!("mqtt.password_file={}", arg(&file));
    let login = ["--set", &port, "--set", "mqtt.username=box", "--set", &file];
    let refused = bench.run("check", &login);
    refused.refuses(1, &["refuses the user `box`", "password is wrong", "mqtt.password_file"]);
    assert!(!refused.stdout.contains("wrong\n"), "a password was printed: {}", refused.stdout);
    // The service is given a credential where a shell has none.
    let shell = bench.run("check", &login[..4]);
    assert_eq!(shell.code, Some(0), "{}", shell.stdout);
    assert!(shell.stdout.contains("systemd-run -P -p LoadCredential=mqtt-password:"), "{}", shell.stdout);
    fs::write(bench.path("password"), "right\n").unwrap();
    let accepted = bench.run("check", &login);
    assert_eq!(accepted.code, Some(0), "{}", accepted.stdout);
    assert!(!bench.path("store").exists(), "check made a store");
}

#[test]
fn a_store_that_cannot_be_written_is_named_with_the_remedy() {
    let bench = Bench::with_model(NO_BROKER);
    fs::write(bench.path("file"), "").unwrap();
    let below_a_file = format!("store.path={}", arg(&bench.path("file/store")));
    bench.run("check", &["--set", &below_a_file]).refuses(1, &["file is no folder", "store.path"]);
    // Root may write anywhere but where the kernel lets nobody.
    let refused = bench.run("check", &["--set", "store.path=/proc/inspectord"]);
    refused.refuses(1, &["/proc", "store.path"]);
}

#[test]
fn a_camera_that_does_not_exist_is_named() {
    let bench = Bench::with_model(NO_BROKER);
    fs::remove_dir(bench.path("pictures")).unwrap();
    let folder = bench.path("pictures");
    bench.check().refuses(1, &["camera", "top", arg(&folder)]);
}

#[test]
fn whatever_a_retraining_fails_at_the_daemon_reads_it() {
    let bench = Bench::with_model(NO_BROKER);
    let other_card = ["--json", "--camera", "top", "--set", "inference.device=cuda:x"];
    for (more, why) in [(&other_card[..], "no device"), (&["--json", "--camera", "side"], "no camera `side`")]
    {
        let failed = bench.run("retrain", more);
        failed.refuses(2, &[why]);
        let told: serde_json::Value = serde_json::from_str(failed.stdout.lines().last().unwrap()).unwrap();
        assert_eq!((&told["event"], &told["busy"]), (&"failed".into(), &false.into()), "{told}");
        assert!(told["error"].as_str().unwrap().contains(why), "{told}");
    }
}

#[test]
fn a_demo_that_cannot_be_as_asked_is_refused_before_it_begins() {
    for (flag, why) in
        [("--rate=-1", "--rate"), ("--defect-rate=2", "--defect-rate"), ("--broker=h:abc", "`abc`")]
    {
        let refused = program::run(&["demo", flag]);
        refused.refuses(2, &[why]);
        assert!(refused.stdout.is_empty(), "{}", refused.stdout);
    }
}

#[test]
fn wrong_usage_is_told_from_failure() {
    program::run(&["chekc"]).refuses(2, &["chekc", "check"]);
    program::run(&["check", "--jsno"]).refuses(2, &["--jsno", "--json"]);
    program::run(&["inspect", "--model", "x", "--device", "gpu", "y.png"]).refuses(2, &["gpu", "cuda:N"]);
    assert_eq!(program::run(&["--version"]).code, Some(0));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]
    /// However a bundle was damaged on its way, it is a model or an error, and never a panic.
    #[test]
    fn no_bundle_makes_it_panic(
        file in proptest::bool::ANY,
        at in 0.0f64..1.0,
        cut in 0usize..40,
        junk in proptest::collection::vec(proptest::num::u8::ANY, 0..20),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("bundle");
        let architecture = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
        untrained::model(&architecture, 1).save(&bundle).unwrap();
        let path = bundle.join(if file { "manifest.json" } else { "model.safetensors" });
        let mut bytes = fs::read(&path).unwrap();
        // The header of the tensors' file says where they lie: most damage is to go there.
        let span = bytes.len().min(4096);
        let start = ((at * span as f64) as usize).min(bytes.len());
        let end = (start + cut).min(bytes.len());
        bytes.splice(start..end, junk);
        fs::write(&path, bytes).unwrap();
        if let Err(error) = CalibratedModel::load(&bundle) {
            assert!(!error.to_string().is_empty());
        }
    }
}

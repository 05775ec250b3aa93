//! The settings' behaviour: what is accepted, that every fault is named at once, and that the shipped file tells the
//! truth about the defaults.

use std::fs;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use toml::{Table, Value};

use super::*;
use crate::camera as cameras;
use crate::imaging::{Bounds, Flip, Orientation, Rotation};
use crate::pipeline::Views;
use crate::verdict::Threshold;

const SHIPPED: &str = include_str!("../../config/inspectord.toml");

/// A folder with a settings file and a bundle named `bottle`.
struct Box {
    folder: TempDir,
    environment: Vec<(String, String)>,
    flags: Vec<String>,
}

impl Box {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("models/bottle");
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("manifest.json"), "{}").unwrap();
        fs::write(folder.path().join("inspectord.toml"), text).unwrap();
        Self { folder, environment: Vec::new(), flags: Vec::new() }
    }

    fn variable(mut self, name: &str, text: &str) -> Self {
        self.environment.push((name.into(), text.into()));
        self
    }

    fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.into());
        self
    }

    fn load(&self) -> Result<Settings, SettingsError> {
        let environment = self.environment.iter().map(|(k, v)| (k.into(), v.into())).collect();
        let file = Some(self.folder.path().join("inspectord.toml"));
        Settings::load(&Sources { file, environment, flags: self.flags.clone() })
    }

    fn faults(&self) -> Vec<String> {
        match self.load() {
            Err(SettingsError::Faults { faults, .. }) => faults.iter().map(ToString::to_string).collect(),
            other => panic!("expected faults, got {other:?}"),
        }
    }
}

const ONE_CAMERA: &str = r#"
[box]
name = "line-3"
models = "models"
[[camera]]
name = "top"
model = "bottle"
[camera.source]
kind = "folder"
path = "pictures"
"#;

#[test]
fn a_small_file_is_enough_and_paths_start_from_its_folder() {
    let b = Box::with(ONE_CAMERA);
    let settings = b.load().unwrap();
    assert_eq!(settings.box_name.as_str(), "line-3");
    let camera = &settings.cameras[0];
    assert_eq!(camera.model, b.folder.path().join("models/bottle"));
    assert_eq!(camera.trigger, TriggerMode::Free { when_full: WhenFull::Wait });
    let cameras::Options::Folder(folder) = &camera.source else { panic!("{:?}", camera.source) };
    assert_eq!(folder.path, b.folder.path().join("pictures"));
    assert_eq!(settings.store, store::Options::default());
    assert_eq!(settings.mqtt, publish::Options::default());
}

#[test]
fn variables_override_the_file_and_flags_override_both() {
    let settings = Box::with(&format!("{ONE_CAMERA}\n[mqtt]\nhost = \"a\"\nport = 1"))
        .variable("INSPECTORD__MQTT__HOST", "b")
        .variable("INSPECTORD__MQTT__PORT", "2")
        .variable("INSPECTORD__MQTT__CLIENT_ID", "42")
        .variable("INSPECTORD__CAMERA__0__THRESHOLD", "0.25")
        .variable("INSPECTORD_LOG", "debug")
        .flag("mqtt.port=3")
        .flag("camera[0].source.rate=7")
        .load()
        .unwrap();
    assert_eq!((settings.mqtt.host.as_str(), settings.mqtt.port()), ("b", 3));
    assert_eq!(settings.mqtt.client_id.as_deref(), Some("42"));
    assert_eq!(settings.cameras[0].threshold, Some(Threshold(0.25)));
    let cameras::Options::Folder(folder) = &settings.cameras[0].source else { panic!() };
    assert_eq!((folder.rate, settings.cameras[0].name.as_str()), (7.0, "top"));
}

#[test]
fn every_fault_is_named_at_once_with_its_key_and_a_remedy() {
    let faults = Box::with(
        r#"
        [box]
        models = "models"
        [[camera]]
        name = "a/b"
        model = "bottel"
        deadline_ms = 5
        [camera.source]
        kind = "folder"
        pth = "x"
        rate = -1
        [[camera]]
        name = "side"
        model = "bottle"
        threshold = nan
        source = { kind = "webcam" }
        [[camera]]
        name = "side"
        model = "bottle"
        trigger = "sofware"
        region = { x = 0, y = 0, width = 0, height = 9 }
        [mqtt]
        hots = "broker"
        port = 70000
        enabled = "yes"
        tls = { ca_fil = "x" }
        [stor]
        [inference]
        threads = 1.5
        "#,
    )
    .variable("INSPECTORD__STORE__QUEUE", "many")
    .variable("INSPECTORD__CAMERA__99__NAME", "x")
    .flag("mqtt.inflight")
    .faults();
    let expected = [
        ("INSPECTORD__CAMERA__99__NAME", "is no key"),
        ("--set mqtt.inflight", "KEY=VALUE"),
        ("mqtt.enabled", "string \"yes\", expected true or false"),
        ("mqtt.hots", "did you mean `host`?"),
        ("mqtt.port", "expected a whole number from 0 to 65535"),
        ("mqtt.tls.ca_fil", "did you mean `ca_file`?"),
        ("store.queue", "expected a whole number, not below 0 (set by INSPECTORD__STORE__QUEUE)"),
        ("inference.threads", "1.5"),
        ("stor", "did you mean `store`?"),
        ("camera[0].name", "cannot name a camera"),
        ("camera[0].source.pth", "did you mean `path`?"),
        ("camera[0].source.path", "is missing"),
        ("camera[0].source.rate", "-1 is no rate"),
        ("camera[0].deadline_ms", "trigger = \"software\""),
        ("camera[0].model", "inspectord train --out"),
        ("camera[1].source.kind", "possible: folder, v4l2, genicam, simulated"),
        ("camera[1].threshold", "number"),
        ("camera[2].trigger", "did you mean `software`?"),
        ("camera[2].name", "camera[1] already"),
        ("camera[2].source", "is missing"),
        ("camera[2].region.width", "out of bounds"),
    ];
    for (key, part) in expected {
        let found = faults.iter().find(|fault| fault.starts_with(&format!("{key}: ")));
        assert!(found.is_some_and(|fault| fault.contains(part)), "{key}: {part}\n{faults:#?}");
    }
    // One more: a name that is cut out as faulty must not also be called missing.
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
}

#[test]
fn a_camera_is_looked_at_as_its_section_says() {
    let section = r#"
        rotate = 270
        flip = "vertical"
        polygon = [[0, 0], [9, 0], [9, 9]]
        ignore = [[[1, 1], [2, 1], [2, 2]]]
        ignore_mask = "mask.png"
        picture = { min_brightness = 12, frozen = true }
        [camera.source]"#;
    let text = ONE_CAMERA.replace("[camera.source]", section);
    let b = Box::with(&text);
    assert!(b.faults()[0].contains("camera[0].ignore_mask: there is no file"), "{:?}", b.faults());
    fs::write(b.folder.path().join("mask.png"), "x").unwrap();
    let view = b.load().unwrap().cameras.remove(0).view;
    assert_eq!(view.orientation, Orientation { rotate: Rotation::Left, flip: Flip::Vertical });
    assert_eq!(view.areas.polygon.as_ref().map(Vec::len), Some(3));
    assert_eq!(view.areas.ignore_mask, Some(b.folder.path().join("mask.png")));
    assert_eq!(view.bounds, Bounds { min_brightness: 12.0, frozen: true, ..Bounds::default() });

    let wrong = section
        .replace("270", "45")
        .replace("[9, 9]]", "[9, 99999]]")
        .replace("[2, 2]]", "]")
        .replace("= 12", "= 300");
    let faults = Box::with(&ONE_CAMERA.replace("[camera.source]", &wrong)).faults().join("\n");
    for part in ["rotate: 45 is not possible", "polygon: the corner [9, 99999]", "min_brightness: 300"] {
        assert!(faults.contains(part), "{part}\n{faults}");
    }
}

#[test]
fn what_triggers_must_fit_what_exposes() {
    let with = |camera: &str, source: &str| {
        let text = ONE_CAMERA
            .replace("[camera.source]", &format!("{camera}\n[camera.source]"))
            .replace("kind = \"folder\"\npath = \"pictures\"", source);
        Box::with(&text)
    };
    let folder = "kind = \"folder\"\npath = \"pictures\"";
    let timed =
        with("trigger = \"timed\"\nevery_ms = 100\nviews = 3\nview_every_ms = 20", folder).load().unwrap();
    assert_eq!(timed.cameras[0].trigger, TriggerMode::Timed { every_ms: 100 });
    assert_eq!(timed.cameras[0].views, Views { count: 3, every: Duration::from_millis(20) });
    let line = "kind = \"genicam\"\ncamera = \"1\"\nexpose = \"Line1\"";
    let by_line = with("", line).load().unwrap();
    assert_eq!(by_line.cameras[0].trigger, TriggerMode::Free { when_full: WhenFull::Uninspected });
    for (camera, source, fault) in [
        ("trigger = \"timed\"", folder, "every_ms: is missing"),
        (
            "trigger = \"timed\"\nevery_ms = 20\nviews = 3\nview_every_ms = 10",
            folder,
            "view_every_ms: the views",
        ),
        ("views = 2", folder, "views: has no effect"),
        ("trigger = \"software\"\nviews = 99", folder, "views: is out of bounds"),
        ("trigger = \"software\"\nevery_ms = 9", folder, "every_ms: has no effect"),
        ("golden_hours = 8", folder, "golden_hours: needs trigger = \"software\""),
        ("trigger = \"software\"\ngolden_hours = 0", folder, "golden_hours: 0 is out of bounds"),
        ("trigger = \"software\"", line, "trigger: the camera's line"),
        ("", &line.replace("Line1", "software"), "source.expose: a camera that exposes on request"),
    ] {
        let faults = with(camera, source).faults();
        assert!(faults.len() == 1 && faults[0].contains(fault), "{fault}: {faults:?}");
    }
}

#[test]
fn a_live_camera_that_delivers_the_same_picture_twice_is_frozen() {
    let live = ONE_CAMERA.replace("\"folder\"", "\"v4l2\"").replace("path = \"pictures\"", "device = \"x\"");
    let frozen = |text: &str| Box::with(text).load().unwrap().cameras[0].view.bounds.frozen;
    assert_eq!((frozen(ONE_CAMERA), frozen(&live)), (false, true));
    assert!(!frozen(&live.replace("[camera.source]", "picture = { frozen = false }\n[camera.source]")));
}

#[test]
fn a_file_that_is_not_there_or_no_toml_says_so() {
    let b = Box::with("[mqtt\nhost = 1");
    let message = b.load().unwrap_err().to_string();
    assert!(message.contains("inspectord.toml is not valid TOML") && message.contains("line 1"), "{message}");
    fs::remove_file(b.folder.path().join("inspectord.toml")).unwrap();
    assert!(b.load().unwrap_err().to_string().contains("name another with --config"));
    fs::write(b.folder.path().join("inspectord.toml"), vec![b'#'; 2 << 20]).unwrap();
    assert!(matches!(b.load(), Err(SettingsError::Size { .. })));
}

#[test]
fn the_number_of_cameras_is_bounded() {
    assert!(Box::with("").faults()[0].starts_with("camera: there is none"));
    let many = "[[camera]]\n".repeat(MAX_CAMERAS + 1);
    assert_eq!(Box::with(&many).faults(), ["camera: 33 are too many: a box has at most 32"]);
    assert!(Box::with("camera = 3").faults()[0].contains("[[camera]]"));
}

#[test]
fn missing_files_are_faults() {
    let tls =
        "[mqtt]\nusername = \"u\"\npassword_file = \"pw\"\ntls = { enabled = true, ca_file = \"ca.pem\" }";
    let b = Box::with(&format!("{ONE_CAMERA}{tls}"));
    assert_eq!(b.faults().len(), 2);
    for file in ["pw", "ca.pem"] {
        fs::write(b.folder.path().join(file), "x").unwrap();
    }
    assert_eq!(b.load().unwrap().mqtt.password_file, Some(b.folder.path().join("pw")));
}

#[test]
fn the_record_can_be_read_whatever_else_is_wrong() {
    let b = Box::with("[mqtt]\nhots = 1\n[store]\npath = \"record\"");
    let file = Some(b.folder.path().join("inspectord.toml"));
    let store = Settings::load_store(&Sources { file, ..Sources::default() }).unwrap();
    assert_eq!(store.path, b.folder.path().join("record"));
}

/// The shipped file with its optional keys switched on: they begin with `#` and no space.
fn with_optional_keys() -> String {
    let is_key = |line: &str| {
        line.strip_prefix('#').is_some_and(|l| l.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()))
    };
    SHIPPED.lines().map(|line| if is_key(line) { &line[1..] } else { line }).collect::<Vec<_>>().join("\n")
}

/// Holds the section of the shipped file against the defaults of its type.
fn same<T: DeserializeOwned + Serialize + Default>(section: &str) {
    let pick = |text: &str| match text.parse::<Table>().unwrap().remove(section) {
        Some(Value::Table(table)) => table,
        other => panic!("{section}: {other:?}"),
    };
    let (shipped, all) = (pick(SHIPPED), pick(&with_optional_keys()));
    assert_eq!(Value::Table(shipped), Value::try_from(T::default()).unwrap(), "[{section}]");
    let unknown = toml::from_str::<T>("\"?\" = 1").err().unwrap().to_string();
    for key in unknown.split('`').skip(3).step_by(2) {
        assert!(all.contains_key(key), "[{section}] does not show `{key}`");
    }
    Value::Table(all).try_into::<T>().unwrap();
}

#[test]
fn the_shipped_file_shows_every_key_with_its_default() {
    same::<host::Options>("box");
    same::<publish::Options>("mqtt");
    same::<store::Options>("store");
    same::<crate::retrain::Options>("retrain");
    same::<web::Options>("web");
    same::<crate::detector::Options>("inference");
}

#[test]
fn the_shipped_file_shows_every_key_of_a_camera_with_its_default() {
    let all = with_optional_keys().parse::<Table>().unwrap();
    let sections = all["camera"].as_array().unwrap();
    let sources: Vec<_> = sections.iter().map(|s| s["source"].as_table().unwrap().clone()).collect();
    let defaults = [
        cameras::Options::Folder(Default::default()),
        cameras::Options::V4l2(Default::default()),
        cameras::Options::Genicam(Default::default()),
        cameras::Options::Simulated(Default::default()),
    ];
    for (shown, default) in sources.iter().zip(defaults) {
        let mut shown = shown.clone();
        let example: Vec<_> =
            ["path", "device", "camera"].into_iter().filter_map(|k| shown.remove(k)).collect();
        for optional in ["size", "sensor", "exposure_us", "gain", "white_balance"] {
            if shown["kind"].as_str() != Some("simulated") {
                shown.remove(optional);
            }
        }
        let mut default = Table::try_from(default).unwrap();
        default.retain(|key, _| !(example.len() == 1 && ["path", "device", "camera"].contains(&key)));
        assert_eq!(shown, default);
    }
    let keys = toml::from_str::<camera::Written>("\"?\" = 1").err().unwrap().to_string();
    for key in keys.split('`').skip(3).step_by(2) {
        assert!(sections.iter().any(|s| s.get(key).is_some()), "{key}");
    }
    let shown = sections[0]["picture"].clone().try_into::<view::WrittenBounds>().unwrap();
    assert_eq!(shown, view::WrittenBounds { frozen: Some(true), ..Default::default() });
    let shown = Box::with(&with_optional_keys()).flag("box.models=models");
    let faults = shown.faults();
    assert!(faults.iter().all(|f| f.contains("there is no") || f.starts_with("mqtt.tls.")), "{faults:#?}");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(128))]
    /// Whatever stands in the file, there are settings or faults, and never a panic.
    #[test]
    fn no_file_makes_it_panic(at in 0usize..12_000, cut in 0usize..60, junk in "\\PC{0,40}", lines in 1usize..400) {
        let mut text: Vec<char> = with_optional_keys().chars().collect();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        text.splice(at..end, junk.chars());
        let text: String = text.into_iter().collect();
        let text: Vec<&str> = text.lines().take(lines).collect();
        let _settings_or_faults = Box::with(&text.join("\n")).load();
    }
}

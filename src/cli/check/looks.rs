//! One look at each thing that `run` would need; none of them changes anything.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access, statvfs};

use super::{Looked, State};
use crate::camera::{self, Next};
use crate::cli::models;
use crate::detector::cuda::{self, CardInfo};
use crate::detector::options::{Device, Engine};
use crate::detector::{self, Detector};
use crate::efficientad::CalibratedModel;
use crate::frame::Size;
use crate::imaging::{Preparation, Sight};
use crate::publish::{self, PublishError};
use crate::settings::{Camera, Settings, SettingsError};
use crate::store::{self, Query, Reader};
use crate::telemetry::chain;

/// How long a live camera has for its first frame.
const FIRST_FRAME: Duration = Duration::from_secs(5);
/// A size that a model might read; places in a picture do not depend on it.
const ANY_INPUT: Size = Size::new(256, 256);
const NO_PASSWORD: &str = "no password is at hand here, and the service may be given one: look with it by `systemd-run -P -p \
                           LoadCredential=mqtt-password:/etc/inspectord/mqtt-password inspectord check`";

/// Everything there is to look at, in the order in which it is needed.
pub(super) fn everything(settings: &Settings, origin: &str) -> Vec<Looked> {
    let cameras = settings.cameras.len();
    let plural = if cameras == 1 { "" } else { "s" };
    let summary = format!("box {}, {cameras} camera{plural}", settings.box_name);
    let mut looked = vec![Looked::new("settings", origin, State::Ok, summary)];
    looked.extend(settings.cameras.iter().map(|camera| model(camera, settings)));
    looked.extend(cards(&settings.inference));
    let daemon =
        store::holder(&settings.store.path).map(|holder| format!("the daemon that is running ({holder})"));
    looked.push(store(&settings.store, daemon.as_deref()));
    if settings.retrain.enabled {
        looked.push(learning(settings));
    }
    looked.extend(settings.cameras.iter().map(|camera| frames(camera, daemon.as_deref())));
    looked.push(broker(&settings.mqtt, settings.box_name.as_str()));
    looked
}

/// The settings' faults, one by one.
pub(super) fn faults(error: &SettingsError, origin: &str) -> Vec<Looked> {
    let fault = |detail| Looked::new("settings", origin, State::Fault, detail);
    match error {
        SettingsError::Faults { faults, .. } => faults.iter().map(|f| fault(f.to_string())).collect(),
        other => vec![fault(chain(other))],
    }
}

fn model(camera: &Camera, settings: &Settings) -> Looked {
    let name = camera.name.as_str();
    let fault = |detail| Looked::new("model", name, State::Fault, detail);
    let loaded = if settings.retrain.enabled {
        models::registry(settings, camera).load_active().map_err(|e| chain(&e))
    } else {
        CalibratedModel::load(&camera.model).map_err(|e| chain(&e))
    };
    let model = match loaded {
        Ok(model) => model,
        Err(error) => return fault(error),
    };
    let trained_with = model.manifest().training.view.clone();
    match Detector::open(model, &settings.inference) {
        Ok(detector) => {
            let reference = detector.model();
            let threshold = camera.threshold.unwrap_or(detector.threshold());
            let detail = format!(
                "{} {}, {}, threshold {:.4}, {}",
                reference.name,
                reference.version,
                detector.input(),
                threshold.0,
                detector.describe()
            );
            // A mask that cannot be read is told where the camera's frames are looked at.
            let sees = Sight::open(&camera.view).ok().and_then(|sight| sight.words());
            if let Some(trained) = trained_with.filter(|trained| sees.as_ref() != Some(trained)) {
                let sees = sees.unwrap_or_else(|| "pictures whole and as they are".into());
                let detail = format!(
                    "{detail}; it was trained with {trained}, and the camera sees {sees}: train it anew with --camera {name}, or \
                     retrain --full; until then `calibrate` with --camera {name} keeps at least its threshold right"
                );
                return Looked::new("model", name, State::Warning, detail);
            }
            Looked::new("model", name, State::Ok, detail)
        }
        Err(error) => fault(chain(&error)),
    }
}

/// The machine's NVIDIA cards, and whether this program can use them. That one is asked for and is not there, the models'
/// own looks say.
fn cards(options: &detector::Options) -> Vec<Looked> {
    let cards = match cuda::cards() {
        Ok(cards) => cards,
        Err(error) => {
            let asked = matches!(options.device, Device::Cuda(_));
            let state = if asked { State::Warning } else { State::Ok };
            return vec![Looked::new("card", "none", state, error.to_string())];
        }
    };
    let release = cuda::driver_release().map_or(String::new(), |release| format!(" {release}"));
    let wanted = options.device != Device::Cpu && options.engine != Engine::Cpu;
    let look = |card: CardInfo| {
        let ((major, minor), (cuda_major, cuda_minor)) = (card.capability, card.driver);
        let what = format!(
            "{}, generation {major}.{minor}, {} MiB, driver{release} for CUDA {cuda_major}.{cuda_minor}",
            card.name,
            card.memory >> 20
        );
        let (state, use_of_it) = match cuda::TOOLKIT {
            Some(toolkit) => (State::Ok, format!("kernels made with CUDA {toolkit}")),
            None if wanted => (State::Warning, "not used: this build has no kernels for it".to_owned()),
            None => (State::Ok, "not used".to_owned()),
        };
        Looked::new("card", &format!("cuda:{}", card.ordinal), state, format!("{what}; {use_of_it}"))
    };
    cards.into_iter().map(look).collect()
}

fn store(options: &store::Options, daemon: Option<&str>) -> Looked {
    let name = options.path.display().to_string();
    let looked = |state, detail| Looked::new("store", &name, state, detail);
    if let Some(daemon) = daemon {
        return looked(State::Ok, format!("in use by {daemon}"));
    }
    let there = match writable(&options.path, "store.path") {
        Ok(there) => there,
        Err(detail) => return looked(State::Fault, detail),
    };
    if let Ok(reader) = Reader::open(&options.path)
        && let Err(error) = reader.history(&Query { limit: 1, ..Query::default() })
    {
        return looked(State::Fault, chain(&error));
    }
    let free = match statvfs(there) {
        Ok(fs) if fs.f_blocks > 0 => (fs.f_bavail * fs.f_frsize) >> 20,
        _ => {
            let detail = format!("{} is on no disk: name a folder on one as store.path", there.display());
            return looked(State::Fault, detail);
        }
    };
    if free < options.min_free_megabytes {
        let least = options.min_free_megabytes;
        let detail = format!("{free} MiB are free, less than store.min_free_megabytes = {least}: make room");
        return looked(State::Warning, detail);
    }
    looked(State::Ok, format!("can be written, {free} MiB free"))
}

/// The folder that `path` is, or is going to be made in, if it can be written.
fn writable<'a>(path: &'a Path, key: &str) -> Result<&'a Path, String> {
    // What is not there yet will be made in the nearest folder that is.
    let Some(there) = path.ancestors().find(|folder| folder.symlink_metadata().is_ok()) else {
        return Err(format!("cannot be made: correct {key}"));
    };
    let shown = there.display();
    if !there.is_dir() {
        return Err(format!("{shown} is no folder: remove it, or correct {key}"));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        format!("cannot write to {shown}: {error}; give this user the right to, or another folder as {key}")
    })?;
    Ok(there)
}

/// Where samples and versions lie, and the pictures that retraining goes by.
fn learning(settings: &Settings) -> Looked {
    let options = &settings.retrain;
    let mut faults: Vec<String> = writable(&options.path, "retrain.path").err().into_iter().collect();
    let mut folder = |key: String, path: Option<&PathBuf>| {
        if let Some(path) = path.filter(|path| !path.is_dir()) {
            faults.push(format!("{key}: there is no folder {}: correct the path", path.display()));
        }
    };
    folder("retrain.penalty".into(), options.penalty.as_ref());
    for camera in &settings.cameras {
        folder(format!("normals of camera {}", camera.name), camera.normals.as_ref());
    }
    if let Device::Cuda(n) = options.device
        && cuda::cards().map_or(0, |cards| cards.len()) <= n
    {
        faults.push(format!("retrain.device: there is no card cuda:{n}; use cpu or auto"));
    }
    let name = options.path.display().to_string();
    match faults.is_empty() {
        true => {
            Looked::new("retrain", &name, State::Ok, format!("can be written, trains on {}", options.device))
        }
        false => Looked::new("retrain", &name, State::Fault, faults.join("; ")),
    }
}

fn frames(camera: &Camera, daemon: Option<&str>) -> Looked {
    let name = camera.name.as_str();
    // One that waits for its line's signal delivers nothing by itself.
    let live = camera.source.is_live() && !camera.source.exposes_by_line();
    let delivered =
        camera::open(&camera.name, &camera.source, &camera::none_judged).and_then(|mut opened| {
            let first = if live {
                opened.expose()?;
                opened.next(FIRST_FRAME)?
            } else {
                Next::Nothing
            };
            Ok((opened.describe(), first))
        });
    let (state, detail) = match (delivered, daemon) {
        (Ok((what, Next::Nothing)), _) if live => {
            let detail =
                format!("{what} delivers no frame within {} s: check its cable", FIRST_FRAME.as_secs());
            (State::Fault, detail)
        }
        (Ok((what, first)), _) => match unseen(camera, &first) {
            Some(fault) => (State::Fault, format!("{what}: {fault}")),
            None => (State::Ok, what),
        },
        (Err(error), Some(daemon)) if live => {
            (State::Warning, format!("{}; it may be in use by {daemon}", chain(&error)))
        }
        (Err(error), _) => (State::Fault, chain(&error)),
    };
    Looked::new("camera", name, state, detail)
}

/// Why a camera's picture cannot be looked at as the settings say.
fn unseen(camera: &Camera, first: &Next) -> Option<String> {
    let mut preparation = match Preparation::open(&camera.view, ANY_INPUT) {
        Ok(preparation) => preparation,
        Err(error) => return Some(format!("its `ignore_mask` cannot be used: {}", chain(&error))),
    };
    match first {
        Next::Frame(frame) => preparation.prepare(&frame.pixels).err().map(|error| chain(&error)),
        Next::Nothing | Next::End => None,
    }
}

fn broker(options: &publish::Options, box_name: &str) -> Looked {
    let name = format!("{}:{}", options.host, options.port());
    let looked = |state, detail| Looked::new("broker", &name, state, detail);
    if !options.enabled {
        return looked(State::Ok, "switched off: verdicts are recorded and not published".into());
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return looked(State::Fault, format!("cannot be asked: {error}")),
    };
    match runtime.block_on(publish::probe(options, box_name)) {
        Ok(probe) if probe.warnings.is_empty() => {
            let how = if probe.encrypted { ", encrypted" } else { "" };
            looked(State::Ok, format!("accepts this box{how}, topics {}/…", options.prefix(box_name)))
        }
        Ok(probe) => looked(State::Warning, probe.warnings.join("; ")),
        // The unit hands the daemon a credential that a shell does not have.
        Err(error @ PublishError::Login { .. })
            if options.username.is_some() && !publish::has_password(options) =>
        {
            looked(State::Warning, format!("{}; {NO_PASSWORD}", chain(&error)))
        }
        Err(error) => looked(State::Fault, chain(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_retraining_needs_is_looked_at_before_it_is_needed() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        std::fs::create_dir(path("pictures")).unwrap();
        std::fs::write(path("file"), "").unwrap();
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/demo");
        let text = format!(
            "[[camera]]\nname = \"top\"\nmodel = \"{}\"\nnormals = \"pictures\"\nsource = {{ kind = \"simulated\" }}\n",
            demo.display()
        );
        std::fs::write(path("inspectord.toml"), text).unwrap();
        let looked = |flags: &[&str]| {
            let flags = flags.iter().map(ToString::to_string).collect();
            let sources =
                crate::settings::Sources { file: Some(path("inspectord.toml")), flags, ..Default::default() };
            learning(&Settings::load(&sources).unwrap())
        };
        assert_eq!(looked(&["store.path=store"]).state, State::Ok);
        let sick = looked(&["retrain.path=file/retrain", "retrain.penalty=none", "camera[0].normals=gone"]);
        assert_eq!(sick.state, State::Fault);
        for named in ["file is no folder", "retrain.path", "retrain.penalty", "normals of camera top", "gone"]
        {
            assert!(sick.detail.contains(named), "{}", sick.detail);
        }
    }
}

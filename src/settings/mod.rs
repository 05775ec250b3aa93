//! Settings: the file as written, the environment and the command line, made into validated [`Settings`].
//!
//! In: a TOML file, variables named `INSPECTORD__SECTION__KEY`, and `--set` flags; the later ones win. Out: settings
//! without a fault, or every fault at once with its key's path. Defaults live in each room's `Options`.
//! Not here: opening what the settings name (`cli::check`, `cli::run`).

mod camera;
mod fault;
mod host;
mod reading;
mod sources;
#[cfg(test)]
mod tests;
mod view;

use std::path::{Path, PathBuf};

use crate::frame::CameraId;
use crate::{detector, publish, retrain, store, web};

pub use crate::pipeline::WhenFull;
pub use camera::{Camera, TriggerMode};
pub use fault::{Fault, SettingsError};
pub use host::BoxName;
pub use sources::{DEFAULT_FILE, ENVIRONMENT_PREFIX, Sources};

use fault::Faults;

/// The most cameras that one box may have.
pub const MAX_CAMERAS: usize = 32;

const SECTIONS: [&str; 7] = ["box", "camera", "mqtt", "store", "retrain", "web", "inference"];

/// What the daemon is to do, validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The box's name: a level of its topics and a field of its verdicts.
    pub box_name: BoxName,
    /// The folder of the model bundles.
    pub models: PathBuf,
    /// The cameras, at least one, each with a name of its own.
    pub cameras: Vec<Camera>,
    /// How verdicts reach the broker.
    pub mqtt: publish::Options,
    /// How verdicts and evidence are kept.
    pub store: store::Options,
    /// How samples become new model versions.
    pub retrain: retrain::Options,
    /// Where the page and the metrics are served.
    pub web: web::Options,
    /// How models are run.
    pub inference: detector::Options,
}

impl Settings {
    /// Reads and validates everything, and looks whether the files that the settings name are there.
    ///
    /// # Errors
    /// [`SettingsError`] with every fault that was found, not only the first.
    pub fn load(sources: &Sources) -> Result<Self, SettingsError> {
        let (mut root, mut faults) = sources.read()?;
        let named: host::Options = root.section("box", &mut faults).unwrap_or_default();
        let written = root.take("camera");
        let mut mqtt: publish::Options = root.section("mqtt", &mut faults).unwrap_or_default();
        let mut store: store::Options = root.section("store", &mut faults).unwrap_or_default();
        let mut retrain: retrain::Options = root.section("retrain", &mut faults).unwrap_or_default();
        let web: web::Options = root.section("web", &mut faults).unwrap_or_default();
        let inference: detector::Options = root.section("inference", &mut faults).unwrap_or_default();
        root.refuse_the_rest(&SECTIONS, &mut faults);
        faults.add_all("box", named.faults());
        faults.add_all("mqtt", mqtt.faults());
        faults.add_all("store", store.faults());
        faults.add_all("retrain", retrain.faults());
        faults.add_all("inference", inference.faults());

        let base = sources.base();
        anchor(&base, &mut store.path);
        retrain.anchor(&base, &store.path);
        anchor_files(&base, &mut mqtt, &mut faults);
        let models = base.join(&named.models);
        let cameras = camera::read_all(written, &base, &models, &mut faults);
        let settings =
            Self { box_name: named.resolve(), models, cameras, mqtt, store, retrain, web, inference };
        faults.into_result(sources.describe()).map(|()| settings)
    }

    /// Reads the section of one camera, which may go unnamed where there is only one. Its model need not have been made yet:
    /// this is for looking through the camera, and for making its model.
    ///
    /// # Errors
    /// [`SettingsError`] with the faults of all cameras' sections, or with the names that there are.
    pub fn load_camera(sources: &Sources, name: Option<&CameraId>) -> Result<Camera, SettingsError> {
        let (mut root, mut faults) = sources.read()?;
        let named: host::Options = root.section("box", &mut faults).unwrap_or_default();
        let written = root.take("camera");
        let base = sources.base();
        let mut cameras = camera::read_all(written, &base, &base.join(&named.models), &mut faults);
        faults.keep_only("camera");
        faults.forget(|fault| fault.message.starts_with(camera::NO_BUNDLE));
        let at = match name {
            Some(name) => cameras.iter().position(|camera| camera.name == *name),
            None if cameras.len() == 1 => Some(0),
            None => None,
        };
        let names = cameras.iter().map(|camera| camera.name.to_string()).collect::<Vec<_>>().join(", ");
        match (at, name) {
            (Some(_), _) => {}
            (None, Some(name)) => {
                faults.add("camera", format!("there is no camera `{name}`; there are: {names}"))
            }
            (None, None) => faults.add("camera", format!("name one with --camera; there are: {names}")),
        }
        faults.into_result(sources.describe())?;
        Ok(cameras.swap_remove(at.unwrap_or_default()))
    }

    /// Reads the `[store]` section alone, for commands that need no more than the record.
    ///
    /// # Errors
    /// [`SettingsError`] with the section's faults; those of other sections do not matter here.
    pub fn load_store(sources: &Sources) -> Result<store::Options, SettingsError> {
        let (mut root, mut faults) = sources.read()?;
        let mut store: store::Options = root.section("store", &mut faults).unwrap_or_default();
        faults.add_all("store", store.faults());
        faults.keep_only("store");
        anchor(&sources.base(), &mut store.path);
        faults.into_result(sources.describe()).map(|()| store)
    }
}

impl Settings {
    /// Reads the `[retrain]` section alone, for commands that need no more than where samples lie.
    ///
    /// # Errors
    /// [`SettingsError`] with the section's faults; those of other sections do not matter here.
    pub fn load_retrain(sources: &Sources) -> Result<retrain::Options, SettingsError> {
        let (mut root, mut faults) = sources.read()?;
        let mut store: store::Options = root.section("store", &mut faults).unwrap_or_default();
        let mut retrain: retrain::Options = root.section("retrain", &mut faults).unwrap_or_default();
        faults.add_all("retrain", retrain.faults());
        faults.keep_only("retrain");
        let base = sources.base();
        anchor(&base, &mut store.path);
        retrain.anchor(&base, &store.path);
        faults.into_result(sources.describe()).map(|()| retrain)
    }
}

/// Takes a relative path from the settings file's folder.
fn anchor(base: &Path, path: &mut PathBuf) {
    if !path.as_os_str().is_empty() {
        *path = base.join(&*path);
    }
}

fn anchor_files(base: &Path, mqtt: &mut publish::Options, faults: &mut Faults) {
    let tls = &mut mqtt.tls;
    let files = [
        ("mqtt.password_file", &mut mqtt.password_file),
        ("mqtt.tls.ca_file", &mut tls.ca_file),
        ("mqtt.tls.certificate_file", &mut tls.certificate_file),
        ("mqtt.tls.key_file", &mut tls.key_file),
    ];
    for (key, file) in files {
        let Some(path) = file else { continue };
        anchor(base, path);
        if !path.is_file() {
            faults.add(key, format!("there is no file {}: create it, or correct the path", path.display()));
        }
    }
}

//! What ties the keeper of models to the running service: orders and frames in, detectors and news out.
//!
//! The pipeline and `retrain` do not know each other; here the two meet. Not here: deciding anything.

use std::collections::HashMap;
use std::ffi::OsString;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, bail};
use serde_json::json;

use super::common::SettingsArgs;
use crate::detector::{self, Detector};
use crate::efficientad::bundle::load_manifest;
use crate::frame::CameraId;
use crate::health;
use crate::imaging::Sight;
use crate::pipeline::{self, Keepers, ModelOrder, Service};
use crate::retrain::{Hooks, Keeper, Keeping, News, Order, Recent, Subject};
use crate::settings::{Camera, Settings};
use crate::telemetry::chain;

/// The keeper before the service runs.
pub(super) struct Prepared {
    keeper: Keeper,
    subjects: Vec<Subject>,
    inference: detector::Options,
    command: Vec<OsString>,
    /// What each line is run with.
    running: HashMap<CameraId, String>,
}

/// A camera as `retrain` sees it.
pub(super) fn subject(camera: &Camera) -> Subject {
    Subject {
        camera: camera.name.clone(),
        model: camera.model.clone(),
        view: camera.view.clone(),
        normals: camera.normals.clone(),
        threshold: camera.threshold,
    }
}

/// What a line is run with that its versions are made for: the model that the settings name, and the view.
fn running(camera: &Camera) -> Option<String> {
    let base = load_manifest(&camera.model).ok()?.model_ref().version;
    let sees = Sight::open(&camera.view).ok()?.words();
    Some(format!("{base}, {}", sees.as_deref().unwrap_or("whole")))
}

/// Whether the settings still say what the daemon runs the camera with, as it told its child.
///
/// # Errors
/// They do not: a version that is made for them is none for the running line.
pub(super) fn check_unchanged(camera: &Camera, told: &str) -> anyhow::Result<()> {
    if running(camera).is_some_and(|now| now != told) {
        bail!(
            "the model or the view of camera `{}` has changed since the daemon started: restart the daemon, and retrain then",
            camera.name
        );
    }
    Ok(())
}

/// What the service is given, and what is to be started once it runs; nothing where `[retrain]` is switched off.
pub(super) fn prepare(
    settings: &Settings,
    args: &SettingsArgs,
) -> anyhow::Result<(Keepers, Option<Prepared>)> {
    if !settings.retrain.enabled {
        return Ok((Keepers::default(), None));
    }
    let subjects: Vec<Subject> = settings.cameras.iter().map(subject).collect();
    let (orders, keeper) = Keeper::new(&settings.retrain, subjects.clone());
    let (recent, keep) = Recent::new(&settings.retrain);
    thread::Builder::new().name("recent".into()).spawn(keep).context("cannot start a thread")?;
    let keepers = Keepers {
        orders: Some(Arc::new(move |camera: &CameraId, order: ModelOrder, answer: pipeline::Answer| {
            let order = match order {
                ModelOrder::Retrain => Order::Retrain,
                ModelOrder::Activate(version) => Order::Activate(version),
                ModelOrder::Rollback => Order::Rollback,
            };
            let told = move |outcome: Result<Option<String>, String>| {
                answer(outcome.map(|version| match version {
                    Some(version) => json!({ "active": version }),
                    None => json!({ "retraining": "begins; see the camera's state" }),
                }));
            };
            orders.give(camera, order, Box::new(told));
        })),
        frames: Some(Arc::new(move |camera, pixels, captured| recent.offer(camera, pixels, captured.size()))),
    };
    let mut command = vec!["retrain".into(), "--json".into(), "--config".into(), args.config.clone().into()];
    for flag in &args.flags {
        command.extend(["--set".into(), flag.into()]);
    }
    let inference = settings.inference.clone();
    let running = settings.cameras.iter().filter_map(|camera| Some((camera.name.clone(), running(camera)?)));
    let running = running.collect();
    Ok((keepers, Some(Prepared { keeper, subjects, inference, command, running })))
}

impl Prepared {
    /// Starts the keeper beside the running service.
    ///
    /// # Errors
    /// The operating system gives no thread, or does not tell what this program is.
    pub(super) fn start(self, service: &Service) -> anyhow::Result<Keeping> {
        let Self { keeper, subjects, inference, command, running } = self;
        let program =
            std::env::current_exe().context("cannot find this program's own file, to retrain with")?;
        let versions: HashMap<CameraId, String> =
            service.pipeline().health().map(|h| (h.camera().clone(), h.snapshot().model.version)).collect();
        let thresholds: HashMap<CameraId, _> =
            subjects.into_iter().map(|subject| (subject.camera, subject.threshold)).collect();
        let (swapped, told) = (service.pipeline().clone(), service.pipeline().clone());
        let hooks = Hooks {
            swap: Arc::new(move |camera, model| {
                let mut detector = Detector::open(model, &inference).map_err(|e| chain(&e))?;
                if let Some(threshold) = thresholds.get(camera).copied().flatten() {
                    detector.set_threshold(threshold);
                }
                swapped.exchange(camera, detector).map_err(|e| chain(&e))
            }),
            tell: Arc::new(move |camera, news| {
                if let Some(health) = told.health().find(|health| health.camera() == camera) {
                    health.tell(|told| told.retraining = Some(published(&news)));
                }
            }),
            command: Arc::new(move |camera| {
                let mut child = Command::new(&program);
                child.args(&command).args(["--camera", camera.as_str()]);
                child.args(["--with-parent", &std::process::id().to_string()]);
                child.args(running.get(camera).map(|with| format!("--running={with}")));
                child
            }),
        };
        keeper.start(hooks, versions).context("cannot start a thread")
    }
}

fn published(news: &News) -> health::Retraining {
    let News { phase, new_samples, done, of, seconds_left, version, detail } = news.clone();
    health::Retraining { phase, new_samples, done, of, seconds_left, version, detail }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::detector::untrained;
    use crate::efficientad::{Architecture, PdnSize};
    use crate::frame::Size;
    use crate::settings::Sources;

    fn camera(root: &Path, more: &str) -> Camera {
        let file = root.join("inspectord.toml");
        let text = format!(
            "[[camera]]\nname = \"top\"\nmodel = \"{}\"\n{more}\n[camera.source]\nkind = \"folder\"\npath = \"in\"\n",
            root.join("model").display()
        );
        std::fs::write(&file, text).unwrap();
        Settings::load_camera(&Sources::new(file, Vec::new()), None).unwrap()
    }

    #[test]
    fn a_retraining_knows_a_model_or_a_view_that_was_changed_since_the_daemon_started() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("in")).unwrap();
        let tiny = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
        let save = |seed| untrained::model(&tiny, seed).save(&root.path().join("model")).unwrap();
        save(0);
        let told = running(&camera(root.path(), "")).unwrap();
        check_unchanged(&camera(root.path(), "threshold = 0.5"), &told).unwrap();
        let turned = check_unchanged(&camera(root.path(), "rotate = 180"), &told).unwrap_err().to_string();
        assert!(turned.contains("restart the daemon"), "{turned}");
        save(1);
        assert!(check_unchanged(&camera(root.path(), ""), &told).is_err());
    }
}

//! What ties the keeper of models to the running service: orders and frames in, detectors and news out.
//!
//! The pipeline and `retrain` do not know each other; here the two meet. Not here: deciding anything.

use std::collections::HashMap;
use std::ffi::OsString;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use serde_json::json;

use super::common::SettingsArgs;
use crate::detector::{self, Detector};
use crate::frame::CameraId;
use crate::health;
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
    Ok((keepers, Some(Prepared { keeper, subjects, inference, command })))
}

impl Prepared {
    /// Starts the keeper beside the running service.
    ///
    /// # Errors
    /// The operating system gives no thread, or does not tell what this program is.
    pub(super) fn start(self, service: &Service) -> anyhow::Result<Keeping> {
        let Self { keeper, subjects, inference, command } = self;
        let program =
            std::env::current_exe().context("cannot find this program's own file, to retrain with")?;
        let running: HashMap<CameraId, String> =
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
                child
            }),
        };
        keeper.start(hooks, running).context("cannot start a thread")
    }
}

fn published(news: &News) -> health::Retraining {
    let News { phase, new_samples, done, of, seconds_left, version, detail } = news.clone();
    health::Retraining { phase, new_samples, done, of, seconds_left, version, detail }
}

//! `inspectord run`: the daemon.
//!
//! In: settings. Out: a running [`Service`] until SIGTERM, SIGINT or, on request, the end of every replay. Not here: what
//! the service does (`pipeline`).

use std::time::Duration;

use anyhow::Context as _;
use clap::Args as ClapArgs;
use tracing::{info, warn};

use super::common::SettingsArgs;
use super::keeping;
use crate::camera;
use crate::detector;
use crate::detector::Detector;
use crate::efficientad::CalibratedModel;
use crate::imaging::Sight;
use crate::pipeline::{BoxedError, CaptureMode, Keepers, LinePlan, Service, ServicePlan};
use crate::retrain::{self, Keeper, Keeping};
use crate::settings::{Camera, Settings, TriggerMode};
use crate::web::{self, Watched, Web};

/// Runs the daemon until it is told to stop.
#[derive(Debug, ClapArgs)]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Ends by itself when every camera is a replay that has ended and every verdict has been published.
    #[arg(long)]
    until_end: bool,
}

/// Runs the command.
///
/// # Errors
/// Faulty settings, a model that cannot be run, or a store that cannot be opened; everything else is retried.
pub fn run(args: Args) -> anyhow::Result<()> {
    let settings = args.settings.load()?;
    let shutdown = super::signals::shutdown()?;
    let (box_name, options) = (settings.box_name.to_string(), settings.web.clone());
    let (keepers, prepared) = keeping::prepare(&settings, &args.settings)?;
    let service = Service::start(plan(settings, keepers))?;
    let (service, (web, keeping)) = service.beside(|service| -> anyhow::Result<_> {
        // The page ends when it is let go, the keeper only when it is told to: it comes last.
        let web = options.enabled.then(|| serve(&options, box_name, service)).transpose()?;
        Ok((web, prepared.map(|prepared| prepared.start(service)).transpose()?))
    })?;
    service.run(&shutdown, args.until_end);
    // A retraining saves where it is while accepted parts come to their verdicts.
    keeping.iter().for_each(Keeping::request_stop);
    let unpublished = service.stop();
    if let Some(keeping) = keeping {
        keeping.stop();
    }
    drop(web);
    info!(unpublished, "stopped");
    Ok(())
}

/// Serves the page and the metrics of `service`.
pub(super) fn serve(options: &web::Options, box_name: String, service: &Service) -> anyhow::Result<Web> {
    let watched = Watched {
        box_name,
        lines: service.lines(),
        store: service.store().clone(),
        broker: service.monitor().cloned(),
        progress: service.progress().clone(),
    };
    Web::start(options, watched).context("cannot start the thread that serves the page")
}

/// What the settings ask the service to do.
fn plan(settings: Settings, keepers: Keepers) -> ServicePlan {
    let Settings { box_name, cameras, mqtt, store, inference, retrain, .. } = settings;
    let lines = cameras.into_iter().map(|camera| line(camera, inference.clone(), &retrain)).collect();
    ServicePlan {
        box_name: box_name.to_string(),
        lines,
        mqtt: mqtt.enabled.then_some(mqtt),
        store,
        observer: None,
        keepers,
    }
}

fn line(camera: Camera, inference: detector::Options, retrain: &retrain::Options) -> LinePlan {
    let registry = retrain.enabled.then(|| Keeper::registry(retrain, &keeping::subject(&camera)));
    let Camera { name, model, source, view, trigger, views, threshold, golden_hours, .. } = camera;
    let (mode, deadline) = match trigger {
        TriggerMode::Free { when_full } => (CaptureMode::Free { when_full }, None),
        TriggerMode::Software { deadline_ms, patience_ms, expose_within_ms } => {
            let patience = Duration::from_millis(patience_ms);
            let expose_within = Duration::from_millis(expose_within_ms);
            (CaptureMode::Software { patience, expose_within }, deadline_ms.map(Duration::from_millis))
        }
        TriggerMode::Timed { every_ms } => {
            (CaptureMode::Timed { period: Duration::from_millis(every_ms) }, None)
        }
    };
    let (line, sees) = (name.clone(), Sight::open(&view).ok().and_then(|sight| sight.words()));
    let open_detector = Box::new(move || -> Result<Detector, BoxedError> {
        let model = match &registry {
            Some(registry) => registry.load_active()?,
            None => CalibratedModel::load(&model)?,
        };
        let trained_with = model.manifest().training.view.as_ref();
        if let Some(trained_with) = trained_with.filter(|trained| sees.as_ref() != Some(trained)) {
            let sees = sees.as_deref().unwrap_or("pictures whole and as they are");
            warn!(camera = %line, trained_with, sees, "the model was trained with another view than the camera has");
        }
        let mut detector = Detector::open(model, &inference)?;
        if let Some(threshold) = threshold {
            detector.set_threshold(threshold);
        }
        Ok(detector)
    });
    let golden_every = golden_hours.map(|hours| Duration::from_secs(3600 * u64::from(hours)));
    let open_camera = camera::opener(name.clone(), source);
    LinePlan { camera: name, open_camera, view, mode, views, deadline, golden_every, open_detector }
}

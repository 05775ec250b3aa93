//! `inspectord run`: the daemon.
//!
//! In: settings. Out: a running [`Service`] until SIGTERM, SIGINT or, on request, the end of every replay. Not here: what
//! the service does (`pipeline`).

use std::time::Duration;

use clap::Args as ClapArgs;
use tracing::info;

use super::common::SettingsArgs;
use crate::detector;
use crate::detector::Detector;
use crate::efficientad::CalibratedModel;
use crate::pipeline::{BoxedError, CaptureMode, LinePlan, Service, ServicePlan};
use crate::settings::{Camera, Settings, TriggerMode};

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
    let service = Service::start(plan(settings))?;
    service.run(&shutdown, args.until_end);
    let unpublished = service.stop();
    info!(unpublished, "stopped");
    Ok(())
}

/// What the settings ask the service to do.
fn plan(settings: Settings) -> ServicePlan {
    let Settings { box_name, cameras, mqtt, store, inference, .. } = settings;
    let lines = cameras.into_iter().map(|camera| line(camera, inference.clone())).collect();
    ServicePlan {
        box_name: box_name.to_string(),
        lines,
        mqtt: mqtt.enabled.then_some(mqtt),
        store,
        observer: None,
    }
}

fn line(camera: Camera, inference: detector::Options) -> LinePlan {
    let Camera { name, model, source, view, trigger, views, threshold } = camera;
    let (mode, deadline) = match trigger {
        TriggerMode::Free { when_full } => (CaptureMode::Free { when_full }, None),
        TriggerMode::Software { deadline_ms, patience_ms } => {
            let patience = Duration::from_millis(patience_ms);
            (CaptureMode::Software { patience }, deadline_ms.map(Duration::from_millis))
        }
        TriggerMode::Timed { every_ms } => {
            (CaptureMode::Timed { period: Duration::from_millis(every_ms) }, None)
        }
    };
    let open_detector = Box::new(move || -> Result<Detector, BoxedError> {
        let mut detector = Detector::open(CalibratedModel::load(&model)?, &inference)?;
        if let Some(threshold) = threshold {
            detector.set_threshold(threshold);
        }
        Ok(detector)
    });
    LinePlan { camera: name, source, view, mode, views, deadline, open_detector }
}

//! The service: store, lines and broker session, put together, watched over, and taken down in order.
//!
//! Runs on the caller's thread; owns the runtime of what publishes (`publishing`). Not here: what makes a verdict (the
//! stages), settings (`cli`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tracing::{error, info};

use super::dispatch::{LAST_WRITES, LEAST_WAIT, Listeners};
use super::models::Keepers;
use super::publishing::{Broker, Feeds, early_alarms};
use super::requests::Desk;
use super::{LinePlan, Observer, Pipeline, StartError};
use crate::frame::CameraId;
use crate::health::{CameraStatus, LineHealth, Progress, STALL, Snapshot};
use crate::publish::{self, Link, Monitor};
use crate::runtime;
use crate::shutdown::Shutdown;
use crate::store::{self, Store, StoreError, StoreHandle, StoreThread};
use crate::systemd::Systemd;
use crate::telemetry;

/// How often the service looks after itself.
const TICK: Duration = Duration::from_millis(200);
/// How often the service manager is told how it fares.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// Replayed verdicts that may wait for the session.
const REPLAYED: usize = 64;
/// Answers that may wait for it.
const REPLIES: usize = 64;
/// How long closing the store waits for the disk.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// What the rest of a stop may take: parts under inspection, the session's last words.
const STOP_BESIDES: Duration = Duration::from_secs(10);

/// Everything the service is to do.
pub struct ServicePlan {
    /// The box's name.
    pub box_name: String,
    /// Its cameras.
    pub lines: Vec<LinePlan>,
    /// How verdicts are kept.
    pub store: store::Options,
    /// How they are published; none keeps them on this box.
    pub mqtt: Option<publish::Options>,
    /// Told of every judgement.
    pub observer: Option<Observer>,
    /// Those who keep the models.
    pub keepers: Keepers,
}

/// Why the service cannot start.
#[derive(Debug, Error)]
pub enum ServiceError {
    /// The store cannot be used.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// A line cannot start.
    #[error(transparent)]
    Line(#[from] StartError),
    /// The operating system gives no more threads.
    #[error("the operating system refuses another thread; raise TasksMax or stop other programs")]
    Thread(#[source] std::io::Error),
}

/// The running service.
pub struct Service {
    pipeline: Arc<Pipeline>,
    store: StoreHandle,
    store_thread: StoreThread,
    runtime: Runtime,
    broker: Option<Broker>,
    systemd: Systemd,
    progress: Progress,
}

impl Service {
    /// Opens the store, loads the models, starts the lines and the session.
    ///
    /// # Errors
    /// [`ServiceError`]; whatever was started has been stopped again then. A camera or a broker that is not there is no
    /// error: both are tried again and again.
    pub fn start(plan: ServicePlan) -> Result<Self, ServiceError> {
        let ServicePlan { box_name, lines, store, mqtt, observer, keepers } = plan;
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).thread_name("broker");
        let runtime = runtime::build(runtime).map_err(ServiceError::Thread)?;
        let systemd = Systemd::from_environment();
        // A disk that is failing takes long to say what it cannot read.
        let (handle, store_thread) = systemd.patiently(|| Store::open(&store, &box_name))?;
        let (replayed_in, replayed) = mpsc::channel(REPLAYED);
        let (replies_in, replies) = mpsc::channel(REPLIES);
        let counters = Arc::new(publish::Counters::default());
        let (recorded, alarms) = early_alarms(handle.clone(), mqtt.is_some());
        let feeds = Feeds { replies, replayed, alarms, counters };
        let mut pipeline = Pipeline::new(handle.clone());
        for line in lines {
            let (observer, recorded) = (observer.clone(), recorded.clone());
            let listeners = Listeners { observer, recorded, frames: keepers.frames.clone() };
            if let Err(failure) = pipeline.start_line(line, listeners) {
                pipeline.stop();
                return Err(failure.into());
            }
        }
        let pipeline = Arc::new(pipeline);
        let broker = mqtt
            .map(|options| {
                let desk = Desk {
                    pipeline: pipeline.clone(),
                    store: handle.clone(),
                    replies: replies_in,
                    replayed: replayed_in,
                    replaying: Arc::default(),
                    orders: keepers.orders,
                };
                Broker::start(&runtime, &options, &box_name, desk, feeds)
            })
            .transpose()
            .inspect_err(|_| pipeline.stop())
            .map_err(ServiceError::Thread)?;
        let progress = Progress::new();
        Ok(Self { pipeline, store: handle, store_thread, runtime, broker, systemd, progress })
    }

    /// Starts what is to run beside the service. Where that fails the service is stopped, as it is in the end: what it has accepted
    /// gets its verdicts.
    ///
    /// # Errors
    /// Those of `start`.
    pub fn beside<T, E>(self, start: impl FnOnce(&Self) -> Result<T, E>) -> Result<(Self, T), E> {
        match start(&self) {
            Ok(started) => Ok((self, started)),
            Err(failure) => {
                self.stop();
                Err(failure)
            }
        }
    }

    /// The lines.
    pub fn pipeline(&self) -> &Arc<Pipeline> {
        &self.pipeline
    }

    /// How the session fares, if verdicts are published.
    pub fn monitor(&self) -> Option<&Monitor> {
        self.broker.as_ref().map(|broker| &broker.monitor)
    }

    /// The store.
    pub fn store(&self) -> &StoreHandle {
        &self.store
    }

    /// Each line's health.
    pub fn lines(&self) -> Vec<LineHealth> {
        self.pipeline.health().cloned().collect()
    }

    /// Whether the program makes progress, as this service's watch sees it.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Watches over the service until `shutdown`, or, if `until_end`, until every replay has ended and every verdict
    /// has been published.
    pub fn run(&self, shutdown: &Shutdown, until_end: bool) {
        self.systemd.notify_ready();
        self.systemd.status(&self.summary(None));
        let mut fed = Instant::now();
        let mut told = fed;
        let mut stalled = None;
        loop {
            self.publish_states();
            let makes_progress = self.makes_progress(&mut stalled);
            if let Some(interval) = self.systemd.watchdog_interval()
                && fed.elapsed() >= interval / 2
                && makes_progress
            {
                self.systemd.feed();
                fed = Instant::now();
            }
            if told.elapsed() >= STATUS_EVERY {
                self.systemd.status(&self.summary(stalled.as_ref()));
                told = Instant::now();
            }
            if until_end && self.pipeline.has_ended() && self.is_idle() {
                return;
            }
            if shutdown.sleep(TICK) {
                return;
            }
        }
    }

    /// Stops capture, concludes and records every accepted part, publishes what can be published in time, and closes
    /// the store. Returns how many verdicts wait for the next start to be published.
    pub fn stop(self) -> u64 {
        let Self { pipeline, store, store_thread, runtime, broker, systemd, .. } = self;
        let drain = broker.as_ref().map_or(Duration::ZERO, |broker| broker.drain);
        systemd.stopping(LAST_WRITES + LEAST_WAIT + CLOSE_WITHIN + 2 * drain + STOP_BESIDES);
        pipeline.stop();
        if let Some(broker) = broker {
            broker.stop(&runtime, &store, &pipeline);
        }
        let unpublished = store.unpublished();
        if let Err(failure) = store_thread.close(CLOSE_WITHIN) {
            error!(error = telemetry::chain(&failure), "the store did not close in order");
        }
        runtime.shutdown_timeout(Duration::from_secs(1));
        unpublished
    }

    /// Notes progress and tells of it, unless a stage has hung, or publishing or a part of the store has ended; logs when one
    /// has, and when a stage goes on.
    fn makes_progress(&self, known: &mut Option<(CameraId, &'static str)>) -> bool {
        let hung = |health: &LineHealth| Some((health.camera().clone(), health.stalled(STALL)?));
        let stalled = self.pipeline.health().find_map(hung);
        let ended = self.store_thread.ended().or_else(|| self.broker.as_ref().and_then(Broker::ended));
        if let Some(what) = ended
            && self.progress.breaks(what)
        {
            error!(what, "it has ended by a fault; the watchdog will restart the program");
        }
        let progress = stalled.is_none() && self.progress.broken().is_none();
        if progress {
            self.progress.note();
        }
        match (&stalled, &known) {
            (Some((camera, stage)), None) => {
                error!(%camera, stage, "a stage has hung; the watchdog will restart the program");
            }
            (None, Some((camera, stage))) => info!(%camera, stage, "the stage that had hung goes on"),
            _ => {}
        }
        *known = stalled;
        progress
    }

    /// Whether every part has a verdict and every verdict is published.
    fn is_idle(&self) -> bool {
        let concluded = |s: Snapshot| {
            let c = s.counters;
            c.ok + c.anomalous + c.uninspected() >= c.accepted
        };
        self.pipeline.health().all(|health| concluded(health.snapshot()))
            && self.store.health().waiting == 0
            && (self.broker.is_none() || self.store.unpublished() == 0)
    }

    /// One line: what is wrong before everything else.
    fn summary(&self, stalled: Option<&(CameraId, &'static str)>) -> String {
        let hung = stalled.map(|(camera, stage)| format!("camera {camera}: the {stage} stage has hung; "));
        let broken = self.progress.broken().map(|what| format!("{what} has ended by a fault; "));
        let up = |s: &Snapshot| matches!(s.camera, CameraStatus::Up { .. });
        let cameras: Vec<Snapshot> = self.pipeline.health().map(|health| health.snapshot()).collect();
        let link = match self.monitor().map(|monitor| monitor.health.borrow().link) {
            Some(Link::Up) => "broker connected",
            Some(_) => "broker away",
            None => "no broker",
        };
        let waiting = self.store.unpublished();
        format!(
            "{}{}{} of {} cameras up, {link}, {waiting} verdicts to publish",
            hung.unwrap_or_default(),
            broken.unwrap_or_default(),
            cameras.iter().filter(|s| up(s)).count(),
            cameras.len()
        )
    }

    fn publish_states(&self) {
        if let Some(broker) = &self.broker {
            broker.publish_states(&self.pipeline, &self.store);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wait_for;

    #[test]
    fn a_part_of_the_store_that_ends_by_a_fault_stops_progress() {
        let folder = tempfile::tempdir().unwrap();
        let store = store::Options { path: folder.path().join("store"), ..store::Options::default() };
        let plan = ServicePlan {
            box_name: "box".into(),
            lines: Vec::new(),
            store,
            mqtt: None,
            observer: None,
            keepers: Keepers::default(),
        };
        let service = Service::start(plan).unwrap();
        let mut stalled = None;
        assert!(service.makes_progress(&mut stalled));
        service.store_thread.end_recording();
        wait_for("it is noticed", || !service.makes_progress(&mut stalled));
        assert!(["recording verdicts", "writing evidence"].contains(&service.progress().broken().unwrap()));
        service.stop();
    }
}

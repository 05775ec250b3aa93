//! The service: store, lines and broker session, put together, watched over, and taken down in order.
//!
//! Runs on the caller's thread; owns the runtime of the session and of the three small tasks around it. Not here: what
//! makes a verdict (the stages), settings (`cli`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use super::dispatch::{Listeners, Recorded};
use super::models::Keepers;
use super::requests::Desk;
use super::{LinePlan, Observer, Pipeline, StartError};
use crate::frame::CameraId;
use crate::health::{CameraStatus, LineHealth, ModelNews, Progress, STALL, Snapshot};
use crate::publish::{
    self, Aside, Availability, CameraCounters, CameraState, Link, Monitor, Outgoing, Reply, Seam, Session,
};
use crate::shutdown::Shutdown;
use crate::store::{self, Position, Store, StoreError, StoreHandle, StoreThread};
use crate::systemd::Systemd;
use crate::telemetry;
use crate::verdict::{Decision, Verdict};

/// How often the service looks after itself.
const TICK: Duration = Duration::from_millis(200);
/// Verdicts read from the outbox at once.
const OUTBOX_BATCH: usize = 256;
/// Verdicts between the outbox and the session.
const OUTGOING: usize = 64;
/// Replays and early alarms that may wait for the session.
const ASIDE: usize = 64;
/// Triggers and commands that may wait for an answer.
const INCOMING: usize = 64;
/// An alarm goes ahead of its turn when more than this many verdicts wait.
const LONG_OUTBOX: u64 = 200;
/// How long a stop waits for the disk.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

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

/// The session and the tasks around it.
struct Broker {
    monitor: Monitor,
    states: watch::Sender<BTreeMap<CameraId, CameraState>>,
    stop: Shutdown,
    drain: Duration,
    session: tokio::task::JoinHandle<()>,
    acknowledging: tokio::task::JoinHandle<()>,
    desk: JoinHandle<()>,
}

impl Service {
    /// Opens the store, loads the models, starts the lines and the session.
    ///
    /// # Errors
    /// [`ServiceError`]; whatever was started has been stopped again then. A camera or a broker that is not there is no
    /// error: both are tried again and again.
    pub fn start(plan: ServicePlan) -> Result<Self, ServiceError> {
        let ServicePlan { box_name, lines, store, mqtt, observer, keepers } = plan;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("broker")
            .enable_all()
            .build()
            .map_err(ServiceError::Thread)?;
        let (handle, store_thread) = Store::open(&store, &box_name)?;
        let (aside, aside_receiver) = mpsc::channel(ASIDE);
        let replies = mpsc::channel(INCOMING);
        let recorded = early_alarms(handle.clone(), aside.clone(), mqtt.is_some());
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
                    replies: replies.0,
                    aside,
                    replaying: Arc::default(),
                    orders: keepers.orders,
                };
                Broker::start(&runtime, &options, &box_name, desk, (aside_receiver, replies.1))
            })
            .transpose()
            .map_err(ServiceError::Thread)?;
        let systemd = Systemd::from_environment();
        let progress = Progress::new();
        Ok(Self { pipeline, store: handle, store_thread, runtime, broker, systemd, progress })
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
        let mut fed = Instant::now();
        let mut stalled = None;
        loop {
            self.publish_states();
            self.look_for_stalls(&mut stalled);
            if let Some(interval) = self.systemd.watchdog_interval()
                && fed.elapsed() >= interval / 2
                && stalled.is_none()
            {
                self.systemd.feed();
                self.systemd.status(&self.summary());
                fed = Instant::now();
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
        systemd.stopping(CLOSE_WITHIN + 2 * drain);
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

    /// Notes progress, unless a stage has hung; logs when one has, and when it goes on.
    fn look_for_stalls(&self, known: &mut Option<(CameraId, &'static str)>) {
        let hung = |health: &LineHealth| Some((health.camera().clone(), health.stalled(STALL)?));
        let stalled = self.pipeline.health().find_map(hung);
        if stalled.is_none() {
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

    fn summary(&self) -> String {
        let up = |s: &Snapshot| matches!(s.camera, CameraStatus::Up { .. });
        let cameras: Vec<Snapshot> = self.pipeline.health().map(|health| health.snapshot()).collect();
        let link = match self.monitor().map(|monitor| monitor.health.borrow().link) {
            Some(Link::Up) => "broker connected",
            Some(_) => "broker away",
            None => "no broker",
        };
        let waiting = self.store.unpublished();
        format!(
            "{} of {} cameras up, {link}, {waiting} verdicts to publish",
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

impl Broker {
    fn start(
        runtime: &Runtime,
        options: &publish::Options,
        box_name: &str,
        desk: Desk,
        (aside, replies): (mpsc::Receiver<Aside>, mpsc::Receiver<Reply>),
    ) -> std::io::Result<Self> {
        let (pipeline, store) = (desk.pipeline.clone(), desk.store.clone());
        let (outgoing, outgoing_receiver) = mpsc::channel(OUTGOING);
        let (acknowledged, acknowledgements) = mpsc::channel(1);
        let (states, states_receiver) = watch::channel(BTreeMap::new());
        let (incoming, requests) = mpsc::channel(INCOMING);
        let seam = Seam {
            outgoing: outgoing_receiver,
            aside,
            acknowledged,
            states: states_receiver,
            replies,
            incoming,
            taken: store.deliveries().clone(),
        };
        let cameras = pipeline.health().map(|health| health.camera().clone()).collect();
        let (session, monitor) = Session::new(options, box_name, cameras, seam);
        let stop = Shutdown::new();
        let desk = std::thread::Builder::new().name("requests".into()).spawn(move || desk.run(requests))?;
        let session = runtime.spawn(session.run(stop.clone()));
        runtime.spawn(feed(store.clone(), outgoing));
        let acknowledging = runtime.spawn(acknowledge(store.clone(), acknowledgements));
        let drain = Duration::from_secs(options.drain_seconds.into());
        let broker = Self { monitor, states, stop, drain, session, acknowledging, desk };
        broker.publish_states(&pipeline, &store);
        Ok(broker)
    }

    fn publish_states(&self, pipeline: &Pipeline, store: &StoreHandle) {
        let warnings = troubles(&store.health());
        let now = pipeline.health().map(|h| (h.camera().clone(), state(h.snapshot(), &warnings))).collect();
        self.states.send_if_modified(|states| {
            let changed = *states != now;
            if changed {
                *states = now;
            }
            changed
        });
    }

    fn stop(self, runtime: &Runtime, store: &StoreHandle, pipeline: &Pipeline) {
        self.publish_states(pipeline, store);
        let patience = Instant::now() + self.drain;
        while self.monitor.health.borrow().link == Link::Up
            && store.unpublished() > 0
            && Instant::now() < patience
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.stop.request();
        let session = self.session;
        let acknowledging = self.acknowledging;
        let over = runtime.block_on(async move {
            let longest = self.drain + Duration::from_secs(2);
            let session = tokio::time::timeout(longest, session).await;
            (session, tokio::time::timeout(Duration::from_secs(2), acknowledging).await)
        });
        if over.0.is_err() {
            warn!("the broker session did not end in time; what is unpublished follows after the next start");
        } else if self.desk.join().is_err() {
            error!("answering requests panicked");
        }
    }
}

/// Moves verdicts from the outbox to the session, in order, until the session is gone.
async fn feed(store: StoreHandle, outgoing: mpsc::Sender<Outgoing>) {
    let mut tip = store.tip();
    let mut after = store.published_upto();
    if store.unpublished() > 0 {
        info!(verdicts = store.unpublished(), "publishing what an earlier run left");
    }
    loop {
        let newest = *tip.borrow_and_update();
        while after < newest {
            let reader = store.clone();
            let batch = match spawn_blocking(move || reader.outbox(after, OUTBOX_BATCH)).await {
                Ok(Ok(batch)) => batch,
                Ok(Err(failure)) => {
                    error!(error = telemetry::chain(&failure), "the outbox cannot be read; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
                Err(_stopping) => return,
            };
            after = batch.last().map_or(newest, |(position, _)| *position);
            for (position, verdict) in batch {
                if outgoing.send(Outgoing { position: position.0, verdict }).await.is_err() {
                    return;
                }
            }
        }
        tokio::select! {
            changed = tip.changed() => if changed.is_err() { return },
            () = outgoing.closed() => return,
        }
    }
}

/// Notes in the store what the broker has acknowledged, until the session is gone.
async fn acknowledge(store: StoreHandle, mut acknowledgements: mpsc::Receiver<u64>) {
    while let Some(position) = acknowledgements.recv().await {
        store.published(Position(position));
    }
}

/// While the outbox is long, a fresh alarm is also published ahead of its turn; it comes again in its turn, so that a
/// subscriber can still prove completeness by `sequence`.
fn early_alarms(store: StoreHandle, aside: mpsc::Sender<Aside>, published: bool) -> Recorded {
    Arc::new(move |verdict: Verdict| {
        if published && verdict.decision() != Decision::Ok && store.unpublished() > LONG_OUTBOX {
            // With no room aside it still comes in its turn.
            let _full = aside.try_send(Aside::Alarm(verdict));
        }
    })
}

/// What is the matter with the store, for people.
fn troubles(store: &store::Health) -> Vec<String> {
    let told = [
        (&store.failing, "verdicts wait, for they cannot be written"),
        (&store.thinning, "pictures are not kept as evidence, verdicts are"),
        (&store.slow, "the disk is slow, so that verdicts come late"),
        (&store.pressed, "the disk is full, and verdicts use what was kept free for them"),
    ];
    let tell = |(trouble, what): &(&Option<store::Failing>, &str)| {
        let store::Failing { since, error } = trouble.as_ref()?;
        Some(format!("{what}, since {since:.0}: {error}"))
    };
    told.iter().filter_map(tell).collect()
}

fn state(snapshot: Snapshot, troubles: &[String]) -> CameraState {
    let Snapshot { camera, since, last_frame_at, model, threshold, counters, news, .. } = snapshot;
    let ModelNews { retraining, warnings, .. } = news;
    let down = |reason: &str| Availability::Down { reason: reason.to_owned() };
    let availability = match camera {
        CameraStatus::Up { .. } => Availability::Up,
        CameraStatus::Opening => down("it is being opened"),
        CameraStatus::Ended => down("its replay has ended"),
        CameraStatus::Down { why } => Availability::Down { reason: why },
    };
    CameraState {
        availability,
        since,
        model: Some(model),
        threshold: Some(threshold),
        counters: CameraCounters {
            triggers: counters.triggers,
            frames: counters.accepted,
            ok: counters.ok,
            anomalous: counters.anomalous,
            uninspected: counters.uninspected(),
            missed_frames: counters.missed_frames,
            incomplete_frames: counters.incomplete_frames,
            missing_packets: counters.missing_packets,
        },
        last_frame_at,
        retraining,
        warnings: troubles.iter().cloned().chain(warnings.into_values()).collect(),
    }
}

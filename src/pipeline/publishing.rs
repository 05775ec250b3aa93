//! What publishes beside the lines: the broker session and the tasks that join it to the store and to the lines.
//!
//! In: the outbox, states, replies. Out: what the broker acknowledged, to the store; triggers and commands, to the desk
//! (`requests`). Owns no thread but the desk's; tasks run in the service's runtime. Not here: the session itself (`publish`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{self, spawn_blocking};
use tracing::{error, info, warn};

use super::Pipeline;
use super::dispatch::Recorded;
use super::requests::Desk;
use crate::frame::CameraId;
use crate::health::{CameraStatus, ModelNews, Snapshot};
use crate::publish::{
    self, Availability, CameraCounters, CameraState, Counters, Link, Monitor, Outgoing, Replayed, Reply,
    Seam, Session,
};
use crate::shutdown::Shutdown;
use crate::store::{self, Position, StoreHandle};
use crate::telemetry;
use crate::verdict::{Decision, Verdict};

/// Verdicts read from the outbox at once.
const OUTBOX_BATCH: usize = 256;
/// Verdicts between the outbox and the session.
const OUTGOING: usize = 64;
/// Triggers and commands that may wait for an answer.
const INCOMING: usize = 64;
/// Early alarms that may wait for the session; of more, the newest.
const ALARMS: usize = 64;
/// An alarm goes ahead of its turn when more than this many verdicts wait.
const LONG_OUTBOX: u64 = 200;

/// What the session is fed by, beside the outbox and the states.
pub(super) struct Feeds {
    pub(super) replies: mpsc::Receiver<Reply>,
    pub(super) replayed: mpsc::Receiver<Replayed>,
    pub(super) alarms: broadcast::Receiver<Verdict>,
    pub(super) counters: Arc<Counters>,
}

/// The session and the tasks around it.
pub(super) struct Broker {
    pub(super) monitor: Monitor,
    states: watch::Sender<BTreeMap<CameraId, CameraState>>,
    stop: Shutdown,
    pub(super) drain: Duration,
    session: task::JoinHandle<()>,
    feeding: task::JoinHandle<()>,
    acknowledging: task::JoinHandle<()>,
    desk: JoinHandle<()>,
}

impl Broker {
    pub(super) fn start(
        runtime: &Runtime,
        options: &publish::Options,
        box_name: &str,
        desk: Desk,
        feeds: Feeds,
    ) -> std::io::Result<Self> {
        let (pipeline, store) = (desk.pipeline.clone(), desk.store.clone());
        let (outgoing, outgoing_receiver) = mpsc::channel(OUTGOING);
        let (acknowledged, acknowledgements) = mpsc::channel(1);
        let (states, states_receiver) = watch::channel(BTreeMap::new());
        let (incoming, requests) = mpsc::channel(INCOMING);
        let seam = Seam {
            outgoing: outgoing_receiver,
            replayed: feeds.replayed,
            alarms: feeds.alarms,
            acknowledged,
            states: states_receiver,
            replies: feeds.replies,
            incoming,
            taken: store.deliveries().clone(),
            counters: feeds.counters,
        };
        let cameras = pipeline.health().map(|health| health.camera().clone()).collect();
        let (session, monitor) = Session::new(options, box_name, cameras, seam);
        let stop = Shutdown::new();
        let desk = std::thread::Builder::new().name("requests".into()).spawn(move || desk.run(requests))?;
        let session = runtime.spawn(session.run(stop.clone()));
        let feeding = runtime.spawn(feed(store.clone(), outgoing));
        let acknowledging = runtime.spawn(acknowledge(store.clone(), acknowledgements));
        let drain = Duration::from_secs(options.drain_seconds.into());
        let broker = Self { monitor, states, stop, drain, session, feeding, acknowledging, desk };
        broker.publish_states(&pipeline, &store);
        Ok(broker)
    }

    /// What of it has ended though nobody asked it to.
    pub(super) fn ended(&self) -> Option<&'static str> {
        let tasks = [
            ("the broker session", self.session.is_finished()),
            ("reading the outbox", self.feeding.is_finished()),
            ("noting what was published", self.acknowledging.is_finished()),
            ("answering requests", self.desk.is_finished()),
        ];
        tasks.into_iter().find_map(|(what, ended)| ended.then_some(what))
    }

    pub(super) fn publish_states(&self, pipeline: &Pipeline, store: &StoreHandle) {
        let mut warnings = troubles(&store.health());
        warnings.extend(restriction(&self.monitor));
        let now = pipeline.health().map(|h| (h.camera().clone(), state(h.snapshot(), &warnings))).collect();
        self.states.send_if_modified(|states| {
            let changed = *states != now;
            if changed {
                *states = now;
            }
            changed
        });
    }

    pub(super) fn stop(self, runtime: &Runtime, store: &StoreHandle, pipeline: &Pipeline) {
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
/// subscriber can still prove completeness by `sequence`. While the broker is away the newest are kept: after an outage the oldest
/// are no news.
pub(super) fn early_alarms(store: StoreHandle, published: bool) -> (Recorded, broadcast::Receiver<Verdict>) {
    let (ahead, alarms) = broadcast::channel(ALARMS);
    let recorded = move |verdict: Verdict| {
        if published && verdict.decision() != Decision::Ok && store.unpublished() > LONG_OUTBOX {
            let _session_gone = ahead.send(verdict);
        }
    };
    (Arc::new(recorded), alarms)
}

/// What is the matter with the store, for people.
fn troubles(store: &store::Health) -> Vec<String> {
    let told = [
        (&store.failing, "verdicts wait, for they cannot be written"),
        (&store.thinning, "pictures are not kept as evidence, verdicts are"),
        (&store.slow, "the disk is slow, so that verdicts come late"),
        (&store.pressed, "the disk is full, and verdicts use what was kept free for them"),
        (&store.unreserved, "too little is kept free for verdicts, should the disk fill up"),
        (
            &store.crowded,
            "pictures go as soon as they are published, for the store's limits cannot be kept to",
        ),
        (&store.undated, "what looks too old of a sudden is not deleted"),
        (&store.unread, "recorded verdicts cannot be read to be published"),
        (&store.gaps, "recorded verdicts were not published"),
    ];
    let tell = |(trouble, what): &(&Option<store::Failing>, &str)| {
        let store::Failing { since, error } = trouble.as_ref()?;
        Some(format!("{what}, since {since:.0}: {error}"))
    };
    told.iter().filter_map(tell).collect()
}

/// What the broker does not let this box do, while there is one.
fn restriction(monitor: &Monitor) -> Option<String> {
    let health = monitor.health.borrow();
    health.warning.clone().filter(|_| health.link == Link::Up)
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::store::{RecordRequest, Store};
    use crate::testing::wait_for;
    use crate::verdict::tests::judgement;

    #[test]
    fn of_the_alarms_of_an_outage_the_newest_go_ahead() {
        let folder = tempfile::tempdir().unwrap();
        let options = store::Options {
            path: folder.path().join("store"),
            min_free_megabytes: 0,
            ..store::Options::default()
        };
        let (store, _thread) = Store::open(&options, "box").unwrap();
        let (recorded, mut alarms) = early_alarms(store.clone(), true);
        let told = Arc::new(AtomicU64::new(0));
        for _ in 0..2 * LONG_OUTBOX {
            let (judgement, recorded, told) = (judgement("top", 0.9), recorded.clone(), told.clone());
            let request = RecordRequest { judgement, evidence: None, ticket: None };
            store.record_then(request, move |verdict| {
                recorded(verdict.unwrap());
                told.fetch_add(1, Ordering::Release);
            });
        }
        wait_for("all are on disk and told", || told.load(Ordering::Acquire) == 2 * LONG_OUTBOX);
        let first = loop {
            match alarms.blocking_recv() {
                Ok(alarm) => break alarm.sequence,
                Err(broadcast::error::RecvError::Lagged(_in_their_turn)) => {}
                Err(closed) => panic!("{closed}"),
            }
        };
        assert_eq!(first, 2 * LONG_OUTBOX - ALARMS as u64 + 1);
    }

    #[test]
    fn what_the_broker_restricts_stands_among_the_warnings_while_it_is_connected() {
        let (tell, health) = watch::channel(publish::Health {
            link: Link::Up,
            since: jiff::Timestamp::now(),
            last_error: None,
            warning: Some("no triggers come".into()),
            deaf: true,
        });
        let monitor = Monitor { health, counters: Arc::default() };
        assert_eq!(restriction(&monitor).as_deref(), Some("no triggers come"));
        tell.send_modify(|health| health.link = Link::Down);
        assert_eq!(restriction(&monitor), None);
    }

    #[test]
    fn a_task_that_ends_unasked_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let options = store::Options { path: folder.path().join("store"), ..store::Options::default() };
        let (store, _thread) = Store::open(&options, "box").unwrap();
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = crate::runtime::build(runtime.worker_threads(1)).unwrap();
        let ((replies, answers), (replayed, replays)) = (mpsc::channel(1), mpsc::channel(1));
        let desk = Desk {
            pipeline: Arc::new(Pipeline::new(store.clone())),
            store,
            replies,
            replayed,
            replaying: Arc::default(),
            orders: None,
        };
        let feeds = Feeds {
            replies: answers,
            replayed: replays,
            alarms: broadcast::channel(1).1,
            counters: Arc::default(),
        };
        let nobody =
            publish::Options { host: "127.0.0.1".into(), port: Some(1), ..publish::Options::default() };
        let broker = Broker::start(&runtime, &nobody, "box", desk, feeds).unwrap();
        assert_eq!(broker.ended(), None);
        broker.feeding.abort();
        wait_for("it is noticed", || broker.ended().is_some());
        assert_eq!(broker.ended(), Some("reading the outbox"));
    }
}

//! A session with both ends of its channels in the test's hands.

use std::collections::BTreeMap;

use inspectord::delivery::Deliveries;
use inspectord::frame::CameraId;
use inspectord::publish::{
    CameraState, Incoming, Link, Monitor, Options, Outgoing, Replayed, Reply, Request, Seam, Session,
};
use inspectord::shutdown::Shutdown;
use inspectord::verdict::{Finding, Judgement, ModelRef, Outcome, Score, Threshold, Timings, Verdict};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::subscriber::eventually;

pub(crate) struct Rig {
    pub(crate) outgoing: mpsc::Sender<Outgoing>,
    pub(crate) replayed: mpsc::Sender<Replayed>,
    pub(crate) alarms: broadcast::Sender<Verdict>,
    pub(crate) acknowledged: mpsc::Receiver<u64>,
    pub(crate) states: watch::Sender<BTreeMap<CameraId, CameraState>>,
    pub(crate) replies: mpsc::Sender<Reply>,
    pub(crate) incoming: mpsc::Receiver<Request>,
    pub(crate) monitor: Monitor,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<()>,
}

/// Options that notice everything quickly.
pub(crate) fn options(port: u16) -> Options {
    Options {
        host: "127.0.0.1".into(),
        port: Some(port),
        keep_alive_seconds: 1,
        back_off_min_ms: 20,
        back_off_max_ms: 200,
        state_seconds: 1,
        ..Options::default()
    }
}

impl Rig {
    /// The session of the box `box` with the cameras `top` and `side`; no more than `inputs` triggers wait.
    pub(crate) fn start(options: &Options, inputs: usize) -> Self {
        Self::start_after(options, inputs, Deliveries::default())
    }

    /// The same, of a box that has taken `taken` before.
    pub(crate) fn start_after(options: &Options, inputs: usize, taken: Deliveries) -> Self {
        let (outgoing, outgoing_out) = mpsc::channel(16);
        let (replayed, replayed_out) = mpsc::channel(16);
        let (alarms, alarms_out) = broadcast::channel(16);
        let (acknowledged_in, acknowledged) = mpsc::channel(16);
        let (states, states_out) = watch::channel(BTreeMap::new());
        let (replies, replies_out) = mpsc::channel(16);
        let (incoming_in, incoming) = mpsc::channel(inputs);
        let seam = Seam {
            outgoing: outgoing_out,
            replayed: replayed_out,
            alarms: alarms_out,
            acknowledged: acknowledged_in,
            states: states_out,
            replies: replies_out,
            incoming: incoming_in,
            taken,
            counters: Default::default(),
        };
        let cameras = ["top", "side"].map(camera).into();
        let (session, monitor) = Session::new(options, "box", cameras, seam);
        let shutdown = Shutdown::new();
        let task = tokio::spawn(session.run(shutdown.clone()));
        Self { outgoing, replayed, alarms, acknowledged, states, replies, incoming, monitor, shutdown, task }
    }

    pub(crate) fn link(&self) -> Link {
        self.monitor.health.borrow().link
    }

    pub(crate) async fn connected(&self) {
        eventually("the session connects", || self.link() == Link::Up).await;
    }

    /// Waits until the session has reported `position`.
    pub(crate) async fn acknowledged_to(&mut self, position: u64) {
        let reach = async {
            while let Some(reported) = self.acknowledged.recv().await {
                if reported >= position {
                    return reported;
                }
            }
            panic!("the session ended before position {position}");
        };
        let reported = tokio::time::timeout(crate::mosquitto::PATIENCE, reach).await;
        assert_eq!(reported.expect("acknowledgements stopped"), position);
    }

    /// The next request, taken care of.
    pub(crate) async fn next_incoming(&mut self) -> Incoming {
        let request = self.next_request().await;
        request.receipt.give();
        request.incoming
    }

    pub(crate) async fn next_request(&mut self) -> Request {
        tokio::time::timeout(crate::mosquitto::PATIENCE, self.incoming.recv())
            .await
            .expect("nothing came in")
            .unwrap()
    }

    /// Asks for a stop and waits for its end.
    pub(crate) async fn stop(self) {
        self.shutdown.request();
        tokio::time::timeout(crate::mosquitto::PATIENCE, self.task).await.expect("it did not stop").unwrap();
    }
}

pub(crate) fn camera(name: &str) -> CameraId {
    name.parse().unwrap()
}

/// The verdict number `sequence` of `name`; every tenth is not `ok`.
pub(crate) fn verdict(name: &str, sequence: u64) -> Verdict {
    let score = if sequence.is_multiple_of(10) { 0.75 } else { 0.25 };
    let finding = Finding {
        score: Score(score),
        threshold: Threshold(0.5),
        peak: [3, 4],
        regions: Vec::new(),
        model: ModelRef { name: "bottle".into(), version: "0123456789ab".into() },
    };
    let judgement = Judgement {
        camera: camera(name),
        captured_at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
        outcome: Outcome::Inspected(finding),
        timings: Timings::default(),
        trigger: None,
        views: None,
        other_sources: Vec::new(),
        source: None,
    };
    Verdict { id: Uuid::now_v7(), box_name: "box".into(), sequence, judgement, evidence: None }
}

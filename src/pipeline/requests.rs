//! Requests from the broker: triggers to their lines, commands carried out and answered.
//!
//! One thread. In: [`Incoming`] messages. Out: parts, replies, replayed verdicts. A replay runs on a thread of its own,
//! one at a time, so that triggers never wait for it, and its answer goes out behind its last verdict. It ends when the session has. A trigger's receipt is given when its
//! note is on disk, or with the answer that refuses it; a command's before it is carried out, since some, such as a
//! rollback, must not be carried out twice.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::models::{ModelOrder, Orders};
use super::{Call, Pipeline};
use crate::frame::CameraId;
use crate::publish::{Command, Incoming, Receipt, Replayed, Reply, Request, RequestId};
use crate::store::StoreHandle;
use crate::telemetry;
use crate::verdict::{Threshold, Verdict};

/// What answering takes.
pub(crate) struct Desk {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) store: StoreHandle,
    pub(crate) replies: mpsc::Sender<Reply>,
    pub(crate) replayed: mpsc::Sender<Replayed>,
    pub(crate) replaying: Arc<AtomicBool>,
    pub(crate) orders: Option<Orders>,
}

impl Desk {
    /// Answers until the session is gone.
    pub(crate) fn run(self, mut requests: mpsc::Receiver<Request>) {
        while let Some(Request { incoming, receipt }) = requests.blocking_recv() {
            match incoming {
                Incoming::Trigger { camera, trigger, arrived, late, delivery } => {
                    let note = receipt.clone();
                    let noted = Box::new(move || note.give());
                    self.trigger(&camera, Call { trigger, arrived, late, delivery, noted }, receipt);
                }
                Incoming::Command { camera, id, command } => {
                    receipt.give();
                    self.obey(camera, id, command);
                }
            }
        }
    }

    fn trigger(&self, camera: &CameraId, call: Call, receipt: Receipt) {
        let part_id = call.trigger.part_id.clone();
        if let Err(refusal) = self.pipeline.trigger(camera, call) {
            let why = telemetry::chain(&refusal);
            warn!(%camera, error = why, "trigger refused");
            self.reply(Reply::refused(camera.clone(), part_id, why).settling(receipt));
        }
    }

    fn obey(&self, camera: CameraId, id: RequestId, command: Command) {
        info!(%camera, id = id.as_str(), ?command, "command received");
        let reply = match command {
            Command::Threshold { value } => {
                match self.pipeline.set_threshold(&camera, value.map(Threshold)) {
                    Ok(now) => Reply::done(
                        camera,
                        id,
                        json!({"threshold": now, "until": "restart or another model version"}),
                    ),
                    Err(refusal) => Reply::failed(camera, id, refusal.to_string()),
                }
            }
            Command::Replay { from, to } => return self.replay(camera, id, (from, to)),
            Command::Retrain {} => return self.order(camera, id, ModelOrder::Retrain),
            Command::Activate { name } => return self.order(camera, id, ModelOrder::Activate(name)),
            Command::Rollback {} => return self.order(camera, id, ModelOrder::Rollback),
        };
        self.reply(reply);
    }

    /// Passes an order on to whoever keeps the models, who answers when it is done: loading one takes a while.
    fn order(&self, camera: CameraId, id: RequestId, order: ModelOrder) {
        let Some(orders) = &self.orders else {
            let why = "this daemon does not keep model versions: set retrain.enabled = true and restart it";
            return self.reply(Reply::failed(camera, id, why));
        };
        let (replies, answered) = (self.replies.clone(), camera.clone());
        let answer = move |outcome: Result<serde_json::Value, String>| {
            let reply = match outcome {
                Ok(result) => Reply::done(answered, id, result),
                Err(why) => Reply::failed(answered, id, why),
            };
            let _session_gone = replies.blocking_send(reply);
        };
        orders(&camera, order, Box::new(answer));
    }

    fn replay(&self, camera: CameraId, id: RequestId, range: (u64, u64)) {
        if self.replaying.swap(true, Ordering::AcqRel) {
            return self.reply(Reply::failed(
                camera,
                id,
                "another replay is under way; ask again when it is done",
            ));
        }
        let (store, replayed, replaying) =
            (self.store.clone(), self.replayed.clone(), self.replaying.clone());
        let asked = (camera.clone(), id.clone());
        let work = move || {
            let run = AssertUnwindSafe(|| replay(&store, &camera, range, &replayed));
            let outcome = catch_unwind(run)
                .unwrap_or_else(|_| Err("the replay failed by a fault of this program; see its log".into()));
            replaying.store(false, Ordering::Release);
            let reply = match outcome {
                Ok(result) => Reply::done(camera, id, result),
                Err(why) => Reply::failed(camera, id, why),
            };
            let _session_gone = replayed.blocking_send(Replayed::Over(reply));
        };
        if let Err(refused) = std::thread::Builder::new().name("replay".into()).spawn(work) {
            self.replaying.store(false, Ordering::Release);
            self.reply(Reply::failed(asked.0, asked.1, format!("no thread for the replay: {refused}")));
        }
    }

    fn reply(&self, reply: Reply) {
        // The session takes replies while it runs; once it is gone there is nobody to tell.
        let _session_gone = self.replies.blocking_send(reply);
    }
}

/// Hands `camera`'s recorded verdicts of `range` to the session, one by one; what to answer.
fn replay(
    store: &StoreHandle,
    camera: &CameraId,
    range: (u64, u64),
    to: &mpsc::Sender<Replayed>,
) -> Result<serde_json::Value, String> {
    let (mut sent, mut ends) = (0_u64, None);
    let each = |verdict: Verdict| {
        let sequence = verdict.sequence;
        let taken = to.blocking_send(Replayed::Verdict(Box::new(verdict))).is_ok();
        if taken {
            sent += 1;
            ends = Some((ends.map_or(sequence, |(first, _)| first), sequence));
        }
        taken
    };
    store.replay_each(camera, range, each).map_err(|failure| telemetry::chain(&failure))?;
    let (first, last) = ends.unzip();
    Ok(json!({"replayed": sent, "first": first, "last": last}))
}

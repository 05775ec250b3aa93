//! The MQTT session: one asynchronous task that keeps a connection to the broker and everything un-acknowledged.
//!
//! In: verdicts from the outbox in order of position, verdicts outside that order, camera states, replies. Out: the
//! position up to which the broker has acknowledged everything, triggers and commands. Not here: one connection after
//! another (`run`), what is said over one (`conversation`), the outbox itself (`store`), which keeps every verdict until
//! its position is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;

use crate::delivery::Deliveries;
use crate::frame::CameraId;
use crate::verdict::Verdict;

use super::connection::Connector;
use super::health::{Counters, Monitor, Reporter, monitor};
use super::inbox::{Inbox, Request};
use super::options::Options;
use super::payload::{CameraState, Reply};
use super::receipt::Receipts;
use super::strikes::Strikes;
use super::window::Window;

/// A verdict on its way from the outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    /// Its place in the outbox. Places rise; one that does not is taken for a repeat of what is under way, and ignored.
    pub position: u64,
    /// The verdict; published as `verdict`, and as `alarm` too when it is not `ok`.
    pub verdict: Verdict,
}

/// What a replay brings, outside the outbox's order. It is sent until acknowledged while the session lives, and not
/// reported.
#[derive(Debug, Clone, PartialEq)]
pub enum Replayed {
    /// A recorded verdict again, for a subscriber that misses it: published as `verdict` only.
    Verdict(Box<Verdict>),
    /// The answer to whoever asked for them, behind the last of them.
    Over(Reply),
}

/// Where the session meets the rest of the program. Every channel is bounded by whoever makes it.
#[derive(Debug)]
pub struct Seam {
    /// Verdicts from the outbox. Taken only while the window has room, so that a full channel means a slow broker.
    pub outgoing: mpsc::Receiver<Outgoing>,
    /// What replays bring; its verdicts get at most half the window.
    pub replayed: mpsc::Receiver<Replayed>,
    /// Alarms ahead of their turn, while the outbox is long: published as `alarm` only, since they come again in their
    /// turn. They get at most a quarter of the window. Of more than it holds the newest are kept, and the others counted.
    pub alarms: broadcast::Receiver<Verdict>,
    /// The highest position up to which the broker has acknowledged every verdict on each of its topics. While the
    /// channel is full, later reports replace earlier ones.
    pub acknowledged: mpsc::Sender<u64>,
    /// The state of each camera; the latest is published.
    pub states: watch::Receiver<BTreeMap<CameraId, CameraState>>,
    /// Answers to commands, and to triggers that are refused.
    pub replies: mpsc::Receiver<Reply>,
    /// Triggers and commands. When full, the sender of a message gets a reply that says so, and it is counted. The broker
    /// keeps each until its receipt is given.
    pub incoming: mpsc::Sender<Request>,
    /// Messages that were taken before this start, so that the broker may deliver them again.
    pub taken: Deliveries,
    /// What the session counts, and whoever feeds it.
    pub counters: Arc<Counters>,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    pub(super) connector: Connector,
    pub(super) seam: Seam,
    pub(super) window: Window,
    pub(super) inbox: Inbox,
    pub(super) receipts: Receipts,
    pub(super) reporter: Reporter,
    pub(super) strikes: Strikes,
    pub(super) reported: Option<u64>,
    /// Since when the broker has accepted the connection that there is, or was last.
    pub(super) accepted: Option<Instant>,
    /// By when a stop that was asked for must be over.
    pub(super) deadline: Option<Instant>,
}

impl Session {
    /// The session of the box named `box_name`, and a view on it. Nothing happens until it runs.
    pub fn new(
        options: &Options,
        box_name: &str,
        cameras: BTreeSet<CameraId>,
        seam: Seam,
    ) -> (Self, Monitor) {
        let connector = Connector::new(options.clone(), box_name);
        let (reporter, monitor) = monitor(seam.counters.clone());
        let session = Self {
            window: Window::new(options.inflight),
            inbox: Inbox::new(connector.topics.clone(), cameras),
            receipts: Receipts::new(&seam.taken),
            connector,
            seam,
            reporter,
            strikes: Strikes::default(),
            reported: None,
            accepted: None,
            deadline: None,
        };
        (session, monitor)
    }
}

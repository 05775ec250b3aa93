//! The MQTT session: one asynchronous task that keeps a connection to the broker and everything un-acknowledged.
//!
//! In: verdicts from the outbox in order of position, verdicts outside that order, camera states, replies. Out: the
//! position up to which the broker has acknowledged everything, triggers and commands. [`Session::run`] repeats
//! connections with a jittered back-off; one connection is a `conversation`. Not here: the outbox itself (`store`),
//! which keeps every verdict until its position is reported.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::delivery::Deliveries;
use crate::frame::CameraId;
use crate::shutdown::Shutdown;
use crate::verdict::Verdict;

use super::connection::Connector;
use super::conversation::Conversation;
use super::error::PublishError;
use super::health::{Counters, Monitor, Reporter, monitor};
use super::inbox::{Inbox, Request};
use super::options::Options;
use super::payload::{CameraState, Reply};
use super::receipt::Receipts;
use super::window::Window;

/// Within this time of one oversize message, a second one closes the inputs, and for this long.
const STRIKE_MEMORY: Duration = Duration::from_secs(60);

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
    /// turn. They get at most a quarter of the window.
    pub alarms: mpsc::Receiver<Verdict>,
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

    /// Connects and publishes until `shutdown` is requested, then brings out what it has been given, within
    /// [`Options::drain_seconds`], says `stopped` and disconnects.
    ///
    /// Ask for the shutdown after whoever feeds the session has handed in its last verdict.
    pub async fn run(mut self, shutdown: Shutdown) {
        let (first, limit) = self.connector.options.back_off();
        let mut back_off = Backoff::new(first, limit);
        loop {
            let last_attempt = shutdown.requested();
            let ended = self.run_once(&shutdown).await;
            self.report_now();
            match ended {
                Ok(()) => break,
                Err(error) => {
                    self.window.ground();
                    self.reporter.failed(&error);
                    if let PublishError::Oversize { .. } = error {
                        self.strikes.add(Instant::now());
                    }
                }
            }
            if last_attempt {
                break;
            }
            if self.accepted.is_some_and(|at| at.elapsed() > 2 * self.connector.options.keep_alive()) {
                back_off.reset();
            }
            tokio::select! {
                () = tokio::time::sleep(back_off.pause()) => {}
                () = shutdown.wait() => {}
            }
        }
        self.reporter.stopped(!self.window.idle());
    }

    async fn run_once(&mut self, shutdown: &Shutdown) -> Result<(), PublishError> {
        self.accepted = None;
        if self.strikes.unforgotten {
            tokio::select! {
                forgotten = self.connector.forget() => {
                    forgotten?;
                    self.strikes.unforgotten = false;
                    self.reporter.forgotten();
                }
                () = shutdown.wait() => {}
            }
        }
        Conversation::hold(self, shutdown).await
    }

    /// Hands on the latest position if there is room for it now.
    fn report_now(&mut self) {
        if let Some(done) = self.window.done()
            && self.reported != Some(done)
            && self.seam.acknowledged.try_send(done).is_ok()
        {
            self.reported = Some(done);
        }
    }
}

/// Oversize messages of late. The library can only answer one by closing the connection, and the broker would deliver
/// it again at the next: each makes the broker forget what it keeps for this box, and a second closes the inputs for a
/// while, so that verdicts go out whatever others publish.
#[derive(Debug, Default)]
pub(super) struct Strikes {
    count: u32,
    last: Option<Instant>,
    /// Whether the broker still keeps one.
    unforgotten: bool,
}

impl Strikes {
    fn add(&mut self, now: Instant) {
        self.count = if self.recent(now) { self.count + 1 } else { 1 };
        self.last = Some(now);
        self.unforgotten = true;
    }

    fn recent(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now - last < STRIKE_MEMORY)
    }

    /// Whether nothing should be subscribed to now.
    pub(super) fn closed(&self, now: Instant) -> bool {
        self.recent(now) && self.count >= 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_oversize_message_closes_the_inputs_for_a_while() {
        let start = Instant::now();
        let mut strikes = Strikes::default();
        assert!(!strikes.unforgotten);
        strikes.add(start);
        assert!(strikes.unforgotten && !strikes.closed(start));
        strikes.add(start + Duration::from_secs(1));
        assert!(strikes.closed(start + Duration::from_secs(2)));
        assert!(!strikes.closed(start + Duration::from_secs(62)));
        strikes.add(start + Duration::from_secs(70));
        assert!(!strikes.closed(start + Duration::from_secs(70)));
    }
}

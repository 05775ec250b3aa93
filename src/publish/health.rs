//! How the session fares: its link, and what it counts. Written by the session, read by everybody.
//!
//! One function per notable event writes the log line and moves the counter. Not here: the metrics page (`web`).

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::telemetry::{Counter, chain};

use super::error::PublishError;

/// Whether there is a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Not yet, or not any more; attempts go on.
    Down,
    /// There is.
    Up,
    /// The session has ended and will not connect again.
    Stopped,
}

/// The state of the session.
#[derive(Debug, Clone)]
pub struct Health {
    /// Whether there is a connection.
    pub link: Link,
    /// Since when that is so.
    pub since: Timestamp,
    /// Why the last connection or attempt failed, with the remedy; kept while connected, so that it can still be read.
    pub last_error: Option<String>,
    /// What the broker does not let this box do although it is connected, with the remedy.
    pub warning: Option<String>,
    /// Whether that is to hear of triggers or commands: they are lost, and nobody is answered.
    pub deaf: bool,
}

/// What the session has counted since it began.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that were made.
    pub connections: Counter,
    /// Attempts that failed and connections that were lost.
    pub failures: Counter,
    /// Packets that went out, repeats included.
    pub sent: Counter,
    /// Packets that went out again after a reconnect.
    pub sent_again: Counter,
    /// Packets that the broker acknowledged.
    pub acknowledged: Counter,
    /// Verdicts and replies of which something was left out because of the packet size.
    pub trimmed: Counter,
    /// Alarms that were to go out ahead of their turn and only go in it, since there were too many newer ones.
    pub alarms_in_turn: Counter,
    /// Triggers that were handed over.
    pub triggers: Counter,
    /// Of those, the ones that had waited at the broker while this box was away.
    pub late_triggers: Counter,
    /// Commands that were handed over.
    pub commands: Counter,
    /// Triggers and commands that were refused: malformed, retained, or for an unknown camera.
    pub refused: Counter,
    /// Triggers and commands that were refused because more came than is taken.
    pub overloaded: Counter,
    /// Triggers and commands that the broker delivered again although they had been handed over.
    pub repeated: Counter,
    /// Refusals that got no answer because more than a thousand were waiting for theirs.
    pub unanswered: Counter,
}

/// A view on the session for others.
#[derive(Debug, Clone)]
pub struct Monitor {
    /// Its state.
    pub health: watch::Receiver<Health>,
    /// What it has counted.
    pub counters: Arc<Counters>,
}

/// The session's own end of a [`Monitor`].
#[derive(Debug)]
pub(super) struct Reporter {
    health: watch::Sender<Health>,
    pub(super) counters: Arc<Counters>,
}

pub(super) fn monitor(counters: Arc<Counters>) -> (Reporter, Monitor) {
    let health =
        Health { link: Link::Down, since: Timestamp::now(), last_error: None, warning: None, deaf: false };
    let (sender, health) = watch::channel(health);
    (Reporter { health: sender, counters: counters.clone() }, Monitor { health, counters })
}

impl Reporter {
    pub(super) fn connected(&self, resumed: bool) {
        self.counters.connections.increment();
        self.enter(Link::Up);
        self.unrestricted();
        info!(resumed, "connected to the broker");
    }

    pub(super) fn failed(&self, error: &PublishError) {
        self.counters.failures.increment();
        let text = chain(error);
        let news =
            self.enter(Link::Down) || self.health.borrow().last_error.as_deref() != Some(text.as_str());
        // A broker that is away for hours should not fill the log with one line.
        if news {
            warn!(error = %text, "the broker cannot be reached; verdicts wait");
        } else {
            debug!(error = %text, "the broker still cannot be reached");
        }
        self.health.send_modify(|health| health.last_error = Some(text));
    }

    /// Tells of a restriction, and whether it keeps triggers or commands from coming in.
    pub(super) fn warn(&self, warning: String, deaf: bool) {
        warn!(%warning, deaf, "the broker restricts this box");
        self.health.send_modify(|health| (health.warning, health.deaf) = (Some(warning), deaf));
    }

    /// There is no restriction, as far as is known.
    pub(super) fn unrestricted(&self) {
        self.health.send_modify(|health| (health.warning, health.deaf) = (None, false));
    }

    /// Whether the operator has been told of a restriction of this connection.
    pub(super) fn has_warned(&self) -> bool {
        self.health.borrow().warning.is_some()
    }

    pub(super) fn forgotten(&self) {
        warn!(
            "a message was too large to be taken in; with it the broker has forgotten everything that it kept for this \
             box, triggers that waited included"
        );
    }

    pub(super) fn stopped(&self, unfinished: bool) {
        self.enter(Link::Stopped);
        info!(unfinished, "the MQTT session has ended");
    }

    /// Notes the link; tells whether it changed.
    fn enter(&self, link: Link) -> bool {
        self.health.send_if_modified(|health| {
            let changed = health.link != link;
            if changed {
                health.link = link;
                health.since = Timestamp::now();
            }
            changed
        })
    }
}

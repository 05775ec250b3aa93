//! What comes in over a connection: handed over, refused or dropped, and acknowledged after that.
//!
//! Not here: what a message means (`inbox`), and the library's other events (the parent).

use std::time::Duration;

use rumqttc::Publish;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Conversation, Stage};
use crate::publish::error::PublishError;
use crate::publish::inbox::{Incoming, Ruling};
use crate::publish::payload::{self, Reply};

/// The least time between two log lines about refused messages, since whoever sends them may send many.
const REFUSAL_LOG: Duration = Duration::from_secs(1);

impl Conversation<'_> {
    pub(super) fn received(&mut self, message: &Publish) -> Result<(), PublishError> {
        // Not acknowledged either: the broker keeps it for the next start, where it ends in a verdict.
        if !matches!(self.stage, Stage::Up) {
            return Ok(());
        }
        let counters = self.session.reporter.counters.clone();
        match self.session.inbox.rule(message, std::time::Instant::now()) {
            Ruling::Deliver(incoming) => {
                if !self.deliver(incoming, message) {
                    return Ok(());
                }
            }
            Ruling::Refuse(reply) => {
                counters.refused.increment();
                self.refuse(&reply, &message.topic);
            }
            Ruling::Nameless => {
                counters.refused.increment();
                self.refusals.log("its camera's name is none", &message.topic);
            }
            Ruling::Repeated => counters.repeated.increment(),
            Ruling::OwnStatus if !message.retain && message.payload == self.online => {
                self.session.inbox.caught_up();
            }
            Ruling::OwnStatus => {}
            Ruling::Foreign => debug!(topic = %message.topic, "ignored a message of an older subscription"),
        }
        self.client.try_ack(message).map_err(|_| self.broken("the client takes no acknowledgement"))
    }

    /// Hands `incoming` over; `false` when there is nobody left to take it.
    pub(super) fn deliver(&mut self, incoming: Incoming, message: &Publish) -> bool {
        let counters = self.session.reporter.counters.clone();
        let (counter, late) = match &incoming {
            Incoming::Trigger { late, .. } => (&counters.triggers, *late),
            Incoming::Command { .. } => (&counters.commands, false),
        };
        match self.session.seam.incoming.try_send(incoming) {
            Ok(()) => {
                counter.increment();
                counters.late_triggers.add(late.into());
                self.session.inbox.remember(message);
            }
            Err(mpsc::error::TrySendError::Full(incoming)) => {
                counters.overloaded.increment();
                self.refuse(&incoming.overloaded(), &message.topic);
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return false,
        }
        true
    }

    pub(super) fn refuse(&mut self, reply: &Reply, topic: &str) {
        let why = reply.outcome.as_ref().err().map_or("", String::as_str);
        self.refusals.log(why, topic);
        if self.session.window.hungry() {
            self.reply(reply);
        } else {
            self.session.reporter.counters.unanswered.increment();
        }
    }
}

/// Log lines about refused messages, not too many of them.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    last: Option<Instant>,
    unlogged: u64,
}

impl Refusals {
    pub(super) fn log(&mut self, why: &str, topic: &str) {
        let now = Instant::now();
        if self.last.is_some_and(|last| now - last < REFUSAL_LOG) {
            self.unlogged += 1;
            return;
        }
        let topic = payload::head(topic, 200);
        warn!(?topic, why, and_before_it = self.unlogged, "refused a message");
        (self.last, self.unlogged) = (Some(now), 0);
    }
}

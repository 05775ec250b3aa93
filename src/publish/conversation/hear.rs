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

/// Refused messages whose answer may wait for room; more come only from a sender that ignores every bound.
const MAX_UNANSWERED: usize = 1024;
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
                if !self.refuse(reply, message) {
                    return Ok(());
                }
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
        self.acknowledge(message)
    }

    fn acknowledge(&self, message: &Publish) -> Result<(), PublishError> {
        self.client.try_ack(message).map_err(|_| self.broken("the client takes no acknowledgement"))
    }

    /// Hands `incoming` over; `false` when its message is not to be acknowledged: there is nobody left to take it, or it
    /// is refused and the answer must wait.
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
                return self.refuse(incoming.overloaded(), message);
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return false,
        }
        true
    }

    /// Answers that a message is refused, at once or when there is room; `false` when it must wait. The message is not
    /// acknowledged before that, so that the broker sends no more than it may, and sends it again where the connection
    /// is lost first.
    pub(super) fn refuse(&mut self, reply: Reply, message: &Publish) -> bool {
        let why = reply.outcome.as_ref().err().map_or("", String::as_str);
        self.refusals.log(why, &message.topic);
        if self.session.window.hungry() && self.unanswered.is_empty() {
            self.reply(&reply);
            return true;
        }
        if self.unanswered.len() >= MAX_UNANSWERED {
            self.session.reporter.counters.unanswered.increment();
            return true;
        }
        // What it said is not needed any more, only its number.
        let message = Publish { payload: Default::default(), ..message.clone() };
        self.unanswered.push_back((reply, message));
        false
    }

    /// Answers one refused message, if there is room; verdicts have their turn in between.
    pub(super) fn answer_one(&mut self) -> Result<(), PublishError> {
        if !matches!(self.stage, Stage::Up | Stage::Draining) || !self.session.window.hungry() {
            return Ok(());
        }
        let Some((reply, message)) = self.unanswered.pop_front() else { return Ok(()) };
        self.reply(&reply);
        self.acknowledge(&message)
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

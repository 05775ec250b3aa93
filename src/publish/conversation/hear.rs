//! What comes in over a connection: handed over, refused or dropped, and acknowledged once it is taken care of.
//!
//! Not here: what a message means (`inbox`), who takes care of it and when (`receipt`), and the library's other events
//! (the parent).

use std::time::Duration;

use rumqttc::Publish;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::lag::Outlook;
use super::{Conversation, Stage};
use crate::delivery::Delivery;
use crate::publish::excerpt::excerpt;
use crate::publish::inbox::{Incoming, Request, Ruling};
use crate::publish::payload::Reply;
use crate::publish::receipt::Receipt;

/// Refused messages whose answer may wait for room; more come only from a sender that ignores every bound.
const MAX_UNANSWERED: usize = 1024;
/// The least time between two log lines about refused messages, since whoever sends them may send many.
const REFUSAL_LOG: Duration = Duration::from_secs(1);

/// A message that is not acknowledged yet.
#[derive(Debug)]
pub(super) struct Owed {
    message: Publish,
    receipt: Receipt,
    since: Instant,
}

/// A refused message that is not answered yet.
#[derive(Debug)]
pub(super) struct Unanswered {
    reply: Reply,
    delivery: Delivery,
    receipt: Receipt,
}

impl Conversation<'_> {
    pub(super) fn received(&mut self, message: &Publish) {
        // Not acknowledged either: the broker keeps it for the next start, where it ends in a verdict.
        if !matches!(self.stage, Stage::Up) {
            return;
        }
        self.last_heard = Instant::now();
        self.lag.came();
        if self.lag.overdue(self.last_heard) {
            self.session.inbox.fall_behind();
        }
        let delivery = self.session.receipts.delivery(message);
        let receipt = match self.session.receipts.repeated(message, delivery) {
            Some(first) => {
                self.session.reporter.counters.repeated.increment();
                Some(first)
            }
            None => self.take(message, delivery),
        };
        if let Some(receipt) = receipt
            && message.pkid != 0
        {
            // What it said is not needed any more, only its number.
            let message = Publish { payload: Default::default(), topic: String::new(), ..message.clone() };
            self.owed.push_back(Owed { message, receipt, since: self.last_heard });
        }
    }

    /// Does what a message asks for; the receipt that its acknowledgement waits for, or none where nobody can take it.
    fn take(&mut self, message: &Publish, delivery: Delivery) -> Option<Receipt> {
        let counters = self.session.reporter.counters.clone();
        match self.session.inbox.rule(message, delivery, std::time::Instant::now()) {
            Ruling::Deliver(incoming) => return self.deliver(incoming, delivery, &message.topic),
            Ruling::Refuse(reply) => {
                counters.refused.increment();
                return Some(self.refuse(reply, delivery, &message.topic));
            }
            Ruling::Nameless => {
                counters.refused.increment();
                self.refusals.log("its camera's name is none", &message.topic);
            }
            Ruling::OwnStatus if !message.retain && message.payload == self.online => self.own_status_came(),
            Ruling::OwnStatus => {}
            Ruling::Foreign => debug!(topic = %message.topic, "ignored a message of an older subscription"),
        }
        let receipt = self.session.receipts.receipt();
        receipt.give();
        Some(receipt)
    }

    fn own_status_came(&mut self) {
        if self.lag.came_back(self.last_heard) {
            self.session.inbox.caught_up();
        } else {
            // What came after it may have waited as well.
            self.session.inbox.fall_behind();
            self.say_online();
        }
    }

    /// Hands `incoming` over; none when there is nobody left to take it.
    fn deliver(&mut self, incoming: Incoming, delivery: Delivery, topic: &str) -> Option<Receipt> {
        let counters = self.session.reporter.counters.clone();
        let (counter, late) = match &incoming {
            Incoming::Trigger { late, .. } => (&counters.triggers, *late),
            Incoming::Command { .. } => (&counters.commands, false),
        };
        let receipt = self.session.receipts.receipt();
        match self.session.seam.incoming.try_send(Request { incoming, receipt: receipt.clone() }) {
            Ok(()) => {
                counter.increment();
                counters.late_triggers.add(late.into());
                self.session.receipts.remember(delivery, receipt.clone());
                Some(receipt)
            }
            Err(mpsc::error::TrySendError::Full(request)) => {
                counters.overloaded.increment();
                Some(self.refuse(request.incoming.overloaded(), delivery, topic))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => None,
        }
    }

    /// Answers that a message is refused, at once or when there is room. It is acknowledged when the answer has been, so
    /// that the broker sends no more than it may, and sends it again where the answer is lost.
    fn refuse(&mut self, reply: Reply, delivery: Delivery, topic: &str) -> Receipt {
        let why = reply.outcome.as_ref().err().map_or("", String::as_str);
        self.refusals.log(why, topic);
        let receipt = self.session.receipts.receipt();
        let unanswered = Unanswered { reply, delivery, receipt: receipt.clone() };
        if self.session.window.hungry() && self.unanswered.is_empty() {
            self.answer(unanswered);
        } else if self.unanswered.len() < MAX_UNANSWERED {
            self.unanswered.push_back(unanswered);
        } else {
            self.session.reporter.counters.unanswered.increment();
            receipt.give();
        }
        receipt
    }

    fn answer(&mut self, Unanswered { reply, delivery, receipt }: Unanswered) {
        // From now on the answer outlives the connection, and the message needs no second one.
        self.session.receipts.remember(delivery, receipt.clone());
        self.reply(&reply.settling(receipt));
    }

    /// Answers one refused message, if there is room; verdicts have their turn in between.
    pub(super) fn answer_one(&mut self) {
        if matches!(self.stage, Stage::Up | Stage::Draining)
            && self.session.window.hungry()
            && let Some(unanswered) = self.unanswered.pop_front()
        {
            self.answer(unanswered);
        }
    }

    /// Acknowledges what is taken care of, in the order in which it came, as MQTT has it.
    pub(super) fn settle(&mut self) {
        if matches!(self.stage, Stage::Connecting | Stage::Gone) {
            return;
        }
        // With no room in the library they wait for its next event.
        while self.owed.front().is_some_and(|owed| owed.receipt.is_given())
            && self.owed.front().is_some_and(|owed| self.client.try_ack(&owed.message).is_ok())
        {
            self.owed.pop_front();
        }
    }

    /// Finds out whether the broker holds messages back, and for how long not to wait for an answer to that.
    pub(super) fn look_at_the_lag(&mut self, now: Instant) {
        if !self.subscribed {
            return;
        }
        let keep_alive = self.session.connector.options.keep_alive();
        let silent = self.owed.is_empty() && now - self.last_heard > keep_alive;
        if self.lag.overdue(now) {
            self.session.inbox.fall_behind();
        }
        let oldest = self.owed.front().map(|owed| owed.since);
        let quiet = silent && !self.session.inbox.is_current() && self.lag.waited(now, keep_alive);
        let outlook = if quiet { Outlook::Hopeless } else { self.lag.outlook(oldest, keep_alive, now) };
        match outlook {
            Outlook::Hopeless => {
                self.session.inbox.caught_up();
                if self.lag.given_up() && !self.session.reporter.has_warned() {
                    self.warn_of_silence();
                }
            }
            Outlook::Again => self.say_online(),
            Outlook::Wait if self.lag.should_ask(oldest, now) => self.say_online(),
            Outlook::Wait => {}
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
        let topic = excerpt(topic, 200);
        warn!(?topic, why, and_before_it = self.unlogged, "refused a message");
        (self.last, self.unlogged) = (Some(now), 0);
    }
}

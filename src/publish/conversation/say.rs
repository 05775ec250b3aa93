//! What goes out over a connection: verdicts, states, replies, each through the window.
//!
//! Not here: the payloads' form (`payload`), and what an acknowledgement means (`window`).

use std::time::Duration;

use rumqttc::QoS;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Conversation, Stage};
use crate::publish::error::PublishError;
use crate::publish::payload::{self, Reply};
use crate::publish::session::{Outgoing, Replayed};
use crate::publish::window::{Packet, Purpose};
use crate::verdict::{Decision, Verdict};

impl Conversation<'_> {
    /// Says that the box is there, unless it is leaving. The broker delivers that back after everything that came before it.
    pub(super) fn say_online(&mut self) {
        if !matches!(self.stage, Stage::Up | Stage::Draining) {
            return;
        }
        let payload = self.online.clone();
        self.lag.asked();
        self.push_status(payload);
    }

    pub(super) fn push_status(&mut self, payload: Vec<u8>) {
        let topic = self.session.connector.topics.status();
        self.push(topic, payload, Purpose::Status);
    }

    pub(super) fn push(&mut self, topic: String, payload: Vec<u8>, purpose: Purpose) {
        let retain = matches!(purpose, Purpose::State(_) | Purpose::Status);
        self.session.window.push(Packet { topic, payload, retain, purpose, again: false, receipt: None });
    }

    pub(super) fn verdict(&mut self, outgoing: &Outgoing) -> bool {
        let Outgoing { position, verdict } = outgoing;
        let topics = &self.session.connector.topics;
        let mut to = vec![topics.verdict(verdict.camera())];
        if verdict.decision() != Decision::Ok {
            to.push(topics.alarm(verdict.camera()));
        }
        let payload = self.encode(verdict);
        let purpose = Purpose::Verdict(*position);
        let packet = |topic| Packet {
            topic,
            payload: payload.clone(),
            retain: false,
            purpose: purpose.clone(),
            again: false,
            receipt: None,
        };
        if !self.session.window.push_verdict(*position, to.into_iter().map(packet).collect()) {
            debug!(position, "a verdict was handed in again");
        }
        false
    }

    pub(super) fn replayed(&mut self, replayed: &Replayed) -> bool {
        match replayed {
            Replayed::Verdict(verdict) => {
                let topic = self.session.connector.topics.verdict(verdict.camera());
                self.push(topic, self.encode(verdict), Purpose::Replay);
                false
            }
            Replayed::Over(reply) => self.reply(reply),
        }
    }

    pub(super) fn early_alarm(&mut self, alarm: Result<Verdict, RecvError>) -> bool {
        match alarm {
            Ok(verdict) => {
                let topic = self.session.connector.topics.alarm(verdict.camera());
                self.push(topic, self.encode(&verdict), Purpose::Alarm);
            }
            Err(RecvError::Lagged(older)) => self.session.reporter.counters.alarms_in_turn.add(older),
            Err(RecvError::Closed) => {}
        }
        false
    }

    pub(super) fn encode(&self, verdict: &Verdict) -> Vec<u8> {
        let (payload, trimmed) = payload::verdict(verdict, self.session.connector.payload_limit());
        if trimmed {
            self.session.reporter.counters.trimmed.increment();
            warn!(camera = %verdict.camera(), sequence = verdict.sequence, "shortened a verdict to the packet size");
        }
        payload
    }

    pub(super) fn reply(&mut self, reply: &Reply) -> bool {
        let payload = reply.encode(self.session.connector.payload_limit());
        let topic = self.session.connector.topics.reply(&reply.camera);
        let (purpose, receipt) = (Purpose::Reply, reply.receipt.clone());
        self.session.window.push(Packet { topic, payload, retain: false, purpose, again: false, receipt });
        false
    }

    /// Publishes the states that are news: at once where a camera came, went or changed its model, and now and then
    /// where it only counted on.
    pub(super) fn publish_states(&mut self, now: Instant) -> bool {
        let pause = Duration::from_secs(self.session.connector.options.state_seconds.into());
        self.publish_states_after(pause, now);
        false
    }

    /// As [`Self::publish_states`], with counters only published where the last time is `pause` ago.
    pub(super) fn publish_states_after(&mut self, pause: Duration, now: Instant) {
        let latest = self.session.seam.states.borrow_and_update().clone();
        for (camera, state) in latest {
            let due = self.states.get(&camera).is_none_or(|(known, at)| {
                state.differs_in_kind(known) || (state != *known && now - *at >= pause)
            });
            let purpose = Purpose::State(camera.clone());
            // One at a time, so that a slow broker is not fed states faster than it takes them; but for the last one.
            if due && (pause.is_zero() || self.session.window.count(|p| *p == purpose) == 0) {
                let payload = state.encode(self.session.connector.payload_limit());
                self.push(self.session.connector.topics.state(&camera), payload, purpose);
                self.states.insert(camera, (state, now));
            }
        }
    }

    pub(super) fn send_what_may(&mut self) -> Result<(), PublishError> {
        if matches!(self.stage, Stage::Connecting | Stage::Gone) {
            return Ok(());
        }
        while let Some(packet) = self.session.window.take_off(std::time::Instant::now()) {
            self.client
                .try_publish(packet.topic, QoS::AtLeastOnce, packet.retain, packet.payload)
                .map_err(|_| self.broken("the client takes no packet"))?;
            self.session.reporter.counters.sent.increment();
            self.session.reporter.counters.sent_again.add(packet.again.into());
        }
        Ok(())
    }
}

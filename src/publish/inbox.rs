//! What comes in: rules what is to be done with each message. Owned by the session; no network of its own.
//!
//! Two traps are dealt with here. A retained trigger would fire again at every connection: refused. A trigger that
//! waited at the broker belongs to a part that has long moved on: handed over as late, so that it ends in a verdict that
//! says so. Not here: messages that are delivered again (`receipt`), parsing (`request`), carrying out (`pipeline`).

use std::collections::BTreeSet;
use std::time::Instant;

use rumqttc::Publish;

use crate::delivery::Delivery;
use crate::frame::CameraId;
use crate::verdict::Trigger;

use super::payload::{Asked, Reply};
use super::receipt::Receipt;
use super::request::{self, Command, RequestId};
use super::topics::{Inbound, Topics};

/// What others ask of this box, and the receipt to be given once it is taken care of.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What they ask.
    pub incoming: Incoming,
    /// Until it is given, the broker delivers the message again after a crash.
    pub receipt: Receipt,
}

/// What others ask of this box.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A part is under the camera: one capture, one verdict.
    Trigger {
        /// Which camera.
        camera: CameraId,
        /// Its fields.
        trigger: Trigger,
        /// When it arrived; its deadline counts from here.
        arrived: Instant,
        /// It had waited at the broker for nobody knows how long: the part is gone, and the verdict should be
        /// `uninspected`.
        late: bool,
        /// The message that it came in, if that can come again.
        delivery: Option<Delivery>,
    },
    /// The camera is told to do something; a [`Reply`] with this id is expected.
    Command {
        /// Which camera.
        camera: CameraId,
        /// What the reply carries.
        id: RequestId,
        /// What to do.
        command: Command,
    },
}

/// What is to be done with a message.
#[derive(Debug, PartialEq)]
pub(super) enum Ruling {
    /// Hand it over.
    Deliver(Incoming),
    /// Refuse it with this answer.
    Refuse(Reply),
    /// It is for a camera whose name nobody can be answered under.
    Nameless,
    /// The box's own status: this payload.
    OwnStatus,
    /// It is on none of this box's topics.
    Foreign,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Inbox {
    topics: Topics,
    cameras: BTreeSet<CameraId>,
    /// Whether what comes now has not waited at the broker.
    current: bool,
}

impl Inbox {
    pub(super) fn new(topics: Topics, cameras: BTreeSet<CameraId>) -> Self {
        Self { topics, cameras, current: false }
    }

    /// A connection begins; until [`Inbox::caught_up`], what comes may have waited at the broker.
    pub(super) fn begin(&mut self, resumed: bool) {
        self.current = !resumed;
    }

    /// Everything that had waited has come.
    pub(super) fn caught_up(&mut self) {
        self.current = true;
    }

    /// The broker holds messages back.
    pub(super) fn fall_behind(&mut self) {
        self.current = false;
    }

    pub(super) fn is_current(&self) -> bool {
        self.current
    }

    pub(super) fn rule(&self, message: &Publish, delivery: Delivery, arrived: Instant) -> Ruling {
        let (name, is_trigger) = match self.topics.parse(&message.topic) {
            Some(Inbound::Status) => return Ruling::OwnStatus,
            Some(Inbound::Trigger(name)) => (name, true),
            Some(Inbound::Command(name)) => (name, false),
            None => return Ruling::Foreign,
        };
        let Ok(camera) = name.parse::<CameraId>() else {
            return Ruling::Nameless;
        };
        let read = if is_trigger {
            self.trigger(camera, message, (delivery, arrived))
        } else {
            self.command(camera, message)
        };
        match read {
            Ok(incoming) => Ruling::Deliver(incoming),
            Err(reply) => Ruling::Refuse(reply),
        }
    }

    fn trigger(
        &self,
        camera: CameraId,
        message: &Publish,
        (delivery, arrived): (Delivery, Instant),
    ) -> Result<Incoming, Reply> {
        match request::trigger(&message.payload) {
            Err(bad) => Err(Reply::refused(camera, bad.part_id, bad.error.to_string())),
            Ok(trigger) => match self.objection(&camera, message) {
                Some(why) => Err(Reply::refused(camera, trigger.part_id, why)),
                None => {
                    let (late, delivery) = (!self.current, (delivery.packet != 0).then_some(delivery));
                    Ok(Incoming::Trigger { camera, trigger, arrived, late, delivery })
                }
            },
        }
    }

    fn command(&self, camera: CameraId, message: &Publish) -> Result<Incoming, Reply> {
        match request::command(&message.payload) {
            Err(bad) => Err(Reply {
                camera,
                asked: Asked::Command { id: bad.id },
                outcome: Err(bad.error.to_string()),
                receipt: None,
            }),
            Ok((id, command)) => match self.objection(&camera, message) {
                Some(why) => Err(Reply::failed(camera, id, why)),
                None => Ok(Incoming::Command { camera, id, command }),
            },
        }
    }

    fn objection(&self, camera: &CameraId, message: &Publish) -> Option<String> {
        if message.retain {
            return Some(
                "it is retained and would come again with every connection: publish it without retain".into(),
            );
        }
        (!self.cameras.contains(camera)).then(|| {
            let known: Vec<_> = self.cameras.iter().map(CameraId::as_str).collect();
            format!("there is no camera `{camera}` here; there is {}", known.join(", "))
        })
    }
}

impl Incoming {
    /// The answer to whoever sent it, when it cannot be taken.
    pub(super) fn overloaded(self) -> Reply {
        let why = "more came than can be taken: send it again, more slowly";
        match self {
            Self::Trigger { camera, trigger, .. } => Reply::refused(camera, trigger.part_id, why),
            Self::Command { camera, id, .. } => Reply::failed(camera, id, why),
        }
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::QoS;

    use super::*;

    fn inbox() -> Inbox {
        let cameras = ["top".parse().unwrap(), "side".parse().unwrap()].into();
        let mut inbox = Inbox::new(Topics::new("i/b"), cameras);
        inbox.begin(false);
        inbox
    }

    fn message(topic: &str, payload: &str) -> Publish {
        Publish::new(topic, QoS::AtLeastOnce, payload)
    }

    fn rule(inbox: &Inbox, message: &Publish, arrived: Instant) -> Ruling {
        inbox.rule(message, Delivery { session: 1, packet: message.pkid, digest: 0 }, arrived)
    }

    fn refusal(ruling: Ruling) -> String {
        match ruling {
            Ruling::Refuse(reply) => reply.outcome.unwrap_err(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_trigger_is_handed_over() {
        let now = Instant::now();
        let ruling =
            rule(&inbox(), &Publish { pkid: 3, ..message("i/b/top/trigger", r#"{"part_id":"7"}"#) }, now);
        let Ruling::Deliver(Incoming::Trigger { camera, trigger, arrived, late, delivery }) = ruling else {
            panic!("{ruling:?}")
        };
        assert_eq!(delivery.unwrap().packet, 3);
        assert_eq!(
            (camera.as_str(), trigger.part_id.as_deref(), arrived, late),
            ("top", Some("7"), now, false)
        );
    }

    #[test]
    fn what_waited_at_the_broker_is_late_until_the_box_has_caught_up() {
        let mut inbox = inbox();
        inbox.begin(true);
        let late = |inbox: &Inbox| match rule(inbox, &message("i/b/top/trigger", "{}"), Instant::now()) {
            Ruling::Deliver(Incoming::Trigger { late, .. }) => late,
            other => panic!("{other:?}"),
        };
        assert!(late(&inbox));
        inbox.caught_up();
        assert!(!late(&inbox));
        inbox.fall_behind();
        assert!(late(&inbox));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason() {
        let inbox = inbox();
        let now = Instant::now();
        let mut retained = message("i/b/top/trigger", "{}");
        retained.retain = true;
        assert!(refusal(rule(&inbox, &retained, now)).contains("retained"));
        let unknown = refusal(rule(&inbox, &message("i/b/left/trigger", "{}"), now));
        assert!(unknown.contains("no camera `left`") && unknown.contains("side, top"), "{unknown}");
        assert!(refusal(rule(&inbox, &message("i/b/top/trigger", "x"), now)).contains("JSON"));
        assert!(refusal(rule(&inbox, &message("i/b/top/command", "{}"), now)).contains("`id`"));
        assert_eq!(rule(&inbox, &message("i/b/tö p/trigger", "{}"), now), Ruling::Nameless);
        assert_eq!(rule(&inbox, &message("i/c/top/trigger", "{}"), now), Ruling::Foreign);
        assert_eq!(rule(&inbox, &message("i/b/status", "{}"), now), Ruling::OwnStatus);
    }
}

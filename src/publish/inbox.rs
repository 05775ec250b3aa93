//! What comes in: rules what is to be done with each message. Owned by the session; no network of its own.
//!
//! Three traps are dealt with here. A retained trigger would fire again at every connection: refused. A trigger that
//! waited at the broker while this box was away belongs to a part that has long moved on: handed over as late, so that
//! it ends in a verdict that says so. A message that the broker delivers again because the acknowledgement was lost has
//! already been handed over: dropped. Not here: parsing (`request`), carrying out (`pipeline`).

use std::collections::{BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Instant;

use rumqttc::Publish;

use crate::frame::CameraId;
use crate::verdict::Trigger;

use super::payload::{Asked, Reply};
use super::request::{self, Command, RequestId};
use super::topics::{Inbound, Topics};

/// Messages remembered as handed over; far more than brokers send without an acknowledgement.
const REMEMBERED: usize = 1024;

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
        /// It had waited at the broker while this box was away, for nobody knows how long: the part is gone, and the
        /// verdict should be `uninspected`.
        late: bool,
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
    /// It has been handed over before.
    Repeated,
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
    handed_over: VecDeque<u64>,
    /// Whether what comes now was sent after this connection had begun.
    current: bool,
}

impl Inbox {
    pub(super) fn new(topics: Topics, cameras: BTreeSet<CameraId>) -> Self {
        Self { topics, cameras, handed_over: VecDeque::new(), current: false }
    }

    /// A connection begins; until [`Inbox::caught_up`], what comes may have waited at the broker.
    pub(super) fn begin(&mut self, resumed: bool) {
        self.current = !resumed;
        if !resumed {
            self.handed_over.clear();
        }
    }

    /// Everything that had waited has come.
    pub(super) fn caught_up(&mut self) {
        self.current = true;
    }

    pub(super) fn is_current(&self) -> bool {
        self.current
    }

    pub(super) fn rule(&self, message: &Publish, arrived: Instant) -> Ruling {
        let (name, is_trigger) = match self.topics.parse(&message.topic) {
            Some(Inbound::Status) => return Ruling::OwnStatus,
            Some(Inbound::Trigger(name)) => (name, true),
            Some(Inbound::Command(name)) => (name, false),
            None => return Ruling::Foreign,
        };
        let Ok(camera) = name.parse::<CameraId>() else {
            return Ruling::Nameless;
        };
        if message.dup && self.handed_over.contains(&digest(message)) {
            return Ruling::Repeated;
        }
        let read =
            if is_trigger { self.trigger(camera, message, arrived) } else { self.command(camera, message) };
        match read {
            Ok(incoming) => Ruling::Deliver(incoming),
            Err(reply) => Ruling::Refuse(reply),
        }
    }

    /// Remembers that `message` was handed over.
    pub(super) fn remember(&mut self, message: &Publish) {
        if self.handed_over.len() == REMEMBERED {
            self.handed_over.pop_front();
        }
        self.handed_over.push_back(digest(message));
    }

    fn trigger(&self, camera: CameraId, message: &Publish, arrived: Instant) -> Result<Incoming, Reply> {
        let refuse = |camera: CameraId, part_id: Option<String>, why: String| Reply {
            camera,
            asked: Asked::Trigger { part_id },
            outcome: Err(why),
        };
        match request::trigger(&message.payload) {
            Err(bad) => Err(refuse(camera, bad.part_id, bad.error.to_string())),
            Ok(trigger) => match self.objection(&camera, message) {
                Some(why) => Err(refuse(camera, trigger.part_id, why)),
                None => Ok(Incoming::Trigger { camera, trigger, arrived, late: !self.current }),
            },
        }
    }

    fn command(&self, camera: CameraId, message: &Publish) -> Result<Incoming, Reply> {
        match request::command(&message.payload) {
            Err(bad) => Err(Reply {
                camera,
                asked: Asked::Command { id: bad.id },
                outcome: Err(bad.error.to_string()),
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
            Self::Trigger { camera, trigger, .. } => {
                Reply { camera, asked: Asked::Trigger { part_id: trigger.part_id }, outcome: Err(why.into()) }
            }
            Self::Command { camera, id, .. } => Reply::failed(camera, id, why),
        }
    }
}

/// What tells one delivery from another: brokers repeat a message under its number, and use a number again only after
/// some sixty thousand others. Without it, two triggers that say the same would be one.
fn digest(message: &Publish) -> u64 {
    let mut hasher = DefaultHasher::new();
    (message.pkid, &message.topic, &message.payload).hash(&mut hasher);
    hasher.finish()
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

    fn refusal(ruling: Ruling) -> String {
        match ruling {
            Ruling::Refuse(reply) => reply.outcome.unwrap_err(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_trigger_is_handed_over() {
        let now = Instant::now();
        let ruling = inbox().rule(&message("i/b/top/trigger", r#"{"part_id":"7"}"#), now);
        let Ruling::Deliver(Incoming::Trigger { camera, trigger, arrived, late }) = ruling else {
            panic!("{ruling:?}")
        };
        assert_eq!(
            (camera.as_str(), trigger.part_id.as_deref(), arrived, late),
            ("top", Some("7"), now, false)
        );
    }

    #[test]
    fn what_waited_at_the_broker_is_late_until_the_box_has_caught_up() {
        let mut inbox = inbox();
        inbox.begin(true);
        let late = |inbox: &Inbox| match inbox.rule(&message("i/b/top/trigger", "{}"), Instant::now()) {
            Ruling::Deliver(Incoming::Trigger { late, .. }) => late,
            other => panic!("{other:?}"),
        };
        assert!(late(&inbox));
        inbox.caught_up();
        assert!(!late(&inbox));
    }

    #[test]
    fn a_trigger_delivered_again_is_dropped_but_an_equal_new_one_is_not() {
        let mut inbox = inbox();
        let numbered = |pkid, dup| Publish { pkid, dup, ..message("i/b/top/trigger", "{}") };
        inbox.remember(&numbered(1, false));
        inbox.begin(true);
        assert_eq!(inbox.rule(&numbered(1, true), Instant::now()), Ruling::Repeated);
        assert!(matches!(inbox.rule(&numbered(1, false), Instant::now()), Ruling::Deliver(_)));
        assert!(matches!(inbox.rule(&numbered(2, true), Instant::now()), Ruling::Deliver(_)));
        inbox.begin(false);
        assert!(matches!(inbox.rule(&numbered(1, true), Instant::now()), Ruling::Deliver(_)));
    }

    #[test]
    fn memory_of_what_was_handed_over_is_bounded() {
        let mut inbox = inbox();
        for i in 0..5000 {
            inbox.remember(&message("i/b/top/trigger", &i.to_string()));
        }
        assert_eq!(inbox.handed_over.len(), REMEMBERED);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason() {
        let inbox = inbox();
        let now = Instant::now();
        let mut retained = message("i/b/top/trigger", "{}");
        retained.retain = true;
        assert!(refusal(inbox.rule(&retained, now)).contains("retained"));
        let unknown = refusal(inbox.rule(&message("i/b/left/trigger", "{}"), now));
        assert!(unknown.contains("no camera `left`") && unknown.contains("side, top"), "{unknown}");
        assert!(refusal(inbox.rule(&message("i/b/top/trigger", "x"), now)).contains("JSON"));
        assert!(refusal(inbox.rule(&message("i/b/top/command", "{}"), now)).contains("`id`"));
        assert_eq!(inbox.rule(&message("i/b/tö p/trigger", "{}"), now), Ruling::Nameless);
        assert_eq!(inbox.rule(&message("i/c/top/trigger", "{}"), now), Ruling::Foreign);
        assert_eq!(inbox.rule(&message("i/b/status", "{}"), now), Ruling::OwnStatus);
    }
}

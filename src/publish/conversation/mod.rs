//! One connection from its beginning to its end: what the session says, hears, and waits for.
//!
//! Part of the session's task; what must outlive the connection is the `session`'s. Not here: how a connection is set
//! up (`connection`), what an incoming message means (`inbox`).

mod hear;
mod lag;
mod say;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use rumqttc::{AsyncClient, Event, Outgoing as Sent, Packet as Received, QoS, SubAck, SubscribeFilter};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until};

use crate::frame::CameraId;
use crate::shutdown::Shutdown;
use crate::verdict::Verdict;

use self::hear::{Owed, Refusals, Unanswered};
use self::lag::Lag;
use crate::publish::connection::{Polled, Refused, drive, event_channel, refused_subscriptions, who};
use crate::publish::error::PublishError;
use crate::publish::payload::{CameraState, Presence, Reply, Status};
use crate::publish::session::{Outgoing, Replayed, Session};
use crate::publish::window::Purpose;

/// How often the conversation looks at what only time can tell.
const TICK: Duration = Duration::from_secs(1);
/// How long a connection that is being left may linger.
const GOODBYE: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The broker has not accepted the connection.
    Connecting,
    /// Accepted, and at work.
    Up,
    /// A stop was asked for; what has been handed in still goes out.
    Draining,
    /// `stopped` is on the way.
    Leaving,
    /// The disconnect is on the way; the broker closes the connection.
    Gone,
}

enum Wake {
    Library(Option<Polled>),
    Verdict(Outgoing),
    Replayed(Replayed),
    Alarm(Result<Verdict, RecvError>),
    Reply(Reply),
    States,
    Receipt,
    Reported(u64),
    Tick,
    Stop,
    Deadline,
}

/// See the module.
pub(super) struct Conversation<'a> {
    session: &'a mut Session,
    client: AsyncClient,
    stage: Stage,
    since: Instant,
    /// The status that this connection begins with; its echo tells that everything older has come in.
    online: Vec<u8>,
    subscribed: bool,
    online_acknowledged: Option<Instant>,
    states: BTreeMap<CameraId, (CameraState, Instant)>,
    refusals: Refusals,
    /// Refused messages that are not answered yet.
    unanswered: VecDeque<Unanswered>,
    /// Messages that are not acknowledged yet, in order; brokers bound them, and packet numbers do at last.
    owed: VecDeque<Owed>,
    lag: Lag,
    last_heard: Instant,
    tick: Interval,
}

impl<'a> Conversation<'a> {
    /// Connects and talks; ends with `Ok` when a stop was asked for and carried out.
    pub(super) async fn hold(session: &'a mut Session, shutdown: &Shutdown) -> Result<(), PublishError> {
        let (client, library) = session.connector.open()?;
        let (events_in, mut events) = event_channel();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut conversation = Self {
            session,
            client,
            stage: Stage::Connecting,
            since: Instant::now(),
            online: Vec::new(),
            subscribed: false,
            online_acknowledged: None,
            states: BTreeMap::new(),
            refusals: Refusals::default(),
            unanswered: VecDeque::new(),
            owed: VecDeque::new(),
            lag: Lag::default(),
            last_heard: Instant::now(),
            tick,
        };
        let library = async {
            drive(library, events_in).await;
            // Its last word is in the channel, and is for the conversation to take.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            ended = conversation.talk(&mut events, shutdown) => ended,
            () = library => unreachable!("it never completes"),
        }
    }

    async fn talk(
        &mut self,
        events: &mut mpsc::Receiver<Polled>,
        shutdown: &Shutdown,
    ) -> Result<(), PublishError> {
        loop {
            let ended = match self.wait(events, shutdown).await {
                Wake::Library(polled) => self.heard(polled)?,
                Wake::Verdict(outgoing) => self.verdict(&outgoing),
                Wake::Replayed(replayed) => self.replayed(&replayed),
                Wake::Alarm(alarm) => self.early_alarm(alarm),
                Wake::Reply(reply) => self.reply(&reply),
                Wake::States => self.publish_states(Instant::now()),
                Wake::Receipt => false,
                Wake::Reported(done) => {
                    self.session.reported = Some(done);
                    false
                }
                Wake::Tick => self.look_at_the_clock(Instant::now())?,
                Wake::Stop => self.stop_asked_for(),
                Wake::Deadline => self.deadline_reached(),
            };
            if ended {
                return Ok(());
            }
            self.answer_one();
            self.settle();
            self.leave_when_done();
            self.send_what_may()?;
        }
    }

    async fn wait(&mut self, events: &mut mpsc::Receiver<Polled>, shutdown: &Shutdown) -> Wake {
        let Session { seam, window, reported, deadline, connector, receipts, .. } = &mut *self.session;
        let hungry = matches!(self.stage, Stage::Up | Stage::Draining) && window.hungry();
        let inflight = usize::from(connector.options.inflight);
        let room_for = |of: Purpose, share: usize| hungry && window.count(|p| *p == of) < share;
        let replaying = !seam.replayed.is_empty() && room_for(Purpose::Replay, inflight.div_ceil(2));
        let alarmed = !seam.alarms.is_empty() && room_for(Purpose::Alarm, inflight.div_ceil(4));
        let done = window.done().filter(|done| *reported != Some(*done));
        let stopping = deadline.is_some();
        let deadline = deadline.unwrap_or_else(Instant::now);
        tokio::select! {
            polled = events.recv() => Wake::Library(polled),
            Some(outgoing) = seam.outgoing.recv(), if hungry => Wake::Verdict(outgoing),
            Some(replayed) = seam.replayed.recv(), if replaying => Wake::Replayed(replayed),
            alarm = seam.alarms.recv(), if alarmed => Wake::Alarm(alarm),
            Some(reply) = seam.replies.recv(), if hungry => Wake::Reply(reply),
            Ok(()) = seam.states.changed(), if self.stage == Stage::Up => Wake::States,
            () = receipts.bell() => Wake::Receipt,
            Ok(permit) = seam.acknowledged.reserve(), if done.is_some() => {
                let done = done.unwrap_or_default();
                permit.send(done);
                Wake::Reported(done)
            }
            _ = self.tick.tick() => Wake::Tick,
            () = shutdown.wait(), if !stopping => Wake::Stop,
            () = sleep_until(deadline), if stopping => Wake::Deadline,
        }
    }

    fn heard(&mut self, polled: Option<Polled>) -> Result<bool, PublishError> {
        let event = match polled {
            Some(Ok(event)) => event,
            _ if self.stage == Stage::Gone => return Ok(true),
            Some(Err(error)) => {
                return Err(self.session.connector.peer.explain(error, self.stage != Stage::Connecting));
            }
            None => return Err(self.broken("the client ended")),
        };
        match event {
            Event::Incoming(Received::ConnAck(ack)) => self.accepted(ack.session_present)?,
            Event::Incoming(Received::SubAck(ack)) => self.subscribed(&ack),
            Event::Incoming(Received::PubAck(ack)) => self.acknowledged(ack.pkid),
            Event::Incoming(Received::Publish(message)) => self.received(&message),
            Event::Outgoing(Sent::Publish(number)) if self.stage != Stage::Gone => {
                self.session.window.name(number).map_err(|e| self.session.connector.peer.confused(e))?;
            }
            Event::Outgoing(Sent::AwaitAck(_)) => return Err(self.broken("two packets have one number")),
            _ => {}
        }
        Ok(false)
    }

    fn accepted(&mut self, resumed: bool) -> Result<(), PublishError> {
        self.since = Instant::now();
        self.session.accepted = Some(self.since);
        self.stage = if self.session.deadline.is_some() { Stage::Draining } else { Stage::Up };
        self.online = Status::new(Presence::Online, Timestamp::now()).encode();
        self.session.inbox.begin(resumed);
        if !resumed {
            self.session.receipts.start_over();
        }
        self.session.reporter.connected(resumed);
        if self.session.strikes.closed(self.since) {
            self.session.inbox.caught_up();
            self.say_online();
            let warning = "messages larger than can be taken in come on trigger or command topics, so \
                           that triggers and commands are not taken for a minute: find who sends them, and clear \
                           retained ones with `mosquitto_pub -r -n -t TOPIC`";
            self.session.reporter.warn(warning.into(), true);
        } else {
            self.subscribe()?;
        }
        self.publish_states(self.since);
        Ok(())
    }

    fn subscribe(&mut self) -> Result<(), PublishError> {
        let filters = self.session.connector.topics.subscriptions();
        let filters = filters.into_iter().map(|path| SubscribeFilter::new(path, QoS::AtLeastOnce));
        self.client.try_subscribe_many(filters).map_err(|_| self.broken("the client takes no subscription"))
    }

    fn subscribed(&mut self, ack: &SubAck) {
        self.subscribed = true;
        let options = &self.session.connector.options;
        let topics = &self.session.connector.topics;
        // Whatever stood there, such as that the inputs were closed, is over.
        self.session.reporter.unrestricted();
        if let Some(Refused { warning, deaf }) =
            refused_subscriptions(&ack.return_codes, topics, &who(options))
        {
            self.session.reporter.warn(warning, deaf);
        }
        self.say_online();
    }

    fn acknowledged(&mut self, number: u16) {
        if let Some(packet) = self.session.window.acknowledge(number) {
            self.session.reporter.counters.acknowledged.increment();
            if packet.payload == self.online {
                self.online_acknowledged = Some(Instant::now());
                self.lag.acknowledged(Instant::now());
            }
        }
    }

    fn look_at_the_clock(&mut self, now: Instant) -> Result<bool, PublishError> {
        if !matches!(self.stage, Stage::Up | Stage::Draining) {
            return Ok(false);
        }
        // Four signs of life: a broker that answers pings but acknowledges nothing is no better than none.
        let patience = self.session.connector.options.keep_alive() * 4;
        let stalled =
            |what| PublishError::Stalled { broker: self.session.connector.peer.broker.clone(), what };
        if self.session.window.oldest().is_some_and(|since| now.into_std() - since > patience) {
            return Err(stalled("it acknowledges nothing"));
        }
        let inputs_closed = self.session.strikes.closed(now);
        if !self.subscribed && !inputs_closed {
            // Only where the inputs were closed does `online` go out before the subscription.
            if self.online_acknowledged.take().is_some() {
                self.since = now;
                self.subscribe()?;
            } else if now - self.since > patience {
                return Err(stalled("it does not answer a subscription"));
            }
        }
        self.look_at_the_lag(now);
        Ok(self.publish_states(now))
    }

    fn warn_of_silence(&self) {
        let options = &self.session.connector.options;
        let warning = format!(
            "the broker acknowledged this box's status and did not deliver it back: its access rules may silently drop \
             what {} publishes or reads below `{}`; until `{}` is allowed in both directions, triggers that it held back \
             may be taken for fresh ones",
            who(options),
            self.session.connector.topics.prefix(),
            self.session.connector.topics.status(),
        );
        self.session.reporter.warn(warning, false);
    }

    fn stop_asked_for(&mut self) -> bool {
        let drain = Duration::from_secs(self.session.connector.options.drain_seconds.into());
        self.session.deadline = Some(Instant::now() + drain);
        if self.stage == Stage::Up {
            self.stage = Stage::Draining;
            // They stay with the broker while the box is away, so the last ones should be right.
            self.publish_states_after(Duration::ZERO, Instant::now());
        }
        false
    }

    /// Says goodbye once everything that was handed in has been acknowledged.
    fn leave_when_done(&mut self) {
        let Session { seam, window, reported, .. } = &*self.session;
        let reported = *reported == window.done() || seam.acknowledged.is_closed();
        let handed_in = seam.outgoing.is_empty() && seam.replies.is_empty() && self.unanswered.is_empty();
        let idle = window.idle() && reported && handed_in;
        match self.stage {
            Stage::Draining if idle => {
                self.stage = Stage::Leaving;
                self.push_status(Status::new(Presence::Stopped, Timestamp::now()).encode());
            }
            Stage::Leaving if idle => self.disconnect(),
            _ => {}
        }
    }

    fn deadline_reached(&mut self) -> bool {
        match self.stage {
            Stage::Connecting | Stage::Gone => return true,
            Stage::Up | Stage::Draining | Stage::Leaving => {
                let stopped = Status::new(Presence::Stopped, Timestamp::now()).encode();
                let topic = self.session.connector.topics.status();
                // Past the window, since its acknowledgement is not waited for.
                let _full = self.client.try_publish(topic, QoS::AtLeastOnce, true, stopped);
                self.disconnect();
            }
        }
        false
    }

    fn disconnect(&mut self) {
        self.stage = Stage::Gone;
        self.session.deadline = Some(Instant::now() + GOODBYE);
        let _full = self.client.try_disconnect();
    }

    fn broken(&self, reason: &str) -> PublishError {
        PublishError::Broken { broker: self.session.connector.peer.broker.clone(), reason: reason.into() }
    }
}

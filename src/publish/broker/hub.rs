//! What the broker's connections share: who is there, who wants what, and what is retained. No network.
//!
//! Not here: packets and their order on one connection (`client`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rumqttc::{Publish, QoS};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Messages that may wait for one client; when full, the client is disconnected, since it has stopped reading.
const QUEUE: usize = 2048;
/// The most subscriptions of one client.
const MAX_FILTERS: usize = 64;
/// The most retained messages, and their bytes in all; beyond them, messages are delivered but not retained.
const MAX_RETAINED: usize = 1024;
const MAX_RETAINED_BYTES: usize = 16 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Hub {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    clients: HashMap<String, Client>,
    retained: BTreeMap<String, Publish>,
    retained_bytes: usize,
    joined: u64,
}

#[derive(Debug)]
struct Client {
    /// Tells this connection from an earlier one of the same name.
    ticket: u64,
    queue: mpsc::Sender<Publish>,
    gone: CancellationToken,
    filters: Vec<(String, QoS)>,
}

/// A client's own end.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) id: String,
    ticket: u64,
    pub(super) queue: mpsc::Receiver<Publish>,
    /// Cancelled when the client has to go.
    pub(super) gone: CancellationToken,
}

impl Hub {
    /// Takes in a client; an earlier one of the same name has to go, as MQTT demands.
    pub(super) fn join(&self, id: &str) -> Membership {
        let mut state = self.lock();
        state.joined += 1;
        let (ticket, gone) = (state.joined, CancellationToken::new());
        let id = if id.is_empty() { format!("client-{ticket}") } else { id.to_owned() };
        let (sender, queue) = mpsc::channel(QUEUE);
        let client = Client { ticket, queue: sender, gone: gone.clone(), filters: Vec::new() };
        if let Some(earlier) = state.clients.insert(id.clone(), client) {
            earlier.gone.cancel();
        }
        Membership { id, ticket, queue, gone }
    }

    /// Lets a client go.
    pub(super) fn leave(&self, member: &Membership) {
        let mut state = self.lock();
        if state.clients.get(&member.id).is_some_and(|client| client.ticket == member.ticket) {
            state.clients.remove(&member.id);
        }
    }

    /// Delivers `message` to everybody who wants it, and retains it if it asks for that.
    pub(super) fn publish(&self, message: &Publish) {
        let mut state = self.lock();
        if message.retain {
            state.retain(message);
        }
        for (id, client) in &state.clients {
            let wanted = client.filters.iter().filter(|(filter, _)| matches(&message.topic, filter));
            if let Some(qos) = wanted.map(|(_, qos)| *qos).max_by_key(|qos| *qos as u8) {
                client.offer(id, copy(message, qos, false));
            }
        }
    }

    /// Subscribes a client, and sends it what is retained; the quality granted, or `None` when it is refused.
    pub(super) fn subscribe(&self, member: &Membership, filter: &str, qos: QoS) -> Option<QoS> {
        let mut state = self.lock();
        let State { clients, retained, .. } = &mut *state;
        let client = clients.get_mut(&member.id).filter(|client| client.ticket == member.ticket)?;
        let granted = if qos == QoS::AtMostOnce { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        client.filters.retain(|(known, _)| known != filter);
        if client.filters.len() >= MAX_FILTERS || !is_filter(filter) {
            return None;
        }
        client.filters.push((filter.to_owned(), granted));
        for message in retained.values().filter(|message| matches(&message.topic, filter)) {
            client.offer(&member.id, copy(message, granted, true));
        }
        Some(granted)
    }

    pub(super) fn unsubscribe(&self, member: &Membership, filter: &str) {
        if let Some(client) = self.lock().clients.get_mut(&member.id) {
            client.filters.retain(|(known, _)| known != filter);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    fn offer(&self, id: &str, message: Publish) {
        if self.queue.try_send(message).is_err() && !self.gone.is_cancelled() {
            warn!(client = ?id, waiting = QUEUE, "disconnected a client of the demo's broker: it does not read");
            self.gone.cancel();
        }
    }
}

impl State {
    fn retain(&mut self, message: &Publish) {
        if let Some(old) = self.retained.remove(&message.topic) {
            self.retained_bytes -= old.payload.len();
        }
        let bytes = self.retained_bytes + message.payload.len();
        if message.payload.is_empty() {
            return;
        }
        if self.retained.len() >= MAX_RETAINED || bytes > MAX_RETAINED_BYTES {
            warn!(topic = ?message.topic, "the demo's broker retains no more");
            return;
        }
        self.retained_bytes = bytes;
        self.retained.insert(message.topic.clone(), message.clone());
    }
}

fn copy(message: &Publish, at_most: QoS, retain: bool) -> Publish {
    let qos = if message.qos == QoS::AtMostOnce { QoS::AtMostOnce } else { at_most };
    Publish { dup: false, qos, retain, pkid: 0, ..message.clone() }
}

/// Whether `topic` may be published to.
pub(super) fn is_topic(topic: &str) -> bool {
    !topic.is_empty() && !topic.contains(['+', '#', '\0'])
}

fn is_filter(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
    let last = levels.len() - 1;
    let whole = |(at, level): (usize, &&str)| match *level {
        "+" => true,
        "#" => at == last,
        level => !level.contains(['+', '#', '\0']),
    };
    !filter.is_empty() && levels.iter().enumerate().all(whole)
}

/// Whether `filter` covers `topic`. The client library's own function panics on topics that begin with a letter such
/// as `ä`.
fn matches(topic: &str, filter: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topics = topic.split('/');
    for level in filter.split('/') {
        match (level, topics.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (level, Some(topic)) if level == topic => {}
            _ => return false,
        }
    }
    topics.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_cover_what_mqtt_says_they_cover() {
        for (filter, topic) in [
            ("a/b", "a/b"),
            ("a/+", "a/b"),
            ("a/+", "a/"),
            ("+/+", "/b"),
            ("#", "a/b/c"),
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("$SYS/#", "$SYS/x"),
            ("+/b", "ä/b"),
        ] {
            assert!(is_filter(filter) && matches(topic, filter), "{filter} {topic}");
        }
        for (filter, topic) in [
            ("a/b", "a"),
            ("a", "a/b"),
            ("a/+", "a/b/c"),
            ("+", "/a"),
            ("#", "$SYS/x"),
            ("+/x", "$SYS/x"),
            ("a", "A"),
        ] {
            assert!(!matches(topic, filter), "{filter} {topic}");
        }
        for bad in ["", "a#", "a/#/b", "a+", "#/a", "a\0"] {
            assert!(!is_filter(bad), "{bad:?}");
        }
        assert!(!is_topic("a/+") && !is_topic("") && is_topic("ä/b"));
    }

    fn message(topic: &str, payload: &str, retain: bool) -> Publish {
        Publish { retain, ..Publish::new(topic, QoS::AtLeastOnce, payload) }
    }

    #[test]
    fn a_retained_message_reaches_later_subscribers_until_cleared() {
        let hub = Hub::default();
        hub.publish(&message("a/b", "1", true));
        hub.publish(&message("a/b", "22", true));
        let mut member = hub.join("x");
        assert_eq!(hub.subscribe(&member, "a/+", QoS::ExactlyOnce), Some(QoS::AtLeastOnce));
        let first = member.queue.try_recv().unwrap();
        assert_eq!((first.payload.as_ref(), first.retain), (b"22".as_slice(), true));
        hub.publish(&message("a/b", "", true));
        assert!(!member.queue.try_recv().unwrap().retain);
        let mut later = hub.join("y");
        hub.subscribe(&later, "#", QoS::AtLeastOnce);
        assert!(later.queue.try_recv().is_err());
        assert_eq!(hub.lock().retained_bytes, 0);
    }

    #[test]
    fn a_client_that_does_not_read_is_disconnected_and_others_go_on() {
        let hub = Hub::default();
        let (slow, mut quick) = (hub.join("slow"), hub.join("quick"));
        hub.subscribe(&slow, "#", QoS::AtMostOnce);
        hub.subscribe(&quick, "#", QoS::AtMostOnce);
        for _ in 0..=QUEUE {
            hub.publish(&message("a", "x", false));
            quick.queue.try_recv().unwrap();
        }
        assert!(slow.gone.is_cancelled() && !quick.gone.is_cancelled());
    }

    #[test]
    fn a_name_belongs_to_the_latest_connection() {
        let hub = Hub::default();
        let first = hub.join("box");
        let mut second = hub.join("box");
        assert!(first.gone.is_cancelled());
        hub.leave(&first);
        assert!(hub.subscribe(&second, "a", QoS::AtMostOnce).is_some());
        assert_eq!(hub.subscribe(&first, "a", QoS::AtMostOnce), None);
        hub.publish(&message("a", "x", false));
        assert!(second.queue.try_recv().is_ok());
    }

    #[test]
    fn subscriptions_and_retained_messages_are_bounded() {
        let hub = Hub::default();
        let member = hub.join("x");
        let granted =
            (0..200).filter(|i| hub.subscribe(&member, &i.to_string(), QoS::AtMostOnce).is_some()).count();
        assert_eq!(granted, MAX_FILTERS);
        (0..5000).for_each(|i| hub.publish(&message(&i.to_string(), "x", true)));
        assert_eq!(hub.lock().retained.len(), MAX_RETAINED);
    }
}

//! A client of its own that records what it is sent, and reconnects and subscribes again by itself.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, Publish, QoS};
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::mosquitto::PATIENCE;

pub(crate) struct Subscriber {
    client: AsyncClient,
    messages: Arc<Mutex<Vec<Publish>>>,
    subscriptions: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Subscriber {
    /// Subscribes to `filter` and waits until that is granted.
    pub(crate) async fn start(port: u16, filter: &str) -> Self {
        let mut options = MqttOptions::new(format!("subscriber-{}", uuid::Uuid::now_v7()), "127.0.0.1", port);
        options.set_max_packet_size(32 << 20, 32 << 20).set_inflight(1000);
        Self::with(options, filter).await
    }

    pub(crate) async fn with(options: MqttOptions, filter: &str) -> Self {
        let (client, mut library) = AsyncClient::new(options, 1000);
        let messages = Arc::new(Mutex::new(Vec::new()));
        let subscriptions = Arc::new(Mutex::new(0));
        let (keep, count, filter, ask) =
            (messages.clone(), subscriptions.clone(), filter.to_owned(), client.clone());
        let task = tokio::spawn(async move {
            loop {
                match library.poll().await {
                    Ok(Event::Incoming(Packet::ConnAck(_))) => {
                        ask.try_subscribe(&filter, QoS::AtLeastOnce).unwrap()
                    }
                    Ok(Event::Incoming(Packet::SubAck(_))) => *count.lock().unwrap() += 1,
                    Ok(Event::Incoming(Packet::Publish(mut message))) => {
                        // A slice would keep all of what was read with it for as long.
                        message.payload = message.payload.to_vec().into();
                        keep.lock().unwrap().push(message);
                    }
                    Ok(_) => {}
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        let subscriber = Self { client, messages, subscriptions, task };
        subscriber.subscribed(1).await;
        subscriber
    }

    /// Waits until it has subscribed for the `times`-th time.
    pub(crate) async fn subscribed(&self, times: usize) {
        eventually("the subscriber subscribes", || *self.subscriptions.lock().unwrap() >= times).await;
    }

    pub(crate) fn subscriptions(&self) -> usize {
        *self.subscriptions.lock().unwrap()
    }

    pub(crate) async fn publish(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload).await.unwrap();
    }

    pub(crate) async fn retain(&self, topic: &str, payload: impl Into<Vec<u8>>) {
        self.client.publish(topic, QoS::AtLeastOnce, true, payload).await.unwrap();
    }

    /// Everything on topics that end in `leaf`, as JSON, in the order of arrival.
    pub(crate) fn on(&self, leaf: &str) -> Vec<Value> {
        let messages = self.messages.lock().unwrap();
        let json = |m: &Publish| serde_json::from_slice(&m.payload).unwrap_or(Value::Null);
        messages.iter().filter(|m| m.topic.ends_with(leaf)).map(json).collect()
    }

    /// How many messages there are, and topic and JSON of those behind the first `seen`.
    pub(crate) fn since(&self, seen: usize) -> (usize, Vec<(String, Value)>) {
        let messages = self.messages.lock().unwrap();
        let json = |m: &Publish| (m.topic.clone(), serde_json::from_slice(&m.payload).unwrap_or(Value::Null));
        (messages.len(), messages[seen..].iter().map(json).collect())
    }

    pub(crate) fn count(&self, leaf: &str) -> usize {
        self.messages.lock().unwrap().iter().filter(|m| m.topic.ends_with(leaf)).count()
    }

    /// Waits for `count` messages on topics that end in `leaf`.
    pub(crate) async fn wait_for(&self, leaf: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{count} messages on {leaf}"), || self.count(leaf) >= count).await;
        self.on(leaf)
    }

    /// Waits for a message on a topic that ends in `leaf` of which `is` holds.
    pub(crate) async fn wait_until(&self, leaf: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(&format!("the message on {leaf}"), || self.on(leaf).iter().any(&is)).await;
        self.on(leaf).into_iter().rfind(is).unwrap()
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until `holds`; fails, naming `what`, when it does not for a very long time.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

//! One connection to the broker: how it is set up, and a probe that makes one and leaves no trace.
//!
//! Every connection gets a client and an event loop of its own, because the client library carries errors over from one
//! connection to the next. Not here: what is said over it (`session`).

use std::net::Ipv6Addr;
use std::time::Duration;

use jiff::Timestamp;
use rumqttc::{
    AsyncClient, ConnectionError, Event, EventLoop, LastWill, MqttOptions, Packet, QoS, SubscribeFilter,
    SubscribeReasonCode, TlsConfiguration, Transport,
};
use tokio::sync::mpsc;

use super::credentials;
use super::error::{Peer, PublishError};
use super::options::Options;
use super::payload::{Presence, Status};
use super::topics::Topics;

/// How long name look-up, connecting, TLS and the broker's answer may take together, in seconds.
const CONNECT_SECONDS: u64 = 5;
/// The largest packet that is taken in, in bytes, where `mqtt.max_packet_kilobytes` is not more: what cannot be used is
/// refused with an answer up to here. A packet beyond it can only be met by closing the connection.
const TAKEN_IN: usize = 1 << 20;
/// Packet numbers beyond the window, for subscriptions, so that the library never holds anything back of its own.
const SPARE_NUMBERS: u16 = 16;
/// Requests to the library beyond the window: acknowledgements of what came in.
const SPARE_REQUESTS: usize = 1024;
/// What a packet needs beside topic and payload, at most.
pub(super) const PACKET_OVERHEAD: usize = 16;
/// The longest topic: prefix, camera and leaf.
pub(super) const MAX_TOPIC_BYTES: usize = 300;
/// Events of the library that may wait for the session; when full, the library reads no further.
const EVENTS: usize = 64;

/// What came of polling the library.
pub(super) type Polled = Result<Event, ConnectionError>;

/// Makes connections, all alike.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    pub(super) options: Options,
    pub(super) topics: Topics,
    pub(super) peer: Peer,
    client_id: String,
}

impl Connector {
    pub(super) fn new(options: Options, box_name: &str) -> Self {
        let client_id = options.client_id(box_name);
        let topics = Topics::new(options.prefix(box_name));
        let peer = Peer::new(&options, &client_id);
        Self { options, topics, peer, client_id }
    }

    /// The largest payload that is sure to fit.
    pub(super) fn payload_limit(&self) -> usize {
        self.options.max_packet() - PACKET_OVERHEAD - MAX_TOPIC_BYTES
    }

    /// The session's own connection.
    pub(super) fn open(&self) -> Result<(AsyncClient, EventLoop), PublishError> {
        let mut mqtt = self.plain(&self.client_id)?;
        let offline = Status::new(Presence::Offline, Timestamp::now()).encode();
        mqtt.set_last_will(LastWill::new(self.topics.status(), offline, QoS::AtLeastOnce, true));
        mqtt.set_clean_session(false);
        Ok(self.client(mqtt))
    }

    /// Makes the broker drop what it keeps for this box, by a connection that serves nothing else: what comes after it
    /// is kept again.
    pub(super) async fn forget(&self) -> Result<(), PublishError> {
        let (client, mut library) = self.client(self.plain(&self.client_id)?);
        self.greeted(&mut library).await?;
        leave(&client, &mut library).await;
        Ok(())
    }

    /// Waits until the broker has accepted the connection.
    async fn greeted(&self, library: &mut EventLoop) -> Result<(), PublishError> {
        let fail = |error| self.peer.explain(error, false);
        while !matches!(library.poll().await.map_err(fail)?, Event::Incoming(Packet::ConnAck(_))) {}
        Ok(())
    }

    fn client(&self, mqtt: MqttOptions) -> (AsyncClient, EventLoop) {
        let requests = usize::from(self.options.inflight) + SPARE_REQUESTS;
        let (client, mut events) = AsyncClient::new(mqtt, requests);
        let mut network = events.network_options();
        network.set_tcp_nodelay(true);
        network.set_connection_timeout(CONNECT_SECONDS);
        events.set_network_options(network);
        (client, events)
    }

    fn plain(&self, client_id: &str) -> Result<MqttOptions, PublishError> {
        let options = &self.options;
        let host = match options.host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => options.host.clone(),
        };
        let mut mqtt = MqttOptions::new(client_id, host, options.port());
        if let Some(username) = &options.username {
            let password = credentials::password(options)?;
            mqtt.set_credentials(username, password.as_ref().map_or("", |secret| secret.expose()));
        }
        if options.tls.enabled {
            let config = credentials::tls(&options.tls)?;
            mqtt.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(config)));
        }
        mqtt.set_keep_alive(options.keep_alive());
        mqtt.set_inflight(options.inflight + SPARE_NUMBERS);
        mqtt.set_max_packet_size(options.max_packet().max(TAKEN_IN), options.max_packet());
        mqtt.set_manual_acks(true);
        Ok(mqtt)
    }
}

/// Polls the library until it fails, and hands on what it says.
///
/// Apart from the session's loop because a poll that is dropped half-way can lose a packet.
pub(super) async fn drive(mut library: EventLoop, events: mpsc::Sender<Polled>) {
    loop {
        let polled = library.poll().await;
        let failed = polled.is_err();
        if events.send(polled).await.is_err() || failed {
            return;
        }
    }
}

pub(super) fn event_channel() -> (mpsc::Sender<Polled>, mpsc::Receiver<Polled>) {
    mpsc::channel(EVENTS)
}

/// What the broker does not let this box receive.
pub(super) struct Refused {
    /// In words, with the remedy.
    pub(super) warning: String,
    /// Whether triggers or commands are among it.
    pub(super) deaf: bool,
}

/// What the broker does not let this box receive, by its answer to the subscriptions.
pub(super) fn refused_subscriptions(
    codes: &[SubscribeReasonCode],
    topics: &Topics,
    user: &str,
) -> Option<Refused> {
    let (filters, status) = (topics.subscriptions(), topics.status());
    let refused: Vec<_> = std::iter::zip(&filters, codes)
        .filter(|(_, code)| matches!(code, SubscribeReasonCode::Failure))
        .map(|(filter, _)| filter.as_str())
        .collect();
    (!refused.is_empty()).then(|| {
        let named = refused.join(", ");
        Refused {
            warning: format!(
                "the broker does not let {user} subscribe to {named}: allow it in its access rules"
            ),
            deaf: refused.iter().any(|filter| *filter != status),
        }
    })
}

/// What [`probe`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Host and port.
    pub broker: String,
    /// Whether the connection was encrypted.
    pub encrypted: bool,
    /// What works less than it should, with the remedy.
    pub warnings: Vec<String>,
}

/// Connects once as a box named `box_name` would, and disconnects.
///
/// Changes nothing: it uses a client id of its own, so that a running daemon keeps its session, leaves no will, and
/// publishes nothing that is retained.
///
/// # Errors
/// Why the broker cannot be used: unknown name, nothing listening, no answer, wrong password, TLS.
pub async fn probe(options: &Options, box_name: &str) -> Result<Probe, PublishError> {
    let mut connector = Connector::new(options.clone(), box_name);
    let client_id = format!("{}-check-{}", connector.client_id, std::process::id());
    connector.peer.client_id.clone_from(&client_id);
    let mqtt = connector.plain(&client_id)?;
    let (client, mut library) = connector.client(mqtt);
    connector.greeted(&mut library).await?;

    let filters = connector.topics.subscriptions();
    let filters = filters.into_iter().map(|path| SubscribeFilter::new(path, QoS::AtLeastOnce));
    let mut warnings = Vec::new();
    if client.try_subscribe_many(filters).is_ok() {
        let answer = async {
            loop {
                if let Event::Incoming(Packet::SubAck(ack)) = library.poll().await? {
                    return Ok(ack.return_codes);
                }
            }
        };
        match tokio::time::timeout(Duration::from_secs(CONNECT_SECONDS), answer).await {
            Ok(codes) => {
                let codes = codes.map_err(|e| connector.peer.explain(e, true))?;
                let refused = refused_subscriptions(&codes, &connector.topics, &who(options));
                warnings.extend(refused.map(|refused| refused.warning));
            }
            Err(_) => {
                let broker = connector.peer.broker.clone();
                return Err(PublishError::Stalled { broker, what: "it does not answer a subscription" });
            }
        }
    }
    if options.username.is_some() && !options.tls.enabled && !is_loopback(&options.host) {
        warnings.push("the password crosses the network unencrypted: set mqtt.tls.enabled".into());
    }
    leave(&client, &mut library).await;
    Ok(Probe { broker: connector.peer.broker, encrypted: options.tls.enabled, warnings })
}

/// Says goodbye; a courtesy, since without a will and with a clean session nothing depends on it.
async fn leave(client: &AsyncClient, library: &mut EventLoop) {
    let _leaving = client.try_disconnect();
    let goodbye = async {
        while !matches!(library.poll().await, Err(_) | Ok(Event::Outgoing(rumqttc::Outgoing::Disconnect))) {}
    };
    let _late = tokio::time::timeout(Duration::from_secs(1), goodbye).await;
}

/// How messages name the user.
pub(super) fn who(options: &Options) -> String {
    options
        .username
        .as_ref()
        .map_or_else(|| "a client without a user".into(), |user| format!("the user `{user}`"))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whether_triggers_are_lost_is_told_apart_from_what_only_the_box_itself_says() {
        let (topics, taken) = (Topics::new("i/b"), SubscribeReasonCode::Success(QoS::AtLeastOnce));
        let refused = |codes: [bool; 3]| {
            let codes = codes.map(|refused| if refused { SubscribeReasonCode::Failure } else { taken });
            refused_subscriptions(&codes, &topics, "the user `box`")
        };
        assert!(refused([false; 3]).is_none());
        let status = refused([true, false, false]).unwrap();
        assert!(!status.deaf && status.warning.contains("i/b/status"), "{}", status.warning);
        for lost in [[false, true, false], [false, false, true], [true; 3]] {
            assert!(refused(lost).unwrap().deaf);
        }
    }
}

//! One connection of the broker: its handshake, its packets, its keep-alive, and its will.
//!
//! Not here: who else is there (`hub`).

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rumqttc::mqttbytes::Error as Malformed;
use rumqttc::mqttbytes::v4::{ConnAck, Connect, ConnectReturnCode, Packet, PubAck, SubAck, UnsubAck};
use rumqttc::{LastWill, Protocol, Publish, QoS, SubscribeReasonCode};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::bytes::BytesMut;
use tracing::debug;

use super::hub::{Hub, Membership, is_topic};

/// The largest packet, in bytes.
const MAX_PACKET: usize = 1 << 20;
/// Messages of quality 1 that a client may leave un-acknowledged before further ones wait.
const MAX_UNACKNOWLEDGED: usize = 256;
/// How long a client may take to introduce itself, and to take a packet.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
enum Ended {
    #[error("it said goodbye")]
    Goodbye,
    #[error("it closed the connection")]
    Closed,
    #[error("it was silent for too long")]
    Silent,
    #[error("it has to go")]
    SentAway,
    #[error("it broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("it sent a bad packet: {0}")]
    Malformed(#[from] Malformed),
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
}

struct Reader {
    socket: OwnedReadHalf,
    buffer: BytesMut,
}

struct Writer {
    socket: OwnedWriteHalf,
    buffer: BytesMut,
}

/// Serves one connection to its end.
pub(super) async fn serve(socket: TcpStream, hub: Arc<Hub>) {
    let _best_effort = socket.set_nodelay(true);
    let (read, write) = socket.into_split();
    let mut reader = Reader { socket: read, buffer: BytesMut::new() };
    let mut writer = Writer { socket: write, buffer: BytesMut::new() };
    let connect = match greet(&mut reader, &mut writer).await {
        Ok(connect) => connect,
        Err(ended) => return debug!(%ended, "a client of the demo's broker left before it was in"),
    };
    let member = hub.join(&connect.client_id);
    let mut client =
        Client { hub, member, reader, writer, keep_alive: connect.keep_alive, last: 0, open: HashSet::new() };
    let ended = client.talk().await;
    client.hub.leave(&client.member);
    debug!(client = ?client.member.id, %ended, "a client of the demo's broker left");
    if let (Some(will), false) = (connect.last_will, matches!(ended, Ended::Goodbye)) {
        client.hub.publish(&last_words(will));
    }
}

/// Reads the introduction and answers it.
async fn greet(reader: &mut Reader, writer: &mut Writer) -> Result<Connect, Ended> {
    let refuse = async |writer: &mut Writer, code| {
        writer.send(&Packet::ConnAck(ConnAck::new(code, false))).await?;
        Err(Ended::Protocol("it was refused"))
    };
    match timeout(PATIENCE, reader.next()).await.map_err(|_| Ended::Silent)? {
        Ok(Packet::Connect(connect)) if connect.protocol != Protocol::V4 => {
            refuse(writer, ConnectReturnCode::RefusedProtocolVersion).await
        }
        Err(Ended::Malformed(Malformed::InvalidProtocolLevel(_) | Malformed::InvalidProtocol)) => {
            refuse(writer, ConnectReturnCode::RefusedProtocolVersion).await
        }
        // Without a name there is nothing to keep a session under.
        Ok(Packet::Connect(connect)) if connect.client_id.is_empty() && !connect.clean_session => {
            refuse(writer, ConnectReturnCode::BadClientId).await
        }
        Ok(Packet::Connect(connect)) => {
            if connect.last_will.as_ref().is_some_and(|will| !is_topic(&will.topic)) {
                return Err(Ended::Protocol("its will's topic is none"));
            }
            writer.send(&Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))).await?;
            Ok(connect)
        }
        Ok(_) => Err(Ended::Protocol("it did not introduce itself first")),
        Err(ended) => Err(ended),
    }
}

fn last_words(will: LastWill) -> Publish {
    let mut message = Publish::from_bytes(will.topic, will.qos, will.message);
    message.retain = will.retain;
    message
}

struct Client {
    hub: Arc<Hub>,
    member: Membership,
    reader: Reader,
    writer: Writer,
    keep_alive: u16,
    /// The number of the last message of quality 1.
    last: u16,
    /// Numbers that the client has not acknowledged.
    open: HashSet<u16>,
}

impl Client {
    async fn talk(&mut self) -> Ended {
        loop {
            // MQTT grants one and a half times what the client promised.
            let silent = Instant::now() + Duration::from_secs(self.keep_alive.into()) * 3 / 2;
            let step = self.step(silent).await;
            if let Err(ended) = step {
                return ended;
            }
        }
    }

    /// Serves messages to the client until it sends one packet, and deals with that.
    async fn step(&mut self, silent: Instant) -> Result<(), Ended> {
        loop {
            tokio::select! {
                packet = self.reader.next() => return self.heard(packet?).await,
                Some(message) = self.member.queue.recv(), if self.open.len() < MAX_UNACKNOWLEDGED => {
                    self.deliver(message).await?;
                }
                () = self.member.gone.cancelled() => return Err(Ended::SentAway),
                () = sleep_until(silent), if self.keep_alive > 0 => return Err(Ended::Silent),
            }
        }
    }

    async fn heard(&mut self, packet: Packet) -> Result<(), Ended> {
        match packet {
            Packet::Publish(message) => self.published(&message).await,
            Packet::PubAck(ack) => {
                self.open.remove(&ack.pkid);
                Ok(())
            }
            Packet::Subscribe(subscribe) => {
                // The answer goes out before what is retained, since that only waits in the queue so far.
                let codes = subscribe.filters.iter().map(|filter| {
                    let granted = self.hub.subscribe(&self.member, &filter.path, filter.qos);
                    granted.map_or(SubscribeReasonCode::Failure, SubscribeReasonCode::Success)
                });
                let ack = SubAck::new(subscribe.pkid, codes.collect());
                self.writer.send(&Packet::SubAck(ack)).await
            }
            Packet::Unsubscribe(unsubscribe) => {
                unsubscribe.topics.iter().for_each(|filter| self.hub.unsubscribe(&self.member, filter));
                self.writer.send(&Packet::UnsubAck(UnsubAck::new(unsubscribe.pkid))).await
            }
            Packet::PingReq => self.writer.send(&Packet::PingResp).await,
            Packet::Disconnect => Err(Ended::Goodbye),
            _ => Err(Ended::Protocol("it sent a packet that is not a client's to send")),
        }
    }

    async fn published(&mut self, message: &Publish) -> Result<(), Ended> {
        if !is_topic(&message.topic) {
            return Err(Ended::Protocol("it published to what is no topic"));
        }
        match message.qos {
            QoS::AtMostOnce => self.hub.publish(message),
            QoS::AtLeastOnce => {
                self.hub.publish(message);
                self.writer.send(&Packet::PubAck(PubAck::new(message.pkid))).await?;
            }
            QoS::ExactlyOnce => {
                return Err(Ended::Protocol("it asked for quality 2, which is not spoken here"));
            }
        }
        Ok(())
    }

    async fn deliver(&mut self, mut message: Publish) -> Result<(), Ended> {
        if message.qos == QoS::AtLeastOnce {
            // Fewer are open than there are numbers, so that one is free.
            loop {
                self.last = self.last.checked_add(1).unwrap_or(1);
                if self.open.insert(self.last) {
                    break;
                }
            }
            message.pkid = self.last;
        }
        self.writer.send(&Packet::Publish(message)).await
    }
}

impl Reader {
    /// The next packet; may be dropped half-way without loss.
    async fn next(&mut self) -> Result<Packet, Ended> {
        loop {
            match Packet::read(&mut self.buffer, MAX_PACKET) {
                Ok(packet) => return Ok(packet),
                Err(Malformed::InsufficientBytes(_)) => {}
                Err(error) => return Err(error.into()),
            }
            self.buffer.reserve(4096);
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(Ended::Closed);
            }
        }
    }
}

impl Writer {
    async fn send(&mut self, packet: &Packet) -> Result<(), Ended> {
        self.buffer.clear();
        // A packet that came in may grow by its number going out.
        packet.write(&mut self.buffer, MAX_PACKET + 16)?;
        timeout(PATIENCE, self.socket.write_all(&self.buffer)).await.map_err(|_| Ended::Silent)??;
        Ok(())
    }
}

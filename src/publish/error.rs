//! Why there is no connection, told so that the operator knows what to do.
//!
//! Turns the client library's errors, which name mechanisms, into causes and remedies. Not here: when to try again
//! (`session`).

use std::io;
use std::path::PathBuf;

use rumqttc::tokio_rustls::rustls;
use rumqttc::{ConnectReturnCode, ConnectionError, StateError, TlsError};
use thiserror::Error;

use super::options::Options;
use super::window::Confusion;

/// Why the broker cannot be used.
#[derive(Debug, Error)]
pub enum PublishError {
    /// A file of the settings cannot be read.
    #[error("cannot read mqtt.{key} {path}: {reason}")]
    File {
        /// The key that names it.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// Why, and the remedy.
        reason: String,
    },
    /// The files of `[mqtt.tls]` do not make a TLS client.
    #[error("mqtt.tls cannot be used: {0}")]
    TlsSetup(String),
    /// The name has no address.
    #[error("the broker's name `{host}` has no address: check mqtt.host and the box's DNS")]
    UnknownHost {
        /// The name.
        host: String,
    },
    /// The machine answers, the port does not.
    #[error("nothing listens on {broker}: is the broker running, and is mqtt.port right?")]
    NothingListens {
        /// Host and port.
        broker: String,
    },
    /// No answer at all.
    #[error(
        "{broker} does not answer: check the network, mqtt.host, the firewalls between and, for the service, IPAddressAllow of its unit"
    )]
    Silent {
        /// Host and port.
        broker: String,
    },
    /// The network says no.
    #[error("{broker} cannot be reached")]
    Network {
        /// Host and port.
        broker: String,
        /// What it said.
        source: io::Error,
    },
    /// The broker does not accept the user.
    #[error("{broker} refuses {who}: the password is wrong or the user is not allowed; check {keys}")]
    Login {
        /// Host and port.
        broker: String,
        /// As whom.
        who: String,
        /// Which settings matter.
        keys: &'static str,
    },
    /// The broker does not accept the client id.
    #[error("{broker} refuses the client id `{client_id}`: choose another as mqtt.client_id")]
    ClientId {
        /// Host and port.
        broker: String,
        /// The id.
        client_id: String,
    },
    /// The broker does not want to, for a reason that it does not tell.
    #[error("{broker} refuses the connection ({code}): see the broker's log")]
    Refused {
        /// Host and port.
        broker: String,
        /// The code of MQTT 3.1.1.
        code: String,
    },
    /// TLS failed.
    #[error("TLS with {broker} failed: {reason}")]
    Tls {
        /// Host and port.
        broker: String,
        /// Why, and the remedy.
        reason: String,
    },
    /// It does not speak as an MQTT broker does.
    #[error("{broker} does not speak MQTT: {reason}")]
    NotABroker {
        /// Host and port.
        broker: String,
        /// What it did.
        reason: String,
    },
    /// A message to this box is larger than it accepts.
    #[error(
        "{broker} delivers a message of {bytes} bytes, more than can be taken in (1 MiB, or mqtt.max_packet_kilobytes where that is more): someone publishes that on a trigger or command topic, perhaps retained"
    )]
    Oversize {
        /// Host and port.
        broker: String,
        /// Its size.
        bytes: usize,
    },
    /// The connection ended.
    #[error(
        "{broker} closed the connection; if this repeats at once, look for another client with the id `{client_id}`"
    )]
    Closed {
        /// Host and port.
        broker: String,
        /// The id.
        client_id: String,
    },
    /// The connection is there and nothing comes through.
    #[error("{broker} stopped answering: {what}")]
    Stalled {
        /// Host and port.
        broker: String,
        /// What did not come.
        what: &'static str,
    },
    /// Anything else that ends a connection.
    #[error("the connection to {broker} broke: {reason}")]
    Broken {
        /// Host and port.
        broker: String,
        /// What happened.
        reason: String,
    },
}

/// Which broker, as whom: what an error needs to name.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) broker: String,
    pub(super) host: String,
    pub(super) client_id: String,
    pub(super) username: Option<String>,
    pub(super) tls: bool,
}

impl Peer {
    pub(super) fn new(options: &Options, client_id: &str) -> Self {
        Self {
            broker: format!("{}:{}", options.host, options.port()),
            host: options.host.clone(),
            client_id: client_id.to_owned(),
            username: options.username.clone(),
            tls: options.tls.enabled,
        }
    }

    /// The cause behind an error of the client; `connected` tells whether the broker had accepted the connection.
    pub(super) fn explain(&self, error: ConnectionError, connected: bool) -> PublishError {
        let broker = self.broker.clone();
        match error {
            ConnectionError::ConnectionRefused(code) => self.refused(code),
            ConnectionError::Tls(error) => self.tls(error),
            ConnectionError::Io(error) => self.io(error, connected),
            ConnectionError::NetworkTimeout if !connected => PublishError::Silent { broker },
            ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => {
                PublishError::Stalled { broker, what: "it takes no more data" }
            }
            ConnectionError::NotConnAck(packet) => {
                PublishError::NotABroker { broker, reason: format!("it answered with {packet:?}") }
            }
            ConnectionError::MqttState(error) => self.state(error, connected),
            other => PublishError::Broken { broker, reason: other.to_string() },
        }
    }

    pub(super) fn confused(&self, confusion: Confusion) -> PublishError {
        PublishError::Broken { broker: self.broker.clone(), reason: confusion.to_string() }
    }

    fn refused(&self, code: ConnectReturnCode) -> PublishError {
        let broker = self.broker.clone();
        match code {
            ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                let (who, keys) = match &self.username {
                    Some(user) => (format!("the user `{user}`"), "mqtt.username and mqtt.password_file"),
                    None => (
                        "a client without a user".into(),
                        "mqtt.username and mqtt.password_file, which are not set",
                    ),
                };
                PublishError::Login { broker, who, keys }
            }
            ConnectReturnCode::BadClientId => {
                PublishError::ClientId { broker, client_id: self.client_id.clone() }
            }
            other => PublishError::Refused { broker, code: format!("{other:?}") },
        }
    }

    fn tls(&self, error: TlsError) -> PublishError {
        let broker = self.broker.clone();
        match error {
            TlsError::Io(error) => match error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
                Some(error) => PublishError::Tls { broker, reason: tls_reason(error) },
                None => self.tls_io(error),
            },
            TlsError::TLS(error) => PublishError::Tls { broker, reason: tls_reason(&error) },
            TlsError::DNSName(_) => {
                let reason =
                    format!("`{}` cannot be the name in a certificate: use the broker's name", self.host);
                PublishError::Tls { broker, reason }
            }
            other => PublishError::Tls { broker, reason: other.to_string() },
        }
    }

    fn tls_io(&self, error: io::Error) -> PublishError {
        let reason = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                "it closed the connection during the handshake: does this port expect TLS?".into()
            }
            _ => error.to_string(),
        };
        PublishError::Tls { broker: self.broker.clone(), reason }
    }

    fn io(&self, error: io::Error, connected: bool) -> PublishError {
        let broker = self.broker.clone();
        if let Some(error) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) {
            return PublishError::Tls { broker, reason: tls_reason(error) };
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => PublishError::NothingListens { broker },
            io::ErrorKind::TimedOut if !connected => PublishError::Silent { broker },
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => self.ended(connected),
            // Failed look-ups have no kind and no number of their own.
            _ if error.raw_os_error().is_none() && error.to_string().contains("lookup") => {
                PublishError::UnknownHost { host: self.host.clone() }
            }
            _ => PublishError::Network { broker, source: error },
        }
    }

    fn state(&self, error: StateError, connected: bool) -> PublishError {
        use rumqttc::mqttbytes::Error as Codec;
        let broker = self.broker.clone();
        match error {
            StateError::Io(error) | StateError::Deserialization(Codec::Io(error)) => {
                self.io(error, connected)
            }
            StateError::ConnectionAborted => self.ended(connected),
            StateError::AwaitPingResp => PublishError::Stalled { broker, what: "no sign of life came back" },
            StateError::Deserialization(Codec::PayloadSizeLimitExceeded(bytes)) if connected => {
                PublishError::Oversize { broker, bytes }
            }
            StateError::Deserialization(error) if !connected => {
                PublishError::NotABroker { broker, reason: error.to_string() }
            }
            other => PublishError::Broken { broker, reason: other.to_string() },
        }
    }

    fn ended(&self, connected: bool) -> PublishError {
        let broker = self.broker.clone();
        if connected {
            return PublishError::Closed { broker, client_id: self.client_id.clone() };
        }
        let reason = if self.tls {
            "it closed the connection after the handshake: does it ask for a client certificate?"
        } else {
            "it closed the connection without an answer: does this port expect TLS (mqtt.tls.enabled)?"
        };
        PublishError::NotABroker { broker, reason: reason.into() }
    }
}

/// What a TLS error means for the settings.
fn tls_reason(error: &rustls::Error) -> String {
    use rustls::CertificateError as Bad;
    use rustls::Error as Tls;
    let remedy = match error {
        Tls::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "mqtt.tls.ca_file does not vouch for the broker's certificate; give the authority that signed it"
        }
        Tls::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            "the broker's certificate has expired; renew it, or check this box's clock"
        }
        Tls::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            "the broker's certificate is not valid yet; check this box's clock"
        }
        Tls::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "the broker's certificate is for another name; set mqtt.host or mqtt.tls.server_name to that name"
        }
        Tls::InvalidCertificate(Bad::Other(_)) => {
            "the broker's certificate is not one for servers; a self-signed authority cannot also be the broker's"
        }
        Tls::InvalidMessage(_) => "it does not speak TLS on this port; brokers usually do on 8883",
        Tls::AlertReceived(rustls::AlertDescription::CertificateRequired) => {
            "it asks for a client certificate; set mqtt.tls.certificate_file and mqtt.tls.key_file"
        }
        Tls::AlertReceived(_) => {
            "the broker refused this box's handshake or certificate; see the broker's log"
        }
        _ => return error.to_string(),
    };
    format!("{error}: {remedy}")
}

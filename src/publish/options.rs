//! The `[mqtt]` section: which broker, as whom, and how patiently.
//!
//! The one place of the session's defaults. No file is read and no name resolved here (`credentials`, `connection`),
//! and no secret is ever part of it: passwords and keys are named by the files that hold them.

use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The port of MQTT in the clear.
const PLAIN_PORT: u16 = 1883;
/// The port of MQTT over TLS.
const TLS_PORT: u16 = 8883;
/// The longest prefix and client id, in bytes.
const MAX_NAME_BYTES: usize = 200;
/// The most packets on the way that may be asked for.
const MAX_INFLIGHT: u16 = 1000;
/// The least packet size, in KiB, in which a verdict without its extras always fits.
const MIN_PACKET_KILOBYTES: u32 = 8;
/// The largest packet size that may be asked for, in KiB.
const MAX_PACKET_KILOBYTES: u32 = 16 * 1024;

/// How verdicts reach the broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether verdicts are published at all; when not, they are still recorded. Default true.
    pub enabled: bool,
    /// The broker's name or address. Default `localhost`.
    pub host: String,
    /// The broker's port. Default 1883, or 8883 with TLS.
    pub port: Option<u16>,
    /// The name under which the broker keeps this box's session; no two clients of one broker may share it. Default
    /// `inspectord-<box>`.
    pub client_id: Option<String>,
    /// The user to log in as. Default none.
    pub username: Option<String>,
    /// The file whose first line is the user's password. Default: the systemd credential `mqtt-password`, if there is
    /// one.
    pub password_file: Option<PathBuf>,
    /// What every topic begins with. Default `inspectord/<box>`.
    pub prefix: Option<String>,
    /// Encryption.
    pub tls: Tls,
    /// Packets that may be on the way to the broker and not yet acknowledged, 1 to 1000. Default 100: about 400 a
    /// second over a link of 200 ms and thousands on a local one, and a bound on what a lost connection sends twice.
    pub inflight: u16,
    /// Seconds between signs of life, 1 to 60; a dead connection is noticed after two of them. Default 5: a line that
    /// waits for verdicts should not wait for the minutes that TCP takes to notice.
    pub keep_alive_seconds: u16,
    /// Milliseconds before the first new attempt after a connection failed or was lost, 10 to 60000; every further one
    /// waits up to twice as long. Default 250.
    pub back_off_min_ms: u64,
    /// The longest wait between attempts, in milliseconds, up to 600000. Default 15000: a broker that was away over
    /// night is found within seconds of its return, and a hall of boxes does not overrun it.
    pub back_off_max_ms: u64,
    /// KiB that a packet to the broker may have, 8 to 16384. A verdict that would be larger leaves out its regions, then
    /// its trigger's fields, and says so. Default 256: a trigger's 64 KiB echoed with the longest list of regions. Packets
    /// to this box may have as much, and 1 MiB at least; one beyond that ends the connection.
    pub max_packet_kilobytes: u32,
    /// Seconds between two publications of a camera's state when only its counters have changed, 1 to 3600. Default 5.
    pub state_seconds: u32,
    /// Seconds that a graceful stop may take to bring out what is still on the way; the rest follows after the next
    /// start. Default 5.
    pub drain_seconds: u32,
}

/// Encryption of the connection to the broker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Whether to use TLS. Default false.
    pub enabled: bool,
    /// The PEM file of the authorities that may vouch for the broker. Default: the system's own.
    pub ca_file: Option<PathBuf>,
    /// The PEM file of this box's certificate, for brokers that ask for one. Default none.
    pub certificate_file: Option<PathBuf>,
    /// The PEM file of the certificate's key; readable by the daemon only. Default none.
    pub key_file: Option<PathBuf>,
    /// The name that the broker's certificate must carry, where it is not `host`. Default: `host`.
    pub server_name: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            enabled: true,
            host: "localhost".into(),
            port: None,
            client_id: None,
            username: None,
            password_file: None,
            prefix: None,
            tls: Tls::default(),
            inflight: 100,
            keep_alive_seconds: 5,
            back_off_min_ms: 250,
            back_off_max_ms: 15_000,
            max_packet_kilobytes: 256,
            state_seconds: 5,
            drain_seconds: 5,
        }
    }
}

impl Options {
    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls.enabled { TLS_PORT } else { PLAIN_PORT })
    }

    /// The name of the session of a box named `box_name`.
    pub fn client_id(&self, box_name: &str) -> String {
        self.client_id.clone().unwrap_or_else(|| format!("inspectord-{}", one_level(box_name)))
    }

    /// What every topic of a box named `box_name` begins with, without the last `/`.
    pub fn prefix(&self, box_name: &str) -> String {
        self.prefix.clone().unwrap_or_else(|| format!("inspectord/{}", one_level(box_name)))
    }

    /// The largest packet, in bytes.
    pub fn max_packet(&self) -> usize {
        self.max_packet_kilobytes as usize * 1024
    }

    /// The first and the longest wait between attempts.
    pub fn back_off(&self) -> (Duration, Duration) {
        (Duration::from_millis(self.back_off_min_ms), Duration::from_millis(self.back_off_max_ms))
    }

    /// The time between signs of life.
    pub fn keep_alive(&self) -> Duration {
        Duration::from_secs(self.keep_alive_seconds.into())
    }

    /// Everything that is wrong with them, as (key path inside the section, what is wrong and the remedy).
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = self.tls.faults(&self.host);
        let mut fault = |key: &str, message: String| faults.push((key.to_owned(), message));
        if self.host.is_empty()
            || self.host.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
        {
            fault("host", format!("`{}` is no host: give the broker's name or address alone", self.host));
        }
        if self.port == Some(0) {
            fault("port", "0 is no port: brokers listen on 1883, or 8883 with TLS".into());
        }
        for (key, name) in [("client_id", &self.client_id), ("username", &self.username)] {
            if name.as_ref().is_some_and(|n| !within(n) || n.contains(char::is_control)) {
                fault(key, format!("must have 1 to {MAX_NAME_BYTES} bytes and no control characters"));
            }
        }
        if let Some(prefix) = &self.prefix
            && let Some(message) = prefix_fault(prefix)
        {
            fault("prefix", message);
        }
        if self.password_file.is_some() && self.username.is_none() {
            fault("password_file", "MQTT allows no password without a user: set username too".into());
        }
        let range = |key: &str, value: u64, least: u64, most: u64| {
            let wrong = !(least..=most).contains(&value);
            wrong.then(|| (key.to_owned(), format!("{value} must be {least} to {most}")))
        };
        let packet = (MIN_PACKET_KILOBYTES.into(), MAX_PACKET_KILOBYTES.into());
        faults.extend(range("inflight", self.inflight.into(), 1, MAX_INFLIGHT.into()));
        faults.extend(range("keep_alive_seconds", self.keep_alive_seconds.into(), 1, 60));
        faults.extend(range("back_off_min_ms", self.back_off_min_ms, 10, 60_000));
        let least = self.back_off_min_ms.min(600_000);
        faults.extend(range("back_off_max_ms", self.back_off_max_ms, least, 600_000));
        faults.extend(range("max_packet_kilobytes", self.max_packet_kilobytes.into(), packet.0, packet.1));
        faults.extend(range("state_seconds", self.state_seconds.into(), 1, 3600));
        faults.extend(range("drain_seconds", self.drain_seconds.into(), 0, 3600));
        faults
    }
}

impl Tls {
    fn faults(&self, host: &str) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, message: &str| faults.push((format!("tls.{key}"), message.to_owned()));
        let given = [
            ("ca_file", self.ca_file.is_some()),
            ("certificate_file", self.certificate_file.is_some()),
            ("key_file", self.key_file.is_some()),
            ("server_name", self.server_name.is_some()),
        ];
        if !self.enabled {
            for (key, _) in given.iter().filter(|(_, given)| *given) {
                fault(key, "is given but TLS is off: set tls.enabled = true, or remove it");
            }
            return faults;
        }
        match (&self.certificate_file, &self.key_file) {
            (Some(_), None) => fault("key_file", "is missing: a certificate is of no use without its key"),
            (None, Some(_)) => {
                fault("certificate_file", "is missing: a key is of no use without its certificate")
            }
            _ => {}
        }
        if host.parse::<Ipv6Addr>().is_ok() {
            fault("enabled", "is not possible with an IPv6 address as host: use the broker's name");
        }
        if self.server_name.as_ref().is_some_and(|name| name.is_empty() || name.len() > 253) {
            fault("server_name", "must be the name in the broker's certificate, at most 253 bytes");
        }
        faults
    }
}

fn within(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
}

fn prefix_fault(prefix: &str) -> Option<String> {
    let bad = if !within(prefix) {
        format!("must have 1 to {MAX_NAME_BYTES} bytes")
    } else if prefix.contains(|c: char| c == '+' || c == '#' || c.is_control()) {
        "must not contain + or # or control characters, which topics forbid".into()
    } else if prefix.starts_with('$') || prefix.split('/').any(str::is_empty) {
        "must not begin with $ nor have an empty level, such as a / at either end".into()
    } else {
        return None;
    };
    Some(format!("`{}` {bad}", prefix.escape_debug()))
}

/// `name` as one level of a topic.
fn one_level(name: &str) -> String {
    let safe = |c: char| if c.is_control() || c.is_whitespace() || "+#/$".contains(c) { '-' } else { c };
    name.chars().take(100).map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_have_no_faults() {
        assert_eq!(Options::default().faults(), []);
        assert_eq!(Options::default().port(), 1883);
        let tls = Tls { enabled: true, ..Tls::default() };
        assert_eq!(Options { tls, ..Options::default() }.port(), 8883);
    }

    #[test]
    fn all_faults_are_reported_at_once() {
        let options = Options {
            host: "mqtt://broker".into(),
            port: Some(0),
            client_id: Some(String::new()),
            password_file: Some("/etc/secret".into()),
            prefix: Some("/a/#".into()),
            tls: Tls { key_file: Some("key.pem".into()), ..Tls::default() },
            inflight: 0,
            back_off_min_ms: 1000,
            back_off_max_ms: 10,
            max_packet_kilobytes: 1,
            ..Options::default()
        };
        let keys: Vec<_> = options.faults().into_iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "tls.key_file",
                "host",
                "port",
                "client_id",
                "prefix",
                "password_file",
                "inflight",
                "back_off_max_ms",
                "max_packet_kilobytes"
            ]
        );
    }

    #[test]
    fn a_prefix_is_a_plain_topic() {
        for bad in ["", "/a", "a/", "a//b", "a/+", "a#", "$SYS/x", "a\0"] {
            assert!(prefix_fault(bad).is_some(), "{bad:?}");
        }
        assert_eq!(prefix_fault("plant 4/line/ä"), None);
        assert_eq!(Options::default().prefix("a/b +"), "inspectord/a-b--");
    }

    #[test]
    fn unknown_keys_are_refused_and_missing_ones_have_defaults() {
        assert!(toml::from_str::<Options>("password = \"x\"").is_err());
        assert!(toml::from_str::<Options>("[tls]\ninsecure = true").is_err());
        assert_eq!(toml::from_str::<Options>("").unwrap(), Options::default());
    }
}

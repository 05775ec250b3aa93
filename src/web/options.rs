//! The `[web]` section: whether the page and the metrics are served, and where.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The port that nothing else in a factory is known to use.
const PORT: u16 = 8410;

/// Where the page and the metrics are served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Whether they are served at all. Default true.
    pub enabled: bool,
    /// Address and port to listen on. Default `127.0.0.1:8410`, this machine only: there is no password, and whoever
    /// reaches it sees pictures of the parts.
    pub address: SocketAddr,
}

impl Default for Options {
    fn default() -> Self {
        Self { enabled: true, address: (Ipv4Addr::LOCALHOST, PORT).into() }
    }
}

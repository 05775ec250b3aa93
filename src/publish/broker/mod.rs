//! A small MQTT 3.1.1 broker for `demo`, on this machine only, so that nothing needs to be installed to see verdicts.
//!
//! Speaks quality of service 0 and 1 both ways, wildcards, retained messages, wills and keep-alive. Deliberately absent:
//! sessions that outlive a connection, quality 2, passwords, TLS, bridges; whoever needs those has a real broker. One
//! task per connection; what they share is the `hub`, behind one short lock. Not here: the client side (`session`).

mod client;
mod hub;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::shutdown::Shutdown;
use hub::Hub;

/// The most connections at once; further ones are closed.
const MAX_CLIENTS: usize = 64;
/// How long to wait when the system has no more connections to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Why the broker cannot be had.
#[derive(Debug, Error)]
pub enum BrokerError {
    /// The address is one that others can reach, and this broker asks for no password.
    #[error("the demo's broker listens on this machine only, not on {0}: use 127.0.0.1, or a real broker")]
    NotLoopback(SocketAddr),
    /// The port cannot be had.
    #[error(
        "the demo's broker cannot listen on {address}; is the port in use? Port 0 takes any that is free"
    )]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A broker that is bound and not yet serving.
#[derive(Debug)]
pub struct Broker {
    listener: TcpListener,
    address: SocketAddr,
}

impl Broker {
    /// Binds to `address`, which must be a loopback one; port 0 takes any that is free.
    ///
    /// # Errors
    /// When the address is not loopback, or cannot be bound.
    pub async fn bind(address: SocketAddr) -> Result<Self, BrokerError> {
        if !address.ip().is_loopback() {
            return Err(BrokerError::NotLoopback(address));
        }
        let bind = async {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        };
        bind.await.map_err(|source| BrokerError::Bind { address, source })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is requested, then closes every connection.
    pub async fn run(self, shutdown: Shutdown) {
        let hub = Arc::new(Hub::default());
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.wait() => return,
                Some(_ended) = clients.join_next() => {}
                accepted = self.listener.accept() => match accepted {
                    Ok((_, peer)) if clients.len() >= MAX_CLIENTS => {
                        warn!(%peer, limit = MAX_CLIENTS, "refused a client of the demo's broker: too many");
                    }
                    Ok((socket, peer)) => {
                        debug!(%peer, "a client of the demo's broker");
                        clients.spawn(client::serve(socket, hub.clone()));
                    }
                    // Such as too many open files: passes when others are closed.
                    Err(error) => {
                        warn!(%error, "the demo's broker cannot accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
    }
}

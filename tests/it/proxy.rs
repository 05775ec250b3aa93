//! A TCP proxy that delays, swallows, cuts or refuses, at the test's word.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// What the proxy does with what it carries, on old and new connections alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Carries it, each way, this much later.
    Pass(Duration),
    /// Takes it and throws it away, so that both ends believe in a connection that is dead.
    Swallow,
    /// Ends connections, also new ones.
    Cut,
}

pub(crate) struct Proxy {
    port: u16,
    mode: watch::Sender<Mode>,
    severed: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (mode, watcher) = watch::channel(Mode::Pass(Duration::ZERO));
        let (severed, knife) = watch::channel(());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, (Ipv4Addr::LOCALHOST, to).into(), watcher.clone(), knife.clone()));
            }
        });
        Self { port, mode, severed, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
        if mode == Mode::Cut {
            self.sever();
        }
    }

    /// Ends the connections that there are; new ones are carried.
    pub(crate) fn sever(&self) {
        self.severed.send_replace(());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.set(Mode::Cut);
    }
}

async fn carry(
    client: TcpStream,
    to: SocketAddr,
    mode: watch::Receiver<Mode>,
    mut knife: watch::Receiver<()>,
) {
    knife.mark_unchanged();
    if *mode.borrow() == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(to).await else { return };
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    tokio::select! {
        () = one_way(from_client, to_server, mode.clone()) => {}
        () = one_way(from_server, to_client, mode) => {}
        _severed_or_dropped = knife.changed() => {}
    }
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mode: watch::Receiver<Mode>) {
    let (queue, mut due) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            match *mode.borrow() {
                Mode::Pass(delay) => queue.send((Instant::now() + delay, buffer[..count].to_vec())).unwrap(),
                Mode::Swallow => {}
                Mode::Cut => return,
            }
        }
    };
    let write = async {
        while let Some((when, bytes)) = due.recv().await {
            sleep_until(when).await;
            if *mode.borrow() != Mode::Swallow && to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! { () = read => {} () = write => {} }
}

//! The server: accepts connections, bounds them, and answers requests one by one.
//!
//! At most [`CONNECTIONS`] at once; further ones wait in the kernel's queue. A connection has [`HEADER_TIME`] for each
//! request's header and [`CONNECTION_TIME`] altogether. Bodies of requests are never read. What reads the disk runs on
//! [`WORKERS`] threads. Not here: what is answered (`route`).

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use super::View;
use super::answer::{Answer, Response};
use super::evidence;
use super::route::Route;
use crate::backoff::Backoff;
use crate::telemetry::chain;

/// Connections at once.
const CONNECTIONS: usize = 32;
/// How long a request's header may take to come, the idle time before it included.
const HEADER_TIME: Duration = Duration::from_secs(20);
/// How long a connection may last; clients open another.
const CONNECTION_TIME: Duration = Duration::from_secs(120);
/// The most bytes of a request's header.
const HEADER_BYTES: usize = 16 << 10;
/// Threads for answers that read the disk.
pub(super) const WORKERS: usize = 6;
/// Of those, the ones that pictures may hold at once, so that metrics and page are answered whatever becomes of them.
pub(super) const TURNS: usize = 3;

/// Listens on `address` and serves, for ever.
pub(super) async fn serve(address: SocketAddr, view: &Arc<View>, bound: &Mutex<Option<SocketAddr>>) {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let mut told = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                let error = chain(&error);
                if !told {
                    warn!(%address, error, "the page cannot be served here; change [web] address, or stop who uses it");
                }
                told = true;
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    };
    let address = listener.local_addr().unwrap_or(address);
    info!(page = format!("http://{address}/"), "the page is served");
    *bound.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    backoff.reset();
    let mut refusing = false;
    while let Ok(permit) = room.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                backoff.reset();
                refusing = false;
                let view = view.clone();
                tokio::spawn(async move {
                    connection(stream, address.ip(), view).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: others must close some first.
                if !refusing {
                    warn!(error = chain(&error), "connections to the page are not accepted; trying again");
                }
                refusing = true;
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, listening: IpAddr, view: Arc<View>) {
    let answer = service_fn(move |request| {
        let view = view.clone();
        async move { Ok::<_, Infallible>(respond(&request, listening, view).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER_BYTES);
    let connection = server.serve_connection(TokioIo::new(stream), answer);
    // Whatever becomes of it, the client knows or has gone.
    let _over = tokio::time::timeout(CONNECTION_TIME, connection).await;
}

async fn respond(request: &Request<Incoming>, listening: IpAddr, view: Arc<View>) -> Response {
    if !is_meant_for(request, listening) {
        let why = "this page answers to the names localhost and 127.0.0.1 only";
        return Answer::text(StatusCode::MISDIRECTED_REQUEST, why).into_response();
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Answer::text(StatusCode::METHOD_NOT_ALLOWED, "everything here is read-only").into_response();
    }
    let answer = match Route::of(request.uri().path(), request.uri().query()) {
        Ok(Route::Evidence(asked)) => {
            let Ok(turn) = view.turns.clone().acquire_owned().await else {
                return Answer::text(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")
                    .into_response();
            };
            let answered =
                tokio::task::spawn_blocking(move || evidence::answer(&view, &asked).keeping(turn)).await;
            answered.unwrap_or_else(|_panicked| failed())
        }
        Ok(route) if route.reads_disk() => {
            let answered = tokio::task::spawn_blocking(move || route.answer(&view)).await;
            answered.unwrap_or_else(|_panicked| failed())
        }
        Ok(route) => route.answer(&view),
        Err(refusal) => refusal,
    };
    answer.into_response()
}

fn failed() -> Answer {
    Answer::text(StatusCode::INTERNAL_SERVER_ERROR, "this answer failed; the log says why")
}

/// Whether the request names this server. Where only this machine may ask, a page from elsewhere must not make a browser
/// on it ask in its stead under a name of its own.
fn is_meant_for(request: &Request<Incoming>, listening: IpAddr) -> bool {
    let Some(host) = request.headers().get(hyper::header::HOST).and_then(|host| host.to_str().ok()) else {
        return true;
    };
    !listening.is_loopback() || is_local(host)
}

fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _port)) => address,
        None => host.split_once(':').map_or(host, |(name, _port)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_own_names_are_local() {
        for host in ["localhost", "LOCALHOST:8410", "127.0.0.1:80", "[::1]:8410", "[::1]"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example:8410", "10.0.0.1", "[fe80::1]:80", ""] {
            assert!(!is_local(host), "{host}");
        }
    }
}

//! What the outside sees over HTTP: metrics, health, and a page; read-only.
//!
//! | path | says |
//! |---|---|
//! | `/` | the page: cameras, last alarms with their evidence |
//! | `/metrics` | everything that is counted, in Prometheus' text format |
//! | `/healthz` | 200 while the program makes progress, as the watchdog sees it; otherwise 503 and what has hung |
//! | `/readyz` | 200 while store, models, broker and cameras are all there; otherwise 503 and which are not |
//! | `/api/state`, `/api/verdicts?camera=&limit=` | the same as JSON |
//! | `/evidence/<camera>/<sequence>/picture`, `…/heatmap`, each also with `/small` and `?id=` | a verdict's evidence |
//!
//! One thread with a runtime of its own, so that no client can slow inspection's tasks down; it reads what other
//! threads count and changes nothing. Connections, requests and time are bounded in `serve`. Not here: what is counted
//! (`health`, `store`, `publish`).

mod answer;
mod evidence;
mod metrics;
mod options;
mod ready;
mod recent;
mod route;
mod serve;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tracing::error;

pub use self::options::Options;
use self::recent::Recent;
use crate::health::{LineHealth, Progress};
use crate::publish::Monitor;
use crate::runtime;
use crate::shutdown::Shutdown;
use crate::store::StoreHandle;

/// How long what is read from the disk for a number may be shown again.
const OLDEST_KEEPS: Duration = Duration::from_secs(5);

/// What is looked at.
pub struct Watched {
    /// The box's name.
    pub box_name: String,
    /// Its cameras' lines.
    pub lines: Vec<LineHealth>,
    /// Its store.
    pub store: StoreHandle,
    /// Its broker session, if verdicts are published.
    pub broker: Option<Monitor>,
    /// Whether the program makes progress.
    pub progress: Progress,
}

/// What every request looks at.
struct View {
    watched: Watched,
    recent: Recent,
    oldest_unpublished: Mutex<Option<(Instant, Option<Timestamp>)>>,
    /// Turns at what may hold a thread for long: drawing a picture, and a client that does not read one.
    turns: Arc<Semaphore>,
}

impl View {
    fn new(watched: Watched) -> Self {
        let turns = Arc::new(Semaphore::new(serve::TURNS));
        Self { watched, recent: Recent::default(), oldest_unpublished: Mutex::default(), turns }
    }

    /// When the oldest verdict that the broker has not acknowledged was recorded. May read the disk.
    fn oldest_unpublished(&self) -> Option<Timestamp> {
        let store = &self.watched.store;
        if store.unpublished() == 0 {
            return None;
        }
        let mut known = self.oldest_unpublished.lock().unwrap_or_else(PoisonError::into_inner);
        match *known {
            Some((at, oldest)) if at.elapsed() < OLDEST_KEEPS => oldest,
            _ => {
                let oldest = store.oldest_unpublished().unwrap_or_default();
                *known = Some((Instant::now(), oldest));
                oldest
            }
        }
    }
}

/// The running server; it stops when dropped.
pub struct Web {
    stop: Shutdown,
    thread: Option<JoinHandle<()>>,
    address: Arc<Mutex<Option<SocketAddr>>>,
}

impl Web {
    /// Serves until it is dropped. An address that cannot be had is tried again and again: it is no reason not to
    /// inspect.
    ///
    /// # Errors
    /// The operating system gives no more threads.
    pub fn start(options: &Options, watched: Watched) -> io::Result<Self> {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime::build(runtime.max_blocking_threads(serve::WORKERS))?;
        let stop = Shutdown::new();
        let address = Arc::new(Mutex::new(None));
        let view = Arc::new(View::new(watched));
        let (asked, stopped, bound) = (options.address, stop.clone(), address.clone());
        let thread = std::thread::Builder::new().name("web".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve::serve(asked, &view, &bound) => {}
                    () = recent::follow(&view) => {}
                    () = stopped.wait() => {}
                }
            });
            runtime.shutdown_timeout(Duration::from_millis(100));
        })?;
        Ok(Self { stop, thread: Some(thread), address })
    }

    /// Where it listens, once it does.
    pub fn address(&self) -> Option<SocketAddr> {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.request();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("the web server panicked");
        }
    }
}

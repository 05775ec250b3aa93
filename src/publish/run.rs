//! The session's life: one connection after another, with a jittered back-off, until it is asked to stop.
//!
//! In: a session. Out: what becomes of it, told to its monitor. Not here: what is said over a connection
//! (`conversation`).

use tokio::time::Instant;

use super::conversation::Conversation;
use super::error::PublishError;
use super::session::Session;
use crate::backoff::Backoff;
use crate::shutdown::Shutdown;

impl Session {
    /// Connects and publishes until `shutdown` is requested, then brings out what it has been given, within
    /// [`Options::drain_seconds`](super::Options::drain_seconds), says `stopped` and disconnects.
    ///
    /// Ask for the shutdown after whoever feeds the session has handed in its last verdict.
    pub async fn run(mut self, shutdown: Shutdown) {
        let (first, limit) = self.connector.options.back_off();
        let mut back_off = Backoff::new(first, limit);
        loop {
            let last_attempt = shutdown.requested();
            let ended = self.run_once(&shutdown).await;
            self.report_now();
            match ended {
                Ok(()) => break,
                Err(error) => {
                    self.window.ground();
                    self.reporter.failed(&error);
                    if let PublishError::Oversize { .. } = error {
                        self.strikes.add(Instant::now());
                    }
                }
            }
            if last_attempt {
                break;
            }
            if self.accepted.is_some_and(|at| at.elapsed() > 2 * self.connector.options.keep_alive()) {
                back_off.reset();
            }
            tokio::select! {
                () = tokio::time::sleep(back_off.pause()) => {}
                () = shutdown.wait() => {}
            }
        }
        self.reporter.stopped(!self.window.idle());
    }

    async fn run_once(&mut self, shutdown: &Shutdown) -> Result<(), PublishError> {
        self.accepted = None;
        if self.strikes.unforgotten {
            tokio::select! {
                forgotten = self.connector.forget() => {
                    forgotten?;
                    self.strikes.unforgotten = false;
                    self.reporter.forgotten();
                }
                () = shutdown.wait() => {}
            }
        }
        Conversation::hold(self, shutdown).await
    }

    /// Hands on the latest position if there is room for it now.
    fn report_now(&mut self) {
        if let Some(done) = self.window.done()
            && self.reported != Some(done)
            && self.seam.acknowledged.try_send(done).is_ok()
        {
            self.reported = Some(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::{broadcast, mpsc, watch};

    use crate::publish::broker::Broker;
    use crate::publish::{Monitor, Options, Seam};

    use super::*;

    /// A session that nobody feeds, and the view on it.
    fn idle(port: u16) -> (Session, Monitor) {
        let options = Options { host: "127.0.0.1".into(), port: Some(port), ..Options::default() };
        let seam = Seam {
            outgoing: mpsc::channel(1).1,
            replayed: mpsc::channel(1).1,
            alarms: broadcast::channel(1).1,
            acknowledged: mpsc::channel(1).0,
            states: watch::channel(Default::default()).1,
            replies: mpsc::channel(1).1,
            incoming: mpsc::channel(1).0,
            taken: Default::default(),
            counters: Default::default(),
        };
        Session::new(&options, "box", Default::default(), seam)
    }

    async fn becomes(monitor: &mut Monitor, deaf: bool) -> Option<String> {
        let told = monitor.health.wait_for(|health| health.deaf == deaf);
        let told = tokio::time::timeout(Duration::from_secs(60), told).await;
        told.expect("it is told").expect("the session lives").warning.clone()
    }

    #[tokio::test]
    async fn that_the_inputs_are_closed_is_told_until_they_are_open_again() {
        let broker = Broker::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (mut session, mut monitor) = idle(broker.local_addr().port());
        let stop = Shutdown::new();
        let serving = tokio::spawn(broker.run(stop.clone()));
        // Two oversize messages, most of a minute ago.
        for _ in 0..2 {
            session.strikes.add(Instant::now() - Duration::from_secs(55));
        }
        session.strikes.unforgotten = false;
        let running = tokio::spawn(session.run(stop.clone()));
        assert!(becomes(&mut monitor, true).await.is_some_and(|warning| warning.contains("larger")));
        assert_eq!(becomes(&mut monitor, false).await, None);
        stop.request();
        running.await.unwrap();
        serving.await.unwrap();
    }
}

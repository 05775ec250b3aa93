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

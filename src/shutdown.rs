//! Stopping: one signal that every thread and task can see, wait for, and sleep against.
//!
//! Not here: what a stage does when it stops (each stage), POSIX signals (`cli::run`).

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// A handle on the stop signal; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    gate: Arc<(Mutex<()>, Condvar)>,
}

impl Shutdown {
    /// A signal that has not been given.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the signal; giving it again changes nothing.
    pub fn request(&self) {
        let _guard = self.gate.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        self.token.cancel();
        self.gate.1.notify_all();
    }

    /// Whether the signal was given.
    pub fn requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Completes when the signal is given.
    pub async fn wait(&self) {
        self.token.cancelled().await;
    }

    /// Blocks this thread for `duration`, or less when the signal is given; tells whether it was.
    pub fn sleep(&self, duration: Duration) -> bool {
        let deadline = Instant::now() + duration;
        let mut guard = self.gate.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while !self.requested() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            guard = self.gate.1.wait_timeout(guard, left).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleeper_wakes_when_the_signal_is_given() {
        let shutdown = Shutdown::new();
        let sleeper = {
            let shutdown = shutdown.clone();
            std::thread::spawn(move || shutdown.sleep(Duration::from_secs(3600)))
        };
        shutdown.request();
        assert!(sleeper.join().unwrap());
        assert!(!Shutdown::new().sleep(Duration::ZERO));
    }
}

//! How long to wait before trying again: doubling, with jitter, up to a limit.
//!
//! Not here: the waiting itself, and deciding what is worth another try.

use std::time::Duration;

use rand::Rng as _;

/// Waits that double from `first` to `limit`, each shortened by up to a half at random, so that many boxes that lost
/// the same switch do not come back in step.
#[derive(Debug)]
pub(crate) struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, next: first }
    }

    /// The next wait.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.limit);
        pause.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// Things went well: the next wait is the first again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_again_after_success() {
        let (first, limit) = (Duration::from_secs(1), Duration::from_secs(7));
        let mut backoff = Backoff::new(first, limit);
        for whole in [1, 2, 4, 7, 7] {
            let whole = Duration::from_secs(whole);
            let pause = backoff.pause();
            assert!(pause >= whole / 2 && pause <= whole, "{pause:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= first);
    }
}

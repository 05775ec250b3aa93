//! How many oversize messages came of late, and what follows from that. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Within this time of one oversize message, a second one closes the inputs, and for this long.
const STRIKE_MEMORY: Duration = Duration::from_secs(60);

/// Oversize messages of late. The library can only answer one by closing the connection, and the broker would deliver
/// it again at the next: each makes the broker forget what it keeps for this box, and a second closes the inputs for a
/// while, so that verdicts go out whatever others publish.
#[derive(Debug, Default)]
pub(super) struct Strikes {
    count: u32,
    last: Option<Instant>,
    /// Whether the broker still keeps one.
    pub(super) unforgotten: bool,
}

impl Strikes {
    pub(super) fn add(&mut self, now: Instant) {
        self.count = if self.recent(now) { self.count + 1 } else { 1 };
        self.last = Some(now);
        self.unforgotten = true;
    }

    fn recent(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| now - last < STRIKE_MEMORY)
    }

    /// Whether nothing should be subscribed to now.
    pub(super) fn closed(&self, now: Instant) -> bool {
        self.recent(now) && self.count >= 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_oversize_message_closes_the_inputs_for_a_while() {
        let start = Instant::now();
        let mut strikes = Strikes::default();
        assert!(!strikes.unforgotten);
        strikes.add(start);
        assert!(strikes.unforgotten && !strikes.closed(start));
        strikes.add(start + Duration::from_secs(1));
        assert!(strikes.closed(start + Duration::from_secs(2)));
        assert!(!strikes.closed(start + Duration::from_secs(62)));
        strikes.add(start + Duration::from_secs(70));
        assert!(!strikes.closed(start + Duration::from_secs(70)));
    }
}

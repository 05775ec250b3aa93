//! Deliveries: by what a message of the broker is known again when it is sent a second time.
//!
//! A broker that got no acknowledgement sends a message again with its packet number and a mark that says so. Number and
//! content together tell a repeat from a new message that says the same; a number is given out anew only once its last
//! message was acknowledged. A session that the broker has forgotten starts over, and nothing of it can come again.
//! Not here: when a message is acknowledged (`publish`), where deliveries are kept (`store`).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// How many are remembered; far more than brokers send without an acknowledgement.
pub const REMEMBERED: usize = 1024;

/// One message of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u16, u64)", into = "(u64, u16, u64)")]
pub struct Delivery {
    /// Which of the sessions that the broker has kept for this box; they rise.
    pub session: u64,
    /// The packet's number.
    pub packet: u16,
    /// A digest of topic and payload.
    pub digest: u64,
}

impl From<(u64, u16, u64)> for Delivery {
    fn from((session, packet, digest): (u64, u16, u64)) -> Self {
        Self { session, packet, digest }
    }
}

impl From<Delivery> for (u64, u16, u64) {
    fn from(delivery: Delivery) -> Self {
        (delivery.session, delivery.packet, delivery.digest)
    }
}

/// The newest deliveries of the newest session, at most [`REMEMBERED`], oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Deliveries(VecDeque<Delivery>);

impl Deliveries {
    /// Adds one; forgets older sessions, and what had its number before.
    pub fn add(&mut self, delivery: Delivery) {
        match self.session() {
            Some(session) if delivery.session < session => return,
            Some(session) if delivery.session > session => self.0.clear(),
            _ => self.0.retain(|known| known.packet != delivery.packet),
        }
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(delivery);
    }

    /// The session that they are of.
    pub fn session(&self) -> Option<u64> {
        self.0.back().map(|newest| newest.session)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Delivery> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(session: u64, packet: u16, digest: u64) -> Delivery {
        Delivery { session, packet, digest }
    }

    #[test]
    fn a_number_given_out_anew_replaces_what_had_it() {
        let mut known = Deliveries::default();
        for (packet, digest) in [(1, 10), (2, 20), (1, 11)] {
            known.add(delivery(1, packet, digest));
        }
        assert!(known.iter().eq([delivery(1, 2, 20), delivery(1, 1, 11)]));
    }

    #[test]
    fn a_new_session_forgets_the_old_one() {
        let mut known = Deliveries::default();
        known.add(delivery(1, 1, 10));
        known.add(delivery(2, 7, 70));
        known.add(delivery(1, 3, 30));
        assert!(known.iter().eq([delivery(2, 7, 70)]));
        assert_eq!(known.session(), Some(2));
    }

    #[test]
    fn memory_is_bounded_and_survives_its_json_form() {
        let mut known = Deliveries::default();
        for packet in 0..5000 {
            known.add(delivery(1, packet, u64::MAX));
        }
        assert!(known.iter().map(|d| d.packet).eq(5000 - REMEMBERED as u16..5000));
        let json = serde_json::to_string(&known).unwrap();
        assert_eq!(serde_json::from_str::<Deliveries>(&json).unwrap(), known);
    }
}

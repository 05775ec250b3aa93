//! Receipts: a message is acknowledged to the broker only when whoever took it says so.
//!
//! A [`Receipt`] goes with the message; once it is given, the session acknowledges, in the order in which messages came.
//! [`Receipts`] outlives connections and knows what was taken, so that a message that the broker delivers again is
//! taken once and acknowledged when the first delivery is. Not here: what a message means (`inbox`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rumqttc::Publish;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::delivery::{Deliveries, Delivery, REMEMBERED};

#[derive(Debug, Default)]
struct Due {
    given: AtomicBool,
    bell: Arc<Notify>,
}

/// The right to acknowledge one message; clones are of the same message. While none is given the broker keeps it.
#[derive(Debug, Clone, Default)]
pub struct Receipt(Arc<Due>);

impl Receipt {
    /// The message is taken care of, whatever happens to this program.
    pub fn give(&self) {
        self.0.given.store(true, Ordering::Release);
        self.0.bell.notify_one();
    }

    pub(super) fn is_given(&self) -> bool {
        self.0.given.load(Ordering::Acquire)
    }
}

impl PartialEq for Receipt {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Receipts {
    session: u64,
    taken: VecDeque<(Delivery, Receipt)>,
    bell: Arc<Notify>,
}

impl Receipts {
    /// Receipts of a box that has taken `known` before this start.
    pub(super) fn new(known: &Deliveries) -> Self {
        let receipts =
            Self { session: known.session().unwrap_or(0), taken: VecDeque::new(), bell: Arc::default() };
        let given = |delivery| {
            let receipt = receipts.receipt();
            receipt.give();
            (delivery, receipt)
        };
        let taken = known.iter().map(given).collect();
        Self { taken, ..receipts }
    }

    /// The broker has no memory of this box: nothing that it sent before can come again.
    pub(super) fn start_over(&mut self) {
        self.session += 1;
        self.taken.clear();
    }

    /// A receipt that is not given yet.
    pub(super) fn receipt(&self) -> Receipt {
        Receipt(Arc::new(Due { given: AtomicBool::new(false), bell: self.bell.clone() }))
    }

    /// What `message` goes by.
    pub(super) fn delivery(&self, message: &Publish) -> Delivery {
        let mut hash = Sha256::new();
        hash.update((message.topic.len() as u64).to_le_bytes());
        hash.update(message.topic.as_bytes());
        hash.update(&message.payload);
        let hash: [u8; 32] = hash.finalize().into();
        let digest = u64::from_le_bytes(hash[..8].try_into().expect("eight bytes: this is a bug"));
        Delivery { session: self.session, packet: message.pkid, digest }
    }

    /// The receipt of a message that was taken before and is delivered again.
    pub(super) fn repeated(&self, message: &Publish, delivery: Delivery) -> Option<Receipt> {
        let taken = || self.taken.iter().rev().find(|(known, _)| *known == delivery);
        message.dup.then(taken).flatten().map(|(_, receipt)| receipt.clone())
    }

    /// Remembers that a message was taken.
    pub(super) fn remember(&mut self, delivery: Delivery, receipt: Receipt) {
        if delivery.packet == 0 {
            return;
        }
        self.taken.retain(|(known, _)| known.packet != delivery.packet);
        // What is not acknowledged can still come again; there are no more of those than packet numbers.
        while self.taken.len() >= REMEMBERED && self.taken.front().is_some_and(|(_, r)| r.is_given()) {
            self.taken.pop_front();
        }
        self.taken.push_back((delivery, receipt));
    }

    /// Returns when a receipt has been given since the last time.
    pub(super) fn bell(&self) -> impl Future<Output = ()> + '_ {
        self.bell.notified()
    }
}

#[cfg(test)]
mod tests {
    use rumqttc::QoS;

    use super::*;

    fn numbered(packet: u16, dup: bool) -> Publish {
        Publish { pkid: packet, dup, ..Publish::new("i/b/top/trigger", QoS::AtLeastOnce, "{}") }
    }

    fn take(receipts: &mut Receipts, packet: u16) -> Receipt {
        let receipt = receipts.receipt();
        receipts.remember(receipts.delivery(&numbered(packet, false)), receipt.clone());
        receipt
    }

    fn repeated(receipts: &Receipts, message: &Publish) -> Option<Receipt> {
        receipts.repeated(message, receipts.delivery(message))
    }

    #[test]
    fn a_message_delivered_again_is_known_but_an_equal_new_one_is_not() {
        let mut receipts = Receipts::new(&Deliveries::default());
        let first = take(&mut receipts, 1);
        assert_eq!(repeated(&receipts, &numbered(1, true)), Some(first));
        assert_eq!(repeated(&receipts, &numbered(1, false)), None);
        assert_eq!(repeated(&receipts, &numbered(2, true)), None);
        receipts.start_over();
        assert_eq!(repeated(&receipts, &numbered(1, true)), None);
    }

    #[test]
    fn what_was_noted_before_a_restart_is_known_and_needs_no_further_care() {
        let before = Receipts::new(&Deliveries::default());
        let mut noted = Deliveries::default();
        noted.add(before.delivery(&numbered(9, false)));
        let after = Receipts::new(&noted);
        assert!(repeated(&after, &numbered(9, true)).unwrap().is_given());
        assert_eq!(repeated(&after, &numbered(8, true)), None);
    }

    #[test]
    fn memory_is_bounded_but_for_what_is_not_acknowledged() {
        let mut receipts = Receipts::new(&Deliveries::default());
        for packet in 1..5000 {
            take(&mut receipts, packet).give();
        }
        assert_eq!(receipts.taken.len(), REMEMBERED);
        receipts.start_over();
        for packet in 1..5000 {
            take(&mut receipts, packet);
        }
        assert!(repeated(&receipts, &numbered(1, true)).is_some());
    }

    #[tokio::test]
    async fn a_receipt_that_is_given_rings() {
        let receipts = Receipts::new(&Deliveries::default());
        let receipt = receipts.receipt();
        assert!(!receipt.is_given());
        receipt.clone().give();
        receipts.bell().await;
        assert!(receipt.is_given());
    }
}

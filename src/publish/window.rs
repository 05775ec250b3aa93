//! The window: which packets wait, which are on the way, and which are done. Pure; owned by the session.
//!
//! The client library numbers packets round and round and loses one when it meets a number that is still in use. That
//! cannot happen here: a packet takes off only while the span from the oldest one in the air to itself is below the
//! limit, whatever the order of acknowledgements. What has not been acknowledged is kept here and takes off again after
//! a reconnect. Not here: the network (`session`).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use thiserror::Error;

use super::receipt::Receipt;
use crate::frame::CameraId;

/// What a packet is for, which decides what a lost connection and an acknowledgement mean for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A part of the verdict at this position of the outbox.
    Verdict(u64),
    /// A recorded verdict again.
    Replay,
    /// An alarm ahead of its turn.
    Alarm,
    /// An answer.
    Reply,
    /// A camera's state; made anew after a reconnect.
    State(CameraId),
    /// The box's status; made anew after a reconnect.
    Status,
}

impl Purpose {
    fn outlives_connection(&self) -> bool {
        match self {
            Self::Verdict(_) | Self::Replay | Self::Alarm | Self::Reply => true,
            Self::State(_) | Self::Status => false,
        }
    }
}

/// One publish, always with quality of service 1.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Packet {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
    pub(super) purpose: Purpose,
    /// Whether it has been on the way before.
    pub(super) again: bool,
    /// Given when it is acknowledged: of the message that it answers.
    pub(super) receipt: Option<Receipt>,
}

/// The client library and this window disagree about what is on the way; only a new connection helps.
#[derive(Debug, Error, PartialEq, Eq)]
pub(super) enum Confusion {
    #[error("packet {0} left but none was waiting to")]
    Unexpected(u16),
    #[error("packet number {0} was given out twice")]
    Reused(u16),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    limit: u64,
    waiting: VecDeque<Packet>,
    flying: BTreeMap<u64, (Packet, Instant)>,
    next: u64,
    /// Took off, and their number is not known yet; in order.
    unnamed: VecDeque<u64>,
    named: HashMap<u16, u64>,
    progress: Progress,
}

impl Window {
    pub(super) fn new(limit: u16) -> Self {
        Self {
            limit: limit.max(1).into(),
            waiting: VecDeque::new(),
            flying: BTreeMap::new(),
            next: 0,
            unnamed: VecDeque::new(),
            named: HashMap::new(),
            progress: Progress::default(),
        }
    }

    /// Whether another packet could take off at once; the only time to hand in more.
    pub(super) fn hungry(&self) -> bool {
        self.waiting.is_empty() && self.room()
    }

    /// Whether nothing waits and nothing is on the way.
    pub(super) fn idle(&self) -> bool {
        self.waiting.is_empty() && self.flying.is_empty()
    }

    /// Packets of one kind that wait or are on the way.
    pub(super) fn count(&self, of: impl Fn(&Purpose) -> bool) -> usize {
        let flying = self.flying.values().map(|(packet, _)| packet);
        self.waiting.iter().chain(flying).filter(|packet| of(&packet.purpose)).count()
    }

    /// Takes in one packet that is no verdict of the outbox.
    pub(super) fn push(&mut self, packet: Packet) {
        self.waiting.push_back(packet);
    }

    /// Takes in all packets of the verdict at `position`; `false` when that position is not above all before.
    #[must_use]
    pub(super) fn push_verdict(&mut self, position: u64, packets: Vec<Packet>) -> bool {
        let taken = self.progress.begin(position, packets.len());
        if taken {
            self.waiting.extend(packets);
        }
        taken
    }

    /// The next packet to be given to the client, which counts as on the way from now on.
    pub(super) fn take_off(&mut self, now: Instant) -> Option<Packet> {
        if !self.room() {
            return None;
        }
        let packet = self.waiting.pop_front()?;
        self.flying.insert(self.next, (packet.clone(), now));
        self.unnamed.push_back(self.next);
        self.next += 1;
        Some(packet)
    }

    /// The client gave `number` to the first packet that had none.
    pub(super) fn name(&mut self, number: u16) -> Result<(), Confusion> {
        let flight = self.unnamed.pop_front().ok_or(Confusion::Unexpected(number))?;
        match self.named.insert(number, flight) {
            Some(_) => Err(Confusion::Reused(number)),
            None => Ok(()),
        }
    }

    /// The broker acknowledged `number`; the packet, unless the number stands for none.
    pub(super) fn acknowledge(&mut self, number: u16) -> Option<Packet> {
        let flight = self.named.remove(&number)?;
        let (packet, _) = self.flying.remove(&flight)?;
        if let Purpose::Verdict(position) = packet.purpose {
            self.progress.finish(position);
        }
        if let Some(receipt) = &packet.receipt {
            receipt.give();
        }
        Some(packet)
    }

    /// The connection is gone: what was on the way waits again, in its order and before everything that has not left
    /// yet, and what belonged to the connection is dropped.
    pub(super) fn ground(&mut self) {
        self.unnamed.clear();
        self.named.clear();
        let flown = std::mem::take(&mut self.flying).into_values().rev();
        for (packet, _) in flown {
            self.waiting.push_front(Packet { again: true, ..packet });
        }
        self.waiting.retain(|packet| packet.purpose.outlives_connection());
    }

    /// When the oldest packet on the way took off.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.flying.first_key_value().map(|(_, (_, since))| *since)
    }

    /// The highest position up to which every verdict is acknowledged on all its topics.
    pub(super) fn done(&self) -> Option<u64> {
        self.progress.done
    }

    fn room(&self) -> bool {
        self.flying.first_key_value().is_none_or(|(oldest, _)| self.next - oldest < self.limit)
    }
}

/// Which positions of the outbox are done.
#[derive(Debug, Default)]
struct Progress {
    /// Positions in order, and how many of their packets are not acknowledged.
    open: VecDeque<(u64, usize)>,
    last: Option<u64>,
    done: Option<u64>,
}

impl Progress {
    fn begin(&mut self, position: u64, packets: usize) -> bool {
        let rises = self.last.is_none_or(|last| position > last);
        if rises {
            self.last = Some(position);
            self.open.push_back((position, packets));
        }
        rises
    }

    fn finish(&mut self, position: u64) {
        if let Ok(at) = self.open.binary_search_by_key(&position, |(position, _)| *position) {
            self.open[at].1 = self.open[at].1.saturating_sub(1);
        }
        while let Some((position, 0)) = self.open.front() {
            self.done = Some(*position);
            self.open.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(purpose: Purpose, tag: u64) -> Packet {
        let payload = tag.to_le_bytes().to_vec();
        Packet { topic: "t".into(), payload, retain: false, purpose, again: false, receipt: None }
    }

    fn verdict(window: &mut Window, position: u64, topics: u64) -> bool {
        let packets = (0..topics).map(|t| packet(Purpose::Verdict(position), position * 10 + t)).collect();
        window.push_verdict(position, packets)
    }

    fn tag(packet: &Packet) -> u64 {
        u64::from_le_bytes(packet.payload.as_slice().try_into().unwrap())
    }

    /// The client library's numbering: 1, 2 … size, 1, 2 …
    struct Numbers {
        size: u16,
        last: u16,
    }

    impl Numbers {
        fn next(&mut self) -> u16 {
            self.last = self.last % self.size + 1;
            self.last
        }
    }

    #[test]
    fn a_position_is_done_when_all_its_topics_and_all_before_it_are() {
        let mut window = Window::new(10);
        assert!(verdict(&mut window, 5, 2) && verdict(&mut window, 9, 1));
        assert!(!verdict(&mut window, 9, 1), "positions rise");
        let now = Instant::now();
        for number in 1..=3 {
            window.take_off(now).unwrap();
            window.name(number).unwrap();
        }
        assert!(window.acknowledge(3).is_some());
        assert!(window.acknowledge(1).is_some());
        assert_eq!(window.done(), None);
        assert!(window.acknowledge(2).is_some());
        assert_eq!(window.done(), Some(9));
        assert!(window.idle());
        assert_eq!(window.acknowledge(2), None, "acknowledged twice");
    }

    #[test]
    fn a_lost_connection_sends_verdicts_again_in_order_and_forgets_states() {
        let mut window = Window::new(4);
        window.push(packet(Purpose::Status, 1));
        assert!(verdict(&mut window, 1, 1));
        window.push(packet(Purpose::State("top".parse().unwrap()), 2));
        assert!(verdict(&mut window, 2, 1) && verdict(&mut window, 3, 1));
        let now = Instant::now();
        while window.take_off(now).is_some() {}
        assert!(window.oldest().is_some() && !window.hungry());
        window.ground();
        let again: Vec<_> = std::iter::from_fn(|| window.take_off(now)).map(|p| (tag(&p), p.again)).collect();
        assert_eq!(again, [(10, true), (20, true), (30, false)]);
    }

    #[test]
    fn a_number_given_twice_is_noticed() {
        let mut window = Window::new(4);
        assert_eq!(window.name(1), Err(Confusion::Unexpected(1)));
        assert!(verdict(&mut window, 1, 2));
        let now = Instant::now();
        while window.take_off(now).is_some() {}
        window.name(1).unwrap();
        assert_eq!(window.name(1), Err(Confusion::Reused(1)));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Verdict(u64),
        TakeOff,
        Acknowledge(usize),
        Lose,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1u64..3).prop_map(Step::Verdict),
            6 => Just(Step::TakeOff),
            6 => any::<usize>().prop_map(Step::Acknowledge),
            1 => Just(Step::Lose),
        ]
    }

    proptest! {
        /// Whatever the order of acknowledgements and losses: no number is in use twice, no more than the limit is on
        /// the way, every packet is acknowledged in the end, and `done` never runs ahead of what was acknowledged.
        #[test]
        fn nothing_is_lost(limit in 1u16..6, steps in proptest::collection::vec(step(), 0..200)) {
            let mut window = Window::new(limit);
            let mut numbers = Numbers { size: limit, last: 0 };
            let (mut position, mut air, mut acknowledged) = (0, Vec::new(), std::collections::BTreeSet::new());
            let mut expected = std::collections::BTreeSet::new();
            let now = Instant::now();
            let finish = std::iter::repeat_n([Step::TakeOff, Step::Acknowledge(0)], 900).flatten();
            for step in steps.into_iter().chain(finish) {
                match step {
                    Step::Verdict(topics) => {
                        position += 1;
                        prop_assert!(verdict(&mut window, position, topics));
                        expected.extend((0..topics).map(|t| position * 10 + t));
                    }
                    Step::TakeOff => if window.take_off(now).is_some() {
                        let number = numbers.next();
                        prop_assert!(window.name(number).is_ok());
                        air.push(number);
                    },
                    Step::Acknowledge(which) => if !air.is_empty() {
                        let number = air.remove(which % air.len());
                        acknowledged.insert(tag(&window.acknowledge(number).unwrap()));
                    },
                    Step::Lose => {
                        window.ground();
                        air.clear();
                        numbers.last = 0;
                    }
                }
                prop_assert!(air.len() <= limit.into());
                if let Some(done) = window.done() {
                    prop_assert!(expected.iter().filter(|t| *t / 10 <= done).all(|t| acknowledged.contains(t)));
                }
            }
            prop_assert_eq!(&acknowledged, &expected);
            prop_assert!(window.idle());
            prop_assert_eq!(window.done().unwrap_or(0), position);
        }
    }
}

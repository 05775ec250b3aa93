//! What a subscriber has heard of each camera, so that it can ask for what it misses.

use std::collections::{BTreeMap, BTreeSet};

use crate::subscriber::Subscriber;

/// The cameras of the plant.
pub(super) const CAMERAS: [&str; 2] = ["files", "parts"];

/// Sequences of verdicts.
#[derive(Default)]
struct Heard {
    /// None is missing up to here.
    upto: u64,
    /// Heard behind a gap.
    beyond: BTreeSet<u64>,
}

impl Heard {
    fn hear(&mut self, sequence: u64) {
        if sequence > self.upto {
            self.beyond.insert(sequence);
        }
        while self.beyond.remove(&(self.upto + 1)) {
            self.upto += 1;
        }
    }

    /// The first that are missing, from and to, if there are to be as many as `newest`.
    fn gap(&self, newest: u64) -> Option<(u64, u64)> {
        let to = self.beyond.first().map_or(newest, |behind| behind - 1);
        (to > self.upto).then_some((self.upto + 1, to))
    }
}

/// All that was heard, as far as it was looked at.
#[derive(Default)]
pub(super) struct Ledger {
    read: usize,
    heard: BTreeMap<&'static str, Heard>,
    /// Parts that were answered by a verdict or a refusal.
    answered: BTreeSet<String>,
}

impl Ledger {
    /// Looks at what `subscriber` got since the last time.
    pub(super) fn read(&mut self, subscriber: &Subscriber) {
        let (read, new) = subscriber.since(self.read);
        self.read = read;
        for (topic, message) in new {
            if topic.ends_with("/parts/verdict") || topic.ends_with("/parts/reply") {
                self.answered.extend(message["part_id"].as_str().map(str::to_owned));
            }
            let camera = CAMERAS.into_iter().find(|camera| topic.ends_with(&format!("/{camera}/verdict")));
            let sequence = message["sequence"].as_u64();
            if let (Some(camera), Some(sequence)) = (camera, sequence) {
                self.heard.entry(camera).or_default().hear(sequence);
            }
        }
    }

    /// Which of the first `sent` parts nobody has answered.
    pub(super) fn open(&self, sent: usize) -> BTreeSet<String> {
        (0..sent).map(|part| part.to_string()).filter(|part| !self.answered.contains(part)).collect()
    }

    /// What is missing of a camera, if there are to be as many verdicts as `newest`.
    pub(super) fn gap(&self, camera: &str, newest: u64) -> Option<(u64, u64)> {
        self.heard.get(camera).unwrap_or(&Heard::default()).gap(newest)
    }
}

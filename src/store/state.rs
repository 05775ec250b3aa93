//! What the journal adds up to: the fold over its records. Pure.

use std::collections::BTreeMap;

use super::record::{Accepted, Checkpoint, Record};
use super::{Position, Ticket};

/// The sum of all records so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct State {
    /// What a new segment starts with.
    pub(super) checkpoint: Checkpoint,
    /// The newest verdict that there is, where those after it up to the tip may be lost in damage.
    pub(super) last: Position,
    /// Triggers without a verdict, by ticket.
    pub(super) open: BTreeMap<Ticket, Accepted>,
}

impl State {
    /// Adds one record. A record that was written twice counts once.
    pub(super) fn apply(&mut self, record: &Record) {
        let sum = &mut self.checkpoint;
        match record {
            Record::Verdict { position, ticket, verdict } => {
                if let Some(ticket) = ticket {
                    self.open.remove(ticket);
                }
                sum.tip = sum.tip.max(*position);
                self.last = self.last.max(*position);
                sum.latest = sum.latest.max(Some(verdict.judgement.captured_at));
                let sequence = sum.sequences.entry(verdict.camera().clone()).or_default();
                *sequence = (*sequence).max(verdict.sequence);
            }
            Record::Accepted { ticket, accepted } => {
                sum.ticket = sum.ticket.max(ticket.0);
                if let Some(delivery) = accepted.delivery {
                    sum.deliveries.add(delivery);
                }
                self.open.insert(*ticket, (**accepted).clone());
            }
            Record::Published { upto } => sum.published = sum.published.max(*upto),
            Record::Checkpoint(other) => {
                sum.tip = sum.tip.max(other.tip);
                self.last = self.last.max(other.tip);
                sum.published = sum.published.max(other.published);
                sum.ticket = sum.ticket.max(other.ticket);
                sum.unknown = sum.unknown.max(other.unknown);
                sum.latest = sum.latest.max(other.latest);
                other.deliveries.iter().for_each(|delivery| sum.deliveries.add(delivery));
                for (camera, last) in &other.sequences {
                    let sequence = sum.sequences.entry(camera.clone()).or_default();
                    *sequence = (*sequence).max(*last);
                }
            }
        }
    }

    /// The records that a new segment starts with.
    pub(super) fn preamble(&self) -> Vec<Record> {
        let open = self.open.iter().map(|(ticket, accepted)| Record::Accepted {
            ticket: *ticket,
            // The checkpoint has it, in its place among the others.
            accepted: Box::new(Accepted { delivery: None, ..accepted.clone() }),
        });
        std::iter::once(Record::Checkpoint(self.checkpoint.clone())).chain(open).collect()
    }
}

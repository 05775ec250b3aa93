//! What a V4L2 device lost, from what its driver says of each buffer.
//!
//! In: sequence numbers and marks of damage. Out: [`Losses`]. Pure; not here: buffers themselves (`device`).

use crate::frame::Losses;

/// A longer jump is no gap but a driver that counts in its own way, or began anew.
const LONGEST_GAP: u32 = 1 << 16;

/// Counts of one opening.
#[derive(Debug, Default)]
pub(super) struct Tally {
    last: Option<u32>,
    losses: Losses,
}

impl Tally {
    /// Notes a buffer. Drivers number frames from 0 and wrap around; some do not number them at all.
    pub(super) fn note(&mut self, sequence: u32, damaged: bool) {
        if let Some(last) = self.last.replace(sequence) {
            let step = sequence.wrapping_sub(last);
            if (2..=LONGEST_GAP).contains(&step) {
                self.losses.missed_frames += u64::from(step - 1);
            }
        }
        self.losses.incomplete_frames += u64::from(damaged);
    }

    pub(super) fn losses(&self) -> Losses {
        self.losses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missed(sequences: &[u32]) -> u64 {
        let mut tally = Tally::default();
        sequences.iter().for_each(|sequence| tally.note(*sequence, false));
        tally.losses().missed_frames
    }

    #[test]
    fn gaps_in_the_numbers_are_missed_frames() {
        assert_eq!(missed(&[7, 8, 9]), 0);
        assert_eq!(missed(&[0, 3, 4, 6]), 3);
        assert_eq!(missed(&[u32::MAX - 1, u32::MAX, 1]), 1);
    }

    #[test]
    fn a_driver_that_does_not_count_or_begins_anew_has_missed_nothing() {
        assert_eq!(missed(&[0, 0, 0]), 0);
        assert_eq!(missed(&[900, 0, 1]), 0);
        assert_eq!(missed(&[0, 1 << 20]), 0);
    }

    #[test]
    fn a_damaged_frame_has_arrived() {
        let mut tally = Tally::default();
        for (sequence, damaged) in [(0, false), (1, true), (2, false)] {
            tally.note(sequence, damaged);
        }
        assert_eq!(tally.losses(), Losses { incomplete_frames: 1, ..Losses::default() });
    }
}

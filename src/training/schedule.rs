//! What each step of a training does: its learning rate, what is hard, its pictures, its chance.
//!
//! Everything follows from the seed and the step's number, so that a resumed training needs no generator's state.
//! Not here: the doing (`trainer`).

use rand::seq::SliceRandom;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::loss::HARD_SHARE;

/// Share of the steps after which the learning rate falls to a tenth.
const DECAY_AFTER: f64 = 0.95;
const DECAY: f64 = 0.1;
/// The share of the student's errors that are hard at first: with the paper's alone, a student far from the teacher
/// mends its few worst errors and leaves the rest for thousands of steps.
const HARD_SHARE_AT_FIRST: f64 = 0.1;
/// It falls to this share, in so many of the steps, and in [`LONGEST_APPROACH`] at most.
const HARD_SHARE_SOON: f64 = 0.01;
const APPROACH: f64 = 0.6;
const LONGEST_APPROACH: f64 = 6000.0;
/// The step from which the paper's share counts. Shorter trainings do better without it.
const PAPERS_FROM: u64 = 10_000;

/// What chance is asked for; each has a stream of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The order of the training pictures, once an epoch.
    TrainingOrder,
    /// The order of the penalty pictures, once an epoch.
    PenaltyOrder,
    /// The autoencoder's colour jitter.
    Jitter,
    /// Whether a penalty picture turns grey.
    Grey,
    /// The autoencoder's dropout.
    Dropout,
}

/// The plan of a training of `steps` steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The seed of all randomness.
    pub seed: u64,
    /// Steps in all.
    pub steps: u64,
    /// The learning rate at first.
    pub learning_rate: f64,
}

/// How fast a step learns, and from what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Adam's.
    pub learning_rate: f64,
    /// The share of the student's errors that are hard.
    pub hard_share: f64,
}

impl Schedule {
    /// The pace of `step`, counted from 0.
    pub fn pace(&self, step: u64) -> Pace {
        Pace { learning_rate: self.learning_rate(step), hard_share: self.hard_share(step) }
    }

    /// The share of the student's errors that are hard in `step`, counted from 0.
    pub fn hard_share(&self, step: u64) -> f64 {
        if step >= PAPERS_FROM {
            return HARD_SHARE;
        }
        let approach = (self.steps as f64 * APPROACH).min(LONGEST_APPROACH);
        let done = (step as f64 / approach).min(1.0);
        HARD_SHARE_AT_FIRST * (HARD_SHARE_SOON / HARD_SHARE_AT_FIRST).powf(done)
    }

    /// The learning rate of `step`, counted from 0: a tenth after 95 % of the steps.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let decay_at = ((self.steps as f64 * DECAY_AFTER) as u64).max(1);
        if step < decay_at { self.learning_rate } else { self.learning_rate * DECAY }
    }

    /// Which of `count` pictures `step` takes: every one once an epoch, in an order of its own each time.
    pub fn picture(&self, step: u64, count: usize, order: Purpose) -> usize {
        let count64 = count as u64;
        let mut pictures: Vec<usize> = (0..count).collect();
        pictures.shuffle(&mut self.chance(step / count64, order));
        pictures[(step % count64) as usize]
    }

    /// The generator of `step` (or epoch) for one purpose.
    pub fn chance(&self, step: u64, purpose: Purpose) -> ChaCha8Rng {
        // The seed of the purpose is drawn rather than added, so that near seeds share no stream.
        let mut seeds = ChaCha8Rng::seed_from_u64(self.seed);
        seeds.set_stream(purpose as u64);
        let mut rng = ChaCha8Rng::seed_from_u64(seeds.next_u64());
        rng.set_stream(step);
        rng
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    const SCHEDULE: Schedule = Schedule { seed: 5, steps: 1000, learning_rate: 1e-4 };

    #[test]
    fn the_learning_rate_falls_after_95_percent() {
        assert_eq!(SCHEDULE.learning_rate(949), 1e-4);
        assert!((SCHEDULE.learning_rate(950) - 1e-5).abs() < 1e-18);
        assert_eq!(Schedule { steps: 1, ..SCHEDULE }.learning_rate(0), 1e-4);
    }

    #[test]
    fn many_errors_are_hard_at_first_and_the_papers_few_in_long_trainings() {
        let near = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-9;
        assert!(near(SCHEDULE.hard_share(0), 0.1));
        assert!(near(SCHEDULE.hard_share(300), 0.1f64.powf(1.5)));
        assert!((600..1000).all(|step| near(SCHEDULE.hard_share(step), 0.01)));
        let papers = Schedule { steps: 70_000, ..SCHEDULE };
        assert!(near(papers.hard_share(6000), 0.01));
        assert_eq!((papers.hard_share(10_000), papers.hard_share(69_999)), (HARD_SHARE, HARD_SHARE));
        assert!((0..69_999).all(|step| papers.hard_share(step) >= papers.hard_share(step + 1)));
        assert!(near(Schedule { steps: 1, ..SCHEDULE }.hard_share(0), 0.1));
    }

    #[test]
    fn every_picture_comes_once_an_epoch() {
        let epoch = |e: u64| -> Vec<usize> {
            (0..20).map(|i| SCHEDULE.picture(20 * e + i, 20, Purpose::TrainingOrder)).collect()
        };
        let mut sorted = epoch(0);
        assert_ne!(sorted, epoch(1));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn steps_purposes_and_seeds_do_not_share_chance() {
        let mut draws: Vec<u64> = Vec::new();
        for seed in [5, 6] {
            for step in 0..50 {
                for purpose in [Purpose::Jitter, Purpose::Grey, Purpose::Dropout] {
                    draws.push(Schedule { seed, ..SCHEDULE }.chance(step, purpose).random());
                }
            }
        }
        draws.sort_unstable();
        draws.dedup();
        assert_eq!(draws.len(), 300);
    }
}

//! What a distillation can be told, each default here and nowhere else.

use serde::{Deserialize, Serialize};

use crate::efficientad::{Architecture, PdnSize};
use crate::frame::Size;

const MOST_STEPS: u64 = 10_000_000;
const MOST_PICTURES: u64 = 4096;
/// Sides that both backbones' strides and the networks' poolings divide.
const SIDES: std::ops::RangeInclusive<u32> = 64..=1024;
const SIDE_STEP: u32 = 32;
/// Below, hardly a patch lies whole in what the network sees.
const LEAST_UNPADDED_SIDE: u32 = 128;
/// Steps over which the learning rate rises at first, and their share where there are few.
const WARM_UP: f64 = 50.0;
const WARM_UP_SHARE: f64 = 0.05;
/// What remains of the learning rate at the very end.
const FINAL_RATE: f64 = 0.01;

/// How to distil.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// The teacher's network. Small is the paper's PDN-S.
    pub size: PdnSize,
    /// Steps. The paper's 60,000; a few thousand already make a useful teacher.
    pub steps: u64,
    /// Pictures a step. The paper's 16.
    pub batch: usize,
    /// The seed of all randomness: first weights, order, crops.
    pub seed: u64,
    /// Adam's learning rate. The paper's 1e-4; short distillations do better with up to 1e-3.
    pub learning_rate: f64,
    /// Share of the steps, at the end, over which the learning rate falls, 0 to 1. Not in the paper, whose 60,000 steps
    /// need it less.
    pub decay: f64,
    /// Pixels of a picture's side for the backbone; the teacher sees half as many. The paper's 512.
    pub side: u32,
    /// The least side of a crop, as a share of the picture's shorter side: variety where pictures are few.
    pub smallest_crop: f64,
    /// The greatest side of a crop, as a share of the picture's shorter side.
    pub largest_crop: f64,
    /// The greatest factor by which a crop is drawn out in one direction; 1 keeps every shape.
    pub stretch: f64,
    /// Share of pictures that lose their colour. The paper's 0.1.
    pub grey: f64,
    /// Whether half of the pictures are mirrored, and half turned upside down: parts lie in any direction.
    pub flips: bool,
    /// Whether the network's maps are padded to the backbone's, as in the paper; otherwise only the positions are compared
    /// that a detector computes, whose patches lie whole in the picture. Small pictures are mostly border.
    pub padded: bool,
    /// Pictures over which the backbone's channels are measured for their normalisation.
    pub measured: u64,
    /// Seconds between checkpoints: what a power cut may cost.
    #[serde(skip)]
    pub checkpoint_seconds: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            size: PdnSize::Small,
            steps: 60_000,
            batch: 16,
            seed: 0,
            learning_rate: 1e-4,
            decay: 0.2,
            side: 512,
            smallest_crop: 0.5,
            largest_crop: 1.0,
            stretch: 1.3,
            grey: 0.1,
            flips: true,
            padded: true,
            measured: 256,
            checkpoint_seconds: 60,
        }
    }
}

impl Options {
    /// All that is wrong: key, and what to do.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, wrong: bool, what: String| {
            if wrong {
                faults.push((key.to_owned(), what));
            }
        };
        let share = |v: f64| (0.0..=1.0).contains(&v);
        fault(
            "steps",
            !(1..=MOST_STEPS).contains(&self.steps),
            format!("{}: give 1 to {MOST_STEPS}", self.steps),
        );
        fault("batch", !(1..=256).contains(&self.batch), format!("{}: give 1 to 256 pictures", self.batch));
        fault(
            "learning_rate",
            !(self.learning_rate > 0.0 && self.learning_rate <= 1.0),
            format!("{}: give more than 0 and at most 1, such as 0.0001", self.learning_rate),
        );
        fault("decay", !share(self.decay), format!("{}: give a share from 0 to 1", self.decay));
        fault(
            "side",
            !SIDES.contains(&self.side) || !self.side.is_multiple_of(SIDE_STEP),
            format!(
                "{}: give a multiple of {SIDE_STEP} from {} to {}",
                self.side,
                SIDES.start(),
                SIDES.end()
            ),
        );
        fault(
            "side",
            !self.padded && self.side < LEAST_UNPADDED_SIDE,
            format!("{}: give at least {LEAST_UNPADDED_SIDE} without padding", self.side),
        );
        let crops =
            self.smallest_crop > 0.0 && self.smallest_crop <= self.largest_crop && share(self.largest_crop);
        let both = format!("{} to {}", self.smallest_crop, self.largest_crop);
        fault("smallest_crop", !crops, format!("crops of {both}: give shares above 0 and up to 1, in order"));
        fault(
            "stretch",
            !(1.0..=4.0).contains(&self.stretch),
            format!("{}: give a factor from 1 to 4", self.stretch),
        );
        fault("grey", !share(self.grey), format!("{}: give a share from 0 to 1", self.grey));
        fault(
            "measured",
            !(1..=MOST_PICTURES).contains(&self.measured),
            format!("{}: give 1 to {MOST_PICTURES} pictures", self.measured),
        );
        faults
    }

    /// The learning rate of `step`, counted from 0: a short rise, the plateau, a cosine down.
    pub(super) fn rate(&self, step: u64) -> f64 {
        let (step, steps) = (step as f64, self.steps as f64);
        let rise = ((step + 1.0) / WARM_UP.min(steps * WARM_UP_SHARE).max(1.0)).min(1.0);
        let into = (step - steps * (1.0 - self.decay)) / (steps * self.decay).max(1.0);
        let fall = (1.0 + (std::f64::consts::PI * into.clamp(0.0, 1.0)).cos()) / 2.0;
        self.learning_rate * rise * (FINAL_RATE + (1.0 - FINAL_RATE) * fall)
    }

    /// The network to distil into.
    pub fn architecture(&self) -> Architecture {
        let input = Size::new(Architecture::MIN_SIDE, Architecture::MIN_SIDE);
        Architecture::new(self.size, input).expect("the least side is legal: this is a bug")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_sound_and_all_faults_are_told_at_once() {
        assert_eq!(Options::default().faults(), []);
        let wrong = Options {
            steps: 0,
            batch: 0,
            learning_rate: f64::NAN,
            decay: -1.0,
            side: 500,
            smallest_crop: 0.9,
            largest_crop: 0.1,
            stretch: 0.5,
            grey: 2.0,
            measured: 0,
            ..Options::default()
        };
        let keys: Vec<String> = wrong.faults().into_iter().map(|f| f.0).collect();
        let expected = [
            "steps",
            "batch",
            "learning_rate",
            "decay",
            "side",
            "smallest_crop",
            "stretch",
            "grey",
            "measured",
        ];
        assert_eq!(keys, expected);
    }

    #[test]
    fn the_learning_rate_rises_stays_and_falls() {
        let options = Options { steps: 10_000, learning_rate: 1.0, decay: 0.5, ..Options::default() };
        assert!((options.rate(0) - 0.02).abs() < 1e-9);
        assert_eq!(options.rate(50), 1.0);
        assert_eq!(options.rate(5_000), 1.0);
        assert!((options.rate(7_500) - 0.505).abs() < 1e-9);
        assert!(options.rate(9_999) < 0.011);
        let constant = Options { decay: 0.0, ..options };
        assert_eq!(constant.rate(9_999), 1.0);
        assert_eq!(Options { steps: 1, decay: 0.0, learning_rate: 0.5, ..constant }.rate(0), 0.5);
    }
}

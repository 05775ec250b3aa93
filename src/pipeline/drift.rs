//! Drift: whether a line's pictures still look like those that its model learnt from, told before false alarms start.
//!
//! In: pictures as the networks see them, with their scores, one a second at most. Out: a warning, or that it is over.
//! Owned by the infer thread; costs a fraction of a millisecond a second. Models that were calibrated before it was
//! recorded what their pictures look like warn by their scores alone. Not here: whether one picture can be judged
//! (`imaging::fitness`).

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::efficientad::{HeldOut, Look, Spread};
use crate::frame::Picture;
use crate::imaging::{Appearance, appearance};
use crate::verdict::Threshold;

/// The least time between two pictures that count.
const EVERY: Duration = Duration::from_secs(1);
/// Pictures that the running mean, and the median of scores, are taken over: a minute of a line that does not rest.
const WINDOW: usize = 60;
/// Standard deviations by which the mean may be off; a warning is taken back at two thirds of it.
const LIMIT: f32 = 3.0;
const RELEASE: f32 = 2.0;
/// Spreads are at least this, or this share of the mean, whichever is more: a line under perfect light is no reason to
/// warn of a grey level.
const LEAST_SPREAD: f32 = 0.3;
const LEAST_SHARE: f32 = 0.015;

/// What a model's normal pictures and scores were like.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expected {
    pub(crate) look: Option<Look>,
    pub(crate) scores: HeldOut,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    /// How far off each thing is, where 1 warns.
    pub(crate) off: BTreeMap<&'static str, f32>,
    /// Set where the warning changes: its words, or that it is over.
    pub(crate) warning: Option<Option<String>>,
}

/// One thing that is watched.
struct Sign {
    name: &'static str,
    words: String,
    off: f32,
}

/// What a line's pictures were like lately.
#[derive(Debug)]
pub(crate) struct Drift {
    expected: Option<Expected>,
    seen: VecDeque<(Appearance, f32)>,
    last: Option<Instant>,
    /// What stands in the warning.
    warned: Vec<&'static str>,
}

impl Drift {
    pub(crate) fn new(expected: Option<Expected>) -> Self {
        Self { expected, seen: VecDeque::with_capacity(WINDOW), last: None, warned: Vec::new() }
    }

    /// Takes a picture, and its score beside what that was held against, into account if one is due; tells once there are enough of
    /// them.
    pub(crate) fn observe(
        &mut self,
        picture: &Picture,
        (score, threshold): (f32, Threshold),
        now: Instant,
    ) -> Option<Told> {
        if self.expected.is_none() || self.last.is_some_and(|last| now.duration_since(last) < EVERY) {
            return None;
        }
        self.last = Some(now);
        if self.seen.len() == WINDOW {
            self.seen.pop_front();
        }
        self.seen.push_back((appearance(picture), score));
        if self.seen.len() < WINDOW {
            return None;
        }
        let signs = self.signs(threshold);
        let off = signs.iter().map(|sign| (sign.name, sign.off)).collect();
        let limit = |name| if self.warned.contains(&name) { RELEASE / LIMIT } else { 1.0 };
        let (names, complaints): (Vec<_>, Vec<_>) =
            signs.into_iter().filter(|s| s.off > limit(s.name)).map(|s| (s.name, s.words)).unzip();
        let changed = names != self.warned;
        let warn = !names.is_empty();
        self.warned = names;
        let words = || {
            format!(
                "the line no longer looks as its model learnt it: {}; look at light, lens and position, or retrain",
                complaints.join(", ")
            )
        };
        Some(Told { off, warning: changed.then(|| warn.then(words)) })
    }

    fn signs(&self, threshold: Threshold) -> Vec<Sign> {
        let Some(Expected { look, scores }) = &self.expected else { return Vec::new() };
        let mean = |value: fn(&(Appearance, f32)) -> f32| {
            self.seen.iter().map(value).sum::<f32>() / self.seen.len() as f32
        };
        let mut signs = Vec::new();
        if let Some(look) = look {
            for (name, in_words, now, expected) in [
                ("brightness", "brightness", mean(|s| s.0.brightness), look.brightness),
                ("sharpness", "sharpness", mean(|s| s.0.sharpness), look.sharpness),
                ("red", "the share of red", mean(|s| s.0.red), look.red),
                ("blue", "the share of blue", mean(|s| s.0.blue), look.blue),
            ] {
                let Spread { mean, std } = expected;
                let spread = std.max(LEAST_SPREAD).max(LEAST_SHARE * mean.abs());
                let words = format!("{in_words} is {now:.1} instead of {mean:.1}");
                signs.push(Sign { name, words, off: (now - mean).abs() / (LIMIT * spread) });
            }
        }
        // Half-way from the usual score to the threshold, good parts begin to cross it. The median, since defects are none of it.
        let (now, usual) = (median(self.seen.iter().map(|s| s.1)), scores.median);
        let room = threshold.0 - usual;
        if room > 0.0 {
            let words = format!("scores are {now:.3} instead of {usual:.3} in the middle");
            let off = ((now - usual) / (room / 2.0)).max(0.0);
            signs.push(Sign { name: "score", words, off });
        }
        signs
    }
}

fn median(values: impl Iterator<Item = f32>) -> f32 {
    let mut values: Vec<f32> = values.collect();
    values.sort_by(f32::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Size;

    fn picture(rgb: [u8; 3]) -> Picture {
        Picture::new(Size::new(8, 8), rgb.repeat(64)).unwrap()
    }

    fn expected() -> Expected {
        let spread = |mean, std| Spread { mean, std };
        let third = spread(100.0 / 3.0, 0.1);
        Expected {
            look: Some(Look {
                brightness: spread(100.0, 1.0),
                sharpness: spread(0.0, 0.0),
                red: third,
                blue: third,
            }),
            scores: HeldOut {
                mean: 0.2,
                std: 0.05,
                min: 0.1,
                median: 0.2,
                max: 0.3,
                false_positive_rate: 0.0,
            },
        }
    }

    const THRESHOLD: Threshold = Threshold(0.6);

    /// Shows `count` pictures, one a second; gives what was told.
    fn show(
        drift: &mut Drift,
        rgb: [u8; 3],
        score: f32,
        count: usize,
        from: &mut Instant,
    ) -> Vec<Option<String>> {
        let picture = picture(rgb);
        let tell = |_| {
            *from += EVERY;
            drift.observe(&picture, (score, THRESHOLD), *from).and_then(|told| told.warning)
        };
        (0..count).filter_map(tell).collect()
    }

    #[test]
    fn a_change_of_light_is_told_once_and_taken_back_when_it_is_over() {
        let (mut drift, mut now) = (Drift::new(Some(expected())), Instant::now());
        assert_eq!(show(&mut drift, [100; 3], 0.2, 2 * WINDOW, &mut now), []);
        let told = show(&mut drift, [90; 3], 0.2, 2 * WINDOW, &mut now);
        assert!(told.len() == 1 && told[0].as_ref().unwrap().contains("brightness is"), "{told:?}");
        assert_eq!(show(&mut drift, [100; 3], 0.2, 2 * WINDOW, &mut now), [None]);
        let told = show(&mut drift, [110, 100, 80], 0.2, 2 * WINDOW, &mut now);
        assert!(told[0].as_ref().unwrap().contains("share of blue"), "{told:?}");
    }

    #[test]
    fn what_else_goes_wrong_is_told_while_the_first_complaint_stands() {
        let (mut drift, mut now) = (Drift::new(Some(expected())), Instant::now());
        show(&mut drift, [90; 3], 0.2, 2 * WINDOW, &mut now);
        let told = show(&mut drift, [90; 3], 0.5, 2 * WINDOW, &mut now);
        let both = told.last().unwrap().as_ref().unwrap();
        assert!(both.contains("brightness is") && both.contains("scores are"), "{told:?}");
        let told = show(&mut drift, [100; 3], 0.5, 2 * WINDOW, &mut now);
        let rest = told.last().unwrap().as_ref().unwrap();
        assert!(!rest.contains("brightness is") && rest.contains("scores are"), "{told:?}");
    }

    #[test]
    fn rising_scores_are_told_before_they_reach_the_threshold() {
        let without_look = Expected { look: None, ..expected() };
        let (mut drift, mut now) = (Drift::new(Some(without_look)), Instant::now());
        assert_eq!(show(&mut drift, [9; 3], 0.35, WINDOW, &mut now), []);
        let told = show(&mut drift, [9; 3], 0.45, WINDOW, &mut now);
        assert!(told[0].as_ref().unwrap().contains("scores are"), "{told:?}");
    }

    #[test]
    fn defects_among_the_parts_are_no_drift() {
        let (mut drift, mut now) = (Drift::new(Some(expected())), Instant::now());
        show(&mut drift, [100; 3], 0.2, WINDOW, &mut now);
        for _ in 0..WINDOW / 3 {
            assert_eq!(show(&mut drift, [100; 3], 0.2, 2, &mut now), []);
            assert_eq!(show(&mut drift, [100; 3], 1e6, 1, &mut now), []);
        }
    }

    #[test]
    fn scores_are_held_against_the_threshold_in_force() {
        let (mut drift, mut now) = (Drift::new(Some(expected())), Instant::now());
        show(&mut drift, [100; 3], 0.45, WINDOW - 1, &mut now);
        let mut next = |threshold| {
            now += EVERY;
            drift.observe(&picture([100; 3]), (0.45, Threshold(threshold)), now).unwrap().warning
        };
        assert_eq!(next(2.0), None, "a threshold that was raised by command leaves room");
        assert!(next(0.6).unwrap().unwrap().contains("scores are"));
        assert_eq!(next(2.0), Some(None));
    }

    #[test]
    fn how_far_off_the_line_is_is_told_before_it_is_too_far() {
        let mut drift = Drift::new(Some(expected()));
        let now = Instant::now();
        let look = |at: usize| drift.observe(&picture([97; 3]), (0.3, THRESHOLD), now + EVERY * at as u32);
        let told: Vec<Told> = (0..WINDOW).filter_map(look).collect();
        let [told] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(told.warning, None);
        assert_eq!(
            told.off.keys().copied().collect::<Vec<_>>(),
            ["blue", "brightness", "red", "score", "sharpness"]
        );
        // 3 grey levels, where 3 times 1.5 warn; 0.1 of the 0.2 that scores may rise.
        assert!((told.off["brightness"] - 3.0 / 4.5).abs() < 1e-3, "{told:?}");
        assert!((told.off["score"] - 0.5).abs() < 1e-3, "{told:?}");
    }

    #[test]
    fn pictures_between_two_that_are_due_cost_nothing() {
        let (mut drift, now) = (Drift::new(Some(expected())), Instant::now());
        for _ in 0..5 * WINDOW {
            assert_eq!(drift.observe(&picture([9; 3]), (0.0, THRESHOLD), now), None);
        }
        assert_eq!(drift.seen.len(), 1);
        assert_eq!(Drift::new(None).observe(&picture([9; 3]), (0.0, THRESHOLD), now), None);
    }
}

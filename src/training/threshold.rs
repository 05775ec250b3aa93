//! The threshold for a stated false-positive rate, from normal scores.
//!
//! In: scores of normal pictures that training never saw, and of some that it learnt. Out: the bundle's [`Calibration`]. Where
//! held-out scores suffice, an order statistic, which holds for any distribution; where they do not, a fitted tail (`tail`),
//! and the manifest says so. Held-out pictures are few and those learnt many: the former say where scores lie, both together
//! how they spread (`docs/adr/0010-threshold.md`). Not here: where the scores come from (`calibrate`).

use thiserror::Error;

use super::tail;
use crate::efficientad::manifest::{Calibration, HeldOut, Learnt, ThresholdMethod};
use crate::verdict::Threshold;

/// The share of normal parts that may be called anomalous, unless another is asked for: one in a thousand.
pub const FALSE_POSITIVE_RATE: f64 = 0.001;
/// Scores expected above the threshold from which on the empirical quantile is steady enough.
const ENOUGH_ABOVE: f64 = 10.0;
/// Scores from which on the highest tenth tells of the tail all that there is to know.
const ENOUGH_FOR_PEAKS: usize = 1000;
/// Scores below which a threshold is little more than a guess.
pub const FEW_SCORES: usize = 10;
/// What is added to the highest score where scores do not vary: the normalised maps' distance between the 0.9 and
/// the 0.995 quantile of normal pixels (paper §3.4).
const SPREAD_UNKNOWN: f64 = 0.1;
/// A model whose held-out scores are more than so many times those of what it learnt knows its pictures by heart: they tell
/// nothing of others.
const MOST_STRETCH: f64 = 3.0;

/// Why no threshold can be found.
#[derive(Debug, Error, PartialEq)]
pub enum ThresholdError {
    /// There are no scores.
    #[error("no held-out normal picture to find a threshold from: add normal pictures")]
    NoScores,
    /// The model is broken.
    #[error(
        "held-out picture {index} of {count} has a score that is no finite number: train the model again"
    )]
    NotFinite {
        /// Counted from 1.
        index: usize,
        /// Of how many.
        count: usize,
    },
    /// The rate makes no sense.
    #[error("a false-positive rate of {0} makes no sense: it must be above 0 and at most 0.5, such as 0.001")]
    Rate(f64),
}

/// Checks a false-positive rate before any work is done for it.
pub fn check_rate(rate: f64) -> Result<(), ThresholdError> {
    if rate > 0.0 && rate <= 0.5 { Ok(()) } else { Err(ThresholdError::Rate(rate)) }
}

/// The threshold that normal pictures like those of the `held_out` scores are expected to exceed at `rate` (0–0.5), with scores
/// of the same model on pictures that it `learnt`, of which there may be none.
pub fn find(held_out: &[f32], learnt: &[f32], rate: f64) -> Result<Calibration, ThresholdError> {
    check_rate(rate)?;
    if let Some(index) = held_out.iter().position(|s| !s.is_finite()) {
        return Err(ThresholdError::NotFinite { index: index + 1, count: held_out.len() });
    }
    let held_out = sorted(held_out);
    if held_out.is_empty() {
        return Err(ThresholdError::NoScores);
    }
    let n = held_out.len();
    let (method, learnt, estimate) = if n as f64 * rate >= ENOUGH_ABOVE {
        let found = tail::order_statistic(&held_out, rate);
        (ThresholdMethod::Quantile, None, found.expect("ten expected above leave one above: this is a bug"))
    } else {
        let told = (n < ENOUGH_FOR_PEAKS).then(|| pooled(&held_out, learnt)).flatten();
        let (learnt, estimate) = match told {
            Some((learnt, all)) => (Some(learnt), fitted(&all, rate)),
            None => (None, fitted(&held_out, rate)),
        };
        (ThresholdMethod::FittedTail, learnt, estimate)
    };
    let threshold = estimate.score as f32;
    Ok(Calibration {
        threshold: Threshold(threshold),
        method,
        false_positive_rate: rate,
        count: n as u64,
        confidence: estimate.confidence,
        held_out: summary(&held_out, threshold),
        learnt,
        look: None,
    })
}

fn sorted(scores: &[f32]) -> Vec<f64> {
    let mut sorted: Vec<f64> = scores.iter().map(|&s| f64::from(s)).collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// By the tail of `all` scores, which are sorted.
fn fitted(all: &[f64], rate: f64) -> tail::Estimate {
    let (n, highest) = (all.len(), all[all.len() - 1]);
    if all[0] == highest {
        return tail::Estimate { score: highest + SPREAD_UNKNOWN, confidence: 0.0 };
    }
    let peaks = (n >= ENOUGH_FOR_PEAKS).then(|| tail::peaks_over_threshold(all, n / 10, rate)).flatten();
    peaks.unwrap_or_else(|| tail::extreme_value(all, rate))
}

/// The scores of what a model learnt, summed up, and all scores in order, those stretched to where the ones that were held out
/// lie; none where they tell nothing of others.
///
/// They are stretched by the ratio of the means: the better a model knows its pictures, the lower they score and the less they
/// spread, both by the same factor. That they score higher than others is chance, and no reason to press them together.
fn pooled(held_out: &[f64], learnt: &[f32]) -> Option<(Learnt, Vec<f64>)> {
    let mut learnt: Vec<f64> = learnt.iter().map(|&s| f64::from(s)).filter(|s| s.is_finite()).collect();
    let mean = |scores: &[f64]| scores.iter().sum::<f64>() / scores.len() as f64;
    let own = mean(&learnt);
    let stretch = (mean(held_out) / own).max(1.0);
    // Without any, their mean is no number.
    if own.is_nan() || own <= 0.0 || stretch > MOST_STRETCH {
        return None;
    }
    let summary = Learnt { count: learnt.len() as u64, mean: own as f32, stretch: stretch as f32 };
    learnt.iter_mut().for_each(|score| *score *= stretch);
    learnt.extend_from_slice(held_out);
    learnt.sort_by(f64::total_cmp);
    Some((summary, learnt))
}

fn summary(sorted: &[f64], threshold: f32) -> HeldOut {
    let n = sorted.len();
    let mean = sorted.iter().sum::<f64>() / n as f64;
    let variance = sorted.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / n as f64;
    let above = sorted.iter().filter(|&&s| s > f64::from(threshold)).count();
    HeldOut {
        mean: mean as f32,
        std: variance.sqrt() as f32,
        min: sorted[0] as f32,
        median: ((sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0) as f32,
        max: sorted[n - 1] as f32,
        false_positive_rate: (above as f64 / n as f64) as f32,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::tail::tests::lognormal_draw;
    use super::*;

    fn spread(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i * 37 % n) as f32 / n as f32).collect()
    }

    #[test]
    fn the_method_follows_from_how_many_scores_there_are() {
        let many = find(&spread(20_000), &[], 0.001).unwrap();
        assert_eq!((many.method, many.count), (ThresholdMethod::Quantile, 20_000));
        assert!(many.held_out.false_positive_rate <= 0.001);
        for n in [2, 3, 20, 999, 1000, 5_000] {
            let few = find(&spread(n), &[], 0.001).unwrap();
            assert_eq!(few.method, ThresholdMethod::FittedTail);
            assert!(few.threshold.0 > 0.9 && few.threshold.0 < 20.0, "{n}: {few:?}");
        }
    }

    #[test]
    fn scores_that_do_not_vary_get_a_margin_and_no_confidence() {
        for scores in [vec![0.5], vec![0.5; 30]] {
            let found = find(&scores, &[], 0.001).unwrap();
            assert_eq!((found.threshold.0, found.confidence), (0.6, 0.0));
            assert_eq!((found.held_out.std, found.held_out.median), (0.0, 0.5));
        }
    }

    #[test]
    fn senseless_input_is_refused() {
        assert_eq!(find(&[], &[], 0.01), Err(ThresholdError::NoScores));
        assert_eq!(find(&[0.1, f32::NAN], &[], 0.01), Err(ThresholdError::NotFinite { index: 2, count: 2 }));
        for rate in [0.0, -1.0, 0.6, f64::NAN, f64::INFINITY] {
            assert!(matches!(find(&[0.1], &[], rate), Err(ThresholdError::Rate(_))));
        }
    }

    /// Log-normal scores of what a model learnt by `heart`: 1 for no better than anything else.
    fn scores(rng: &mut ChaCha8Rng, n: usize, heart: f64) -> Vec<f32> {
        (0..n).map(|_| (0.1 * heart * lognormal_draw(rng)) as f32).collect()
    }

    #[test]
    fn what_was_learnt_steadies_a_threshold_from_few_held_out_scores() {
        let right = 0.1 * (0.4 * 3.09_f64).exp();
        for heart in [1.0, 0.5] {
            let mut rng = ChaCha8Rng::seed_from_u64(7);
            let (mut alone, mut with) = (Vec::new(), Vec::new());
            for _ in 0..40 {
                let (held_out, learnt) = (scores(&mut rng, 12, 1.0), scores(&mut rng, 200, heart));
                alone.push(f64::from(find(&held_out, &[], 0.001).unwrap().threshold.0) / right);
                with.push(f64::from(find(&held_out, &learnt, 0.001).unwrap().threshold.0) / right);
            }
            let off = |thresholds: &[f64]| {
                let squares = thresholds.iter().map(|t| t.ln().powi(2)).sum::<f64>();
                (squares / thresholds.len() as f64).sqrt()
            };
            assert!(off(&with) < 0.6 * off(&alone), "{heart}: {} instead of {}", off(&with), off(&alone));
            assert!(off(&with) < 0.2, "{heart}: {}", off(&with));
        }
    }

    #[test]
    fn a_model_that_knows_its_pictures_by_heart_is_not_asked_about_them() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let (held_out, learnt) = (scores(&mut rng, 12, 1.0), scores(&mut rng, 200, 0.2));
        let alone = find(&held_out, &[], 0.001).unwrap();
        assert_eq!(find(&held_out, &learnt, 0.001).unwrap(), alone);
        assert_eq!(alone.learnt, None);
        let negative: Vec<f32> = learnt.iter().map(|score| -score).collect();
        assert_eq!(find(&held_out, &negative, 0.001).unwrap(), alone);
        assert_eq!(find(&held_out, &[f32::NAN], 0.001).unwrap(), alone);
    }

    #[test]
    fn one_held_out_score_is_enough_to_find_where_learnt_ones_would_lie() {
        let learnt = scores(&mut ChaCha8Rng::seed_from_u64(7), 200, 1.0);
        let found = find(&[0.15], &learnt, 0.001).unwrap();
        let told = found.learnt.unwrap();
        assert_eq!(told.count, 200);
        assert!((told.mean * told.stretch - 0.15).abs() < 1e-6, "{told:?}");
        assert!(found.threshold.0 > 0.3 && found.threshold.0 < 0.6, "{found:?}");
        // By chance lower than what was learnt: no reason to expect less of others.
        assert_eq!(find(&[0.05], &learnt, 0.001).unwrap().learnt.unwrap().stretch, 1.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn any_scores_have_a_finite_threshold_that_rises_as_the_rate_falls(
            scores in proptest::collection::vec(-1e3f32..1e3, 1..40),
            learnt in proptest::collection::vec(-1e3f32..1e3, 0..40),
        ) {
            let thresholds: Vec<f32> =
                [0.2, 0.01, 0.0001].map(|rate| find(&scores, &learnt, rate).unwrap().threshold.0).to_vec();
            prop_assert!(thresholds.iter().all(|t| t.is_finite()));
            prop_assert!(thresholds.windows(2).all(|w| w[0] <= w[1]), "{thresholds:?}");
        }
    }
}

//! The threshold for a stated false-positive rate, from held-out normal scores.
//!
//! In: scores of normal pictures that training never saw. Out: the bundle's [`Calibration`]. Where scores suffice, an
//! order statistic, which holds for any distribution; where they do not, a fitted tail (`tail`), and the manifest
//! says so. Not here: where the scores come from (`calibrate`).

use thiserror::Error;

use super::tail;
use crate::efficientad::manifest::{Calibration, HeldOut, ThresholdMethod};
use crate::verdict::Threshold;

/// The share of normal parts that may be called anomalous, unless another is asked for: one in a thousand.
pub const FALSE_POSITIVE_RATE: f64 = 0.001;
/// Scores expected above the threshold from which on the empirical quantile is steady enough.
const ENOUGH_ABOVE: f64 = 10.0;
/// Scores from which on their highest tenth shows how heavy the tail is.
const ENOUGH_FOR_SHAPE: usize = 250;
/// Scores below which a threshold is little more than a guess.
pub const FEW_SCORES: usize = 10;
/// What is added to the highest score where scores do not vary: the normalised maps' distance between the 0.9 and
/// the 0.995 quantile of normal pixels (paper §3.4).
const SPREAD_UNKNOWN: f64 = 0.1;

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

/// The threshold that normal pictures like those of `scores` are expected to exceed at `rate` (0–0.5).
pub fn find(scores: &[f32], rate: f64) -> Result<Calibration, ThresholdError> {
    check_rate(rate)?;
    if let Some(index) = scores.iter().position(|s| !s.is_finite()) {
        return Err(ThresholdError::NotFinite { index: index + 1, count: scores.len() });
    }
    let mut sorted: Vec<f64> = scores.iter().map(|&s| f64::from(s)).collect();
    sorted.sort_by(f64::total_cmp);
    let (&[lowest, ..], &[.., highest]) = (sorted.as_slice(), sorted.as_slice()) else {
        return Err(ThresholdError::NoScores);
    };
    let n = sorted.len();
    let (method, estimate) = if n as f64 * rate >= ENOUGH_ABOVE {
        let found = tail::order_statistic(&sorted, rate);
        (ThresholdMethod::Quantile, found.expect("ten expected above leave one above: this is a bug"))
    } else if lowest == highest {
        let guess = tail::Estimate { score: highest + SPREAD_UNKNOWN, confidence: 0.0 };
        (ThresholdMethod::FittedTail, guess)
    } else {
        let shaped =
            (n >= ENOUGH_FOR_SHAPE).then(|| tail::peaks_over_threshold(&sorted, n / 10, rate)).flatten();
        (ThresholdMethod::FittedTail, shaped.unwrap_or_else(|| tail::gumbel(&sorted, rate)))
    };
    let threshold = estimate.score as f32;
    Ok(Calibration {
        threshold: Threshold(threshold),
        method,
        false_positive_rate: rate,
        count: n as u64,
        confidence: estimate.confidence,
        held_out: summary(&sorted, threshold),
        look: None,
    })
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
    use super::*;
    use proptest::prelude::*;

    fn spread(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i * 37 % n) as f32 / n as f32).collect()
    }

    #[test]
    fn the_method_follows_from_how_many_scores_there_are() {
        let many = find(&spread(20_000), 0.001).unwrap();
        assert_eq!((many.method, many.count), (ThresholdMethod::Quantile, 20_000));
        assert!(many.held_out.false_positive_rate <= 0.001);
        for n in [2, 20, 249, 250, 5_000] {
            let few = find(&spread(n), 0.001).unwrap();
            assert_eq!(few.method, ThresholdMethod::FittedTail);
            assert!(few.threshold.0 > 0.9 && few.threshold.0 < 20.0, "{n}: {few:?}");
        }
    }

    #[test]
    fn scores_that_do_not_vary_get_a_margin_and_no_confidence() {
        for scores in [vec![0.5], vec![0.5; 30]] {
            let found = find(&scores, 0.001).unwrap();
            assert_eq!((found.threshold.0, found.confidence), (0.6, 0.0));
            assert_eq!((found.held_out.std, found.held_out.median), (0.0, 0.5));
        }
    }

    #[test]
    fn senseless_input_is_refused() {
        assert_eq!(find(&[], 0.01), Err(ThresholdError::NoScores));
        assert_eq!(find(&[0.1, f32::NAN], 0.01), Err(ThresholdError::NotFinite { index: 2, count: 2 }));
        for rate in [0.0, -1.0, 0.6, f64::NAN, f64::INFINITY] {
            assert!(matches!(find(&[0.1], rate), Err(ThresholdError::Rate(_))));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn any_scores_have_a_finite_threshold_that_rises_as_the_rate_falls(
            scores in proptest::collection::vec(-1e3f32..1e3, 1..40),
        ) {
            let thresholds: Vec<f32> =
                [0.2, 0.01, 0.0001].map(|rate| find(&scores, rate).unwrap().threshold.0).to_vec();
            prop_assert!(thresholds.iter().all(|t| t.is_finite()));
            prop_assert!(thresholds.windows(2).all(|w| w[0] <= w[1]), "{thresholds:?}");
        }
    }
}

//! What several commands say of a model, in words.

use crate::efficientad::{Calibration, ThresholdMethod};

/// A threshold and what it rests on.
pub(super) fn threshold(calibration: &Calibration) -> String {
    let Calibration { threshold, method, false_positive_rate, count, confidence, learnt, .. } = calibration;
    let how = match method {
        ThresholdMethod::Quantile => "their quantile",
        ThresholdMethod::FittedTail => "a tail fitted to them, since they are few",
        ThresholdMethod::Given => return format!("{:.4}, as given", threshold.0),
    };
    let learnt = learnt.map(|learnt| format!(" and {} learnt ones", learnt.count)).unwrap_or_default();
    format!(
        "{:.4} for {} of normal parts called anomalous, from {count} held-out pictures{learnt} ({how}; {:.0} % sure of no more)",
        threshold.0,
        percent(*false_positive_rate),
        100.0 * confidence,
    )
}

fn percent(share: f64) -> String {
    // Rounded first, because 0.07 × 100 is 7.000000000000001.
    format!("{} %", (share * 1e8).round() / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::threshold::find;

    #[test]
    fn shares_are_told_without_noise() {
        assert_eq!([0.001, 0.07, 0.00025].map(percent), ["0.1 %", "7 %", "0.025 %"]);
    }

    #[test]
    fn a_threshold_comes_with_what_it_rests_on() {
        let scores: Vec<f32> = (0..20).map(|n| 1.0 + n as f32 / 20.0).collect();
        let told = threshold(&find(&scores, &[], 0.001).unwrap());
        assert!(
            told.contains(" for 0.1 % of normal parts") && told.contains("from 20 held-out pictures ("),
            "{told}"
        );
        let told = threshold(&find(&scores, &[0.5, 0.6, 1.1], 0.001).unwrap());
        assert!(told.contains("20 held-out pictures and 3 learnt ones"), "{told}");
    }
}

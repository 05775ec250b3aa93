//! The upper tail of normal scores, from few of them.
//!
//! A picture's score is the maximum of its map, so extreme-value theory says how it is distributed: near a generalised
//! extreme-value distribution, and beyond a high threshold, where there are enough to look at those alone, near a generalised
//! Pareto one. Pure functions, seeded: the same scores give the same threshold.
//! Not here: which of the two is chosen (`threshold`).

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SIMULATIONS: usize = 2048;
/// Beyond thrice the distance that a known distribution would need, a threshold says only that pictures are missing.
const MOST_CAUTION: f64 = 3.0;
/// A shape counts as if so many more scores had been seen that follow a Gumbel distribution.
const SCORES_FOR_SHAPE: f64 = 200.0;
const EULER_GAMMA: f64 = 0.577_215_664_901_532_9;

/// A score that normal pictures exceed at some rate, and the probability that the true rate is no higher.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Estimate {
    pub(super) score: f64,
    pub(super) confidence: f64,
}

/// A generalised extreme-value distribution; one of shape 0 is a Gumbel distribution, and the greater the heavier its tail.
#[derive(Debug, Clone, Copy)]
struct ExtremeValue {
    location: f64,
    scale: f64,
    shape: f64,
}

impl ExtremeValue {
    const GUMBEL: Self = Self { location: 0.0, scale: 1.0, shape: 0.0 };

    /// By L-moments, which a single outlier moves less than it moves a likelihood: Hosking, Wallis & Wood, "Estimation of the
    /// generalized extreme-value distribution by the method of probability-weighted moments" (1985). The shape is drawn
    /// towards zero, for which few scores say little against it.
    fn fit(sorted: &[f64]) -> Self {
        let n = sorted.len() as f64;
        let (mut b0, mut b1, mut b2) = (0.0, 0.0, 0.0);
        for (i, x) in sorted.iter().enumerate() {
            let i = i as f64;
            b0 += x;
            b1 += i * x;
            b2 += i * (i - 1.0) * x;
        }
        let (b0, b1, b2) = (b0 / n, b1 / (n * (n - 1.0)), b2 / (n * (n - 1.0) * (n - 2.0)));
        let l_scale = 2.0 * b1 - b0;
        let skewness = (6.0 * b2 - 6.0 * b1 + b0) / l_scale;
        let c = 2.0 / (3.0 + skewness) - std::f64::consts::LN_2 / 3f64.ln();
        let k = (7.8590 * c + 2.9554 * c * c) * n / (n + SCORES_FOR_SHAPE);
        // Of two, skewness is no number.
        if k.is_nan() || k.abs() < 1e-6 {
            let scale = l_scale / std::f64::consts::LN_2;
            return Self { location: b0 - EULER_GAMMA * scale, scale, shape: 0.0 };
        }
        let gamma = libm::tgamma(1.0 + k);
        let scale = l_scale * k / ((1.0 - 2f64.powf(-k)) * gamma);
        Self { location: b0 - scale * (1.0 - gamma) / k, scale, shape: -k }
    }

    /// The score exceeded at `rate`.
    fn quantile(self, rate: f64) -> f64 {
        let y = -(-rate).ln_1p();
        let reduced = if self.shape == 0.0 { -y.ln() } else { (y.powf(-self.shape) - 1.0) / self.shape };
        self.location + self.scale * reduced
    }

    /// The rate at which `score` is exceeded.
    fn exceedance(self, score: f64) -> f64 {
        let reduced = (score - self.location) / self.scale;
        let y = if self.shape == 0.0 {
            (-reduced).exp()
        } else {
            (1.0 + self.shape * reduced).max(0.0).powf(-1.0 / self.shape)
        };
        -(-y).exp_m1()
    }

    fn draw(self, rng: &mut ChaCha8Rng, n: usize) -> Vec<f64> {
        let mut sample: Vec<f64> = (0..n).map(|_| self.quantile(unit(rng))).collect();
        sample.sort_by(f64::total_cmp);
        sample
    }
}

/// Uniform in the open interval (0, 1).
fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.random::<u32>() as f64 + 0.5) / 4_294_967_296.0
}

/// The score exceeded at `rate`, if the `sorted` scores (two at least, not all equal) are maxima of something.
///
/// A fit to few scores misses the true tail, more often to the bad side. What is read off it is therefore the score of a lower
/// rate, such that the one asked for is met *on average over fits to as many scores* of a Gumbel distribution.
pub(super) fn extreme_value(sorted: &[f64], rate: f64) -> Estimate {
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let fits: Vec<ExtremeValue> = (0..SIMULATIONS)
        .map(|_| ExtremeValue::fit(&ExtremeValue::GUMBEL.draw(&mut rng, sorted.len())))
        .collect();
    let true_rate = |fit: &ExtremeValue, read: f64| ExtremeValue::GUMBEL.exceedance(fit.quantile(read));
    let expected = |read: f64| fits.iter().map(|f| true_rate(f, read)).sum::<f64>() / SIMULATIONS as f64;

    // Logarithms of the rate that is read off.
    let (mut low, mut high) = (MOST_CAUTION * rate.ln(), rate.ln());
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if expected(middle.exp()) > rate { high = middle } else { low = middle }
    }
    let read = low.exp();
    let kept = fits.iter().filter(|f| true_rate(f, read) <= rate).count();
    let score = ExtremeValue::fit(sorted).quantile(read);
    Estimate { score, confidence: kept as f64 / SIMULATIONS as f64 }
}

/// Scale and shape of a generalised Pareto distribution.
#[derive(Debug, Clone, Copy)]
struct Pareto {
    scale: f64,
    shape: f64,
}

impl Pareto {
    /// Zhang & Stephens, "A new and efficient estimation method for the generalized Pareto distribution" (2009),
    /// with the shape drawn a little towards the Gumbel's zero, as strongly as ten scores would.
    fn fit(sorted: &[f64]) -> Self {
        let n = sorted.len();
        let (quartile, largest) = (sorted[n / 4], sorted[n - 1]);
        let candidates = 30 + (n as f64).sqrt() as usize;
        let shape_of = |theta: f64| sorted.iter().map(|x| (-theta * x).ln_1p()).sum::<f64>() / n as f64;
        let thetas: Vec<f64> = (0..candidates)
            .map(|j| (1.0 - (candidates as f64 / (j as f64 + 0.5)).sqrt()) / (3.0 * quartile) + 1.0 / largest)
            .collect();
        let likelihoods: Vec<f64> = thetas
            .iter()
            .map(|&theta| {
                let shape = shape_of(theta);
                n as f64 * ((-theta / shape).ln() - shape - 1.0)
            })
            .collect();
        let best = likelihoods.iter().copied().filter(|l| l.is_finite()).fold(f64::NEG_INFINITY, f64::max);
        let (mut weight, mut weighted) = (0.0, 0.0);
        for (theta, likelihood) in thetas.iter().zip(&likelihoods).filter(|(_, l)| l.is_finite()) {
            let w = (likelihood - best).exp();
            weight += w;
            weighted += w * theta;
        }
        let theta = weighted / weight;
        let shape = shape_of(theta);
        Self { scale: -shape / theta, shape: shape * n as f64 / (n as f64 + 10.0) }
    }

    /// The value exceeded with probability `rate`.
    fn quantile(self, rate: f64) -> f64 {
        if self.shape.abs() < 1e-9 {
            -rate.ln() * self.scale
        } else {
            self.scale * (rate.powf(-self.shape) - 1.0) / self.shape
        }
    }

    fn exceedance(self, value: f64) -> f64 {
        if self.shape.abs() < 1e-9 {
            (-value / self.scale).exp()
        } else {
            (1.0 + self.shape * value / self.scale).max(0.0).powf(-1.0 / self.shape)
        }
    }
}

/// The score exceeded at `rate`, if the highest `count` of the `sorted` scores follow a generalised Pareto
/// distribution; `None` where they are too equal to tell. `rate` is below the share that they make up.
pub(super) fn peaks_over_threshold(sorted: &[f64], count: usize, rate: f64) -> Option<Estimate> {
    let base = sorted[sorted.len() - count - 1];
    let excesses: Vec<f64> = sorted[sorted.len() - count..].iter().map(|s| s - base).collect();
    if excesses[count / 4] <= 0.0 {
        return None;
    }
    let fit = Pareto::fit(&excesses);
    let within = rate * sorted.len() as f64 / count as f64;
    let score = base + fit.quantile(within);
    if !score.is_finite() {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let simulations = SIMULATIONS / 4;
    let kept = (0..simulations)
        .filter(|_| {
            let mut sample: Vec<f64> = (0..count).map(|_| fit.quantile(unit(&mut rng))).collect();
            sample.sort_by(f64::total_cmp);
            fit.exceedance(Pareto::fit(&sample).quantile(within)) <= within
        })
        .count();
    Some(Estimate { score, confidence: kept as f64 / simulations as f64 })
}

/// The smallest of the `sorted` scores that a further score of the same origin exceeds with probability `rate` at
/// most, whatever the distribution: of n+1 exchangeable scores each is equally likely to be the highest. `None`
/// where there are fewer than 1/rate − 1.
pub(super) fn order_statistic(sorted: &[f64], rate: f64) -> Option<Estimate> {
    let n = sorted.len();
    let above = (rate * (n + 1) as f64).floor() as usize;
    let index = n.checked_sub(above).filter(|_| above > 0)?;
    // The true rate at that score is Beta(above, n + 1 − above), whose distribution function is a binomial tail.
    let (mut term, mut below) = (n as f64 * (-rate).ln_1p(), 0.0);
    for k in 0..above {
        below += term.exp();
        term += ((n - k) as f64 / (k + 1) as f64).ln() + rate.ln() - (-rate).ln_1p();
    }
    Some(Estimate { score: sorted[index], confidence: (1.0 - below).clamp(0.0, 1.0) })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The mean true rate over many draws of `n` scores by `draw`, and the mean stated confidence with the share of
    /// draws in which the rate was really kept.
    fn trial(
        draws: u64,
        n: usize,
        draw: fn(&mut ChaCha8Rng) -> f64,
        exceedance: fn(f64) -> f64,
        estimate: impl Fn(&[f64]) -> Estimate,
        rate: f64,
    ) -> (f64, f64, f64) {
        let (mut rates, mut kept, mut confidence) = (0.0, 0.0, 0.0);
        for seed in 0..draws {
            let mut rng = ChaCha8Rng::seed_from_u64(100 + seed);
            let mut scores: Vec<f64> = (0..n).map(|_| draw(&mut rng)).collect();
            scores.sort_by(f64::total_cmp);
            let e = estimate(&scores);
            let truth = exceedance(e.score);
            rates += truth;
            kept += f64::from(truth <= rate);
            confidence += e.confidence;
        }
        let draws = draws as f64;
        (rates / draws, confidence / draws, kept / draws)
    }

    const GUMBEL: ExtremeValue = ExtremeValue { location: 3.0, scale: 0.5, shape: 0.0 };

    fn gumbel_draw(rng: &mut ChaCha8Rng) -> f64 {
        GUMBEL.quantile(unit(rng))
    }

    fn gumbel_exceedance(x: f64) -> f64 {
        GUMBEL.exceedance(x)
    }

    /// Of median 1, its logarithm of standard deviation 0.4.
    pub(in crate::training) fn lognormal_draw(rng: &mut ChaCha8Rng) -> f64 {
        let (a, b) = (unit(rng), unit(rng));
        (0.4 * (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()).exp()
    }

    /// By Abramowitz & Stegun 7.1.26, good to 1.5e-7.
    fn lognormal_exceedance(x: f64) -> f64 {
        let z = x.ln() / 0.4 / std::f64::consts::SQRT_2;
        let t = 1.0 / (1.0 + 0.327_591_1 * z.abs());
        let series = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
        let tail = series.iter().fold(0.0, |sum, c| sum * t + c) * t * (-z * z).exp() / 2.0;
        if z > 0.0 { tail } else { 1.0 - tail }
    }

    #[test]
    fn twenty_gumbel_scores_keep_the_rate_on_average() {
        let (rate, confidence, kept) =
            trial(60, 20, gumbel_draw, gumbel_exceedance, |s| extreme_value(s, 0.001), 0.001);
        assert!((0.0003..0.003).contains(&rate), "{rate}");
        assert!((confidence - kept).abs() < 0.2, "states {confidence}, keeps {kept}");
    }

    #[test]
    fn a_distribution_is_recognised_by_many_of_its_scores() {
        for shape in [-0.2, 0.0, 0.2] {
            let truth = ExtremeValue { location: 0.1, scale: 0.03, shape };
            let fit = ExtremeValue::fit(&truth.draw(&mut ChaCha8Rng::seed_from_u64(3), 20_000));
            let close = |a: f64, b: f64, by: f64| (a - b).abs() < by;
            assert!(close(fit.shape, shape, 0.02) && close(fit.location, 0.1, 1e-3), "{fit:?} for {truth:?}");
            assert!(close(fit.scale, 0.03, 1e-3), "{fit:?} for {truth:?}");
            assert!(close(truth.exceedance(truth.quantile(0.01)), 0.01, 1e-12), "{truth:?}");
        }
    }

    #[test]
    fn a_heavier_tail_is_told_by_some_hundred_scores() {
        let (rate, confidence, kept) =
            trial(60, 240, lognormal_draw, lognormal_exceedance, |s| extreme_value(s, 0.001), 0.001);
        assert!((0.0005..0.002).contains(&rate), "{rate}");
        assert!((confidence - kept).abs() < 0.2, "states {confidence}, keeps {kept}");
    }

    #[test]
    fn scores_of_a_heavier_tail_stay_within_a_few_times_the_rate() {
        let (rate, _, _) =
            trial(40, 25, lognormal_draw, lognormal_exceedance, |s| extreme_value(s, 0.001), 0.001);
        assert!(rate < 0.006, "{rate}");
    }

    #[test]
    fn the_shape_of_a_heavier_tail_is_learned_where_scores_are_many() {
        let estimate = |s: &[f64]| peaks_over_threshold(s, 60, 0.001).unwrap();
        let (rate, confidence, kept) = trial(40, 600, lognormal_draw, lognormal_exceedance, estimate, 0.001);
        assert!((0.0004..0.0025).contains(&rate), "{rate}");
        assert!((confidence - kept).abs() < 0.25, "states {confidence}, keeps {kept}");
        let (rate, _, _) = trial(40, 600, gumbel_draw, gumbel_exceedance, estimate, 0.001);
        assert!((0.0004..0.0025).contains(&rate), "{rate}");
    }

    #[test]
    fn an_order_statistic_keeps_any_distributions_rate() {
        let estimate = |s: &[f64]| order_statistic(s, 0.05).unwrap();
        let (rate, confidence, kept) = trial(400, 300, unit, |x| 1.0 - x, estimate, 0.05);
        assert!((0.045..0.052).contains(&rate), "{rate}");
        assert!((confidence - kept).abs() < 0.08, "states {confidence}, keeps {kept}");
        assert_eq!(order_statistic(&[1.0, 2.0], 0.1), None);
        assert_eq!(order_statistic(&[1.0, 2.0, 3.0], 0.5).unwrap().score, 2.0);
    }

    #[test]
    fn equal_peaks_tell_nothing_of_a_tail() {
        assert_eq!(peaks_over_threshold(&vec![1.0; 300], 30, 0.001), None);
    }
}

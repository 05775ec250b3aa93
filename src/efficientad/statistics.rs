//! Quantiles and channel statistics, exact where an approximation would move thresholds.

use candle_core::{DType, Result, Tensor};

/// The `q` quantile (0–1) of `values` with linear interpolation, as `torch.quantile`; reorders them, in linear time.
/// `None` if there are none.
pub fn quantile(values: &mut [f32], q: f64) -> Option<f32> {
    let last = values.len().checked_sub(1)?;
    let position = q.clamp(0.0, 1.0) * last as f64;
    let below = (position.floor() as usize).min(last);
    let (_, &mut low, above) = values.select_nth_unstable_by(below, f32::total_cmp);
    let high = above.iter().copied().min_by(f32::total_cmp).unwrap_or(low);
    Some((f64::from(low) + (f64::from(high) - f64::from(low)) * (position - below as f64)) as f32)
}

/// Mean and population standard deviation per channel over `pictures` feature tensors `[b, C, h, w]`, in f64 and two
/// passes: `features(i)` is asked twice for each `i`, because one pass of `E[x²]−E[x]²` cancels.
pub fn channel_statistics(
    pictures: usize,
    mut features: impl FnMut(usize) -> Result<Tensor>,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let mut mean_of = |term: &dyn Fn(usize, f64) -> f64| -> Result<Vec<f64>> {
        let (mut sums, mut count) = (Vec::new(), 0);
        for i in 0..pictures {
            let features = features(i)?.detach().to_dtype(DType::F32)?;
            let (b, channels, h, w) = features.dims4()?;
            let values = features.flatten_all()?.to_vec1::<f32>()?;
            sums.resize(channels, 0.0);
            count += b * h * w;
            for (at, plane) in values.chunks_exact(h * w).enumerate() {
                let channel = at % channels;
                sums[channel] += plane.iter().map(|&v| term(channel, f64::from(v))).sum::<f64>();
            }
        }
        Ok(sums.into_iter().map(|sum| sum / count as f64).collect())
    };
    let mean = mean_of(&|_, v| v)?;
    let variance = mean_of(&|channel, v| (v - mean[channel]).powi(2))?;
    Ok((mean.iter().map(|&m| m as f32).collect(), variance.iter().map(|v| v.sqrt() as f32).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn a_quantile_interpolates_between_its_neighbours() {
        assert_eq!(quantile(&mut [], 0.5), None);
        assert_eq!(quantile(&mut [7.0], 0.9), Some(7.0));
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0, 4.0], 0.5), Some(2.5));
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0, 4.0], 1.0), Some(4.0));
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0, 4.0], 0.0), Some(1.0));
    }

    #[test]
    fn channel_statistics_do_not_cancel_far_from_zero() {
        let x = Tensor::new(&[[[[1e4f32, 1e4 + 0.5]], [[-1.0, 3.0]]]], &Device::Cpu).unwrap();
        let (mean, std) = channel_statistics(3, |_| Ok(x.clone())).unwrap();
        assert_eq!((mean[0], std[0]), (10000.25, 0.25));
        assert_eq!((mean[1], std[1]), (1.0, 2.0));
    }

    proptest::proptest! {
        #[test]
        fn a_quantile_equals_the_sorted_definition(
            mut values in proptest::collection::vec(-1e3f32..1e3, 1..200), q in 0.0f64..=1.0,
        ) {
            let mut sorted = values.clone();
            sorted.sort_by(f32::total_cmp);
            let at = q * (sorted.len() - 1) as f64;
            let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
            let expected = f64::from(low) + f64::from(high - low) * at.fract();
            let got = quantile(&mut values, q).unwrap();
            proptest::prop_assert!((f64::from(got) - expected).abs() < 1e-3);
        }
    }
}

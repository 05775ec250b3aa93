//! What the network is to learn: descriptors, normalised per channel over a sample of pictures.

use candle_core::{DType, Device, Result, Tensor};

use crate::efficientad::{Describer, Weight, Weights};
use crate::frame::Picture;

/// Channels that hardly ever change are not blown up beyond this.
const LEAST_DEVIATION: f64 = 1e-6;
/// What the statistics are called in a checkpoint.
const NAMES: [&str; 2] = ["target.mean", "target.std"];

/// Running mean and sum of squared deviations per channel, in f64.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Moments {
    count: f64,
    channels: Vec<(f64, f64)>,
}

impl Moments {
    /// Takes in descriptors `[b, C, h, w]`: two passes over them, then merged, so that nothing cancels (Chan et al.).
    pub(super) fn add(&mut self, descriptors: &Tensor) -> Result<()> {
        let (b, channels, h, w) = descriptors.dims4()?;
        let planes = descriptors.to_dtype(DType::F32)?.transpose(0, 1)?.reshape((channels, b * h * w))?;
        let planes = planes.to_device(&Device::Cpu)?.to_vec2::<f32>()?;
        let new = (b * h * w) as f64;
        self.channels.resize(channels, (0.0, 0.0));
        let all = self.count + new;
        for ((mean, squares), plane) in self.channels.iter_mut().zip(planes) {
            let here = plane.iter().map(|&v| f64::from(v)).sum::<f64>() / new;
            let spread: f64 = plane.iter().map(|&v| (f64::from(v) - here).powi(2)).sum();
            let difference = here - *mean;
            *mean += difference * new / all;
            *squares += spread + difference * difference * self.count * new / all;
        }
        self.count = all;
        Ok(())
    }

    fn finish(&self) -> [Vec<f32>; 2] {
        let deviation = |squares: f64| (squares / self.count).sqrt().max(LEAST_DEVIATION) as f32;
        [
            self.channels.iter().map(|(mean, _)| *mean as f32).collect(),
            self.channels.iter().map(|(_, squares)| deviation(*squares)).collect(),
        ]
    }
}

/// Descriptors, less their channels' means, over their deviations.
#[derive(Debug)]
pub(super) struct Target {
    describer: Describer,
    statistics: [Tensor; 2],
}

impl Target {
    /// Normalised by what was measured.
    pub(super) fn new(describer: Describer, moments: &Moments, device: &Device) -> Result<Self> {
        let [mean, std] = moments.finish();
        Self::with(describer, [&mean, &std], device)
    }

    fn with(describer: Describer, statistics: [&[f32]; 2], device: &Device) -> Result<Self> {
        let [mean, std] =
            statistics.map(|values| Tensor::from_slice(values, (1, values.len(), 1, 1), device));
        Ok(Self { describer, statistics: [mean?, std?] })
    }

    /// Normalised as in the run that wrote `state`.
    ///
    /// # Errors
    /// The statistics are missing or of another network.
    pub(super) fn restore(describer: Describer, state: &Weights, device: &Device) -> Result<Self> {
        let find = |name: &str| match state.get(name) {
            Some(w) if w.values.len() == describer.features() => Ok(w.values.clone()),
            _ => candle_core::bail!("tensor `{name}` is missing or has another shape"),
        };
        let (mean, std) = (find(NAMES[0])?, find(NAMES[1])?);
        Self::with(describer, [&mean, &std], device)
    }

    /// Copies the statistics into `state`.
    pub(super) fn save(&self, state: &mut Weights) -> Result<()> {
        for (name, tensor) in NAMES.iter().zip(&self.statistics) {
            let values = tensor.flatten_all()?.to_vec1::<f32>()?;
            state.insert(*name, Weight { dims: vec![values.len()], values });
        }
        Ok(())
    }

    /// The target for pictures of the backbone's size: `[b, C, H/8, W/8]`.
    pub(super) fn of(&self, pictures: &[&Picture]) -> Result<Tensor> {
        let [mean, std] = &self.statistics;
        self.describer.describe(pictures)?.broadcast_sub(mean)?.broadcast_div(std)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_to_the_whole_far_from_zero() {
        let values: Vec<f32> = (0..48).map(|i| 1e4 + (i as f32 * 0.7).sin()).collect();
        let all = Tensor::from_vec(values.clone(), (4, 2, 2, 3), &Device::Cpu).unwrap();
        let mut parts = Moments::default();
        for (from, pictures) in [(0, 1), (1, 2), (3, 1)] {
            parts.add(&all.narrow(0, from, pictures).unwrap()).unwrap();
        }
        let [mean, std] = parts.finish();
        for channel in 0..2 {
            let of_channel: Vec<f64> =
                values.chunks_exact(6).skip(channel).step_by(2).flatten().map(|&v| f64::from(v)).collect();
            let expected = of_channel.iter().sum::<f64>() / 24.0;
            let spread = of_channel.iter().map(|v| (v - expected).powi(2)).sum::<f64>() / 24.0;
            assert!((f64::from(mean[channel]) - expected).abs() < 1e-3);
            assert!((f64::from(std[channel]) - spread.sqrt()).abs() < 1e-6);
        }
    }

    #[test]
    fn a_constant_channel_does_not_divide_by_zero() {
        let mut moments = Moments::default();
        moments.add(&Tensor::ones((2, 1, 2, 2), DType::F32, &Device::Cpu).unwrap()).unwrap();
        assert_eq!(moments.finish()[1], [1e-6]);
    }
}

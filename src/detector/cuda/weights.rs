//! Weights as the kernels read them: halves, in steps of 32 inputs, outputs in the order that suits a thread.
//!
//! Activations are kept near one by powers of two, so that no half overflows: ReLU, pools and resizes commute with a positive
//! factor, and what a layer's outputs are scaled by, the next layer's weights take back. Pure; runs once, at load.
//! Not here: memory of the card.

use half::f16;

use super::super::filters::Filters;

/// Channels come by so many; those beyond the network's are zero.
pub(super) const CHANNELS: usize = 32;
/// Halves of one pixel of the canvas, and of four pixels by four rows.
const PIXEL: usize = 4;
const WINDOW: usize = 64;

/// `channels`, with those that fill up the last 32.
pub(super) fn padded(channels: usize) -> usize {
    channels.next_multiple_of(CHANNELS)
}

/// The channel of each 32 that a row of packed weights makes: thread q of four holds columns 2q and 2q + 1 of each of the
/// four products of eight columns, and these shall be its channels 8q … 8q + 7.
fn channel_of(row: usize) -> usize {
    let (product, column) = (row % CHANNELS / 8, row % 8);
    row / CHANNELS * CHANNELS + column / 2 * 8 + product * 2 + column % 2
}

/// One layer, packed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Packed {
    pub(super) weights: Vec<f16>,
    pub(super) bias: Vec<f32>,
    /// Steps of the sum.
    pub(super) steps: usize,
}

impl Packed {
    /// A number of outputs that is a multiple of 32.
    pub(super) fn outputs(&self) -> usize {
        self.bias.len()
    }
}

/// Inputs of a layer: filters over one source, and what that source's values are scaled by.
pub(super) struct Part<'a> {
    pub(super) filters: &'a Filters,
    pub(super) scale: f64,
    /// 1, or −1 where this part is to be subtracted.
    pub(super) sign: f64,
}

/// The sum of the parts, scaled by `scale`, for the general kernel: `[outputs][source, row, column, channel]`.
pub(super) fn pack(parts: &[Part<'_>], scale: f64) -> Packed {
    let outputs = parts[0].filters.outputs();
    let steps = parts.iter().map(steps_of).sum::<usize>();
    let mut weights = Vec::with_capacity(padded(outputs) * steps * CHANNELS);
    for row in 0..padded(outputs) {
        let output = channel_of(row);
        for part in parts {
            let filters = part.filters;
            let factor = part.sign * scale / part.scale;
            for tap in 0..filters.kernel * filters.kernel {
                weights.extend((0..padded(filters.inputs())).map(|input| {
                    let there = output < outputs && input < filters.inputs();
                    f16::from_f64(if there { factor * filters.filter(output, input)[tap] } else { 0.0 })
                }));
            }
        }
    }
    let bias = (0..padded(outputs)).map(|output| {
        let of = |part: &Part<'_>| part.sign * part.filters.bias.get(output).copied().unwrap_or(0.0);
        (scale * parts.iter().map(of).sum::<f64>()) as f32
    });
    Packed { bias: bias.collect(), weights, steps }
}

fn steps_of(part: &Part<'_>) -> usize {
    part.filters.kernel * part.filters.kernel * (padded(part.filters.inputs()) / CHANNELS)
}

/// Layers that read the picture, side by side, each with its scale: `[outputs][4 rows][4 pixels][4]`.
pub(super) fn pack_first(layers: &[(&Filters, f64)]) -> Packed {
    let (mut weights, mut bias) = (Vec::new(), Vec::new());
    for (filters, scale) in layers {
        assert!(
            filters.kernel == 4 && filters.inputs() < PIXEL,
            "a layer that reads no picture: this is a bug"
        );
        for row in 0..padded(filters.outputs()) {
            let output = channel_of(row);
            weights.extend((0..WINDOW).map(|i| {
                let (tap, input) = (i / PIXEL, i % PIXEL);
                let there = output < filters.outputs() && input < filters.inputs();
                f16::from_f64(if there { scale * filters.filter(output, input)[tap] } else { 0.0 })
            }));
            bias.push((scale * filters.bias.get(row).copied().unwrap_or(0.0)) as f32);
        }
    }
    Packed { weights, bias, steps: WINDOW / CHANNELS }
}

/// How large a layer's outputs are expected to be, and the scale that brings them near one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Size {
    /// The root mean square of the largest channel, unscaled.
    rms: f64,
    /// A power of two.
    pub(super) scale: f64,
}

impl Size {
    /// Of the normalised picture.
    pub(super) const PICTURE: Self = Self { rms: 1.0, scale: 1.0 };

    /// Of the outputs of `filters` over inputs of this size, taking inputs for independent. They are not quite, but a
    /// half is good for a factor of 65,504.
    pub(super) fn after(self, filters: &Filters) -> Self {
        let variance = |output: usize| {
            let weights = (0..filters.inputs()).flat_map(|input| filters.filter(output, input));
            weights.map(|w| w * w).sum::<f64>() * self.rms * self.rms + filters.bias[output].powi(2)
        };
        let rms = (0..filters.outputs()).map(variance).fold(0.0, f64::max).sqrt();
        let rms = if rms.is_normal() { rms } else { 1.0 };
        Self { rms, scale: (-rms.log2().ceil()).clamp(-60.0, 60.0).exp2() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_eight_neighbouring_channels() {
        for quad in 0..4 {
            let mut channels: Vec<_> = (0..4)
                .flat_map(|product| [0, 1].map(|e| channel_of(32 + product * 8 + 2 * quad + e)))
                .collect();
            assert!(channels.is_sorted());
            channels.dedup();
            assert_eq!(channels, (0..8).map(|i| 32 + quad * 8 + i).collect::<Vec<_>>());
        }
    }

    fn filters(outputs: usize, inputs: usize, kernel: usize, value: f64) -> Filters {
        let values = (0..outputs * inputs * kernel * kernel).map(|i| value + i as f64).collect();
        Filters::new(kernel, inputs, (0..outputs).map(|o| o as f64).collect(), values)
    }

    #[test]
    fn a_difference_of_layers_is_one_layer_over_both_sources() {
        let (a, b) = (filters(3, 2, 2, 0.0), filters(3, 33, 1, 5.0));
        let parts =
            [Part { filters: &a, scale: 2.0, sign: 1.0 }, Part { filters: &b, scale: 1.0, sign: -1.0 }];
        let packed = pack(&parts, 4.0);
        assert_eq!((packed.outputs(), packed.steps), (32, 4 + 2));
        // Row 8 of the first 32 is output 2.
        assert_eq!(channel_of(8), 2);
        let row = &packed.weights[8 * 6 * 32..][..6 * 32];
        let number = |i: usize| row[i].to_f64();
        assert_eq!(number(0), 2.0 * a.filter(2, 0)[0]);
        assert_eq!(number(32 + 1), 2.0 * a.filter(2, 1)[1]);
        assert_eq!(number(4 * 32 + 32), -4.0 * b.filter(2, 32)[0]);
        assert_eq!((number(2), number(4 * 32 + 33)), (0.0, 0.0));
        assert_eq!(packed.bias[..4], [0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn scales_keep_activations_near_one_whatever_the_weights() {
        for factor in [1e-6, 1.0, 1e6] {
            let mut layer = filters(4, 3, 4, 1.0);
            layer = layer.for_inputs_times(1.0 / factor);
            let size = Size::PICTURE.after(&layer);
            assert!((0.5..=1.0).contains(&(size.rms * size.scale)), "{size:?}");
        }
        let nothing = Filters::new(1, 1, vec![0.0], vec![0.0]);
        assert_eq!(Size::PICTURE.after(&nothing).scale, 1.0);
    }
}

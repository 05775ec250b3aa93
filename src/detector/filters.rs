//! A convolution's weights on their way from the bundle to the kernels: what can be folded into them is, in f64.
//!
//! In: the bundle's tensors. Out: filters over one or several sources, ready to be transformed and packed. Runs once, at
//! load. Not here: packing (each engine has its own).

use std::ops::Range;

use crate::efficientad::CalibratedModel;

/// Filters of one layer: `outputs × inputs × kernel × kernel`, the inputs being the channels of all sources in turn.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Filters {
    pub(super) kernel: usize,
    /// Channels of each source.
    pub(super) sources: Vec<usize>,
    pub(super) bias: Vec<f64>,
    values: Vec<f64>,
}

impl Filters {
    /// From numbers, `outputs × inputs × kernel × kernel`.
    #[cfg(test)]
    pub(super) fn new(kernel: usize, inputs: usize, bias: Vec<f64>, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), bias.len() * inputs * kernel * kernel);
        Self { kernel, sources: vec![inputs], bias, values }
    }

    /// The layer `name` of the bundle, such as `teacher.conv1`.
    pub(super) fn of(model: &CalibratedModel, name: &str) -> Self {
        let numbers = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect();
        let weight = model.tensor(&format!("{name}.weight"));
        let bias = numbers(&model.tensor(&format!("{name}.bias")).values);
        let (inputs, kernel) = (weight.dims[1], weight.dims[2]);
        Self { kernel, sources: vec![inputs], bias, values: numbers(&weight.values) }
    }

    pub(super) fn outputs(&self) -> usize {
        self.bias.len()
    }

    pub(super) fn inputs(&self) -> usize {
        self.sources.iter().sum()
    }

    /// The `kernel × kernel` weights from one input to one output.
    pub(super) fn filter(&self, output: usize, input: usize) -> &[f64] {
        let taps = self.kernel * self.kernel;
        let at = (output * self.inputs() + input) * taps;
        &self.values[at..at + taps]
    }

    /// For inputs that are `factor` times too large.
    pub(super) fn for_inputs_times(mut self, factor: f64) -> Self {
        self.values.iter_mut().for_each(|w| *w /= factor);
        self
    }

    /// With outputs `(y − mean) / std`, channel by channel.
    pub(super) fn normalised(mut self, mean: &[f32], std: &[f32]) -> Self {
        let per_output = self.values.len() / self.outputs();
        for (i, weights) in self.values.chunks_exact_mut(per_output).enumerate() {
            let std = f64::from(std[i]);
            weights.iter_mut().for_each(|w| *w /= std);
            self.bias[i] = (self.bias[i] - f64::from(mean[i])) / std;
        }
        self
    }

    /// Only these outputs.
    pub(super) fn only(&self, outputs: Range<usize>) -> Self {
        let per_output = self.values.len() / self.outputs();
        let values = self.values[outputs.start * per_output..outputs.end * per_output].to_vec();
        Self { bias: self.bias[outputs].to_vec(), values, ..self.clone_shape() }
    }

    fn clone_shape(&self) -> Self {
        Self { kernel: self.kernel, sources: self.sources.clone(), bias: Vec::new(), values: Vec::new() }
    }

    /// This layer's outputs less those of `other`, as one layer that reads this one's sources and then the other's.
    ///
    /// Both are linear, so a difference of features is one convolution, whatever the two read.
    pub(super) fn less(&self, other: &Self) -> Self {
        assert_eq!(self.outputs(), other.outputs(), "features differ in number: this is a bug");
        let kernel = self.kernel.max(other.kernel);
        let mut values =
            Vec::with_capacity(self.outputs() * (self.inputs() + other.inputs()) * kernel * kernel);
        for output in 0..self.outputs() {
            for (filters, sign) in [(self, 1.0), (other, -1.0)] {
                for input in 0..filters.inputs() {
                    let filter = filters.filter(output, input);
                    values.extend((0..kernel * kernel).map(|i| {
                        let (y, x) = (i / kernel, i % kernel);
                        let inside = y < filters.kernel && x < filters.kernel;
                        if inside { sign * filter[y * filters.kernel + x] } else { 0.0 }
                    }));
                }
            }
        }
        let bias = self.bias.iter().zip(&other.bias).map(|(a, b)| a - b).collect();
        let sources = [self.sources.as_slice(), &other.sources].concat();
        Self { kernel, sources, bias, values }
    }
}

//! What an engine's speed is held against: the work that the networks state, and the processor's peak.

use super::cpu::peak;
use crate::efficientad::Architecture;

/// Multiply-accumulates of one picture by direct convolution: teacher, student and autoencoder (35.5 G and 2.5 G for
/// PDN-S at 256×256). Engines that need fewer are faster than their peak by this measure.
pub fn multiply_accumulates(architecture: &Architecture) -> u64 {
    let input = [architecture.input.height as usize, architecture.input.width as usize];
    let work =
        |size: [usize; 2], kernel: usize, channels: usize| size[0] * size[1] * kernel * kernel * channels;
    let mut total = 0;
    for layers in [architecture.teacher(), architecture.student()] {
        let mut size = input;
        for layer in layers {
            size = size.map(|s| s + 1 - layer.kernel);
            total += work(size, layer.kernel, layer.input * layer.output);
            size = size.map(|s| if layer.pool { s / 2 } else { s });
        }
    }
    let mut size = input;
    for conv in architecture.encoder() {
        size = size.map(|s| (s + 2 * conv.padding - conv.kernel) / conv.stride + 1);
        total += work(size, conv.kernel, conv.input * conv.output);
    }
    let last = architecture.decoder_sizes()[6];
    let sizes = architecture.decoder_sizes().into_iter().chain([last]);
    for (conv, size) in architecture.decoder().into_iter().zip(sizes) {
        let size = size.map(|s| s + 2 * conv.padding + 1 - conv.kernel);
        total += work(size, conv.kernel, conv.input * conv.output);
    }
    total as u64
}

/// Billions of f32 operations a second that `threads` threads of this processor reach together, measured now.
pub fn cpu_peak_gflops(threads: usize) -> f64 {
    peak::gflops(threads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::efficientad::PdnSize;
    use crate::frame::Size;

    #[test]
    fn the_work_is_the_papers_networks() {
        let work = |size| {
            let architecture = Architecture::new(size, Size::new(256, 256)).unwrap();
            multiply_accumulates(&architecture) as f64 / 1e9
        };
        assert!((work(PdnSize::Small) - 37.9).abs() < 0.5, "{}", work(PdnSize::Small));
        assert!((work(PdnSize::Medium) - 117.0).abs() < 3.0, "{}", work(PdnSize::Medium));
    }
}

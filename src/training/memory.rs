//! Whether a training fits into this machine's memory, asked before it starts: later, Linux ends the process without
//! a word.

use super::error::TrainingError;
use crate::efficientad::Architecture;

/// Gradients, buffers of the convolutions and the allocator, on top of what the networks hold.
const OVERHEAD: f64 = 2.5;
/// Training picture, penalty picture, augmented picture.
const PICTURES: u64 = 3;

/// Refuses a training that will not fit; says nothing where the system does not tell what is free.
pub(super) fn check(architecture: &Architecture) -> Result<(), TrainingError> {
    let needed = estimate(architecture);
    match std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text)) {
        Some(free) if free < needed => {
            Err(TrainingError::TooLittleMemory { needed_mib: needed >> 20, available_mib: free >> 20 })
        }
        _ => Ok(()),
    }
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Bytes that a training step holds at its worst, roughly.
fn estimate(architecture: &Architecture) -> u64 {
    let weights: u64 = architecture.model_tensors().iter().map(|t| t.elements() as u64).sum();
    let (mut width, mut height) = (u64::from(architecture.input.width), u64::from(architecture.input.height));
    let mut activations = 0;
    for layer in architecture.student() {
        width -= layer.kernel as u64 - 1;
        height -= layer.kernel as u64 - 1;
        // Before and after the ReLU.
        activations += 2 * layer.output as u64 * width * height;
        if layer.pool {
            (width, height) = (width / 2, height / 2);
            activations += layer.output as u64 * width * height;
        }
    }
    ((4 * weights + PICTURES * activations) as f64 * OVERHEAD * 4.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::efficientad::PdnSize;
    use crate::frame::Size;

    #[test]
    fn a_training_grows_with_its_pictures_and_the_system_tells_what_is_free() {
        let need = |side| estimate(&Architecture::new(PdnSize::Small, Size::new(side, side)).unwrap());
        assert!((512 << 20..4 << 30).contains(&need(256)), "{}", need(256) >> 20);
        assert!(need(2048) > 40 * need(256));
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(available("nonsense"), None);
    }
}

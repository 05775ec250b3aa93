//! The engine against the reference, over sizes, widths, threads and instruction sets.

use super::*;
use crate::detector::{Reference, untrained};
use crate::efficientad::{Architecture, PdnSize};

const TOLERANCE: f32 = 1e-3;

/// The largest difference between the engines' maps, relative to the map's largest value, and that of their scores.
fn differences(model: &CalibratedModel, engine: &mut dyn Inspector, seed: u64) -> (f32, f32) {
    let mut reference = Reference::new(model, candle_core::Device::Cpu, "cpu".into()).unwrap();
    let picture = untrained::picture(engine.input(), seed);
    let expected = reference.infer(&[&picture]).unwrap().remove(0);
    let got = engine.infer(&[&picture]).unwrap().remove(0);
    assert_eq!(got.size, expected.size);
    let most = |values: &[f32]| values.iter().copied().fold(f32::MIN, f32::max);
    let largest = expected.values.iter().fold(0f32, |m, v| m.max(v.abs()));
    let apart = expected.values.iter().zip(&got.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let score = most(&expected.values);
    (apart / largest, (most(&got.values) - score).abs() / score)
}

fn agrees(architecture: &Architecture, threads: usize, isa: Isa, seed: u64) {
    let model = untrained::model(architecture, seed);
    let (map, score) = differences(&model, &mut Cpu::with_instructions(&model, threads, isa), seed);
    assert!(map <= TOLERANCE && score <= TOLERANCE, "{architecture:?} {}: {map:e} {score:e}", isa.name());
}

fn architecture(size: PdnSize, width: u32, height: u32) -> Architecture {
    Architecture::new(size, Size::new(width, height)).unwrap()
}

#[test]
fn every_instruction_set_agrees_with_the_reference() {
    for isa in Isa::available() {
        agrees(&architecture(PdnSize::Tiny, 256, 256), 2, isa, 1);
    }
}

#[test]
fn the_papers_small_network_agrees_with_the_reference() {
    agrees(&architecture(PdnSize::Small, 256, 256), 2, Isa::best(), 2);
}

#[test]
fn odd_sizes_and_widths_agree_with_the_reference() {
    let widths = |size, input, widths, features, autoencoder_widths| Architecture {
        size,
        widths,
        features,
        autoencoder_widths,
        input,
    };
    let cases = [
        // Rectangles whose tiles do not come out even, and a bottleneck wider than one position.
        architecture(PdnSize::Tiny, 320, 256),
        architecture(PdnSize::Tiny, 300, 416),
        // Channels that do not fill their blocks.
        widths(PdnSize::Small, Size::new(256, 260), [24, 40], 24, [8, 16]),
        widths(PdnSize::Small, Size::new(256, 256), [5, 33], 17, [3, 1]),
        widths(PdnSize::Medium, Size::new(264, 256), [24, 40], 24, [8, 16]),
        widths(PdnSize::Medium, Size::new(256, 256), [16, 72], 50, [7, 19]),
    ];
    for (i, architecture) in cases.iter().enumerate() {
        for isa in Isa::available() {
            agrees(architecture, 1 + i % 3, isa, i as u64);
        }
    }
}

#[test]
fn results_are_the_same_bits_for_any_number_of_threads_and_every_time() {
    let model = untrained::model(&architecture(PdnSize::Tiny, 256, 256), 3);
    let picture = untrained::picture(Size::new(256, 256), 3);
    let other = untrained::picture(Size::new(256, 256), 4);
    let mut maps = Vec::new();
    for threads in 1..4 {
        let mut engine = Cpu::new(&model, threads);
        maps.push(engine.infer(&[&picture]).unwrap().remove(0));
        // What another picture leaves in memory must not show.
        maps.push(engine.infer(&[&other, &picture]).unwrap().remove(1));
    }
    assert!(maps.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn detectors_in_parallel_do_not_disturb_each_other() {
    let model = untrained::model(&architecture(PdnSize::Tiny, 256, 256), 5);
    let pictures: Vec<_> = (0..3).map(|i| untrained::picture(Size::new(256, 256), i)).collect();
    let alone: Vec<_> = pictures.iter().map(|p| Cpu::new(&model, 2).infer(&[p]).unwrap().remove(0)).collect();
    std::thread::scope(|scope| {
        for (picture, expected) in pictures.iter().zip(&alone) {
            let mut engine = Cpu::new(&model, 2);
            scope.spawn(move || {
                for _ in 0..5 {
                    assert_eq!(engine.infer(&[picture]).unwrap().remove(0), *expected);
                }
            });
        }
    });
}

#[test]
fn a_picture_of_another_size_is_refused() {
    let model = untrained::model(&architecture(PdnSize::Tiny, 256, 256), 1);
    let picture = untrained::picture(Size::new(256, 260), 1);
    assert!(matches!(Cpu::new(&model, 1).infer(&[&picture]), Err(InspectorError::Input { .. })));
}

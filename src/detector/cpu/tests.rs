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
    println!("{architecture:?} {threads} threads, {}: map {map:e}, score {score:e}", isa.name());
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

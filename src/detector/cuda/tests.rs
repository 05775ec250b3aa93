//! The engine as a whole – plan, packing, graphs, kernels – on a card that the emulator plays, held against the reference.
//!
//! The emulator is compiled by the C++ compiler that builds need anyway; where there is none these tests say so and pass.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use super::*;
use crate::detector::{Reference, untrained};
use crate::efficientad::PdnSize;

/// Works; dies at its fourth graph; is too old.
const WORKING: usize = 0;
const DYING: usize = 1;
const OLD: usize = 2;

/// The emulated driver; `None` without a compiler.
static DRIVER: LazyLock<Option<Arc<Driver>>> = LazyLock::new(|| {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/detector/cuda/emulator");
    let built = tempfile::tempdir().unwrap();
    let library = built.path().join("libcuda.so.1");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut command = Command::new(compiler);
    command.args("-std=c++17 -O2 -fPIC -shared -pthread -DEMULATED -U_FORTIFY_SOURCE -x c++".split(' '));
    match command.arg(folder.join("driver.cpp")).arg("-o").arg(&library).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(Driver::load_from(&library).unwrap())
        }
        Err(e) => {
            eprintln!("skipped: no C++ compiler ({e})");
            None
        }
    }
});

fn open(model: &CalibratedModel, ordinal: usize) -> Option<Result<Cuda, CudaError>> {
    let driver = DRIVER.as_ref()?;
    Some(Cuda::with_driver(model, driver.clone(), ordinal, b"the emulator has its own"))
}

fn model(size: PdnSize, input: Size, seed: u64) -> CalibratedModel {
    untrained::model(&Architecture::new(size, input).unwrap(), seed)
}

/// |a − b| / |b|.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(a - b))) / norm(&mut b.iter().map(|&b| f64::from(b)))
}

fn hold_against_reference(model: &CalibratedModel, count: u64) {
    let Some(engine) = open(model, WORKING) else { return };
    let (mut engine, input) = (engine.unwrap(), model.architecture().input);
    let cpu = candle_core::Device::Cpu;
    let mut reference = Reference::new(model, cpu, "cpu".into()).unwrap();
    let pictures: Vec<_> = (0..count).map(|i| untrained::picture(input, i + 1)).collect();
    let pictures: Vec<_> = pictures.iter().collect();
    let (got, expected) = (engine.infer(&pictures).unwrap(), reference.infer(&pictures).unwrap());
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(&expected) {
        let error = distance(&got.values, &expected.values);
        assert!(error < 3e-3, "{error}");
    }
}

#[test]
fn maps_are_the_references() {
    hold_against_reference(&model(PdnSize::Tiny, Size::new(256, 256), 1), 1);
}

#[test]
fn maps_of_odd_sizes_and_batches_are_the_references() {
    hold_against_reference(&model(PdnSize::Tiny, Size::new(268, 300), 2), 2);
}

#[test]
#[ignore = "takes minutes: networks as large as the paper's"]
fn maps_of_the_papers_networks_are_the_references() {
    hold_against_reference(&model(PdnSize::Small, Size::new(256, 256), 3), 1);
    hold_against_reference(&model(PdnSize::Medium, Size::new(256, 256), 4), 1);
}

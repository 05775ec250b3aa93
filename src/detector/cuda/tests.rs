//! The engine as a whole – plan, packing, graphs, kernels – on a card that the emulator plays, held against the reference.
//!
//! The emulator is compiled by the C++ compiler that builds need anyway; where there is none these tests say so and pass.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use super::tiles::{TILES, Tile};
use super::*;
use crate::detector::{Reference, Resilient, untrained};
use crate::efficientad::{PdnSize, maps};

/// Works; dies at its second graph; is too old.
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
    command.args("-std=c++17 -O3 -fPIC -shared -pthread -DEMULATED -U_FORTIFY_SOURCE -x c++".split(' '));
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

/// The engine's maps of some pictures, all convolutions in `tile`, against the reference's.
fn hold_against_reference(model: &CalibratedModel, count: u64, tile: Option<Tile>) {
    let Some(engine) = open(model, WORKING) else { return };
    let (mut engine, input) = (engine.unwrap(), model.architecture().input);
    engine.model.plan.only_tile = tile;
    let cpu = candle_core::Device::Cpu;
    let mut reference = Reference::new(model, cpu, "cpu".into()).unwrap();
    let pictures: Vec<_> = (0..count).map(|i| untrained::picture(input, i + 1)).collect();
    let pictures: Vec<_> = pictures.iter().collect();
    let (got, expected) = (engine.infer(&pictures).unwrap(), reference.infer(&pictures).unwrap());
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(&expected) {
        let error = distance(&got.values, &expected.values);
        println!("{} {tile:?}: {error:.1e} of the reference's norm", model.architecture().size);
        // Halves are good to 5e-4; the promise is 1e-2.
        assert!(error < 2e-3, "{error}");
    }
}

/// PDN-M's layers, as narrow as `tiny`.
fn narrow_medium(input: Size) -> Architecture {
    let tiny = Architecture::new(PdnSize::Tiny, input).unwrap();
    Architecture { size: PdnSize::Medium, ..tiny }
}

#[test]
fn maps_of_odd_sizes_and_batches_are_the_references() {
    let model = untrained::model(&narrow_medium(Size::new(268, 300)), 2);
    hold_against_reference(&model, 2, Some(TILES[0]));
}

#[test]
#[ignore = "takes minutes: every tile"]
fn maps_of_every_tile_are_the_references() {
    for tile in TILES {
        hold_against_reference(&model(PdnSize::Tiny, Size::new(300, 256), 1), 1, Some(tile));
    }
}

#[test]
#[ignore = "takes minutes: 72 GFLOP, emulated"]
fn maps_of_the_papers_small_network_are_the_references() {
    hold_against_reference(&model(PdnSize::Small, Size::new(256, 256), 3), 1, None);
}

#[test]
#[ignore = "takes minutes: 230 GFLOP, emulated"]
fn maps_of_the_papers_medium_network_are_the_references() {
    hold_against_reference(&model(PdnSize::Medium, Size::new(256, 256), 4), 1, None);
}

#[test]
fn batches_overlap_and_come_back_in_order_and_memory_does_not_grow() {
    let model = model(PdnSize::Tiny, Size::new(256, 256), 5);
    let Some(engine) = open(&model, WORKING) else { return };
    let mut engine = engine.unwrap();
    engine.most_pictures = 1;
    let pictures: Vec<_> = (0..2).map(|i| untrained::picture(engine.input(), i + 1)).collect();
    let size = Size::new(90, 70);
    let all = engine.infer_enlarged(&pictures.iter().collect::<Vec<_>>(), size).unwrap();
    let mut reference = Reference::new(&model, candle_core::Device::Cpu, "cpu".into()).unwrap();
    let expected = &reference.infer(&[&pictures[1]]).unwrap()[0].values;
    assert!(distance(&all[1].raw.values, expected) < 2e-3);
    let memory: Vec<_> = engine.slots.iter().map(Slot::memory).collect();
    for (picture, one) in pictures.iter().zip(&all).rev() {
        let raw = &engine.infer(&[picture]).unwrap()[0];
        assert_eq!(raw, &one.raw, "the same picture has another map");
        let (rows, columns) = (raw.size.height as usize, raw.size.width as usize);
        let expected = maps::full_size(&raw.values, rows, columns, size);
        let most = expected.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
        assert!(distance(&one.map.values, &expected) < 1e-5);
        assert!((one.highest - most).abs() <= 1e-5 * most.abs());
    }
    assert_eq!(engine.slots.iter().map(Slot::memory).collect::<Vec<_>>(), memory);
    let graphs = |engine: &Cuda| engine.slots.iter().map(Slot::graphs).collect::<Vec<_>>();
    let before = graphs(&engine);
    engine.infer_enlarged(&[&pictures[0]], Size::new(70, 90)).unwrap();
    assert_eq!(graphs(&engine), before, "graphs of a size that nobody asks for any more are kept");
}

// A bundle holds finite numbers only; what is none comes of memory gone bad, or of what overflows.
#[test]
fn what_is_no_number_in_the_first_layer_goes_through_all_others_into_the_map() {
    let model = model(PdnSize::Tiny, Size::new(256, 256), 8);
    let Some(engine) = open(&model, WORKING) else { return };
    let mut engine = engine.unwrap();
    let mut bias = engine.model.plan.packed[0].bias.clone();
    bias[0] = f32::NAN;
    let bytes: Vec<u8> = bias.iter().flat_map(|b| b.to_ne_bytes()).collect();
    engine.model.weights[0][1] = Stream::new(&engine.card).unwrap().place(&bytes).unwrap();
    let map = &engine.infer(&[&untrained::picture(engine.input(), 1)]).unwrap()[0];
    assert!(map.values.iter().all(|value| value.is_nan()));
}

#[test]
fn a_card_that_dies_loses_no_frame() {
    let model = model(PdnSize::Tiny, Size::new(256, 256), 6);
    let Some(engine) = open(&model, DYING) else { return };
    let expected = AnomalyMap { size: Size::new(1, 1), values: vec![7.0] };
    let spare = Fixed { map: expected.clone(), input: Size::new(256, 256) };
    let mut engine = Resilient::new(Box::new(engine.unwrap()), Box::new(spare));
    let picture = untrained::picture(engine.input(), 1);
    assert_ne!(engine.infer(&[&picture]).unwrap()[0], expected);
    assert_eq!(engine.infer(&[&picture]).unwrap()[0], expected);
    assert_eq!(engine.describe(), "fixed");
}

struct Fixed {
    map: AnomalyMap,
    input: Size,
}

impl Inspector for Fixed {
    fn describe(&self) -> String {
        "fixed".into()
    }

    fn input(&self) -> Size {
        self.input
    }

    fn infer(&mut self, pictures: &[&Picture]) -> Result<Vec<AnomalyMap>, InspectorError> {
        Ok(vec![self.map.clone(); pictures.len()])
    }
}

#[test]
fn a_card_that_cannot_run_the_kernels_says_why() {
    let model = model(PdnSize::Tiny, Size::new(256, 256), 7);
    let Some(Err(error)) = open(&model, OLD) else {
        assert!(DRIVER.is_none(), "a card of 2018 was accepted");
        return;
    };
    assert!(error.to_string().contains("generation is 7.0"), "{error}");
    let Some(Err(error)) = open(&model, 17) else { panic!("a card that is not there was opened") };
    assert!(error.to_string().contains("cuDeviceGet"), "{error}");
}

#[test]
fn without_a_driver_there_is_no_card() {
    let Err(error) = Driver::load_from(std::path::Path::new("/nowhere/libcuda.so.1")) else { panic!() };
    assert!(error.means_no_card(), "{error}");
}

#[test]
fn a_driver_that_shows_no_card_and_a_card_without_room_are_told_from_a_box_without_either() {
    let Some(driver) = DRIVER.as_ref() else { return };
    let hidden = driver.check("cuInit", 100).unwrap_err();
    assert!(hidden.to_string().contains("DeviceAllow="), "{hidden}");
    assert!(!hidden.means_no_card());
    assert!(matches!(InspectorError::from(hidden), InspectorError::Device { .. }));
    let full = driver.check("cuMemAlloc_v2", 2).unwrap_err();
    assert!(matches!(InspectorError::from(full), InspectorError::NoRoom { .. }));
}

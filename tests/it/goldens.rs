//! The networks against an independent computation in PyTorch: `tests/goldens/detector.py` made the files.
//!
//! Tolerances: both sides are f32 and sum in another order, which moves features by some 1e-6 of their norm and
//! gradients, which pass through ReLU's edge, by more; the limits leave a factor of ten and more.

use std::path::Path;

use candle_core::{Device, Result, Tensor};
use candle_nn::VarBuilder;
use inspectord::efficientad::architecture::TensorShape;
use inspectord::efficientad::maps::{self, QuantilePair};
use inspectord::efficientad::statistics::channel_statistics;
use inspectord::efficientad::{
    Architecture, Autoencoder, MapQuantiles, Networks, Normalisation, Pdn, PdnSize, Weight, Weights,
    initialise, input,
};
use inspectord::frame::{Picture, Size};
use inspectord::training::adam::Adam;
use inspectord::training::loss::{HARD_SHARE, Losses, Outputs};
use safetensors::SafeTensors;

const DEVICE: Device = Device::Cpu;

/// Expected tensors, and the weights and inputs that they were computed from.
pub(crate) struct Golden {
    pub(crate) expected: Weights,
    pub(crate) architecture: Architecture,
    pub(crate) weights: Weights,
    /// Training, augmented and penalty picture, `[1, 3, H, W]`.
    pub(crate) inputs: [Tensor; 3],
}

impl Golden {
    fn read(size: PdnSize, input: Size) -> Self {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/detector_{size}.safetensors"));
        let expected = read(&path);
        let architecture =
            Architecture { size, widths: [6, 8], features: 10, autoencoder_widths: [4, 6], input };
        let mut weights = draw(&architecture.model_tensors());
        for name in ["teacher_mean", "teacher_std"] {
            weights.insert(name, expected.get(name).unwrap().clone());
        }
        let inputs = [0, 1, 2].map(|seed| input::normalise(&[&picture(seed, input)], &DEVICE).unwrap());
        Self { expected, architecture, weights, inputs }
    }

    fn get(&self, name: &str) -> &[f32] {
        &self.expected.get(name).unwrap_or_else(|| panic!("no {name}")).values
    }

    /// Holds `got` against `name`, which may hold only every n-th element.
    fn check(&self, name: &str, got: &[f32], tolerance: f64) {
        let expected = self.get(name);
        let step = got.len().div_ceil(expected.len().max(1)).max(1);
        let got: Vec<f32> = got.iter().step_by(step).copied().collect();
        let error = relative_error(&got, expected);
        assert!(error <= tolerance, "{name}: relative error {error:.1e} above {tolerance:.0e}");
    }
}

pub(crate) fn read(path: &Path) -> Weights {
    let bytes = std::fs::read(path).unwrap();
    let mut weights = Weights::new();
    for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
        let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        weights.insert(name, Weight { dims: view.shape().to_vec(), values });
    }
    weights
}

/// The generator's hash.
pub(crate) fn hashed(name: &str, index: u32) -> u32 {
    let seed = name.bytes().fold(2_166_136_261u32, |h, b| (h ^ u32::from(b)).wrapping_mul(16_777_619));
    let mut x = index.wrapping_add(seed);
    for (shift, factor) in [(16, 0x7FEB_352D), (15, 0x846C_A68B)] {
        x = (x ^ (x >> shift)).wrapping_mul(factor);
    }
    x ^ (x >> 16)
}

fn draw(shapes: &[TensorShape]) -> Weights {
    let mut weights = Weights::new();
    let mut fan_in = 1;
    for TensorShape { name, dims } in shapes {
        if let [_, inner @ ..] = dims.as_slice()
            && !inner.is_empty()
        {
            fan_in = inner.iter().product();
        }
        let bound = 1.0 / (fan_in as f32).sqrt();
        let unit = |i: usize| (hashed(name, i as u32) >> 8) as f32 / (1 << 23) as f32 - 1.0;
        let values = (0..dims.iter().product()).map(|i| unit(i) * bound).collect();
        weights.insert(name, Weight { dims: dims.clone(), values });
    }
    weights
}

fn picture(seed: u32, size: Size) -> Picture {
    let mut rgb = Vec::with_capacity(3 * size.pixels() as usize);
    let node = |i, j, c| hashed(&format!("smooth{seed}"), (i * 256 + j) * 3 + c) >> 24;
    for (y, x) in (0..size.height).flat_map(|y| (0..size.width).map(move |x| (y, x))) {
        let (i, j, fy, fx) = (y / 16, x / 16, y % 16, x % 16);
        let square = (y / 24) * 256 + x / 24;
        let edged = hashed(&format!("square{seed}"), square).is_multiple_of(5);
        for c in 0..3 {
            let row = |i| (16 - fx) * node(i, j, c) + fx * node(i, j + 1, c);
            let smooth = ((16 - fy) * row(i) + fy * row(i + 1)) >> 8;
            let level = if edged { hashed(&format!("level{seed}"), square * 3 + c) >> 24 } else { smooth };
            rgb.push(level as u8);
        }
    }
    Picture::new(size, rgb).unwrap()
}

fn relative_error(got: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(got.len(), expected.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let difference = norm(&mut got.iter().zip(expected).map(|(&a, &b)| f64::from(a) - f64::from(b)));
    difference / norm(&mut expected.iter().map(|&b| f64::from(b))).max(1e-12)
}

fn values(t: &Tensor) -> Vec<f32> {
    t.flatten_all().unwrap().to_vec1().unwrap()
}

pub(crate) fn check_inspection(golden: &Golden) {
    let networks = Networks::new(&golden.architecture, &golden.weights, &DEVICE).unwrap();
    let x = &golden.inputs[0];
    golden.check("forward.teacher", &values(&networks.teacher.forward(x).unwrap()), 1e-4);
    golden.check("forward.student", &values(&networks.student.forward(x).unwrap()), 1e-4);
    golden.check("forward.autoencoder", &values(&networks.autoencoder.forward(x, None).unwrap()), 1e-4);

    let features = |i: usize| networks.teacher.forward(&golden.inputs[i]);
    let (mean, std) = channel_statistics(3, features).unwrap();
    golden.check("teacher_mean", &mean, 1e-5);
    golden.check("teacher_std", &std, 1e-5);

    let raw: Vec<_> = golden.inputs.iter().map(|x| networks.raw_maps(x).unwrap()).collect();
    let (st, ae) = (values(&raw[0].0), values(&raw[0].1));
    golden.check("map.student_teacher", &st, 1e-4);
    golden.check("map.autoencoder_student", &ae, 1e-4);
    let mut all_st: Vec<f32> = raw.iter().flat_map(|m| values(&m.0)).collect();
    let mut all_ae: Vec<f32> = raw.iter().flat_map(|m| values(&m.1)).collect();
    let quantiles = MapQuantiles {
        student_teacher: QuantilePair::of(&mut all_st).unwrap(),
        autoencoder_student: QuantilePair::of(&mut all_ae).unwrap(),
    };
    golden.check("quantiles", &quantiles.to_array(), 1e-4);

    let normalisation = Normalisation { quantiles, usual: None };
    let combined = normalisation.combination(st.len()).of(&st, &ae);
    golden.check("map.combined", &combined, 1e-4);
    let [rows, columns] = golden.architecture.map_size();
    let full = maps::full_size(&combined, rows, columns, Size::new(420, 300));
    golden.check("map.combined_300x420", &full, 1e-4);
    golden.check("score", &[full.iter().copied().fold(f32::MIN, f32::max)], 1e-4);
}

/// What the losses of `golden` are taken of (paper §3.2–3.3).
fn outputs(
    golden: &Golden,
    networks: &Networks,
    student: &Pdn,
    autoencoder: &Autoencoder,
) -> Result<Outputs> {
    let [train, augmented, penalty] = &golden.inputs;
    let (first, second) = student.forward_halves(&Tensor::cat(&[train, penalty, augmented], 0)?, 2)?;
    Ok(Outputs {
        teacher: networks.normalised_teacher(train)?,
        student: first.narrow(0, 0, 1)?,
        penalty: Some(first.narrow(0, 1, 1)?),
        augmented_teacher: networks.normalised_teacher(augmented)?,
        augmented_student: second,
        autoencoder: autoencoder.forward(augmented, None)?,
    })
}

pub(crate) fn check_training(golden: &Golden) {
    let networks = Networks::new(&golden.architecture, &golden.weights, &DEVICE).unwrap();
    let trained = golden.weights.clone().select(&golden.architecture.trained_tensors()).unwrap();
    let variables = initialise::variables(&trained, &DEVICE).unwrap();
    let vb = VarBuilder::from_varmap(&variables, candle_core::DType::F32, &DEVICE);
    let student = Pdn::new(&golden.architecture.student(), vb.pp("student")).unwrap();
    let autoencoder = Autoencoder::new(&golden.architecture, vb.pp("autoencoder")).unwrap();
    let mut adam = Adam::new(&variables).unwrap();
    for round in 0..3 {
        let made = outputs(golden, &networks, &student, &autoencoder).unwrap();
        let losses = Losses::of(&made, None, HARD_SHARE).unwrap();
        let v = losses.values().unwrap();
        let all = [v.hard, v.penalty.unwrap(), v.autoencoder, v.student_autoencoder, v.total()];
        for (i, (loss, expected)) in all.iter().zip(&golden.get("losses")[5 * round..]).enumerate() {
            let error = relative_error(&[*loss], &[*expected]);
            assert!(error <= 1e-4, "loss {i} of step {round}: relative error {error:.1e}");
        }
        let gradients = losses.total().unwrap().backward().unwrap();
        if round == 0 {
            for (name, variable) in variables.data().lock().unwrap().iter() {
                golden.check(&format!("grad.{name}"), &values(gradients.get(variable).unwrap()), 1e-3);
            }
        }
        adam.step(&gradients, 1e-4).unwrap();
    }
    for (name, variable) in variables.data().lock().unwrap().iter() {
        let start = &golden.weights.get(name).unwrap().values;
        let moved = |to: &[f32]| to.iter().zip(start).map(|(a, b)| a - b).collect::<Vec<_>>();
        let expected = moved(golden.get(&format!("after3.{name}")));
        // Adam divides by the gradient's size, so the few elements whose gradient is near nothing move by chance.
        let error = relative_error(&moved(&values(variable)), &expected);
        assert!(error <= 1e-2, "{name} after three steps: the step differs by {error:.1e}");
        golden.check(&format!("after3.{name}"), &values(variable), 1e-4);
    }
}

#[test]
fn the_small_detector_inspects_and_trains_as_pytorch_does() {
    let golden = Golden::read(PdnSize::Small, Size::new(256, 256));
    check_inspection(&golden);
    check_padded(&golden);
    check_training(&golden);
}

#[test]
fn the_medium_detector_inspects_and_trains_as_pytorch_does_on_a_rectangle() {
    let golden = Golden::read(PdnSize::Medium, Size::new(320, 256));
    check_inspection(&golden);
    check_padded(&golden);
    check_training(&golden);
}

fn check_padded(golden: &Golden) {
    let networks = Networks::new(&golden.architecture, &golden.weights, &DEVICE).unwrap();
    let features = networks.teacher.forward_padded(&golden.inputs[0]).unwrap();
    assert_eq!(features.dim(2).unwrap() as u32 * Architecture::STRIDE, golden.architecture.input.height);
    golden.check("forward.teacher_padded", &values(&features), 1e-4);
}

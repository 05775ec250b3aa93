//! The kernels as the emulator runs them, against the CPU's operations in f64.
//!
//! Inputs are multiples of 1/64, of which TF32 loses nothing, so that what comes out is right to the last digits of f32.
//! The emulator is compiled by the C++ compiler that builds need anyway; where there is none these tests say so and pass.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{LazyLock, Mutex, MutexGuard};

use candle_core::{DType, Device, Result, Tensor, Var};
use libloading::Library;

use super::layer::{self, Gradients, Sizes, Tensors};
use super::parameters::{Address, Parameters};
use super::{Launch, Machine, dropout, resize, select};
use crate::efficientad::ops::dropout::Dropout;
use crate::efficientad::ops::{Features, Layer, resize_bilinear};

static EMULATOR: LazyLock<Option<Mutex<Library>>> = LazyLock::new(|| {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/efficientad/ops/cuda/emulated.cpp");
    let built = tempfile::tempdir().unwrap();
    let library = built.path().join("training.so");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut command = Command::new(compiler);
    command.args("-std=c++17 -O3 -fPIC -shared -pthread -DEMULATED -U_FORTIFY_SOURCE -x c++".split(' '));
    match command.arg(source).arg("-o").arg(&library).output() {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            // SAFETY: a library without initialisers of note.
            Some(Mutex::new(unsafe { Library::new(&library) }.unwrap()))
        }
        Err(e) => {
            eprintln!("skipped: no C++ compiler ({e})");
            None
        }
    }
});

/// Numbers before and after each piece of memory, which nothing may change.
const GUARD: usize = 64;

/// The emulated card with its memory, which begins as what is no number.
struct Emulated {
    library: MutexGuard<'static, Library>,
    memory: Vec<Vec<f32>>,
}

impl Emulated {
    fn new() -> Option<Self> {
        let library = EMULATOR.as_ref()?.lock().unwrap_or_else(|broken| broken.into_inner());
        Some(Self { library, memory: Vec::new() })
    }

    fn place(&mut self, numbers: &[f32]) -> Address {
        let mut piece = vec![f32::NAN; numbers.len() + 2 * GUARD];
        // Aligned as a card's memory is.
        let skip = piece.as_ptr().align_offset(16) % 4;
        let from = GUARD / 2 + skip;
        piece[from..from + numbers.len()].copy_from_slice(numbers);
        let address = piece[from..].as_ptr() as Address;
        // SAFETY: the function of emulated.cpp.
        unsafe {
            let name = self.library.get::<unsafe extern "C" fn(Address, usize)>(b"name_memory").unwrap();
            name(address, 4 * numbers.len());
        }
        self.memory.push(piece);
        address
    }

    fn fetch(&self, address: Address, count: usize) -> Vec<f32> {
        let holds = |piece: &&Vec<f32>| {
            let from = piece.as_ptr() as Address;
            (from..from + 4 * piece.len() as u64).contains(&address)
        };
        let piece = self.memory.iter().find(holds).expect("an address that was placed");
        let from = (address - piece.as_ptr() as Address) as usize / 4;
        let guard = |numbers: &[f32]| numbers.iter().all(|n| n.to_bits() == f32::NAN.to_bits());
        assert!(guard(&piece[..from]) && guard(&piece[from + count..]), "a kernel wrote outside");
        piece[from..from + count].to_vec()
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        // SAFETY: the function of emulated.cpp.
        unsafe { self.library.get::<unsafe extern "C" fn()>(b"forget_memory").unwrap()() };
    }
}

impl Machine for Emulated {
    fn scratch(&mut self, numbers: usize) -> Result<Address> {
        Ok(self.place(&vec![f32::NAN; numbers]))
    }

    fn zeros(&mut self, numbers: usize) -> Result<Address> {
        Ok(self.place(&vec![0.0; numbers]))
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        type Run = unsafe extern "C" fn(*const c_char, *const c_void, c_uint, c_uint, c_uint, usize) -> c_int;
        let parameters: *const c_void = match &launch.parameters {
            Parameters::Convolve(p) => (&raw const *p).cast(),
            Parameters::Weigh(p) => (&raw const *p).cast(),
            Parameters::Pack(p) => (&raw const *p).cast(),
            Parameters::Gather(p) => (&raw const *p).cast(),
            Parameters::Spread(p) => (&raw const *p).cast(),
            Parameters::Total(p) => (&raw const *p).cast(),
            Parameters::Resize(p) => (&raw const *p).cast(),
            Parameters::Select(p) => (&raw const *p).cast(),
            Parameters::Silence(p) => (&raw const *p).cast(),
        };
        let name = CString::new(launch.kernel).unwrap();
        let [x, y] = launch.grid.map(|n| n as c_uint);
        // SAFETY: the parameters are those of the kernel, and addresses are of memory that lives as long as `self`.
        let ran = unsafe {
            let run = self.library.get::<Run>(b"run_kernel").unwrap();
            run(name.as_ptr(), parameters, x, y, launch.threads as c_uint, launch.shared)
        };
        assert_eq!(ran, 1, "{} cannot be launched", launch.kernel);
        Ok(())
    }
}

/// Multiples of 1/64 between −1 and 1 without a pattern.
fn numbers(shape: &[usize], seed: u64) -> Tensor {
    let mix = |i: usize| {
        let mut x = (i as u64 + seed * 1_000_003).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((x >> 40) % 129) as f32 / 64.0 - 1.0
    };
    Tensor::from_vec((0..shape.iter().product()).map(mix).collect::<Vec<f32>>(), shape, &Device::Cpu).unwrap()
}

fn channels_last(x: &Tensor) -> Vec<f32> {
    flat(&x.permute((0, 2, 3, 1)).unwrap())
}

fn flat(x: &Tensor) -> Vec<f32> {
    x.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// Zeros behind the channels up to a multiple of four.
fn widened(x: &Tensor) -> Tensor {
    let channels = x.dim(1).unwrap();
    x.pad_with_zeros(1, 0, channels.next_multiple_of(4) - channels).unwrap()
}

fn assert_close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (at, (g, e)) in got.iter().zip(expected).enumerate() {
        // Not `>`, so that what is no number is far.
        let close = (g - e).abs() <= tolerance * e.abs().max(1.0);
        assert!(close, "{what}, element {at}: {g} instead of {e}");
    }
}

/// One layer's output and gradients on both machines.
fn hold_against_cpu(x: [usize; 4], outputs: usize, kernel: usize, layer: Layer, wants_input: bool) {
    let Some(mut card) = Emulated::new() else { return };
    let what = format!("{x:?} -> {outputs}, kernel {kernel}, {layer:?}");
    let [batch, inputs, rows, columns] = x;
    let tensors = [numbers(&x, 1), numbers(&[outputs, inputs, kernel, kernel], 2), numbers(&[outputs], 3)];
    let variables: Vec<Var> =
        tensors.iter().map(|t| Var::from_tensor(&t.to_dtype(DType::F64).unwrap()).unwrap()).collect();
    let [v, weight, bias] = [0, 1, 2].map(|i| variables[i].as_tensor());
    let expected = Features::new(v).unwrap().layer(weight, bias, layer).unwrap().into_tensor().unwrap();
    let gradient = numbers(expected.dims(), 4);
    let loss = (&expected * gradient.to_dtype(DType::F64).unwrap()).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();

    let wide = widened(&tensors[0]);
    let sizes =
        Sizes::new([batch, rows, columns, wide.dim(1).unwrap()], [outputs, inputs, kernel, kernel], layer);
    let sizes = sizes.unwrap();
    assert_eq!(
        [batch, outputs, sizes.output()[0], sizes.output()[1]],
        expected.dims4().unwrap().into_array()
    );
    let at = Tensors {
        x: card.place(&channels_last(&wide)),
        weights: card.place(&flat(&tensors[1])),
        bias: card.place(&flat(&tensors[2])),
        out: card.scratch(sizes.output_len()).unwrap(),
        alive: card.scratch(sizes.output_len().div_ceil(4)).unwrap(),
    };
    layer::forward(&mut card, &sizes, at).unwrap();
    // Where a ReLU follows, what is written is rounded for the next product.
    let tolerance = if layer.relu { 4.9e-4 } else { 2e-6 };
    let out = card.fetch(at.out, sizes.output_len());
    assert_close(&what, &out, &channels_last(&expected), tolerance);

    let wide_len = wide.elem_count();
    let to = Gradients {
        x: if wants_input { card.scratch(wide_len).unwrap() } else { 0 },
        weights: card.scratch(tensors[1].elem_count()).unwrap(),
        bias: card.scratch(outputs).unwrap(),
    };
    let from = card.place(&channels_last(&gradient));
    layer::backward(&mut card, &sizes, at, from, to).unwrap();
    let of = |i: usize| gradients.get(&variables[i]).unwrap();
    let weights = card.fetch(to.weights, tensors[1].elem_count());
    assert_close(&format!("weights of {what}"), &weights, &flat(of(1)), 1e-5);
    assert_close(&format!("bias of {what}"), &card.fetch(to.bias, outputs), &flat(of(2)), 1e-5);
    if wants_input {
        let expected = channels_last(&widened(of(0)));
        assert_close(&format!("input of {what}"), &card.fetch(to.x, wide_len), &expected, 1e-5);
    }
}

trait IntoArray {
    fn into_array(self) -> [usize; 4];
}

impl IntoArray for (usize, usize, usize, usize) {
    fn into_array(self) -> [usize; 4] {
        [self.0, self.1, self.2, self.3]
    }
}

const PLAIN: Layer = Layer { stride: 1, padding: 0, relu: false, pool: None };

#[test]
fn a_layer_of_the_networks_is_the_cpus_forward_and_back() {
    let relu = Layer { relu: true, ..PLAIN };
    for (x, outputs, kernel, layer) in [
        // PDN's, unpadded as in training and padded as in distillation.
        ([2, 3, 21, 18], 32, 4, Layer { pool: Some(0), ..relu }),
        ([2, 3, 17, 20], 68, 4, Layer { pool: Some(1), padding: 3, ..relu }),
        ([1, 32, 15, 14], 64, 4, Layer { pool: Some(1), padding: 3, ..relu }),
        ([2, 64, 9, 11], 64, 3, relu),
        ([2, 64, 7, 8], 96, 4, PLAIN),
        ([2, 48, 5, 7], 80, 1, relu),
        // The autoencoder's.
        ([1, 3, 20, 22], 8, 4, Layer { stride: 2, padding: 1, ..relu }),
        ([1, 8, 17, 14], 8, 4, Layer { stride: 2, padding: 1, ..relu }),
        ([1, 16, 8, 9], 16, 8, PLAIN),
        ([1, 16, 3, 1], 16, 4, Layer { padding: 2, ..relu }),
        ([1, 16, 12, 13], 96, 3, Layer { padding: 1, ..PLAIN }),
        // A pool without ReLU, and a kernel row that is no multiple of a step.
        ([1, 20, 9, 9], 12, 3, Layer { pool: Some(1), ..PLAIN }),
    ] {
        hold_against_cpu(x, outputs, kernel, layer, true);
    }
}

#[test]
fn a_layer_in_large_tiles_is_the_cpus_forward_and_back() {
    let relu = Layer { relu: true, ..PLAIN };
    hold_against_cpu([1, 3, 259, 131], 128, 4, Layer { pool: Some(0), ..relu }, false);
    hold_against_cpu([1, 20, 191, 90], 144, 2, relu, true);
}

#[test]
fn a_resize_is_the_cpus_forward_and_back() {
    let Some(mut card) = Emulated::new() else { return };
    for (from, to) in [
        ([1, 1], [3, 4]),
        ([3, 4], [8, 7]),
        ([9, 8], [15, 16]),
        ([16, 9], [7, 4]),
        ([5, 5], [5, 5]),
        ([127, 3], [56, 56]),
    ] {
        let what = format!("{from:?} to {to:?}");
        let x = numbers(&[2, 8, from[0], from[1]], 5);
        let variable = Var::from_tensor(&x.to_dtype(DType::F64).unwrap()).unwrap();
        let expected = resize_bilinear(&variable, to[0], to[1]).unwrap();
        let gradient = numbers(expected.dims(), 6);
        let loss = (&expected * gradient.to_dtype(DType::F64).unwrap()).unwrap().sum_all().unwrap();
        let back = loss.backward().unwrap().get(&variable).unwrap().clone();

        let size = [2, from[0], from[1], 8];
        let places = [card.place(&channels_last(&x)), card.scratch(expected.elem_count()).unwrap()];
        resize::forward(&mut card, places, size, to).unwrap();
        assert_close(&what, &card.fetch(places[1], expected.elem_count()), &channels_last(&expected), 1e-5);
        let places = [card.place(&channels_last(&gradient)), card.scratch(x.elem_count()).unwrap()];
        resize::backward(&mut card, places, size, to).unwrap();
        assert_close(
            &format!("{what}, back"),
            &card.fetch(places[1], x.elem_count()),
            &channels_last(&back),
            1e-5,
        );
    }
}

#[test]
fn the_same_numbers_are_silenced_as_on_the_cpu() {
    let Some(mut card) = Emulated::new() else { return };
    let x = numbers(&[1, 8, 30, 31], 10);
    let key = 0x1234_5678_9abc_def0;
    let silenced = Features::new(&x).unwrap().drop_out(0.2, key).unwrap().into_tensor().unwrap();
    let places = [card.place(&channels_last(&x)), card.scratch(x.elem_count()).unwrap()];
    dropout::apply(&mut card, places, x.elem_count(), Dropout::new(0.2, key)).unwrap();
    assert_eq!(card.fetch(places[1], x.elem_count()), channels_last(&silenced));
}

// Numbers that diverge must be seen in the losses, whatever products and comparisons are between.
#[test]
fn what_is_no_number_in_a_picture_goes_through_a_layer() {
    let Some(mut card) = Emulated::new() else { return };
    for pool in [None, Some(0)] {
        let layer = Layer { relu: true, pool, ..PLAIN };
        let sizes = Sizes::new([1, 6, 6, 4], [8, 3, 3, 3], layer).unwrap();
        let mut picture = channels_last(&numbers(&[1, 4, 6, 6], 7));
        picture[0] = f32::NAN;
        let at = Tensors {
            x: card.place(&picture),
            weights: card.place(&flat(&numbers(&[8, 3, 3, 3], 8))),
            bias: card.place(&flat(&numbers(&[8], 9))),
            out: card.scratch(sizes.output_len()).unwrap(),
            alive: card.scratch(sizes.output_len()).unwrap(),
        };
        layer::forward(&mut card, &sizes, at).unwrap();
        let out = card.fetch(at.out, sizes.output_len());
        assert!(out[..8].iter().all(|v| v.is_nan()) && !out[out.len() - 8..].iter().any(|v| v.is_nan()));
    }
}

// Cut off rather than rounded, features would be too small in the mean, layer after layer.
#[test]
fn what_tf32_cannot_hold_is_rounded_before_products() {
    let Some(mut card) = Emulated::new() else { return };
    // A product reads ten bits of a fraction: this is nearer to 1 + 2^-10 than to 1.
    let odd = 1.0 + 2f32.powi(-11) + 2f32.powi(-13);
    let up = 1.0 + 2f32.powi(-10);
    let layer = Layer { padding: 1, ..PLAIN };
    for (x, weight) in [(odd, 1.0), (1.0, odd)] {
        for (inputs, layer) in [(16_usize, layer), (3, PLAIN)] {
            let sizes = Sizes::new([1, 5, 5, inputs.next_multiple_of(4)], [8, inputs, 3, 3], layer).unwrap();
            let picture: Vec<f32> = (0..100 * inputs.div_ceil(4)).map(|_| x).collect();
            let at = Tensors {
                x: card.place(&picture),
                weights: card.place(&vec![weight; 8 * inputs * 9]),
                bias: card.place(&[0.0; 8]),
                out: card.scratch(sizes.output_len()).unwrap(),
                alive: 0,
            };
            layer::forward(&mut card, &sizes, at).unwrap();
            let out = card.fetch(at.out, sizes.output_len());
            let middle = out[out.len() / 2];
            assert_eq!(middle, 9.0 * inputs as f32 * up, "{x} {weight} {inputs}");
            // The gradient of a sum is what multiplies the weight: ones here, and `odd` there.
            let to = Gradients {
                x: 0,
                weights: card.scratch(8 * inputs * 9).unwrap(),
                bias: card.scratch(8).unwrap(),
            };
            let from = card.place(&vec![weight; sizes.output_len()]);
            layer::backward(&mut card, &sizes, at, from, to).unwrap();
            let weights = card.fetch(to.weights, 8 * inputs * 9);
            let middle = weights[4];
            let terms = sizes.output_len() as f32 / 8.0;
            assert_eq!(middle, terms * up, "{x} {weight} {inputs}");
        }
    }
}

#[test]
fn the_nth_largest_is_the_sorted_ones() {
    let Some(mut card) = Emulated::new() else { return };
    let many: Vec<f32> = (0..70_000u64).map(|i| ((i * i * 7919) % 104_729) as f32 * 1e-3 - 20.0).collect();
    let few = vec![0.0, -0.0, 3.0, 3.0, 3.0, -7.5, f32::INFINITY, 1e-40, f32::NAN];
    for values in [many, few, vec![5.0]] {
        let mut sorted = values.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let place = card.place(&values);
        for nth in [1, 2, 5, 8, values.len() / 1000, values.len() / 2, values.len()] {
            let nth = nth.clamp(1, values.len());
            let out = card.scratch(1).unwrap();
            select::nth_largest(&mut card, [place, out], values.len(), nth).unwrap();
            let found = card.fetch(out, 1)[0];
            assert_eq!(found.to_bits(), sorted[nth - 1].to_bits(), "{nth} of {}: {found}", values.len());
        }
    }
}

#[test]
fn what_the_kernels_cannot_compute_is_refused() {
    for (x, weight) in [
        ([1, 9, 9, 3], [8, 3, 3, 3]),
        ([1, 9, 9, 8], [8, 3, 3, 3]),
        ([1, 9, 9, 4], [6, 4, 3, 3]),
        ([1, 2, 9, 4], [8, 4, 3, 3]),
        ([1, 9, 9, 4], [8, 4, 3, 2]),
        ([1, 50_000, 50_000, 4], [8, 4, 3, 3]),
    ] {
        let refused = Sizes::new(x, weight, PLAIN).unwrap_err().to_string();
        assert!(refused.contains(&format!("{x:?}")), "{refused}");
    }
}

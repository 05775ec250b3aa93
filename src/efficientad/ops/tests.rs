//! Every operation against its definition written as loops, and every gradient against finite differences, in f64.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::{Features, Layer, Order, avg_pool2, channels_first, conv2d, resize_bilinear};

/// Numbers between −1 and 1 without a pattern.
fn numbers(shape: &[usize], seed: u64) -> Tensor {
    let count = shape.iter().product();
    let mix = |i: usize| {
        let mut x = (i as u64 + seed * 1_000_003).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        ((x >> 11) as f64) / (1u64 << 52) as f64 - 1.0
    };
    Tensor::from_vec((0..count).map(mix).collect::<Vec<f64>>(), shape, &Device::Cpu).unwrap()
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn largest_error(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    values(a).iter().zip(values(b)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// A convolution as its definition says.
fn plain_conv2d(x: &Tensor, weight: &Tensor, bias: &Tensor, stride: usize, padding: usize) -> Tensor {
    let (b, ci, h, w) = x.dims4().unwrap();
    let (co, _, k, _) = weight.dims4().unwrap();
    let [oh, ow] = [h, w].map(|side| (side + 2 * padding - k) / stride + 1);
    let (x, weight, bias) = (values(x), values(weight), values(bias));
    let mut y = vec![0.0; b * co * oh * ow];
    for (at, y) in y.iter_mut().enumerate() {
        let (n, o, row, column) = (at / (co * oh * ow), at / (oh * ow) % co, at / ow % oh, at % ow);
        *y = bias[o];
        for (i, kh, kw) in (0..ci * k * k).map(|t| (t / (k * k), t / k % k, t % k)) {
            let (from_row, from_column) = (row * stride + kh, column * stride + kw);
            let inside = |at: usize, side: usize| at >= padding && at - padding < side;
            if inside(from_row, h) && inside(from_column, w) {
                let from = ((n * ci + i) * h + from_row - padding) * w + from_column - padding;
                *y += x[from] * weight[((o * ci + i) * k + kh) * k + kw];
            }
        }
    }
    Tensor::from_vec(y, (b, co, oh, ow), &Device::Cpu).unwrap()
}

/// Input size, channels in and out, kernel, stride, padding: both methods, odd and even sizes, ragged tiles and lanes.
type Shape = ([usize; 2], usize, usize, usize, usize, usize);

const CONVOLUTIONS: &[Shape] = &[
    ([7, 10], 3, 5, 4, 1, 0),
    ([9, 8], 2, 3, 3, 1, 1),
    ([6, 6], 5, 4, 1, 1, 0),
    ([11, 8], 3, 4, 4, 2, 1),
    ([8, 9], 4, 4, 8, 1, 0),
    ([3, 3], 4, 4, 4, 1, 2),
    ([12, 15], 16, 20, 4, 1, 0),
    ([13, 11], 18, 16, 4, 1, 2),
    ([11, 14], 16, 17, 3, 1, 0),
    ([9, 10], 17, 33, 3, 1, 1),
    ([10, 9], 16, 16, 4, 1, 3),
];

#[test]
fn a_convolution_is_what_its_definition_says() {
    for &(size, ci, co, k, stride, padding) in CONVOLUTIONS {
        let x = numbers(&[2, ci, size[0], size[1]], 1);
        let (weight, bias) = (numbers(&[co, ci, k, k], 2), numbers(&[co], 3));
        let expected = plain_conv2d(&x, &weight, &bias, stride, padding);
        let y = conv2d(&x, &weight, Some(&bias), stride, padding).unwrap();
        let error = largest_error(&y, &expected);
        assert!(error < 1e-10, "{size:?} {ci}->{co} k{k} s{stride} p{padding}: {error:e}");
        let layer = Layer { stride, padding, relu: false, pool: None };
        let error = largest_error(&channels_first::layer(&x, &weight, &bias, layer).unwrap(), &expected);
        assert!(error < 1e-10, "channels first {size:?} {ci}->{co} k{k} s{stride} p{padding}: {error:e}");
    }
}

#[test]
fn winograd_in_f32_keeps_five_digits() {
    for k in [3, 4] {
        let (x, weight) = (numbers(&[1, 128, 20, 23], 1), numbers(&[64, 128, k, k], 2));
        let expected = plain_conv2d(&x, &weight, &numbers(&[64], 3), 1, 0);
        let single = |t: Tensor| t.to_dtype(DType::F32).unwrap();
        let y = conv2d(&single(x), &single(weight), Some(&single(numbers(&[64], 3))), 1, 0).unwrap();
        let spread = expected.sqr().unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
        let error = (y.to_dtype(DType::F64).unwrap() - expected).unwrap();
        let error = error.sqr().unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap().sqrt() / spread;
        assert!(error < 5e-6, "k{k}: relative error {error:e}");
    }
}

/// Holds the gradients of `f`, reduced by fixed random factors, against central differences in a few elements each.
fn check_gradients(what: &str, inputs: &[Tensor], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let reduce = |y: &Tensor| (y * numbers(y.dims(), 99)).unwrap().sum_all().unwrap();
    let variables: Vec<_> = inputs.iter().map(|t| Var::from_tensor(t).unwrap()).collect();
    let tensors: Vec<_> = variables.iter().map(|v| v.as_tensor().clone()).collect();
    let gradients = reduce(&f(&tensors).unwrap()).backward().unwrap();
    for (nth, input) in inputs.iter().enumerate() {
        let gradient =
            values(gradients.get(&variables[nth]).unwrap_or_else(|| panic!("{what}: no gradient {nth}")));
        let numbers = values(input);
        for at in (0..numbers.len()).step_by(numbers.len().div_ceil(23)).chain([numbers.len() - 1]) {
            let moved = |by: f64| {
                let mut moved = numbers.clone();
                moved[at] += by;
                let mut all = inputs.to_vec();
                all[nth] = Tensor::from_vec(moved, input.shape(), &Device::Cpu).unwrap();
                reduce(&f(&all).unwrap()).to_scalar::<f64>().unwrap()
            };
            let expected = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            let error = (gradient[at] - expected).abs() / expected.abs().max(1.0);
            assert!(
                error < 1e-6,
                "{what}: input {nth}, element {at}: {} instead of {expected}",
                gradient[at]
            );
        }
    }
}

#[test]
fn a_convolutions_gradients_are_its_differences() {
    for &(size, ci, co, k, stride, padding) in CONVOLUTIONS {
        let inputs = [numbers(&[2, ci, size[0], size[1]], 4), numbers(&[co, ci, k, k], 5), numbers(&[co], 6)];
        let what = format!("{size:?} {ci}->{co} k{k} s{stride} p{padding}");
        check_gradients(&what, &inputs, |t| conv2d(&t[0], &t[1], Some(&t[2]), stride, padding));
        let layer = Layer { stride, padding, relu: true, pool: None };
        check_gradients(&format!("channels first {what}"), &inputs, |t| {
            channels_first::layer(&t[0], &t[1], &t[2], layer)
        });
    }
}

#[test]
fn a_layer_with_relu_and_pool_is_its_parts_one_after_another() {
    for size in [[10, 13], [11, 12], [9, 9]] {
        for (relu, pool) in
            [(true, Some(0)), (true, Some(1)), (false, Some(0)), (false, Some(1)), (true, None)]
        {
            let inputs = [numbers(&[2, 3, size[0], size[1]], 7), numbers(&[5, 3, 4, 4], 8), numbers(&[5], 9)];
            let layer = Layer { stride: 1, padding: 1, relu, pool };
            let fused = |t: &[Tensor]| Features::new(&t[0])?.layer(&t[1], &t[2], layer)?.into_tensor();
            let what = format!("{size:?} relu {relu} pool {pool:?}");
            let parts = channels_first::layer(&inputs[0], &inputs[1], &inputs[2], layer).unwrap();
            assert!(largest_error(&fused(&inputs).unwrap(), &parts) < 1e-12, "{what}");
            check_gradients(&what, &inputs, fused);
        }
    }
}

#[test]
fn an_average_pools_gradient_reaches_odd_sizes() {
    for (size, padding) in [([7, 9], 0), ([8, 6], 0), ([7, 8], 1), ([2, 3], 1)] {
        let x = numbers(&[1, 2, size[0], size[1]], 10);
        check_gradients(&format!("{size:?} {padding}"), &[x], |t| avg_pool2(&t[0], padding));
    }
}

#[test]
fn a_pools_padding_counts() {
    let x = Tensor::ones((1, 1, 3, 3), DType::F64, &Device::Cpu).unwrap();
    assert_eq!(values(&avg_pool2(&x, 1).unwrap()), [0.25, 0.5, 0.5, 1.0]);
}

#[test]
fn a_resize_and_its_gradient_agree_on_every_device() {
    for (from, to) in
        [([1, 1], [3, 4]), ([3, 4], [8, 7]), ([9, 8], [15, 16]), ([16, 9], [7, 4]), ([5, 5], [5, 5])]
    {
        let x = numbers(&[2, 3, from[0], from[1]], 11);
        let what = format!("{from:?} to {to:?}");
        let first = Features { tensor: x.clone(), order: Order::ChannelsFirst };
        let first = first.resize(to[0], to[1]).unwrap().into_tensor().unwrap();
        assert!(largest_error(&resize_bilinear(&x, to[0], to[1]).unwrap(), &first) < 1e-12, "{what}");
        check_gradients(&what, &[x], |t| resize_bilinear(&t[0], to[0], to[1]));
    }
}

//! First weights, drawn as PyTorch draws a convolution's: uniform in ±1/√fan_in, weight and bias alike.
//!
//! The same seed gives the same bits on every platform. Not here: training.

use candle_core::{Device, Result, Var};
use candle_nn::VarMap;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::architecture::TensorShape;
use super::weights::{Weight, Weights};

/// Draws `shapes` in their order; a bias (`[output]`) takes its fan-in from the weight before it.
pub fn draw(shapes: &[TensorShape], seed: u64) -> Weights {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut weights = Weights::new();
    let mut bound = 0f32;
    for shape in shapes {
        if let [_, fan_in @ ..] = shape.dims.as_slice()
            && !fan_in.is_empty()
        {
            bound = 1.0 / (fan_in.iter().product::<usize>() as f32).sqrt();
        }
        // 24 bits fill an f32's significand exactly, so no rounding differs between platforms.
        let mut unit = || (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0;
        let values = (0..shape.elements()).map(|_| unit() * bound).collect();
        weights.insert(&shape.name, Weight { dims: shape.dims.clone(), values });
    }
    weights
}

/// `weights` as trainable variables under the same names.
pub fn variables(weights: &Weights, device: &Device) -> Result<VarMap> {
    let map = VarMap::new();
    for (name, tensor) in weights.tensors(device)? {
        let mut data = map.data().lock().expect("nobody panics while holding the variables: this is a bug");
        data.insert(name, Var::from_tensor(&tensor)?);
    }
    Ok(map)
}

//! Adam as PyTorch's `torch.optim.Adam`: weight decay is added to the gradient, not taken from the weight (AdamW).
//!
//! In: gradients by variable. Out: changed variables. Owned by the training thread. On the CPU three passes,
//! on NVIDIA cards one for all variables; elsewhere plain tensor operations of the same formula.

use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, InplaceOp3, Layout, Result, Tensor, Var, bail};
use candle_nn::VarMap;
use rayon::prelude::*;

use crate::efficientad::Weights;

#[cfg(feature = "cuda")]
mod card;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f64 = 1e-8;
/// Coupled L2, of the reference implementation.
const WEIGHT_DECAY: f64 = 1e-5;
/// What the moments are called in a checkpoint, before the variable's name.
const MOMENTS: [&str; 2] = ["adam.first.", "adam.second."];

/// One variable and its moments.
#[derive(Debug)]
struct Slot {
    name: String,
    variable: Var,
    moments: [Var; 2],
}

/// The optimiser and what it has seen so far.
#[derive(Debug)]
pub struct Adam {
    slots: Vec<Slot>,
    steps: u64,
}

impl Adam {
    /// For all of `variables`, nothing seen yet.
    pub fn new(variables: &VarMap) -> Result<Self> {
        let data = variables.data().lock().expect("nobody panics while holding the variables: this is a bug");
        let slot = |(name, variable): (&String, &Var)| {
            let zero = || Var::from_tensor(&variable.zeros_like()?);
            Ok(Slot { name: name.clone(), variable: variable.clone(), moments: [zero()?, zero()?] })
        };
        let mut slots = data.iter().map(slot).collect::<Result<Vec<_>>>()?;
        slots.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { slots, steps: 0 })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Moves every variable that has a gradient.
    pub fn step(&mut self, gradients: &GradStore, learning_rate: f64) -> Result<()> {
        self.steps += 1;
        // Beyond 2^31 steps the corrections have been 1 for ages.
        let t = self.steps.min(i32::MAX as u64) as i32;
        let rate = Rate { step: learning_rate / (1.0 - BETA1.powi(t)), root: (1.0 - BETA2.powi(t)).sqrt() };
        let mut moved = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            if let Some(gradient) = gradients.get(&slot.variable) {
                moved.push((slot, gradient.detach().contiguous()?));
            }
        }
        #[cfg(feature = "cuda")]
        if moved.first().is_some_and(|(slot, _)| slot.variable.device().is_cuda()) {
            return card::step(&moved, &rate);
        }
        for (Slot { variable, moments, .. }, gradient) in &moved {
            if variable.device().is_cpu() {
                moments[0].inplace_op3(gradient, variable, &Moment::First)?;
                moments[1].inplace_op3(gradient, variable, &Moment::Second)?;
                variable.inplace_op3(&moments[0], &moments[1], &rate)?;
            } else {
                rate.apply(variable, moments, gradient)?;
            }
        }
        Ok(())
    }

    /// Copies the variables and moments into `weights`, by name.
    pub fn save(&self, weights: &mut Weights) -> Result<()> {
        for slot in &self.slots {
            weights.insert_tensor(&slot.name, &slot.variable)?;
            for (prefix, moment) in MOMENTS.iter().zip(&slot.moments) {
                weights.insert_tensor(format!("{prefix}{}", slot.name), moment)?;
            }
        }
        Ok(())
    }

    /// Takes variables and moments from `weights`, as they were after `steps`.
    ///
    /// # Errors
    /// One is missing or has another shape.
    pub fn restore(&mut self, weights: &Weights, steps: u64) -> Result<()> {
        for slot in &self.slots {
            let fill = |prefix: &str, variable: &Var| -> Result<()> {
                let name = format!("{prefix}{}", slot.name);
                match weights.get(&name) {
                    Some(w) if w.dims == variable.dims() => {
                        variable.set(&Tensor::from_slice(&w.values, w.dims.as_slice(), variable.device())?)
                    }
                    Some(w) => bail!("tensor `{name}` has the shape {:?}, not {:?}", w.dims, variable.dims()),
                    None => bail!("tensor `{name}` is missing"),
                }
            };
            fill("", &slot.variable)?;
            fill(MOMENTS[0], &slot.moments[0])?;
            fill(MOMENTS[1], &slot.moments[1])?;
        }
        self.steps = steps;
        Ok(())
    }
}

/// How far a step goes: `step · m / (√v / root + ε)`.
struct Rate {
    step: f64,
    root: f64,
}

impl Rate {
    fn apply(&self, variable: &Var, [first, second]: &[Var; 2], gradient: &Tensor) -> Result<()> {
        let gradient = (gradient + (variable.as_detached_tensor() * WEIGHT_DECAY)?)?;
        first.set(&((first.as_detached_tensor() * BETA1)? + (&gradient * (1.0 - BETA1))?)?)?;
        second.set(&((second.as_detached_tensor() * BETA2)? + (gradient.sqr()? * (1.0 - BETA2))?)?)?;
        let divisor = ((second.as_detached_tensor().sqrt()? / self.root)? + EPSILON)?;
        let change = ((first.as_detached_tensor() / divisor)? * self.step)?;
        variable.set(&(variable.as_detached_tensor() - change)?)
    }
}

/// Which running mean of the gradient.
#[derive(Debug, Clone, Copy)]
enum Moment {
    First,
    Second,
}

/// `moment ← β·moment + (1−β)·(gradient + decay·weight)^{1 or 2}`
impl InplaceOp3 for Moment {
    fn name(&self) -> &'static str {
        "adam-moment"
    }

    fn cpu_fwd(
        &self,
        moment: &mut CpuStorage,
        layout: &Layout,
        gradient: &CpuStorage,
        gradient_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> Result<()> {
        let moment = slice_mut(moment, layout)?;
        let inputs = (slice(gradient, gradient_layout)?, slice(weight, weight_layout)?);
        let decay = WEIGHT_DECAY as f32;
        match self {
            Self::First => update(moment, inputs, |m, g, w| m + (1.0 - BETA1) as f32 * (g + decay * w - m)),
            Self::Second => {
                let (kept, new) = (BETA2 as f32, (1.0 - BETA2) as f32);
                update(moment, inputs, |v, g, w| kept * v + new * ((g + decay * w) * (g + decay * w)))
            }
        }
        Ok(())
    }
}

impl InplaceOp3 for Rate {
    fn name(&self) -> &'static str {
        "adam-step"
    }

    fn cpu_fwd(
        &self,
        weight: &mut CpuStorage,
        layout: &Layout,
        first: &CpuStorage,
        first_layout: &Layout,
        second: &CpuStorage,
        second_layout: &Layout,
    ) -> Result<()> {
        let (step, root, epsilon) = (self.step as f32, self.root as f32, EPSILON as f32);
        let inputs = (slice(first, first_layout)?, slice(second, second_layout)?);
        update(slice_mut(weight, layout)?, inputs, |w, m, v| w - step * (m / (v.sqrt() / root + epsilon)));
        Ok(())
    }
}

fn update(out: &mut [f32], (a, b): (&[f32], &[f32]), formula: impl Fn(f32, f32, f32) -> f32 + Sync) {
    const CHUNK: usize = 1 << 16;
    let chunks = out.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK));
    chunks.for_each(|((out, a), b)| {
        for ((o, &a), &b) in out.iter_mut().zip(a).zip(b) {
            *o = formula(*o, a, b);
        }
    });
}

fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&storage.as_slice::<f32>()?[from..to]),
        None => bail!("Adam's tensors are contiguous: this is a bug"),
    }
}

fn slice_mut<'a>(storage: &'a mut CpuStorage, layout: &Layout) -> Result<&'a mut [f32]> {
    match (layout.contiguous_offsets(), storage) {
        (Some((from, to)), CpuStorage::F32(values)) => Ok(&mut values[from..to]),
        _ => bail!("Adam's tensors are contiguous and f32: this is a bug"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn variables(values: &[f32]) -> VarMap {
        let map = VarMap::new();
        let variable = Var::new(values, &Device::Cpu).unwrap();
        map.data().lock().unwrap().insert("w".into(), variable);
        map
    }

    fn step(map: &VarMap, adam: &mut Adam, rate: f64) -> Vec<f32> {
        let w = map.data().lock().unwrap()["w"].clone();
        let loss = (w.as_tensor().sqr().unwrap() * w.as_tensor()).unwrap().sum_all().unwrap();
        adam.step(&loss.backward().unwrap(), rate).unwrap();
        w.to_vec1().unwrap()
    }

    /// The numbers are PyTorch's: three steps of `torch.optim.Adam([w], lr=0.1, weight_decay=1e-5)` on Σw³.
    #[test]
    fn three_steps_are_pytorchs() {
        let map = variables(&[1.0, -2.0, 0.5, 1e-3]);
        let mut adam = Adam::new(&map).unwrap();
        for expected in TORCH {
            let got = step(&map, &mut adam, 0.1);
            assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-6), "{got:?} {expected:?}");
        }
    }

    #[test]
    fn the_kernels_and_the_tensor_formula_agree() {
        let map = variables(&[0.3, -0.7, 2.0]);
        let mut adam = Adam::new(&map).unwrap();
        let plain = Var::new(&[0.3f32, -0.7, 2.0], &Device::Cpu).unwrap();
        let moments = [0, 1].map(|_| Var::new(&[0f32; 3], &Device::Cpu).unwrap());
        for t in 1..4 {
            let gradient = (plain.as_detached_tensor().sqr().unwrap() * 3.0).unwrap();
            let rate = Rate { step: 0.01 / (1.0 - BETA1.powi(t)), root: (1.0 - BETA2.powi(t)).sqrt() };
            rate.apply(&plain, &moments, &gradient).unwrap();
            let (got, expected) = (step(&map, &mut adam, 0.01), plain.to_vec1::<f32>().unwrap());
            assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?} {expected:?}");
        }
    }

    #[test]
    fn what_is_saved_goes_on_bit_by_bit() {
        let (one, two) = (variables(&[1.0, -2.0]), variables(&[0.0, 0.0]));
        let mut first = Adam::new(&one).unwrap();
        step(&one, &mut first, 0.1);
        let mut saved = Weights::new();
        first.save(&mut saved).unwrap();
        let mut second = Adam::new(&two).unwrap();
        second.restore(&saved, first.steps()).unwrap();
        assert_eq!(step(&one, &mut first, 0.1), step(&two, &mut second, 0.1));
        saved.remove("adam.second.w");
        assert!(second.restore(&saved, 1).unwrap_err().to_string().contains("adam.second.w"));
    }

    const TORCH: [[f32; 4]; 3] = [
        [0.90000004, -2.1, 0.4, -0.098668866],
        [0.8010908, -2.2001352, 0.3034439, -0.17308941],
        [0.7041538, -2.3004937, 0.2132203, -0.25161684],
    ];
}

//! Dropout: a share of all numbers becomes zero, the others grow such that the mean stays (inverted dropout).
//!
//! Which ones follows from a key and a number's place alone, by a hash, so that no mask is kept and every device silences the
//! same ones. Not here: where the key comes from.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor, WithDType};
use rayon::prelude::*;

use super::cpu::Element;
use super::layer::{slice, with_slice};

/// Numbers that one thread takes at a time.
const PIECE: usize = 1 << 16;

/// What is silenced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Dropout {
    /// Numbers whose hash is below this are.
    pub(super) below: u32,
    /// What the others are multiplied with.
    pub(super) factor: f32,
    pub(super) keys: [u32; 2],
}

impl Dropout {
    /// Silences `share`, from 0 to below 1.
    pub(super) fn new(share: f64, key: u64) -> Self {
        let below = (share * 2f64.powi(32)) as u32;
        Self { below, factor: (1.0 / (1.0 - share)) as f32, keys: [key as u32, (key >> 32) as u32] }
    }

    /// Whether the number at `place` becomes zero; `passes.cuh` has the same. Chris Wellons' `lowbias32`, keyed twice.
    #[inline(always)]
    fn silences(&self, place: u32) -> bool {
        let mut hash = place ^ self.keys[0];
        hash = (hash ^ (hash >> 16)).wrapping_mul(0x21f0_aaad) ^ self.keys[1];
        hash = (hash ^ (hash >> 15)).wrapping_mul(0xd35a_2d97);
        hash ^ (hash >> 15) < self.below
    }

    fn apply<T: Element>(&self, x: &[T]) -> Vec<T> {
        let mut out = vec![T::ZERO; x.len()];
        let factor = T::from_f64(f64::from(self.factor));
        out.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).enumerate().for_each(|(piece, (out, x))| {
            let from = (piece * PIECE) as u32;
            for (place, (o, x)) in (from..).zip(out.iter_mut().zip(x)) {
                *o = if self.silences(place) { T::ZERO } else { *x * factor };
            }
        });
        out
    }
}

/// On the CPU.
pub(super) fn apply(x: &Tensor, dropout: Dropout) -> Result<Tensor> {
    x.contiguous()?.apply_op1(dropout)
}

/// On any device, as a product with a mask.
pub(super) fn by_mask(x: &Tensor, dropout: Dropout) -> Result<Tensor> {
    let mask = dropout.apply(&vec![1f32; x.elem_count()]);
    x * Tensor::from_vec(mask, x.shape(), x.device())?.to_dtype(x.dtype())?
}

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = match storage.dtype() {
            DType::F64 => f64::to_cpu_storage_owned(self.apply::<f64>(slice((storage, layout))?)),
            _ => f32::to_cpu_storage_owned(self.apply::<f32>(slice((storage, layout))?)),
        };
        Ok((out, layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?;
        let back = match x.dtype() {
            DType::F64 => {
                let back = with_slice(&gradient, |gradient| Ok(self.apply::<f64>(gradient)))?;
                Tensor::from_vec(back, x.shape(), x.device())?
            }
            _ => {
                let back = with_slice(&gradient, |gradient| Ok(self.apply::<f32>(gradient)))?;
                Tensor::from_vec(back, x.shape(), x.device())?
            }
        };
        Ok(Some(back))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn a_share_is_silenced_and_the_mean_stays() {
        let x = Tensor::ones((1, 40, 50, 100), DType::F32, &Device::Cpu).unwrap();
        let values = |key| {
            let y = apply(&x, Dropout::new(0.2, key)).unwrap();
            y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let (one, other) = (values(1), values(1 << 32));
        let silenced =
            |values: &[f32]| values.iter().filter(|v| **v == 0.0).count() as f64 / values.len() as f64;
        // Five standard deviations of 200,000 draws are 0.0045.
        for share in [silenced(&one), silenced(&other)] {
            assert!((share - 0.2).abs() < 0.0045, "{share}");
        }
        assert!(one.iter().all(|v| *v == 0.0 || *v == 1.25));
        assert_eq!(one, values(1));
        // Neighbours, and the same places under another key, are silenced independently.
        let both = |pairs: &mut dyn Iterator<Item = (f32, f32)>| {
            pairs.filter(|(a, b)| *a == 0.0 && *b == 0.0).count() as f64 / one.len() as f64
        };
        for together in [
            both(&mut one.iter().copied().zip(other.iter().copied())),
            both(&mut one.iter().copied().zip(one[1..].iter().copied())),
            both(&mut one.iter().copied().zip(one[100..].iter().copied())),
        ] {
            assert!((together - 0.04).abs() < 0.003, "{together}");
        }
    }

    #[test]
    fn a_gradient_passes_where_the_number_did_and_every_way_is_the_same() {
        let x = Var::from_tensor(&Tensor::full(3f64, (2, 5, 7, 4), &Device::Cpu).unwrap()).unwrap();
        let dropout = Dropout::new(0.5, 7);
        let y = apply(&x, dropout).unwrap();
        assert_eq!(
            y.flatten_all().unwrap().to_vec1::<f64>().unwrap(),
            by_mask(&x, dropout).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        );
        let gradient = y.sum_all().unwrap().backward().unwrap().get(&x).unwrap().clone();
        let by_three = (gradient * 3.0).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        assert_eq!(by_three, y.flatten_all().unwrap().to_vec1::<f64>().unwrap());
    }
}

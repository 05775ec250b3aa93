//! The n-th largest number of a tensor, found where the tensor is.

use candle_core::{DType, Result, Tensor, bail};

/// The `nth` largest, from 1, of all of `values` (f32), as a tensor without dimensions on their device, and without a gradient. What
/// is no number counts as larger than all or smaller than all, by its sign.
///
/// # Errors
/// There are fewer than `nth`, or none was asked for.
pub fn nth_largest(values: &Tensor, nth: usize) -> Result<Tensor> {
    let count = values.elem_count();
    if nth == 0 || nth > count || count > i32::MAX as usize {
        bail!("the {nth}th largest of {count} numbers");
    }
    let values = values.detach().contiguous()?;
    #[cfg(feature = "cuda")]
    if values.device().is_cuda() && values.dtype() == DType::F32 {
        return super::cuda::nth_largest(&values, nth);
    }
    let mut all = values.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let (_, &mut found, _) = all.select_nth_unstable_by(nth - 1, |a, b| b.total_cmp(a));
    Tensor::new(found, values.device())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn the_nth_largest_is_the_sorted_ones() {
        let values: Vec<f32> = (0..60u64).map(|i| (i * i * 37 % 61) as f32 - 30.0).collect();
        let mut sorted = values.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let tensor = Tensor::from_vec(values, (3, 4, 5), &Device::Cpu).unwrap();
        for nth in [1, 2, 31, 60] {
            assert_eq!(nth_largest(&tensor, nth).unwrap().to_scalar::<f32>().unwrap(), sorted[nth - 1]);
        }
        for nth in [0, 61] {
            assert!(nth_largest(&tensor, nth).is_err());
        }
    }
}

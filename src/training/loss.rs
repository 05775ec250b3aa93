//! The four losses of a training step (paper §3.2 and §3.3), batch 1.
//!
//! In: what the networks made of the step's pictures, `[1, C, h, w]`. Out: scalars that can be differentiated. Not
//! here: the networks (`efficientad`), the step (`trainer`).

use candle_core::{DType, Device, Result, Tensor};

use crate::efficientad::ops::nth_largest;

/// The share of the student's errors that are hard, from the largest down (paper §3.2: 1 − p_hard, p_hard = 0.999).
pub const HARD_SHARE: f64 = 0.001;

/// What the networks made of one step's pictures; C teacher channels each.
#[derive(Debug)]
pub struct Outputs {
    /// The normalised teacher on the training picture.
    pub teacher: Tensor,
    /// The student's first half on it.
    pub student: Tensor,
    /// The student's first half on the penalty picture, if there is one.
    pub penalty: Option<Tensor>,
    /// The normalised teacher on the augmented picture.
    pub augmented_teacher: Tensor,
    /// The student's second half on it.
    pub augmented_student: Tensor,
    /// The autoencoder on it.
    pub autoencoder: Tensor,
}

/// The losses as tensors.
#[derive(Debug)]
pub struct Losses {
    hard: Tensor,
    penalty: Option<Tensor>,
    autoencoder: Tensor,
    student_autoencoder: Tensor,
}

impl Losses {
    /// The losses of `outputs`, over the cells that are visible: all of them where there is no mask. The penalty's picture
    /// has no mask. Of the student's errors, the largest `hard_share` (above 0, at most 1) count.
    pub fn of(outputs: &Outputs, visible: Option<&Visible>, hard_share: f64) -> Result<Self> {
        let squared = |a: &Tensor, b: &Tensor| (a - b)?.sqr();
        let mean = |errors: Tensor| match visible {
            Some(visible) => visible.mean(&errors),
            None => errors.mean_all(),
        };
        Ok(Self {
            hard: hard(&squared(&outputs.teacher, &outputs.student)?, visible, hard_share)?,
            penalty: outputs.penalty.as_ref().map(|p| p.sqr()?.mean_all()).transpose()?,
            autoencoder: mean(squared(&outputs.augmented_teacher, &outputs.autoencoder)?)?,
            student_autoencoder: mean(squared(&outputs.autoencoder, &outputs.augmented_student)?)?,
        })
    }

    /// Their sum, which training lowers.
    pub fn total(&self) -> Result<Tensor> {
        let sum = ((&self.hard + &self.autoencoder)? + &self.student_autoencoder)?;
        match &self.penalty {
            Some(penalty) => sum + penalty,
            None => Ok(sum),
        }
    }

    /// Their numbers.
    pub fn values(&self) -> Result<LossValues> {
        let all = [
            Some(&self.hard),
            Some(&self.autoencoder),
            Some(&self.student_autoencoder),
            self.penalty.as_ref(),
        ];
        let all: Vec<Tensor> = all.into_iter().flatten().map(Tensor::detach).collect();
        // One copy for all of them, since a device waits for each.
        let numbers = Tensor::stack(&all, 0)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        Ok(LossValues {
            hard: numbers[0],
            autoencoder: numbers[1],
            student_autoencoder: numbers[2],
            penalty: numbers.get(3).copied(),
        })
    }
}

/// Which cells of the networks' maps count.
#[derive(Debug, Clone)]
pub struct Visible {
    cells: Vec<bool>,
    /// `[1, 1, h, w]`: 1 where a cell counts, else 0.
    weights: Tensor,
}

impl Visible {
    /// From which of `rows × columns` cells are hidden; none where all are.
    pub fn new(hidden: &[bool], rows: usize, columns: usize, device: &Device) -> Result<Option<Self>> {
        let cells: Vec<bool> = hidden.iter().map(|hidden| !hidden).collect();
        if !cells.contains(&true) {
            return Ok(None);
        }
        let weights: Vec<f32> = cells.iter().map(|&visible| f32::from(u8::from(visible))).collect();
        Ok(Some(Self { cells, weights: Tensor::from_vec(weights, (1, 1, rows, columns), device)? }))
    }

    /// The mean over the visible cells of `errors [1, C, h, w]`.
    fn mean(&self, errors: &Tensor) -> Result<Tensor> {
        errors.broadcast_mul(&self.weights)?.sum_all()? / self.count(errors)? as f64
    }

    /// How many elements of `errors [1, C, h, w]` are visible.
    fn count(&self, errors: &Tensor) -> Result<usize> {
        Ok(errors.dim(1)? * self.cells.iter().filter(|&&visible| visible).count())
    }
}

/// The mean of the visible elements of `errors`, none of them below zero, at or above their 1 − `share` quantile.
fn hard(errors: &Tensor, visible: Option<&Visible>, share: f64) -> Result<Tensor> {
    let all = errors.detach().to_dtype(DType::F32)?;
    // What is hidden is no error, and sought among as many fewer.
    let (values, count) = match visible {
        Some(visible) => (all.broadcast_mul(&visible.weights)?, visible.count(errors)?),
        None => (all, errors.elem_count()),
    };
    let nth = count - ((1.0 - share) * (count - 1) as f64).ceil() as usize;
    let mask = values.broadcast_ge(&nth_largest(&values, nth)?)?.to_dtype(errors.dtype())?;
    let mask = visible.map_or(Ok(mask.clone()), |visible| mask.broadcast_mul(&visible.weights))?;
    // An error that is no number makes the sum no number.
    (errors * &mask)?.sum_all()? / mask.sum_all()?
}

/// The losses of one step, as numbers.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct LossValues {
    /// Student against teacher, hardest elements only.
    pub hard: f32,
    /// Student on a picture of something else.
    pub penalty: Option<f32>,
    /// Autoencoder against teacher.
    pub autoencoder: f32,
    /// Student against autoencoder.
    pub student_autoencoder: f32,
}

impl LossValues {
    /// Their sum.
    pub fn total(&self) -> f32 {
        self.hard + self.penalty.unwrap_or(0.0) + self.autoencoder + self.student_autoencoder
    }

    /// The first that is no finite number, by name.
    pub fn broken(&self) -> Option<(&'static str, f32)> {
        [
            ("student-teacher", self.hard),
            ("penalty", self.penalty.unwrap_or(0.0)),
            ("autoencoder", self.autoencoder),
            ("student-autoencoder", self.student_autoencoder),
        ]
        .into_iter()
        .find(|(_, value)| !value.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::efficientad::statistics::quantile;
    use candle_core::Var;

    fn outputs(student: &Tensor) -> Outputs {
        let at = |v: f32| Tensor::full(v, student.shape(), &Device::Cpu).unwrap();
        Outputs {
            teacher: at(1.0),
            student: student.clone(),
            penalty: Some(at(3.0)),
            augmented_teacher: at(2.0),
            augmented_student: at(0.5),
            autoencoder: at(1.5),
        }
    }

    #[test]
    fn only_the_hardest_elements_are_learnt() {
        let mut values = vec![1.5f32; 2000];
        values[7] = 5.0;
        values[1999] = -2.0;
        let student = Var::new(values, &Device::Cpu).unwrap();
        let student = Var::from_tensor(&student.reshape((1, 20, 10, 10)).unwrap()).unwrap();
        let losses = Losses::of(&outputs(&student), None, HARD_SHARE).unwrap();
        let numbers = losses.values().unwrap();
        assert_eq!(numbers.hard, (16.0 + 9.0) / 2.0);
        assert_eq!(
            (numbers.penalty, numbers.autoencoder, numbers.student_autoencoder),
            (Some(9.0), 0.25, 1.0)
        );
        assert_eq!(numbers.total(), losses.total().unwrap().to_scalar::<f32>().unwrap());
        let gradient = losses.total().unwrap().backward().unwrap().get(&student).unwrap().clone();
        let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!((gradient[7], gradient[8], gradient[1999]), (4.0, 0.0, -3.0));
    }

    #[test]
    fn what_is_hidden_costs_nothing_and_teaches_nothing() {
        // The largest errors of all channels lie in the hidden cell 7.
        let value = |i: usize| if i % 100 == 7 { 50.0 } else { 1.0 + (i % 13) as f32 * 0.01 };
        let student =
            Tensor::from_vec((0..2000).map(value).collect(), (1, 20, 10, 10), &Device::Cpu).unwrap();
        let student = Var::from_tensor(&student).unwrap();
        let hidden: Vec<bool> = (0..100).map(|cell| cell == 7).collect();
        let visible = Visible::new(&hidden, 10, 10, &Device::Cpu).unwrap().unwrap();
        let mut made = outputs(&student);
        (made.augmented_student, made.autoencoder) =
            (student.as_tensor().clone(), student.zeros_like().unwrap());
        let losses = Losses::of(&made, Some(&visible), HARD_SHARE).unwrap();
        let numbers = losses.values().unwrap();
        assert!(numbers.hard < 0.02, "{numbers:?}");
        assert!((1.0..1.3).contains(&numbers.student_autoencoder), "{numbers:?}");
        assert_eq!(numbers.autoencoder, 4.0);
        let gradient = losses.total().unwrap().backward().unwrap().get(&student).unwrap().clone();
        let gradient = gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert!(gradient.iter().enumerate().all(|(i, g)| (i % 100 == 7) == (*g == 0.0)), "{gradient:?}");
        // Nothing hidden is no mask at all.
        let all = Visible::new(&[false; 100], 10, 10, &Device::Cpu).unwrap().unwrap();
        let [with, without] =
            [Some(&all), None].map(|visible| Losses::of(&made, visible, HARD_SHARE).unwrap());
        assert_eq!(with.values().unwrap().hard, without.values().unwrap().hard);
        assert!(Visible::new(&[true; 100], 10, 10, &Device::Cpu).unwrap().is_none());
    }

    #[test]
    fn what_is_hard_is_what_lies_at_or_above_the_quantile() {
        let all = (1, 384, 56, 56);
        for (seed, shape, share) in
            [(1, all, HARD_SHARE), (1, all, 0.1), (2, (1, 20, 10, 10), 0.02), (3, (1, 7, 3, 5), HARD_SHARE)]
        {
            let mut state = seed as u32;
            let mut number = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32
            };
            let values: Vec<f32> =
                (0..shape.1 * shape.2 * shape.3).map(|_| number().powi(4) * 30.0).collect();
            let limit = quantile(&mut values.clone(), 1.0 - share).unwrap();
            let chosen: Vec<f64> = values.iter().filter(|&&v| v >= limit).map(|&v| f64::from(v)).collect();
            let errors = Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).unwrap()).unwrap();
            let loss = hard(&errors, None, share).unwrap();
            let gradient = loss.backward().unwrap().get(&errors).unwrap().clone();
            let count = gradient.gt(0.0).unwrap().to_dtype(DType::F32).unwrap().sum_all().unwrap();
            assert_eq!(count.to_scalar::<f32>().unwrap(), chosen.len() as f32, "{shape:?} {share}");
            let mean = (chosen.iter().sum::<f64>() / chosen.len() as f64) as f32;
            let loss = loss.to_scalar::<f32>().unwrap();
            assert!((loss - mean).abs() <= 1e-5 * mean, "{loss} instead of {mean}");
        }
        let broken = Tensor::full(f32::NAN, (1, 2, 3, 3), &Device::Cpu).unwrap();
        assert!(hard(&broken, None, HARD_SHARE).unwrap().to_scalar::<f32>().unwrap().is_nan());
    }

    #[test]
    fn the_hardest_are_sought_among_what_is_visible() {
        let values: Vec<f32> = (0..2000).map(|i| if i % 100 == 7 { 50.0 } else { 1.0 + i as f32 }).collect();
        let seen: Vec<f32> =
            (0..2000).filter(|i| i % 100 != 7).map(|i| values[i]).filter(|v| *v >= 1999.0).collect();
        let errors = Tensor::from_vec(values, (1, 20, 10, 10), &Device::Cpu).unwrap();
        let hidden: Vec<bool> = (0..100).map(|cell| cell == 7).collect();
        let visible = Visible::new(&hidden, 10, 10, &Device::Cpu).unwrap().unwrap();
        // The largest 2 of 1,980.
        let found = hard(&errors, Some(&visible), HARD_SHARE).unwrap().to_scalar::<f32>().unwrap();
        assert_eq!(found, seen.iter().sum::<f32>() / seen.len() as f32);
    }

    #[test]
    fn a_loss_that_is_no_number_is_named() {
        let student = Tensor::full(f32::NAN, (1, 2, 3, 3), &Device::Cpu).unwrap();
        let numbers = Losses::of(&outputs(&student), None, HARD_SHARE).unwrap().values().unwrap();
        assert_eq!(numbers.broken().map(|b| b.0), Some("student-teacher"));
    }
}

//! Weights in plain memory: what files hold and what engines pack, apart from any tensor library.
//!
//! Names are the reference's: `teacher.conv1.weight`, `autoencoder.deconv8.bias`, `teacher_mean`, …

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use thiserror::Error;

use super::architecture::TensorShape;

/// One tensor, row-major.
#[derive(Clone, PartialEq)]
pub struct Weight {
    /// Its dimensions, `[output, input, kernel, kernel]` of a convolution.
    pub dims: Vec<usize>,
    /// Its numbers, as many as the dimensions' product.
    pub values: Vec<f32>,
}

impl Weight {
    /// A file's tensor in f32, if it is in f32 or f16.
    pub(super) fn of(view: &TensorView) -> Option<Self> {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F32 => {
                data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
            }
            Dtype::F16 => {
                data.chunks_exact(2).map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()).collect()
            }
            _ => return None,
        };
        Some(Self { dims: view.shape().to_vec(), values })
    }
}

impl std::fmt::Debug for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Weight({:?})", self.dims)
    }
}

/// Tensors by name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Weights(BTreeMap<String, Weight>);

/// Weights that do not make the network.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WeightsError {
    /// One is not there.
    #[error("tensor `{0}` is missing")]
    Missing(String),
    /// One has another shape.
    #[error("tensor `{name}` has the shape {got:?} where the network needs {expected:?}")]
    Shape {
        /// Which.
        name: String,
        /// What the network needs.
        expected: Vec<usize>,
        /// What it has.
        got: Vec<usize>,
    },
    /// One holds NaN or infinity.
    #[error("tensor `{0}` holds a number that is not finite")]
    NotFinite(String),
}

impl Weights {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts one in, in place of any of that name.
    pub fn insert(&mut self, name: impl Into<String>, weight: Weight) {
        self.0.insert(name.into(), weight);
    }

    /// Copies a tensor in, from any device, as f32.
    pub fn insert_tensor(&mut self, name: impl Into<String>, tensor: &Tensor) -> Result<()> {
        let values = tensor.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        self.insert(name, Weight { dims: tensor.dims().to_vec(), values });
        Ok(())
    }

    /// Puts all of `others` in, their names behind `prefix` (such as `teacher.`).
    pub fn insert_all(&mut self, prefix: &str, others: &Weights) {
        self.0.extend(others.0.iter().map(|(name, w)| (format!("{prefix}{name}"), w.clone())));
    }

    /// The one of that name.
    pub fn get(&self, name: &str) -> Option<&Weight> {
        self.0.get(name)
    }

    /// Takes the one of that name out.
    pub fn remove(&mut self, name: &str) -> Option<Weight> {
        self.0.remove(name)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Weight)> {
        self.0.iter().map(|(name, w)| (name.as_str(), w))
    }

    /// Only those of `shapes`, checked.
    ///
    /// # Errors
    /// The first that is missing, of another shape, or not finite.
    pub fn select(mut self, shapes: &[TensorShape]) -> std::result::Result<Self, WeightsError> {
        let mut selected = Self::new();
        for TensorShape { name, dims } in shapes {
            let weight = self.0.remove(name).ok_or_else(|| WeightsError::Missing(name.clone()))?;
            if weight.dims != *dims {
                return Err(WeightsError::Shape {
                    name: name.clone(),
                    expected: dims.clone(),
                    got: weight.dims,
                });
            }
            if !weight.values.iter().all(|v| v.is_finite()) {
                return Err(WeightsError::NotFinite(name.clone()));
            }
            selected.insert(name, weight);
        }
        Ok(selected)
    }

    /// All as candle tensors on `device`.
    pub fn tensors(&self, device: &Device) -> Result<HashMap<String, Tensor>> {
        let tensor = |(name, w): (&String, &Weight)| {
            Ok((name.clone(), Tensor::from_slice(&w.values, w.dims.as_slice(), device)?))
        };
        self.0.iter().map(tensor).collect()
    }

    /// All as constants for [`super::Pdn::new`] and [`super::Autoencoder::new`].
    pub fn var_builder(&self, device: &Device) -> Result<VarBuilder<'static>> {
        Ok(VarBuilder::from_tensors(self.tensors(device)?, DType::F32, device))
    }
}

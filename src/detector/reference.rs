//! The reference engine: the networks as `efficientad` states them, in candle, on any device. Slow on a CPU.
//!
//! In: pictures of the model's input size. Out: combined raw maps. Runs on the caller's thread (candle spreads over
//! rayon's global pool). It is what every other engine is held against, so it knows no shortcut.

use candle_core::Tensor;

use super::{AnomalyMap, Inspector, InspectorError, OpenError, check_inputs};
use crate::efficientad::{CalibratedModel, Combination, Networks, input};
use crate::frame::{Picture, Size};

/// candle's networks on one device.
pub struct Reference {
    networks: Networks,
    combination: Combination,
    input: Size,
    map: Size,
    device: candle_core::Device,
    name: String,
}

impl Reference {
    /// The model's networks on `device`, which is called `name`.
    ///
    /// # Errors
    /// The device has no room for them.
    pub fn new(
        model: &CalibratedModel,
        device: candle_core::Device,
        name: String,
    ) -> Result<Self, OpenError> {
        let networks = model
            .networks(&device)
            .map_err(|e| OpenError::Device { device: name.clone(), message: e.to_string() })?;
        let architecture = model.architecture();
        let [rows, columns] = architecture.map_size();
        let map = Size::new(columns as u32, rows as u32);
        Ok(Self { networks, combination: model.combination(), input: architecture.input, map, device, name })
    }

    fn maps(&self, pictures: &[&Picture]) -> candle_core::Result<Vec<AnomalyMap>> {
        let x = input::normalise(pictures, &self.device)?;
        let (student_teacher, autoencoder_student) = self.networks.raw_maps(&x)?;
        let values = |maps: &Tensor| maps.flatten_from(1)?.to_vec2::<f32>();
        let pairs = values(&student_teacher)?.into_iter().zip(values(&autoencoder_student)?);
        Ok(pairs
            .map(|(st, ae)| AnomalyMap { size: self.map, values: self.combination.of(&st, &ae) })
            .collect())
    }
}

impl Inspector for Reference {
    fn describe(&self) -> String {
        format!("reference engine on {}", self.name)
    }

    fn input(&self) -> Size {
        self.input
    }

    fn infer(&mut self, pictures: &[&Picture]) -> Result<Vec<AnomalyMap>, InspectorError> {
        check_inputs(self.input, pictures)?;
        if pictures.is_empty() {
            return Ok(Vec::new());
        }
        self.maps(pictures)
            .map_err(|e| InspectorError::Device { engine: "reference", message: e.to_string() })
    }
}

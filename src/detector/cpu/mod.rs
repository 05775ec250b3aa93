//! The CPU engine: EfficientAD as fast as a processor can run it, in f32.
//!
//! In: pictures of the model's input size. Out: combined raw maps, within 1e-3 of the reference's, the same bits for the
//! same picture every time on one machine. Nearly all arithmetic is Winograd's minimal filtering (`winograd`). Memory is taken at load; a
//! frame allocates its map and nothing else. The caller's thread works along with the workers of a pool that all
//! detectors share. Why it is as it is, and what was measured: `docs/adr/0003-cpu-engine.md`.

mod canvas;
mod cook_toom;
mod direct;
mod multiply;
mod network;
pub(super) mod peak;
mod plan;
mod pool;
mod resize;
mod shared;
mod simd;
mod sink;
mod stage;
mod tensor;
mod tiling;
mod transform;
mod winograd;

use std::sync::Arc;

use self::network::Network;
pub use self::network::Step;
use self::plan::Plan;
use self::pool::Pool;
pub(crate) use self::simd::Isa;
use super::{AnomalyMap, Inspector, InspectorError, check_inputs};
use crate::efficientad::{CalibratedModel, Combination};
use crate::frame::{Picture, Size};

/// A model laid out for the processor.
pub struct Cpu {
    network: Network,
    pool: Arc<Pool>,
    isa: Isa,
    combination: Combination,
    input: Size,
    map: Size,
    raw: [Vec<f32>; 2],
}

impl Cpu {
    /// The model for `threads` threads (the caller's included) and the best instructions that the processor has.
    pub fn new(model: &CalibratedModel, threads: usize) -> Self {
        Self::with_instructions(model, threads, Isa::best())
    }

    pub(crate) fn with_instructions(model: &CalibratedModel, threads: usize, isa: Isa) -> Self {
        let pool = Pool::shared(threads);
        let network = Network::new(Plan { isa, threads: pool.threads() }, model);
        let [rows, columns] = model.architecture().map_size();
        let map = Size::new(columns as u32, rows as u32);
        let raw = [(); 2].map(|()| vec![0.0; rows * columns]);
        let (combination, input) = (model.combination(), model.architecture().input);
        Self { network, pool, isa, combination, input, map, raw }
    }

    /// The steps of a frame, in order, for measuring.
    pub fn steps(&self) -> &[Step] {
        self.network.steps()
    }

    /// One step of a frame, on what the steps before it left.
    pub fn run_step(&mut self, step: Step, picture: &Picture) {
        self.network.run_step(step, &self.pool, picture);
    }
}

impl Inspector for Cpu {
    fn describe(&self) -> String {
        format!("CPU engine, {}, {} threads", self.isa.name(), self.pool.threads())
    }

    fn input(&self) -> Size {
        self.input
    }

    fn infer(&mut self, pictures: &[&Picture]) -> Result<Vec<AnomalyMap>, InspectorError> {
        check_inputs(self.input, pictures)?;
        let map = |picture: &&Picture| {
            let [student_teacher, autoencoder_student] = &mut self.raw;
            self.network.run(&self.pool, picture, [student_teacher, autoencoder_student]);
            AnomalyMap { size: self.map, values: self.combination.of(student_teacher, autoencoder_student) }
        };
        Ok(pictures.iter().map(map).collect())
    }
}

#[cfg(test)]
mod tests;

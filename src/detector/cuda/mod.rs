//! The CUDA engine: EfficientAD on an NVIDIA card of the Ampere generation or later, by kernels of our own.
//!
//! In: pictures of the model's input size. Out: combined raw maps, within 1e-2 of the reference's in norm, the same bits for
//! the same picture every time on one card in batches of one size. Halves with f32 sums, channels last; a batch is one CUDA graph from upload to
//! download, and of many pictures one batch is uploaded while another is computed. Needs the driver, nothing else. Owned by
//! one thread. Not here: what happens when the card fails (`resilient`). Why it is as it is: `docs/adr/0007-gpu-engine.md`.

mod card;
mod driver;
mod launches;
mod network;
mod parameters;
mod slot;
mod tiles;
mod weights;

use std::sync::Arc;

pub use self::card::CardInfo;
use self::card::{Buffer, Card, Stream};
pub use self::driver::CudaError;
use self::driver::Driver;
use self::launches::Caller;
use self::network::Plan;
use self::slot::{Enlarged, Found, Slot};
use super::{AnomalyMap, Enlargement, Inspector, InspectorError, check_inputs};
use crate::efficientad::{Architecture, CalibratedModel};
use crate::frame::{Picture, Size};

/// The kernels for all generations of cards, where this build has them.
#[cfg(feature = "cuda-inference")]
const IMAGE: Option<&[u8]> = Some(include_bytes!(concat!(env!("OUT_DIR"), "/kernels.fatbin")));
#[cfg(not(feature = "cuda-inference"))]
const IMAGE: Option<&[u8]> = None;

/// The CUDA version that the kernels were compiled with, such as `13.0`; none without them.
pub const TOOLKIT: Option<&str> = option_env!("INSPECTORD_CUDA_TOOLKIT");

/// Batches under way at once: one is uploaded while the other is computed.
const SLOTS: usize = 2;
/// Pictures of one batch, at most; more bring no more speed.
const MOST_PICTURES: usize = 32;
/// More pictures than this at once are worth two batches.
const SPLIT: usize = 16;
/// The share of the card's memory that one slot's activations may take, one of so many.
const MEMORY_SHARE: u64 = 6;

/// Whether this build can run models on NVIDIA cards.
pub fn is_built_in() -> bool {
    IMAGE.is_some()
}

/// The machine's cards, whether or not this build can use them.
///
/// # Errors
/// There is no driver, or it does not answer.
pub fn cards() -> Result<Vec<CardInfo>, CudaError> {
    let driver = Driver::load()?;
    (0..driver.count()?).map(|ordinal| card::info(&driver, ordinal)).collect()
}

/// The driver's own version, such as `580.65.06`, where the system tells.
pub fn driver_release() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let is_release = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().next()?.split_whitespace().find(is_release).map(str::to_owned)
}

/// What both slots share.
struct Model {
    plan: Plan,
    architecture: Architecture,
    /// What the sums of squares of each map are multiplied by, and what is added to each cell.
    scale: [f32; 2],
    offsets: Buffer,
    weights: Vec<[Buffer; 2]>,
}

impl Model {
    fn picture_bytes(&self) -> usize {
        self.architecture.input.pixels() as usize * 3
    }

    fn area(&self) -> usize {
        self.plan.heads.size[0] * self.plan.heads.size[1]
    }
}

/// A model on a card.
pub struct Cuda {
    // Slots hold graphs that read the model's memory, and go first.
    slots: Vec<Slot>,
    model: Model,
    card: Arc<Card>,
    map: Size,
    most_pictures: usize,
}

impl Cuda {
    /// The model on the card of this number.
    ///
    /// # Errors
    /// There is no driver or no such card, it is too old, or it has no room.
    pub fn new(model: &CalibratedModel, ordinal: usize) -> Result<Self, CudaError> {
        let image = IMAGE.ok_or(CudaError::NoKernels)?;
        Self::with_driver(model, Driver::load()?, ordinal, image)
    }

    /// The model on the first card that takes it; `None` where there is no card, or this build has no kernels.
    ///
    /// # Errors
    /// There are cards, or at least a driver for some, and none of them can be used.
    pub fn any(model: &CalibratedModel) -> Result<Option<Self>, CudaError> {
        let Some(image) = IMAGE else { return Ok(None) };
        let driver = match Driver::load() {
            Ok(driver) => driver,
            Err(error) if error.means_no_card() && !driver::is_loaded() => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut refusal: Option<CudaError> = None;
        for ordinal in 0..driver.count()? {
            match Self::with_driver(model, driver.clone(), ordinal, image) {
                Ok(engine) => return Ok(Some(engine)),
                // One that is full may have room later; of others, the first.
                Err(error) if refusal.is_none() || error.means_no_room() => refusal = Some(error),
                Err(_) => {}
            }
        }
        refusal.map_or(Ok(None), Err)
    }

    fn with_driver(
        model: &CalibratedModel,
        driver: Arc<Driver>,
        ordinal: usize,
        image: &[u8],
    ) -> Result<Self, CudaError> {
        let card = Card::open(driver, ordinal, image, &launches::kernels())?;
        let plan = Plan::new(model);
        for tile in tiles::TILES {
            for kernel in [tile.keep, tile.pool, tile.squares] {
                card.allow_shared(kernel, tile.shared())?;
            }
        }
        for kernel in ["first_pooled", "first_halved"] {
            card.allow_shared(kernel, Caller::first_shared(&plan))?;
        }
        let stream = Stream::new(&card)?;
        let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_ne_bytes()).collect::<Vec<u8>>();
        let place = |packed: &weights::Packed| {
            let halves: Vec<u8> = packed.weights.iter().flat_map(|h| h.to_ne_bytes()).collect();
            Ok([stream.place(&halves)?, stream.place(&floats(&packed.bias))?])
        };
        let weights = plan.packed.iter().map(place).collect::<Result<_, CudaError>>()?;
        let slots = (0..SLOTS).map(|_| Slot::new(&card)).collect::<Result<_, _>>()?;
        let architecture = model.architecture().clone();
        let [rows, columns] = architecture.map_size();
        let fitting = card.info.memory / MEMORY_SHARE / (plan.bytes() as u64).max(1);
        let most_pictures = usize::try_from(fitting).unwrap_or(MOST_PICTURES).clamp(1, MOST_PICTURES);
        let map = Size::new(columns as u32, rows as u32);
        let combination = model.combination();
        let scale = combination.scale.map(|scale| scale / architecture.features as f32);
        let offsets = stream.place(&floats(&combination.offsets))?;
        let model = Model { plan, architecture, scale, offsets, weights };
        Ok(Self { slots, model, card, map, most_pictures })
    }

    /// Computes all convolutions in tiles of so many rows and columns, to try out which is best.
    ///
    /// # Errors
    /// There are no such tiles; the message says which there are.
    pub fn use_tile(&mut self, rows: usize, columns: usize) -> Result<(), String> {
        let found = tiles::TILES.into_iter().find(|tile| (tile.rows, tile.columns) == (rows, columns));
        let names: Vec<_> =
            tiles::TILES.iter().map(|tile| format!("{}x{}", tile.rows, tile.columns)).collect();
        let tile = found.ok_or_else(|| format!("no tile {rows}x{columns}: use {}", names.join(", ")))?;
        self.model.plan.only_tile = Some(tile);
        Ok(())
    }

    /// Which card.
    pub fn card(&self) -> &CardInfo {
        &self.card.info
    }

    /// Bytes of the card's memory that are in use, by whomever.
    ///
    /// # Errors
    /// The card does not answer.
    pub fn memory_in_use(&self) -> Result<u64, CudaError> {
        let (free, total) = self.card.memory()?;
        Ok((total - free) as u64)
    }

    /// What is found in all pictures, in batches that overlap.
    fn run(&mut self, pictures: &[&Picture], enlarged: Enlarged) -> Result<Vec<Found>, CudaError> {
        self.card.enter()?;
        // What a failed call may have left under way is of no use.
        for slot in &mut self.slots {
            slot.collect(&self.model)?;
        }
        let mut found = Vec::with_capacity(pictures.len());
        let mut next = 0;
        for batch in pictures.chunks(self.batch_for(pictures.len())) {
            let slot = &mut self.slots[next];
            next = (next + 1) % SLOTS;
            found.extend(slot.collect(&self.model)?);
            slot.submit(&self.model, batch, enlarged)?;
        }
        for i in 0..SLOTS {
            found.extend(self.slots[(next + i) % SLOTS].collect(&self.model)?);
        }
        Ok(found)
    }

    /// The size of batches for so many pictures: halves where each still fills the card, so that one half's pictures are
    /// copied while the other's are looked at.
    fn batch_for(&self, pictures: usize) -> usize {
        let wanted = if pictures > SPLIT { pictures.div_ceil(SLOTS) } else { pictures };
        wanted.clamp(1, self.most_pictures)
    }

    fn map(&self, values: Vec<f32>) -> AnomalyMap {
        AnomalyMap { size: self.map, values }
    }
}

impl From<CudaError> for InspectorError {
    fn from(error: CudaError) -> Self {
        let (engine, message) = ("CUDA", error.to_string());
        if error.means_no_room() {
            Self::NoRoom { engine, message }
        } else {
            Self::Device { engine, message }
        }
    }
}

impl Inspector for Cuda {
    fn describe(&self) -> String {
        let CardInfo { ordinal, name, capability: (major, minor), .. } = self.card();
        format!("CUDA engine, cuda:{ordinal}, {name} ({major}.{minor})")
    }

    fn input(&self) -> Size {
        self.model.architecture.input
    }

    fn infer(&mut self, pictures: &[&Picture]) -> Result<Vec<AnomalyMap>, InspectorError> {
        check_inputs(self.input(), pictures)?;
        let found = self.run(pictures, None)?;
        Ok(found.into_iter().map(|found| self.map(found.map)).collect())
    }

    fn infer_enlarged(
        &mut self,
        pictures: &[&Picture],
        size: Size,
    ) -> Result<Vec<Enlargement>, InspectorError> {
        check_inputs(self.input(), pictures)?;
        let found = self.run(pictures, Some(size))?;
        let both = found.into_iter().filter_map(|found| {
            let (values, highest) = found.enlarged?;
            Some(Enlargement { raw: self.map(found.map), map: AnomalyMap { size, values }, highest })
        });
        Ok(both.collect())
    }
}

#[cfg(test)]
mod tests;

//! Room on the card for one batch under way: its own streams, memory and graphs, so that two slots overlap.
//!
//! Owned by the engine. A graph – upload, all launches, download – is made at the first batch of its size and kept, of
//! maps at the picture's size those of the last such size. Memory
//! grows to the largest batch that was asked for and never beyond.

use std::collections::HashMap;
use std::sync::Arc;

use super::Model;
use super::card::{Buffer, Card, Graph, Launch, Pinned, Stream};
use super::driver::CudaError;
use super::launches::{Caller, Memory, Parameters, canvas};
use super::tiles::TILES;
use crate::frame::{Picture, Size};

/// What is wanted of a batch besides its maps: the maps at this size.
pub(super) type Enlarged = Option<Size>;

/// One picture's results.
pub(super) struct Found {
    /// The combined raw map.
    pub(super) map: Vec<f32>,
    /// The map at the size that was asked for, and its highest value.
    pub(super) enlarged: Option<(Vec<f32>, f32)>,
}

pub(super) struct Slot {
    // Graphs go before the memory they read.
    graphs: HashMap<(usize, Enlarged), Graph>,
    room: Option<Room>,
    large: Option<Large>,
    main: Stream,
    side: Stream,
    card: Arc<Card>,
    under_way: Option<(usize, Enlarged)>,
}

/// Memory for batches up to a size.
struct Room {
    batch: usize,
    pictures: Buffer,
    map: Buffer,
    scores: Buffer,
    staged: Pinned,
    results: Pinned,
    highest: Pinned,
    memory: Memory,
    #[cfg_attr(not(test), expect(dead_code, reason = "it is kept for what `memory` points to"))]
    others: Vec<Buffer>,
}

/// Memory for maps at the picture's size.
struct Large {
    map: Buffer,
    results: Pinned,
}

const F32: usize = size_of::<f32>();

impl Slot {
    pub(super) fn new(card: &Arc<Card>) -> Result<Self, CudaError> {
        Ok(Self {
            graphs: HashMap::new(),
            room: None,
            large: None,
            main: Stream::new(card)?,
            side: Stream::new(card)?,
            card: card.clone(),
            under_way: None,
        })
    }

    /// Asks for the maps of these pictures and returns before they are there.
    pub(super) fn submit(
        &mut self,
        model: &Model,
        pictures: &[&Picture],
        enlarged: Enlarged,
    ) -> Result<(), CudaError> {
        assert!(self.under_way.is_none(), "a slot that has not been collected is used again: this is a bug");
        self.make_room(model, pictures.len(), enlarged)?;
        let room = self.room.as_mut().expect("room was made: this is a bug");
        let bytes = model.picture_bytes();
        for (to, picture) in room.staged.bytes().chunks_exact_mut(bytes).zip(pictures) {
            to.copy_from_slice(picture.rgb());
        }
        let key = (pictures.len(), enlarged);
        if !self.graphs.contains_key(&key) {
            let graph = self.make_graph(model, pictures.len(), enlarged)?;
            self.graphs.insert(key, graph);
        }
        self.main.run(&self.graphs[&key])?;
        self.under_way = Some(key);
        Ok(())
    }

    /// Waits for what was asked for; nothing, if nothing was.
    pub(super) fn collect(&mut self, model: &Model) -> Result<Vec<Found>, CudaError> {
        let Some((batch, enlarged)) = self.under_way.take() else { return Ok(Vec::new()) };
        self.main.wait()?;
        let room = self.room.as_ref().expect("a batch under way has room: this is a bug");
        let large = enlarged.zip(self.large.as_ref());
        let found = |i: usize| {
            let map = part(&room.results, i, model.area());
            let enlarged = large.map(|(size, large)| {
                let highest = unordered(room.highest.floats()[i].to_bits());
                (part(&large.results, i, size.pixels() as usize), highest)
            });
            Found { map, enlarged }
        };
        Ok((0..batch).map(found).collect())
    }

    /// Where its memory is.
    #[cfg(test)]
    pub(super) fn memory(&self) -> Vec<super::driver::Address> {
        let room = self.room.iter().flat_map(|room| room.others.iter().map(|buffer| buffer.address));
        room.chain(self.large.iter().map(|large| large.map.address)).collect()
    }

    /// How many graphs it keeps.
    #[cfg(test)]
    pub(super) fn graphs(&self) -> usize {
        self.graphs.len()
    }

    fn make_room(&mut self, model: &Model, batch: usize, enlarged: Enlarged) -> Result<(), CudaError> {
        if self.room.as_ref().is_none_or(|room| room.batch < batch) {
            self.graphs.clear();
            // The old room goes first, so that both need not fit.
            self.room = None;
            self.room = Some(Room::new(&self.card, &self.main, model, batch)?);
        }
        let Some(size) = enlarged else { return Ok(()) };
        // Regions change rarely, and each size's graph takes memory.
        self.graphs.retain(|(_, kept), _| kept.is_none() || *kept == enlarged);
        let bytes = batch * size.pixels() as usize * F32;
        if self.large.as_ref().is_none_or(|large| large.map.bytes < bytes) {
            self.graphs.retain(|(_, enlarged), _| enlarged.is_none());
            self.large = None;
            let map = Buffer::new(&self.card, bytes)?;
            self.large = Some(Large { map, results: Pinned::new(&self.card, bytes)? });
        }
        Ok(())
    }

    fn make_graph(&mut self, model: &Model, batch: usize, enlarged: Enlarged) -> Result<Graph, CudaError> {
        let room = self.room.as_mut().expect("room was made: this is a bug");
        let (main, side, large) = (&self.main, &self.side, &mut self.large);
        let caller = Caller {
            plan: &model.plan,
            architecture: &model.architecture,
            memory: &room.memory,
            batch,
            processors: self.card.info.multiprocessors,
        };
        main.capture(|| {
            main.upload(&room.pictures, &mut room.staged, batch * model.picture_bytes())?;
            call(main, caller.draw())?;
            side.wait_for(main)?;
            for step in &model.plan.side {
                call(side, caller.step(step))?;
            }
            for step in &model.plan.main {
                call(main, caller.step(step))?;
            }
            main.wait_for(side)?;
            call(main, caller.convolution(&model.plan.heads))?;
            call(main, caller.combine(model.scale, model.offsets.address))?;
            main.download(&mut room.results, &room.map, batch * model.area() * F32)?;
            let (Some(size), Some(large)) = (enlarged, large.as_mut()) else { return Ok(()) };
            let sides = [size.height as usize, size.width as usize];
            call(main, caller.enlarge(sides, large.map.address))?;
            main.download(&mut large.results, &large.map, batch * size.pixels() as usize * F32)?;
            main.download(&mut room.highest, &room.scores, batch * F32)
        })
    }
}

impl Room {
    fn new(card: &Arc<Card>, stream: &Stream, model: &Model, batch: usize) -> Result<Self, CudaError> {
        let input = model.architecture.input;
        let sides = canvas([input.height as usize, input.width as usize]);
        let canvas = Buffer::new(card, batch * sides[0] * sides[1] * 8)?;
        // Margins are never written again.
        stream.clear(&canvas)?;
        let mut others = vec![canvas];
        let mut tensors = Vec::new();
        for shape in &model.plan.tensors {
            let tensor = Buffer::new(card, batch * shape.bytes())?;
            if shape.margin > 0 {
                stream.clear(&tensor)?;
            }
            tensors.push(tensor.address);
            others.push(tensor);
        }
        let map_bytes = batch * model.area() * F32;
        let narrowest = TILES.iter().map(|tile| tile.columns).min().unwrap_or(1);
        let mut squares = [0; 2];
        for (i, to) in squares.iter_mut().enumerate() {
            let outputs = model.plan.packed[model.plan.heads.problems[i].weights].outputs();
            let sums = Buffer::new(card, outputs.div_ceil(narrowest) * map_bytes)?;
            *to = sums.address;
            others.push(sums);
        }
        let pictures = Buffer::new(card, batch * model.picture_bytes())?;
        let (map, scores) = (Buffer::new(card, map_bytes)?, Buffer::new(card, batch * F32)?);
        let memory = Memory {
            pictures: pictures.address,
            canvas: others[0].address,
            tensors,
            squares,
            map: map.address,
            scores: scores.address,
            weights: model.weights.iter().map(|[w, b]| [w.address, b.address]).collect(),
        };
        let staged = Pinned::new(card, batch * model.picture_bytes())?;
        let (results, highest) = (Pinned::new(card, map_bytes)?, Pinned::new(card, batch * F32)?);
        stream.wait()?;
        Ok(Self { batch, pictures, map, scores, staged, results, highest, memory, others })
    }
}

fn call(stream: &Stream, (launch, parameters): (Launch, Parameters)) -> Result<(), CudaError> {
    // SAFETY: each structure goes to the kernel that `Caller` made it for; the slot owns the memory it points to, and the
    // engine the weights, and both outlive the slot's graphs.
    unsafe {
        match &parameters {
            Parameters::Draw(p) => stream.launch(&launch, p),
            Parameters::First(p) => stream.launch(&launch, p),
            Parameters::Convolution(p) => stream.launch(&launch, p),
            Parameters::Resize(p) => stream.launch(&launch, p),
            Parameters::Combine(p) => stream.launch(&launch, p),
            Parameters::Enlarge(p) => stream.launch(&launch, p),
        }
    }
}

/// The numbers of picture `i`, of `count` each.
fn part(all: &Pinned, i: usize, count: usize) -> Vec<f32> {
    all.floats()[i * count..][..count].to_vec()
}

/// The float that `ordered` of `kernels/maps.cuh` made an integer of.
fn unordered(bits: u32) -> f32 {
    f32::from_bits(if bits >> 31 == 1 { bits & 0x7fff_ffff } else { !bits })
}

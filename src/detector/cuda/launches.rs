//! From the plan to calls: each step's kernel, grid and parameters, for one batch in one slot's memory; pure but for the
//! addresses that go through.

use super::card::Launch;
use super::driver::Address;
use super::network::{self, Plan, Reads, Step, Then, chunks};
use super::parameters as p;
use super::tiles::{TILES, Tile};
use crate::efficientad::Architecture;
use crate::efficientad::input::{MEAN, STD};

const THREADS: u32 = 128;
/// Threads of the kernels that go through pictures and maps.
const WIDE: u32 = 256;
/// Blocks of a first layer for each processor: each loads all weights once, and then goes on.
const FIRST_BLOCKS: usize = 3;
/// Bytes of a first layer's weights for each output.
const FIRST_ROW: usize = 128;

/// All kernels.
pub(super) fn kernels() -> Vec<&'static str> {
    let mut names = vec!["first_pooled", "first_halved", "draw", "resize", "combine", "enlarge"];
    names.extend(TILES.iter().flat_map(|tile| [tile.keep, tile.pool, tile.squares]));
    names
}

/// The canvas for pictures of this size: a margin of one, and rows of whole 16 bytes.
pub(super) fn canvas([rows, columns]: [usize; 2]) -> [usize; 2] {
    [rows + 2, (columns + 2).next_multiple_of(2)]
}

/// Where one slot keeps things, and for how many pictures.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pub(super) pictures: Address,
    pub(super) canvas: Address,
    /// By tensor.
    pub(super) tensors: Vec<Address>,
    /// By head.
    pub(super) squares: [Address; 2],
    pub(super) map: Address,
    pub(super) scores: Address,
    /// Weights and bias, by packed weights; shared by all slots.
    pub(super) weights: Vec<[Address; 2]>,
}

/// A kernel's parameters.
#[derive(Debug, Clone, Copy)]
pub(super) enum Parameters {
    Draw(p::Draw),
    First(p::First),
    Convolution(p::Convolution),
    Resize(p::Resize),
    Combine(p::Combine),
    Enlarge(p::Enlarge),
}

/// Makes calls of steps.
pub(super) struct Caller<'a> {
    pub(super) plan: &'a Plan,
    pub(super) architecture: &'a Architecture,
    pub(super) memory: &'a Memory,
    pub(super) batch: usize,
    pub(super) processors: usize,
}

fn int(n: usize) -> i32 {
    i32::try_from(n).expect("batches are bounded such that positions can be counted: this is a bug")
}

fn count(n: usize) -> u32 {
    u32::try_from(n).expect("batches are bounded such that blocks can be counted: this is a bug")
}

impl Caller<'_> {
    fn input(&self) -> [usize; 2] {
        [self.architecture.input.height as usize, self.architecture.input.width as usize]
    }

    pub(super) fn draw(&self) -> (Launch, Parameters) {
        let [rows, columns] = self.input();
        let [canvas_rows, canvas_columns] = canvas(self.input());
        let blocks = (self.batch * rows * columns).div_ceil(WIDE as usize);
        let launch = Launch { kernel: "draw", grid: [count(blocks), 1], threads: WIDE, shared: 0 };
        let parameters = p::Draw {
            pictures: self.memory.pictures,
            canvas: self.memory.canvas,
            batch: int(self.batch),
            rows: int(rows),
            columns: int(columns),
            canvas_rows: int(canvas_rows),
            canvas_columns: int(canvas_columns),
            scale: STD.map(|std| 1.0 / (255.0 * std)),
            shift: [0, 1, 2].map(|c| -MEAN[c] / STD[c]),
        };
        (launch, Parameters::Draw(parameters))
    }

    pub(super) fn step(&self, step: &Step) -> (Launch, Parameters) {
        match step {
            Step::First(first) => self.first(first),
            Step::Convolution(convolution) => self.convolution(convolution),
            &Step::Resize { from, to } => self.resize(from, to),
        }
    }

    fn first(&self, first: &network::First) -> (Launch, Parameters) {
        let [weights, bias] = self.memory.weights[first.weights];
        let outputs = self.plan.packed[first.weights].outputs();
        let [rows, columns] = self.plan.tensors[first.output].size;
        let [canvas_rows, canvas_columns] = canvas(self.input());
        let corners = if first.pooled { 4 } else { 1 };
        let tiles = (self.batch * rows * columns * corners).div_ceil(THREADS as usize);
        let launch = Launch {
            kernel: if first.pooled { "first_pooled" } else { "first_halved" },
            grid: [count(tiles.min(FIRST_BLOCKS * self.processors)), 1],
            threads: THREADS,
            shared: count(outputs * FIRST_ROW),
        };
        let parameters = p::First {
            canvas: self.memory.canvas,
            canvas_rows: int(canvas_rows),
            canvas_columns: int(canvas_columns),
            // The descriptors skip the margin, which is the encoder's padding.
            origin: i32::from(first.pooled),
            weights,
            bias,
            output: self.sink(first.output, 0),
            outputs: int(outputs),
            batch: int(self.batch),
            rows: int(rows),
            columns: int(columns),
        };
        (launch, Parameters::First(parameters))
    }

    /// Bytes of shared memory that the first layer of this plan asks for.
    pub(super) fn first_shared(plan: &Plan) -> usize {
        let outputs = |step: &Step| match step {
            Step::First(first) => plan.packed[first.weights].outputs() * FIRST_ROW,
            _ => 0,
        };
        plan.main.iter().chain(&plan.side).map(outputs).max().unwrap_or(0)
    }

    fn source(&self, reads: &Reads) -> p::Source {
        let shape = &self.plan.tensors[reads.tensor];
        let from = shape.offset(shape.margin - reads.padding, reads.channel);
        let [rows, columns] = shape.sides();
        p::Source {
            data: self.memory.tensors[reads.tensor] + from as Address,
            rows: int(rows),
            columns: int(columns),
            pitch: int(shape.channels),
            chunks: int(chunks(reads.channels)),
            kernel: int(reads.kernel),
        }
    }

    fn sink(&self, tensor: usize, channel: usize) -> p::Sink {
        let shape = &self.plan.tensors[tensor];
        let [rows, columns] = shape.sides();
        p::Sink {
            data: self.memory.tensors[tensor] + shape.offset(shape.margin, channel) as Address,
            rows: int(rows),
            columns: int(columns),
            pitch: int(shape.channels),
        }
    }

    pub(super) fn tile(&self, convolution: &network::Convolution) -> Tile {
        self.plan.tile(convolution, self.batch, self.processors)
    }

    pub(super) fn convolution(&self, convolution: &network::Convolution) -> (Launch, Parameters) {
        let tile = self.tile(convolution);
        let [rows, columns] = convolution.size;
        let mut parameters = p::Convolution {
            batch: int(self.batch),
            rows: int(rows),
            columns: int(columns),
            stride: int(convolution.stride),
            relu: i32::from(convolution.then == Then::Keep { relu: true }),
            ..Default::default()
        };
        let mut all_tiles = 0;
        for (i, problem) in convolution.problems.iter().enumerate() {
            let packed = &self.plan.packed[problem.weights];
            let tiles = packed.outputs().div_ceil(tile.columns);
            let [weights, bias] = self.memory.weights[problem.weights];
            let to = &mut parameters.problems[i];
            for (source, reads) in to.sources.iter_mut().zip(&problem.sources) {
                *source = self.source(reads);
            }
            (to.weights, to.bias) = (weights, bias);
            (to.outputs, to.steps, to.tiles) = (int(packed.outputs()), int(packed.steps), int(tiles));
            match convolution.output {
                Some(output) => to.output = self.sink(output, problem.channel),
                None => to.squares = self.memory.squares[i],
            }
            all_tiles += tiles;
        }
        let blocks = convolution.rows(self.batch).div_ceil(tile.rows);
        let launch = Launch {
            kernel: match convolution.then {
                Then::Keep { .. } => tile.keep,
                Then::Pool => tile.pool,
                Then::Squares => tile.squares,
            },
            grid: [count(blocks), count(all_tiles)],
            threads: THREADS,
            shared: count(tile.shared()),
        };
        (launch, Parameters::Convolution(parameters))
    }

    fn resize(&self, from: usize, to: usize) -> (Launch, Parameters) {
        let (input, output) = (self.plan.tensors[from], self.plan.tensors[to]);
        let eighths = self.batch * output.size[0] * output.size[1] * output.channels / 8;
        let blocks = eighths.div_ceil(THREADS as usize);
        let launch = Launch { kernel: "resize", grid: [count(blocks), 1], threads: THREADS, shared: 0 };
        let parameters = p::Resize {
            input: self.memory.tensors[from],
            output: self.sink(to, 0),
            batch: int(self.batch),
            rows: int(input.size[0]),
            columns: int(input.size[1]),
            to_rows: int(output.size[0]),
            to_columns: int(output.size[1]),
        };
        (launch, Parameters::Resize(parameters))
    }

    /// The normalised map from the sums of squares.
    pub(super) fn combine(&self, scale: [f32; 2], offsets: Address) -> (Launch, Parameters) {
        let tile = self.tile(&self.plan.heads);
        let area = self.plan.heads.size[0] * self.plan.heads.size[1];
        let tiles = |i: usize| {
            int(self.plan.packed[self.plan.heads.problems[i].weights].outputs().div_ceil(tile.columns))
        };
        let blocks = (self.batch * area).div_ceil(WIDE as usize);
        let launch = Launch { kernel: "combine", grid: [count(blocks), 1], threads: WIDE, shared: 0 };
        let parameters = p::Combine {
            squares: self.memory.squares,
            tiles: [tiles(0), tiles(1)],
            scale,
            offsets,
            map: self.memory.map,
            scores: self.memory.scores,
            batch: int(self.batch),
            area: int(area),
        };
        (launch, Parameters::Combine(parameters))
    }

    /// The map at `to` rows and columns, into `output`, and its maximum.
    pub(super) fn enlarge(&self, to: [usize; 2], output: Address) -> (Launch, Parameters) {
        let [rows, columns] = self.plan.heads.size;
        let blocks = (to[0] * to[1]).div_ceil(WIDE as usize).min(4 * self.processors);
        let grid = [count(blocks), count(self.batch)];
        let launch = Launch { kernel: "enlarge", grid, threads: WIDE, shared: 4 * WIDE };
        let parameters = p::Enlarge {
            map: self.memory.map,
            output,
            scores: self.memory.scores,
            batch: int(self.batch),
            rows: int(rows),
            columns: int(columns),
            padding: int(Architecture::MAP_PADDING),
            to_rows: int(to[0]),
            to_columns: int(to[1]),
        };
        (launch, Parameters::Enlarge(parameters))
    }
}

//! What the kernels take, field by field as `kernels/` declares it.
//!
//! Not here: what the numbers are (`network`).

use super::driver::Address;

/// Sources that one problem reads, and problems of one launch, at most.
pub(super) const SOURCES: usize = 2;
pub(super) const PROBLEMS: usize = 2;

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Source {
    pub(super) data: Address,
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) pitch: i32,
    pub(super) chunks: i32,
    pub(super) kernel: i32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Sink {
    pub(super) data: Address,
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) pitch: i32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Problem {
    pub(super) sources: [Source; SOURCES],
    pub(super) weights: Address,
    pub(super) bias: Address,
    pub(super) output: Sink,
    pub(super) squares: Address,
    pub(super) outputs: i32,
    pub(super) steps: i32,
    pub(super) tiles: i32,
}

#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Convolution {
    pub(super) problems: [Problem; PROBLEMS],
    pub(super) batch: i32,
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) stride: i32,
    pub(super) relu: i32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct First {
    pub(super) canvas: Address,
    pub(super) canvas_rows: i32,
    pub(super) canvas_columns: i32,
    pub(super) origin: i32,
    pub(super) weights: Address,
    pub(super) bias: Address,
    pub(super) output: Sink,
    pub(super) outputs: i32,
    pub(super) batch: i32,
    pub(super) rows: i32,
    pub(super) columns: i32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Draw {
    pub(super) pictures: Address,
    pub(super) canvas: Address,
    pub(super) batch: i32,
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) canvas_rows: i32,
    pub(super) canvas_columns: i32,
    pub(super) scale: [f32; 3],
    pub(super) shift: [f32; 3],
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Resize {
    pub(super) input: Address,
    pub(super) output: Sink,
    pub(super) batch: i32,
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) to_rows: i32,
    pub(super) to_columns: i32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Combine {
    pub(super) squares: [Address; 2],
    pub(super) tiles: [i32; 2],
    pub(super) scale: [f32; 2],
    pub(super) offsets: Address,
    pub(super) map: Address,
    pub(super) scores: Address,
    pub(super) batch: i32,
    pub(super) area: i32,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Enlarge {
    pub(super) map: Address,
    pub(super) output: Address,
    pub(super) scores: Address,
    pub(super) batch: i32,
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) padding: i32,
    pub(super) to_rows: i32,
    pub(super) to_columns: i32,
}

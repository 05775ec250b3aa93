//! The kernels' parameters as their sources declare them (`kernels/*.cuh`, where the fields are explained).
//!
//! Addresses are of a card's memory, lengths are counted in numbers. Not here: what goes into them (`launches`).

/// An address in a card's memory; 0 where there is none.
pub(super) type Address = u64;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Convolve {
    pub(super) x: Address,
    pub(super) x_end: Address,
    pub(super) weights: Address,
    pub(super) bias: Address,
    pub(super) out: Address,
    pub(super) alive: Address,
    pub(super) batch: i32,
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) x_rows: i32,
    pub(super) x_columns: i32,
    pub(super) channels: i32,
    pub(super) outputs: i32,
    pub(super) kernel: i32,
    pub(super) row_steps: i32,
    pub(super) stride: i32,
    pub(super) relu: i32,
    pub(super) pool_padding: i32,
    pub(super) sum_rows: i32,
    pub(super) sum_columns: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Weigh {
    pub(super) x: Address,
    pub(super) sums: Address,
    pub(super) partial: Address,
    pub(super) batch: i32,
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) x_rows: i32,
    pub(super) x_columns: i32,
    pub(super) channels: i32,
    pub(super) stride: i32,
    pub(super) sum_rows: i32,
    pub(super) sum_columns: i32,
    pub(super) spread: i32,
    pub(super) outputs: i32,
    pub(super) kernel: i32,
    pub(super) per_split: i32,
    pub(super) row_tiles: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Pack {
    pub(super) weights: Address,
    pub(super) packed: Address,
    pub(super) outputs: i32,
    pub(super) inputs: i32,
    pub(super) channels: i32,
    pub(super) kernel: i32,
    pub(super) row_steps: i32,
    pub(super) turned: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Gather {
    pub(super) partial: Address,
    pub(super) weights: Address,
    pub(super) outputs: i32,
    pub(super) inputs: i32,
    pub(super) channels: i32,
    pub(super) kernel: i32,
    pub(super) splits: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread {
    pub(super) from: Address,
    pub(super) kept: Address,
    pub(super) alive: Address,
    pub(super) to: Address,
    pub(super) batch: i32,
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) channels: i32,
    pub(super) to_rows: i32,
    pub(super) to_columns: i32,
    pub(super) margin: i32,
    pub(super) spread: i32,
    pub(super) pool_padding: i32,
    pub(super) pool_rows: i32,
    pub(super) pool_columns: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Total {
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) per_block: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Resize {
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) batch: i32,
    pub(super) rows: i32,
    pub(super) columns: i32,
    pub(super) to_rows: i32,
    pub(super) to_columns: i32,
    pub(super) channels: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Silence {
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) count: i64,
    pub(super) keys: [u32; 2],
    pub(super) below: u32,
    pub(super) factor: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct Select {
    pub(super) values: Address,
    pub(super) state: Address,
    pub(super) out: Address,
    pub(super) count: i64,
    pub(super) nth: u32,
    pub(super) shift: i32,
    pub(super) bits: i32,
}

/// One kernel's.
#[derive(Debug, Clone, Copy)]
pub(super) enum Parameters {
    Convolve(Convolve),
    Weigh(Weigh),
    Pack(Pack),
    Gather(Gather),
    Spread(Spread),
    Total(Total),
    Resize(Resize),
    Select(Select),
    Silence(Silence),
}

//! What layers are laid out for.

use super::simd::Isa;

/// What all layers share: the instruction set and the number of threads they are planned for.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) isa: Isa,
    pub(super) threads: usize,
}

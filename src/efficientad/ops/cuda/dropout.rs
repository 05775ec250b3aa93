//! Dropout, as a launch; its way back is the same over the gradient.

use candle_core::Result;

use super::Machine;
use super::parameters::{Address, Parameters, Silence};
use crate::efficientad::ops::dropout::Dropout;

/// `count` numbers, a multiple of four.
pub(super) fn apply(
    machine: &mut impl Machine,
    [from, to]: [Address; 2],
    count: usize,
    Dropout { below, factor, keys }: Dropout,
) -> Result<()> {
    let parameters = Silence { from, to, count: count as i64, keys, below, factor };
    machine.pass("silence", count / 4, Parameters::Silence(parameters))
}

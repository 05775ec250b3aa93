//! The n-th largest of many numbers, as launches.

use candle_core::Result;

use super::parameters::{Address, Parameters, Select};
use super::{Launch, Machine, WIDE};

/// What is found in each round: the lowest bit, and how many.
const ROUNDS: [(i32, i32); 3] = [(21, 11), (10, 11), (0, 10)];
const BINS: usize = 2048;
/// Numbers that one thread counts, and blocks at most.
const EACH: usize = 8;
const MOST_BLOCKS: usize = 512;

/// The `nth` largest, from 1, of `values [count]` → `out`, one number. What is no number counts as larger than all or smaller than
/// all, by its sign.
pub(super) fn nth_largest(
    machine: &mut impl Machine,
    [values, out]: [Address; 2],
    count: usize,
    nth: usize,
) -> Result<()> {
    let state = machine.zeros(2 + BINS)?;
    for (shift, bits) in ROUNDS {
        let parameters = Select { values, state, out, count: count as i64, nth: nth as u32, shift, bits };
        for (kernel, blocks, shared) in [
            ("select_count", count.div_ceil(WIDE * EACH).min(MOST_BLOCKS), 4 * BINS),
            ("select_choose", 1, 4 * WIDE),
        ] {
            machine.launch(&Launch {
                kernel,
                grid: [blocks, 1],
                threads: WIDE,
                shared,
                parameters: Parameters::Select(parameters),
            })?;
        }
    }
    Ok(())
}

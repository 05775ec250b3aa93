//! Which tile of outputs a block computes: large ones read less, small ones fill a card that has little to do.
//!
//! Pure. In: how many rows and columns of outputs there are, and the card's size. Out: one of the tiles that the kernels
//! were compiled for.

/// Rows by columns of outputs of one block of 128 threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) keep: &'static str,
    pub(super) pool: &'static str,
    pub(super) squares: &'static str,
    /// How much longer an output takes than in the largest tile, in hundredths.
    cost: usize,
    /// Blocks that a processor runs at once.
    resident: usize,
}

/// Steps of the sum that are under way at once.
const STAGES: usize = 4;
/// Bytes of a row in one step.
const ROW: usize = 64;
/// Steps that a block's beginning and end are worth.
const OVERHEAD: usize = 6;
/// A block that has a processor to itself waits so much longer than blocks that fill each other's pauses, in tenths.
const ALONE: usize = 16;

macro_rules! tile {
    ($rows:literal, $columns:literal, $cost:literal, $resident:literal) => {
        Tile {
            rows: $rows,
            columns: $columns,
            keep: concat!("keep_", $rows, "x", $columns),
            pool: concat!("pool_", $rows, "x", $columns),
            squares: concat!("squares_", $rows, "x", $columns),
            cost: $cost,
            resident: $resident,
        }
    };
}

/// All there are.
pub(super) const TILES: [Tile; 4] =
    [tile!(128, 128, 100, 2), tile!(64, 128, 115, 4), tile!(128, 64, 115, 4), tile!(64, 64, 140, 6)];

impl Tile {
    /// Bytes of shared memory that a block needs.
    pub(super) fn shared(&self) -> usize {
        STAGES * (self.rows + self.columns) * ROW
    }

    /// The best for products of `rows` by so many columns and steps each, on a card with so many processors.
    pub(super) fn best(rows: usize, problems: &[(usize, usize)], processors: usize) -> Self {
        let time = |tile: &Self| {
            let area = tile.rows * tile.columns * tile.cost;
            let (mut work, mut blocks) = (0, 0);
            for &(columns, steps) in problems {
                let count = columns.div_ceil(tile.columns) * rows.div_ceil(tile.rows);
                work += area * (steps + OVERHEAD) * count;
                blocks += count;
            }
            let mean = work / blocks.max(1);
            match blocks.div_ceil(processors) {
                1 => mean * ALONE / 10,
                rounds if rounds <= tile.resident => mean * rounds,
                // Later blocks take their turns as processors come free, so that only the last is uneven.
                _ => work / processors + mean / 2,
            }
        };
        TILES.into_iter().min_by_key(time).expect("there are tiles: this is a bug")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H200: usize = 132;

    #[test]
    fn much_work_takes_the_largest_tile_and_little_work_the_smallest() {
        assert_eq!(Tile::best(32 * 14884, &[(256, 64), (256, 64)], H200), TILES[0]);
        assert_eq!(Tile::best(64, &[(64, 32)], H200), TILES[3]);
    }

    /// 112 of the largest tiles would leave 20 processors without work, and the others half asleep.
    #[test]
    fn one_picture_is_cut_into_enough_blocks_for_every_processor() {
        let conv3 = Tile::best(59 * 59, &[(256, 72), (256, 72)], H200);
        assert!((59 * 59usize).div_ceil(conv3.rows) * 2 * 256 / conv3.columns > H200, "{conv3:?}");
    }

    #[test]
    fn few_columns_are_no_reason_to_compute_columns_that_are_not_there() {
        for rows in [100, 10_000, 1_000_000] {
            assert_eq!(Tile::best(rows, &[(64, 32)], H200).columns, 64, "{rows}");
        }
    }

    #[test]
    fn two_blocks_of_the_largest_tile_fit_a_processor_of_every_generation_with_room() {
        assert!(TILES.iter().all(|tile| tile.shared() <= 99 * 1024));
        assert!(2 * TILES[0].shared() <= 164 * 1024);
    }
}

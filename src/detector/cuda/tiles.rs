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
}

/// Steps of the sum that are under way at once.
const STAGES: usize = 4;
/// Bytes of a row in one step.
const ROW: usize = 64;
/// Steps that a block's beginning and end are worth.
const OVERHEAD: usize = 6;

macro_rules! tile {
    ($rows:literal, $columns:literal, $cost:literal) => {
        Tile {
            rows: $rows,
            columns: $columns,
            keep: concat!("keep_", $rows, "x", $columns),
            pool: concat!("pool_", $rows, "x", $columns),
            squares: concat!("squares_", $rows, "x", $columns),
            cost: $cost,
        }
    };
}

/// All there are.
pub(super) const TILES: [Tile; 4] =
    [tile!(128, 128, 100), tile!(64, 128, 115), tile!(128, 64, 115), tile!(64, 64, 140)];

impl Tile {
    /// Bytes of shared memory that a block needs.
    pub(super) fn shared(&self) -> usize {
        STAGES * (self.rows + self.columns) * ROW
    }

    /// The best for products of `rows` by so many columns and steps each, on a card with so many processors.
    pub(super) fn best(rows: usize, problems: &[(usize, usize)], processors: usize) -> Self {
        let time = |tile: &Self| {
            let area = tile.rows * tile.columns * tile.cost;
            let mut work = 0;
            let mut longest = 0;
            for &(columns, steps) in problems {
                let block = area * (steps + OVERHEAD);
                work += block * columns.div_ceil(tile.columns) * rows.div_ceil(tile.rows);
                longest = longest.max(block);
            }
            // Blocks come longest first, so no processor ends later than an even share and one more block.
            let share = work.div_ceil(processors);
            if share <= longest { longest } else { share + longest / 2 }
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

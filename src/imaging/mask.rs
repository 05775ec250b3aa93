//! Masks: which pixels of the inspected part of a picture count, and which are hidden from the verdict.
//!
//! In: polygons and a mask picture, in pixels of the upright picture. Out: a [`Mask`] for the inspected region, which
//! silences an anomaly map where nothing is to be looked for. A hidden pixel makes no anomaly; a visible one loses
//! none: a cell of the raw map is silenced only if all of its pixels are hidden. What is hidden still lies in the field
//! of view of its neighbours' features, so leave a margin around what moves. Not here: networks and their maps.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use thiserror::Error;

use super::decode::load;
use super::error::LoadError;
use crate::frame::{Picture, Region, Size};

/// Corners in order, `[x, y]` in pixels; the last is joined to the first.
pub type Polygon = Vec<[u32; 2]>;

/// The most polygons of one camera, and the most corners of one polygon; more is a drawing, which `ignore_mask` takes.
pub const MAX_POLYGONS: usize = 64;
/// See [`MAX_POLYGONS`].
pub const MAX_CORNERS: usize = 256;

/// What of a picture counts, as the settings say it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Areas {
    /// What lies outside is hidden.
    pub polygon: Option<Polygon>,
    /// What lies inside any of these is hidden.
    pub ignore: Vec<Polygon>,
    /// A picture of the upright picture's size; where it is brighter than half, the picture is hidden.
    pub ignore_mask: Option<PathBuf>,
}

/// Why there is no mask for a picture.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum MaskError {
    /// The mask picture was made for another size.
    #[error(
        "`ignore_mask` is a picture of {mask} and the camera's upright picture has {picture}: draw it anew on what \
         `inspectord snapshot` saves"
    )]
    Size {
        /// The mask's.
        mask: Size,
        /// The camera's.
        picture: Size,
    },
    /// Nothing is left.
    #[error("`polygon`, `ignore` and `ignore_mask` hide everything in the inspected region: correct them")]
    HidesEverything,
}

/// [`Areas`] with their mask picture loaded.
#[derive(Debug, Clone, Default)]
pub(super) struct LoadedAreas {
    areas: Areas,
    picture: Option<Arc<Picture>>,
}

impl LoadedAreas {
    pub(super) fn load(areas: &Areas) -> Result<Self, LoadError> {
        let picture = areas.ignore_mask.as_deref().map(load).transpose()?.map(Arc::new);
        Ok(Self { areas: areas.clone(), picture })
    }

    pub(super) fn hide_nothing(&self) -> bool {
        self.areas == Areas::default()
    }

    /// The size of the upright pictures that the mask picture was drawn for, if there is one.
    pub(super) fn drawn_for(&self) -> Option<Size> {
        self.picture.as_ref().map(|drawn| drawn.size())
    }

    /// Tells areas from others, whatever their file is called.
    pub(super) fn checksum(&self) -> u32 {
        let Areas { polygon, ignore, ignore_mask: _ } = &self.areas;
        let polygons = crc32c::crc32c(format!("{polygon:?} {ignore:?}").as_bytes());
        match &self.picture {
            Some(drawn) => {
                let sides = format!("{}", drawn.size());
                crc32c::crc32c_append(crc32c::crc32c_append(polygons, sides.as_bytes()), drawn.rgb())
            }
            None => polygons,
        }
    }

    /// The mask of the part `viewed` of an upright picture of this size; `viewed` lies inside it.
    pub(super) fn mask(&self, picture: Size, viewed: Region) -> Result<Mask, MaskError> {
        let size = Size::new(viewed.width, viewed.height);
        let mut mask = Mask { size, hidden: vec![false; size.pixels() as usize], cells: OnceLock::new() };
        if let Some(polygon) = &self.areas.polygon {
            mask.hidden.fill(true);
            mask.fill(polygon, viewed, false);
        }
        for polygon in &self.areas.ignore {
            mask.fill(polygon, viewed, true);
        }
        if let Some(drawn) = &self.picture {
            if drawn.size() != picture {
                return Err(MaskError::Size { mask: drawn.size(), picture });
            }
            mask.cover(drawn, viewed);
        }
        if mask.hidden.iter().all(|hidden| *hidden) { Err(MaskError::HidesEverything) } else { Ok(mask) }
    }
}

/// A raw map's cells over the inspected part: rows and columns inside a border of `padding` cells without values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Rows that have values.
    pub rows: usize,
    /// Columns that have values.
    pub columns: usize,
    /// Cells without values at each side.
    pub padding: usize,
}

/// Which pixels of an inspected part are hidden.
#[derive(Debug, Clone)]
pub struct Mask {
    size: Size,
    hidden: Vec<bool>,
    /// The cells that were asked for first; a line's model has one grid.
    cells: OnceLock<(Grid, Vec<bool>)>,
}

impl Mask {
    /// The size of the part that it belongs to.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Whether the pixel of the inspected part is hidden.
    pub fn hides(&self, x: u32, y: u32) -> bool {
        let at = y as usize * self.size.width as usize + x as usize;
        x < self.size.width && self.hidden.get(at).copied().unwrap_or(false)
    }

    /// The share of the part that is hidden, 0 to 1.
    pub fn hidden_share(&self) -> f64 {
        self.hidden.iter().filter(|hidden| **hidden).count() as f64 / self.hidden.len() as f64
    }

    /// Whether each pixel of the part, resized to `size`, is hidden, judged by its centre.
    pub fn resized(&self, size: Size) -> Vec<bool> {
        let at = |to: u32, side: u32, from: u32| {
            ((2 * u64::from(to) + 1) * u64::from(from) / (2 * u64::from(side))) as u32
        };
        let rows = 0..size.height;
        rows.flat_map(|y| {
            let y = at(y, size.height, self.size.height);
            (0..size.width).map(move |x| self.hides(at(x, size.width, self.size.width), y))
        })
        .collect()
    }

    /// Levels the raw map's cells that are wholly hidden down to its lowest visible value. Returns the value for hidden
    /// pixels of the full-size map, just below every visible one; none if no visible cell has a value.
    pub fn silence_cells(&self, map: &mut [f32], grid: Grid) -> Option<f32> {
        let (of, cells) = self.cells.get_or_init(|| (grid, self.hidden_cells(grid)));
        let other = if *of == grid { None } else { Some(self.hidden_cells(grid)) };
        let cells = other.as_ref().unwrap_or(cells);
        let visible = map.iter().zip(cells).filter(|(_, hidden)| !**hidden).map(|(value, _)| *value);
        let floor = visible.reduce(f32::min)?;
        for (value, _) in map.iter_mut().zip(cells).filter(|(_, hidden)| **hidden) {
            *value = floor;
        }
        // The padding around the map counts as zero.
        let lowest = floor.min(0.0);
        Some(lowest - lowest.abs().max(1.0) * 1e-3)
    }

    /// Sets the hidden pixels of a full-size map to `floor`.
    pub fn silence(&self, map: &mut [f32], floor: f32) {
        for (value, _) in map.iter_mut().zip(&self.hidden).filter(|(_, hidden)| **hidden) {
            *value = floor;
        }
    }

    /// Whether each cell of the raw map is wholly hidden.
    pub fn hidden_cells(&self, grid: Grid) -> Vec<bool> {
        let Grid { rows, columns, padding } = grid;
        let (width, height) = (self.size.width as usize, self.size.height as usize);
        let pixels = |cell: usize, count: usize, side: usize| {
            let all = count + 2 * padding;
            let from = (cell + padding) * side / all;
            from..((cell + padding + 1) * side).div_ceil(all).max(from + 1).min(side)
        };
        let hidden = |row: usize, column: usize| {
            pixels(row, rows, height).all(|y| {
                self.hidden[y * width..][pixels(column, columns, width)].iter().all(|hidden| *hidden)
            })
        };
        (0..rows)
            .flat_map(|row| (0..columns).map(move |column| (row, column)))
            .map(|(r, c)| hidden(r, c))
            .collect()
    }

    /// Sets the pixels whose centres lie inside `polygon` (even–odd) to `to`.
    fn fill(&mut self, polygon: &Polygon, viewed: Region, to: bool) {
        let width = self.size.width as usize;
        let mut crossings = Vec::new();
        for (y, row) in self.hidden.chunks_exact_mut(width).enumerate() {
            let middle = f64::from(viewed.y) + y as f64 + 0.5;
            crossings.clear();
            for (i, &[x1, y1]) in polygon.iter().enumerate() {
                let [x2, y2] = polygon[(i + 1) % polygon.len()];
                let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(f64::from);
                if (y1 <= middle) != (y2 <= middle) {
                    crossings.push(x1 + (middle - y1) * (x2 - x1) / (y2 - y1) - f64::from(viewed.x));
                }
            }
            crossings.sort_by(f64::total_cmp);
            for pair in crossings.chunks_exact(2) {
                let column = |x: f64| ((x - 0.5).ceil().max(0.0) as usize).min(width);
                row[column(pair[0])..column(pair[1])].fill(to);
            }
        }
    }

    fn cover(&mut self, drawn: &Picture, viewed: Region) {
        let stride = drawn.size().width as usize * 3;
        for (y, row) in self.hidden.chunks_exact_mut(self.size.width as usize).enumerate() {
            let start = (viewed.y as usize + y) * stride + viewed.x as usize * 3;
            for (hidden, pixel) in row.iter_mut().zip(drawn.rgb()[start..].chunks_exact(3)) {
                *hidden |= pixel.iter().any(|&channel| channel > 127);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::whole;

    const SIZE: Size = Size::new(8, 6);

    fn drawn(areas: Areas, viewed: Region) -> Vec<String> {
        let loaded = LoadedAreas { areas, picture: None };
        let mask = loaded.mask(SIZE, viewed).unwrap();
        let letter = |hidden: &bool| if *hidden { '#' } else { '.' };
        mask.hidden.chunks(viewed.width as usize).map(|row| row.iter().map(letter).collect()).collect()
    }

    #[test]
    fn a_polygon_shows_its_inside_and_ignored_ones_hide_theirs() {
        let areas = Areas {
            polygon: Some(vec![[1, 1], [7, 1], [7, 5], [1, 5]]),
            ignore: vec![vec![[2, 2], [4, 2], [4, 4], [2, 4]]],
            ignore_mask: None,
        };
        let whole_picture = drawn(areas.clone(), whole(SIZE));
        assert_eq!(whole_picture, ["########", "#......#", "#.##...#", "#.##...#", "#......#", "########"]);
        // Coordinates stay those of the picture when only a part is viewed.
        assert_eq!(drawn(areas, Region { x: 2, y: 1, width: 3, height: 3 }), ["...", "##.", "##."]);
    }

    #[test]
    fn corners_may_lie_outside_and_edges_may_cross() {
        let bow_tie = vec![[0, 0], [8, 6], [8, 0], [0, 6]];
        let areas = Areas { ignore: vec![bow_tie], ..Areas::default() };
        let rows = drawn(areas, whole(SIZE));
        assert!(rows[0].starts_with('#') && rows[0].ends_with('#') && rows[0].contains('.'), "{rows:?}");
        let beyond = Areas { ignore: vec![vec![[6, 4], [900, 4], [900, 900], [6, 900]]], ..Areas::default() };
        assert_eq!(drawn(beyond, whole(SIZE))[4..], ["......##", "......##"]);
    }

    #[test]
    fn a_mask_that_hides_everything_or_was_drawn_for_another_picture_is_refused() {
        let everything = Areas { ignore: vec![vec![[0, 0], [8, 0], [8, 6], [0, 6]]], ..Areas::default() };
        let loaded = LoadedAreas { areas: everything, picture: None };
        assert_eq!(loaded.mask(SIZE, whole(SIZE)).unwrap_err(), MaskError::HidesEverything);
        let picture = Some(Arc::new(Picture::new(Size::new(2, 2), vec![0; 12]).unwrap()));
        let loaded = LoadedAreas { areas: Areas::default(), picture };
        let error = loaded.mask(SIZE, whole(SIZE)).unwrap_err().to_string();
        assert!(error.contains("2x2") && error.contains("8x6"), "{error}");
    }

    #[test]
    fn only_wholly_hidden_cells_are_silenced() {
        // Left half hidden, and one column more: 9 of 16.
        let hidden = (0..16 * 8).map(|i| i % 16 < 9).collect();
        let mask = Mask { size: Size::new(16, 8), hidden, cells: OnceLock::new() };
        let grid = Grid { rows: 2, columns: 4, padding: 0 };
        let mut map = vec![9.0, 9.0, 3.0, 1.0, 9.0, 9.0, 2.0, 4.0];
        let floor = mask.silence_cells(&mut map, grid).unwrap();
        assert_eq!(map, [1.0, 1.0, 3.0, 1.0, 1.0, 1.0, 2.0, 4.0]);
        assert!(floor < 0.0);
        let mut full = vec![5.0; 16 * 8];
        mask.silence(&mut full, floor);
        assert_eq!((full[8], full[9]), (floor, 5.0));
        // Only the border, where the map has no values, is visible.
        let mut small = vec![9.0];
        let border = Grid { rows: 1, columns: 1, padding: 4 };
        let hidden = (0..81).map(|i| i != 0).collect();
        let mask = Mask { size: Size::new(9, 9), hidden, cells: OnceLock::new() };
        assert_eq!(mask.silence_cells(&mut small, border), None);
    }
}

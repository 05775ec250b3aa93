//! From an engine's raw map to a finding: full-size map, score, peak, and the areas above the threshold.
//!
//! In: the raw map of the networks' input, and the part of the captured picture that was shrunk to that input. Out:
//! the map at that part's size and a [`Finding`] in pixels of the captured picture. Pure; runs on the caller's thread.
//! Not here: quantile normalisation (the engines), drawing (`imaging`).

use super::{AnomalyMap, InspectorError};
use crate::efficientad::Architecture;
use crate::frame::{Region, Size};
use crate::verdict::{AnomalousRegion, Finding, ModelRef, Score, Threshold};

/// The most areas that a finding lists.
pub const MAX_REGIONS: usize = 32;

/// The map of `viewed`, at its size: the raw map padded by four zeros a side, then resized bilinearly (paper §3.4).
pub(super) fn full_size(raw: &AnomalyMap, viewed: Size) -> AnomalyMap {
    let (raw_width, raw_height) = (raw.size.width as usize, raw.size.height as usize);
    let columns = Taps::new(raw_width, viewed.width as usize);
    let rows = Taps::new(raw_height, viewed.height as usize);
    let width = viewed.width as usize;
    let widen = |row: Option<usize>, out: &mut [f32]| match row {
        Some(r) => columns.apply(&raw.values[r * raw_width..(r + 1) * raw_width], out),
        None => out.fill(0.0),
    };
    let mut values = vec![0.0; width * viewed.height as usize];
    let mut above = (usize::MAX, vec![0.0; width]);
    let mut below = (usize::MAX, vec![0.0; width]);
    for (tap, out) in rows.taps.iter().zip(values.chunks_exact_mut(width)) {
        if tap.first != above.0 {
            if tap.first == below.0 {
                std::mem::swap(&mut above, &mut below);
            } else {
                widen(unpadded(tap.first, raw_height), &mut above.1);
                above.0 = tap.first;
            }
        }
        if tap.second != below.0 {
            widen(unpadded(tap.second, raw_height), &mut below.1);
            below.0 = tap.second;
        }
        for ((out, a), b) in out.iter_mut().zip(&above.1).zip(&below.1) {
            *out = a * (1.0 - tap.weight) + b * tap.weight;
        }
    }
    AnomalyMap { size: viewed, values }
}

/// The raw map's index for the padded map's, unless that lies in the padding.
fn unpadded(padded: usize, side: usize) -> Option<usize> {
    padded.checked_sub(Architecture::MAP_PADDING).filter(|&i| i < side)
}

/// For each output position the two padded inputs it lies between, with half-pixel centres.
struct Tap {
    first: usize,
    second: usize,
    weight: f32,
}

/// The taps of one direction.
struct Taps {
    side: usize,
    taps: Vec<Tap>,
}

impl Taps {
    fn new(side: usize, output: usize) -> Self {
        let padded = side + 2 * Architecture::MAP_PADDING;
        let scale = padded as f64 / output as f64;
        let tap = |i: usize| {
            let centre = ((i as f64 + 0.5) * scale - 0.5).max(0.0);
            let first = (centre as usize).min(padded - 1);
            Tap { first, second: (first + 1).min(padded - 1), weight: (centre - first as f64) as f32 }
        };
        Self { side, taps: (0..output).map(tap).collect() }
    }

    fn apply(&self, row: &[f32], out: &mut [f32]) {
        let value = |i: usize| unpadded(i, self.side).map_or(0.0, |i| row[i]);
        for (out, tap) in out.iter_mut().zip(&self.taps) {
            *out = value(tap.first) * (1.0 - tap.weight) + value(tap.second) * tap.weight;
        }
    }
}

/// What `map`, which covers `viewed`, says about the picture.
pub(super) fn judge(
    map: &AnomalyMap,
    viewed: Region,
    threshold: Threshold,
    model: ModelRef,
) -> Result<Finding, InspectorError> {
    let mut worst = (0, f32::NEG_INFINITY);
    let mut finite = true;
    for (i, &value) in map.values.iter().enumerate() {
        finite &= value.is_finite();
        if value > worst.1 {
            worst = (i, value);
        }
    }
    if !finite || map.values.is_empty() {
        return Err(InspectorError::NotFinite);
    }
    let width = map.size.width as usize;
    let peak = [viewed.x + (worst.0 % width) as u32, viewed.y + (worst.0 / width) as u32];
    let mut regions = areas(map, threshold.0);
    regions.sort_by(|a, b| b.score.0.total_cmp(&a.score.0).then((a.y, a.x).cmp(&(b.y, b.x))));
    regions.truncate(MAX_REGIONS);
    for region in &mut regions {
        region.x += viewed.x;
        region.y += viewed.y;
    }
    Ok(Finding { score: Score(worst.1), threshold, peak, regions, model })
}

/// A stretch of one row above the threshold, and the area that it belongs to.
#[derive(Clone, Copy)]
struct Run {
    start: usize,
    end: usize,
    area: usize,
}

/// The 8-connected areas above `threshold`, in pixels of the map.
fn areas(map: &AnomalyMap, threshold: f32) -> Vec<AnomalousRegion> {
    let mut areas = Areas::default();
    let (mut above, mut current): (Vec<Run>, Vec<Run>) = Default::default();
    for (y, row) in map.values.chunks_exact(map.size.width as usize).enumerate() {
        std::mem::swap(&mut above, &mut current);
        current.clear();
        let mut x = 0;
        let mut first_above = 0;
        while let Some(start) = row[x..].iter().position(|&v| v > threshold).map(|i| x + i) {
            let end = row[start..].iter().position(|&v| v <= threshold).map_or(row.len(), |i| start + i);
            let score = row[start..end].iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let area = areas.begin(Extent { left: start, top: y, right: end, bottom: y + 1, score });
            while above.get(first_above).is_some_and(|run| run.end < start) {
                first_above += 1;
            }
            // A run touches those above that begin no later than one pixel past its end.
            for run in above[first_above..].iter().take_while(|run| run.start <= end) {
                areas.join(run.area, area);
            }
            current.push(Run { start, end, area });
            x = end;
        }
    }
    areas.into_regions()
}

#[derive(Clone, Copy)]
struct Extent {
    left: usize,
    top: usize,
    right: usize,
    bottom: usize,
    score: f32,
}

/// A union–find forest whose roots know their extents.
#[derive(Default)]
struct Areas {
    parent: Vec<usize>,
    extent: Vec<Extent>,
}

impl Areas {
    fn begin(&mut self, extent: Extent) -> usize {
        self.parent.push(self.parent.len());
        self.extent.push(extent);
        self.parent.len() - 1
    }

    fn root(&mut self, mut i: usize) -> usize {
        while self.parent[i] != i {
            self.parent[i] = self.parent[self.parent[i]];
            i = self.parent[i];
        }
        i
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            let (root, leaf) = (a.min(b), a.max(b));
            self.parent[leaf] = root;
            let (r, l) = (self.extent[root], self.extent[leaf]);
            self.extent[root] = Extent {
                left: r.left.min(l.left),
                top: r.top.min(l.top),
                right: r.right.max(l.right),
                bottom: r.bottom.max(l.bottom),
                score: r.score.max(l.score),
            };
        }
    }

    fn into_regions(self) -> Vec<AnomalousRegion> {
        let region = |e: Extent| AnomalousRegion {
            x: e.left as u32,
            y: e.top as u32,
            width: (e.right - e.left) as u32,
            height: (e.bottom - e.top) as u32,
            score: Score(e.score),
        };
        let roots = self.parent.iter().enumerate().filter(|(i, parent)| i == *parent);
        roots.map(|(i, _)| region(self.extent[i])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(width: u32, rows: &[&[f32]]) -> AnomalyMap {
        AnomalyMap { size: Size::new(width, rows.len() as u32), values: rows.concat() }
    }

    fn model() -> ModelRef {
        ModelRef { name: "m".into(), version: "v".into() }
    }

    #[test]
    fn regions_are_connected_worst_first_and_in_pixels_of_the_captured_picture() {
        let rows: [&[f32]; 4] = [
            &[9.0, 0.0, 0.0, 0.0, 0.0, 3.0],
            &[0.0, 8.0, 0.0, 0.0, 3.0, 0.0],
            &[0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            &[2.0, 0.0, 2.0, 0.0, 0.0, 0.0],
        ];
        let viewed = Region { x: 100, y: 200, width: 6, height: 4 };
        let finding = judge(&map(6, &rows), viewed, Threshold(1.0), model()).unwrap();
        assert_eq!((finding.score, finding.peak), (Score(9.0), [100, 200]));
        let boxes: Vec<_> =
            finding.regions.iter().map(|r| (r.x, r.y, r.width, r.height, r.score.0)).collect();
        let expected =
            [(100, 200, 2, 2, 9.0), (104, 200, 2, 2, 3.0), (100, 203, 1, 1, 2.0), (102, 203, 1, 1, 2.0)];
        assert_eq!(boxes, expected);
    }

    #[test]
    fn arms_that_meet_below_are_one_region() {
        let rows: [&[f32]; 3] =
            [&[1.0, 0.0, 1.0, 0.0, 1.0], &[1.0, 0.0, 1.0, 0.0, 1.0], &[1.0, 1.0, 1.0, 1.0, 1.0]];
        let viewed = Region { x: 0, y: 0, width: 5, height: 3 };
        let finding = judge(&map(5, &rows), viewed, Threshold(0.5), model()).unwrap();
        assert_eq!(finding.regions.len(), 1);
        assert_eq!((finding.regions[0].width, finding.regions[0].height), (5, 3));
    }

    #[test]
    fn regions_are_empty_exactly_when_the_score_does_not_exceed_the_threshold() {
        let viewed = Region { x: 0, y: 0, width: 2, height: 1 };
        let at = |t| judge(&map(2, &[&[0.5, 0.25]]), viewed, Threshold(t), model()).unwrap().regions.len();
        assert_eq!((at(0.5), at(0.49)), (0, 1));
        let many: Vec<f32> = (0..200).map(|i| if i % 2 == 0 { 1.0 } else { 0.0 }).collect();
        let viewed = Region { x: 0, y: 0, width: 200, height: 1 };
        let finding = judge(&map(200, &[&many]), viewed, Threshold(0.5), model()).unwrap();
        assert_eq!(finding.regions.len(), MAX_REGIONS);
    }

    #[test]
    fn a_map_that_is_not_finite_is_no_finding() {
        let viewed = Region { x: 0, y: 0, width: 2, height: 1 };
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let result = judge(&map(2, &[&[0.0, bad]]), viewed, Threshold(1.0), model());
            assert!(matches!(result, Err(InspectorError::NotFinite)), "{bad}");
        }
    }

    #[test]
    fn the_full_size_map_is_padded_and_interpolated_between_pixel_centres() {
        let raw = AnomalyMap { size: Size::new(2, 1), values: vec![1.0, 3.0] };
        let same = full_size(&raw, Size::new(10, 9));
        assert_eq!(same.values[4 * 10..5 * 10], [0.0, 0.0, 0.0, 0.0, 1.0, 3.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(same.values.iter().sum::<f32>(), 4.0);
        let twice = full_size(&raw, Size::new(20, 18));
        assert_eq!(twice.values[8 * 20 + 7..8 * 20 + 13], [0.1875, 0.5625, 1.125, 1.875, 1.6875, 0.5625]);
    }
}

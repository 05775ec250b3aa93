//! From a full-size map to a finding: score, peak, and the areas above the threshold.
//!
//! In: the map of the part of the captured picture that was viewed. Out: a [`Finding`] in pixels of the captured
//! picture. Pure; runs on the caller's thread. Not here: how the map comes about (`efficientad::maps`, the engines),
//! drawing (`imaging`).

use super::{AnomalyMap, InspectorError};
use crate::frame::Region;
use crate::verdict::{AnomalousRegion, Finding, ModelRef, Score, Threshold};

/// The most areas that a finding lists.
pub const MAX_REGIONS: usize = 32;

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
    use crate::frame::Size;

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
}

//! How well a model tells normal from anomalous: per picture, and per pixel where there are masks.
//!
//! In: scores or maps, with the truth. Out: plain numbers, exact over all thresholds; equal scores are one threshold.
//! Runs on the caller's thread, sorting on rayon's. Not here: where scores and masks come from (`evaluate`).

use rayon::slice::ParallelSliceMut;
use thiserror::Error;

/// A score as a whole number of the same order, so that sorting is quick and total.
///
/// Both zeros are one score, and whatever is not a number is the worst of all.
fn key(score: f32) -> u32 {
    if score.is_nan() {
        return u32::MAX;
    }
    let bits = (score + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

/// The score at which F1 is highest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BestF1 {
    /// F1 there, 0–1.
    pub f1: f64,
    /// Pictures scored at or above it count as anomalous; the lowest where several do equally well.
    pub threshold: f32,
}

/// What the scores of whole pictures say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ImageMetrics {
    /// Area under the receiver operating characteristic, 0–1.
    pub auroc: f64,
    /// Average precision: Σ (Rₙ − Rₙ₋₁) Pₙ, without interpolation.
    pub average_precision: f64,
    /// The best F1 over all thresholds.
    pub best_f1: BestF1,
}

/// Metrics of scored pictures, each with whether it is anomalous in truth; `None` unless both kinds are there.
pub fn image_metrics(scored: &[(f32, bool)]) -> Option<ImageMetrics> {
    let positives = scored.iter().filter(|s| s.1).count() as f64;
    let negatives = scored.len() as f64 - positives;
    if positives == 0.0 || negatives == 0.0 {
        return None;
    }
    let mut sorted = scored.to_vec();
    sorted.sort_unstable_by_key(|s| std::cmp::Reverse(key(s.0)));
    let (mut hits, mut alarms, mut auroc, mut average_precision) = (0.0, 0.0, 0.0, 0.0);
    let mut best_f1 = BestF1 { f1: 0.0, threshold: sorted[0].0 };
    for tie in sorted.chunk_by(|a, b| key(a.0) == key(b.0)) {
        let new_hits = tie.iter().filter(|s| s.1).count() as f64;
        let new_alarms = tie.len() as f64 - new_hits;
        auroc += new_alarms * (hits + new_hits / 2.0);
        hits += new_hits;
        alarms += new_alarms;
        average_precision += new_hits * hits / (hits + alarms);
        let f1 = 2.0 * hits / (hits + alarms + positives);
        if f1 >= best_f1.f1 {
            best_f1 = BestF1 { f1, threshold: tie[0].0 };
        }
    }
    Some(ImageMetrics {
        auroc: auroc / (positives * negatives),
        average_precision: average_precision / positives,
        best_f1,
    })
}

/// What the maps say, pixel by pixel, over the whole set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PixelMetrics {
    /// Area under the receiver operating characteristic of all pixels, 0–1.
    pub auroc: f64,
    /// Area under the per-region-overlap curve up to a false-positive rate of 0.30, divided by 0.30.
    pub aupro_30: f64,
    /// The same up to 0.05.
    pub aupro_05: f64,
}

/// A map and a mask that do not belong together.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a map of {map} pixels cannot be held against a mask of {mask} pixels in rows of {width}")]
pub struct Mismatch {
    map: usize,
    mask: usize,
    width: usize,
}

/// What a pixel is in truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// Part of a good part.
    Normal,
    /// Part of a defect.
    Defect,
    /// Nobody looks there: it counts for nothing.
    Hidden,
}

impl From<bool> for Truth {
    fn from(marked: bool) -> Self {
        if marked { Self::Defect } else { Self::Normal }
    }
}

/// Gathers maps one by one and keeps four bytes a normal pixel, so that 100 pictures of 1024² fit in half a gigabyte.
#[derive(Debug, Default)]
pub struct PixelScores {
    background: Vec<u32>,
    defects: Vec<(u32, u32)>,
    /// Pixels of each defect, over all pictures.
    areas: Vec<u32>,
}

impl PixelScores {
    /// Adds one picture: its map and its truth, both row by row in rows of `width`.
    pub fn add(&mut self, map: &[f32], truth: &[Truth], width: usize) -> Result<(), Mismatch> {
        if map.len() != truth.len() || width == 0 || !map.len().is_multiple_of(width) {
            return Err(Mismatch { map: map.len(), mask: truth.len(), width });
        }
        let marked: Vec<bool> = truth.iter().map(|truth| *truth == Truth::Defect).collect();
        let (labels, areas) = regions(&marked, width);
        let known = self.areas.len() as u32;
        for ((&score, &label), truth) in map.iter().zip(&labels).zip(truth) {
            match truth {
                Truth::Normal => self.background.push(key(score)),
                Truth::Defect => self.defects.push((key(score), known + label - 1)),
                Truth::Hidden => {}
            }
        }
        self.areas.extend(areas);
        Ok(())
    }

    /// The metrics of all that was added; `None` unless there are both defects and background.
    pub fn metrics(mut self) -> Option<PixelMetrics> {
        if self.background.is_empty() || self.defects.is_empty() {
            return None;
        }
        self.background.par_sort_unstable();
        self.defects.par_sort_unstable();
        Some(PixelMetrics { auroc: self.auroc(), aupro_30: self.aupro(0.30), aupro_05: self.aupro(0.05) })
    }

    fn auroc(&self) -> f64 {
        let (mut area, mut hits) = (0.0, 0.0);
        for (new_alarms, tie) in self.thresholds() {
            area += new_alarms as f64 * (hits + tie.len() as f64 / 2.0);
            hits += tie.len() as f64;
        }
        area / (self.background.len() as f64 * self.defects.len() as f64)
    }

    fn aupro(&self, limit: f64) -> f64 {
        let (pixels, count) = (self.background.len() as f64, self.areas.len() as f64);
        let (mut area, mut alarms, mut overlap, mut rate) = (0.0, 0u64, 0.0, 0.0);
        for (new_alarms, tie) in self.thresholds() {
            let gain: f64 = tie.iter().map(|&(_, region)| 1.0 / f64::from(self.areas[region as usize])).sum();
            alarms += new_alarms as u64;
            let (next_rate, next_overlap) = (alarms as f64 / pixels, overlap + gain / count);
            if next_rate > limit {
                let at_limit = overlap + (next_overlap - overlap) * (limit - rate) / (next_rate - rate);
                return (area + (limit - rate) * (overlap + at_limit) / 2.0) / limit;
            }
            area += (next_rate - rate) * (overlap + next_overlap) / 2.0;
            (rate, overlap) = (next_rate, next_overlap);
        }
        area / limit
    }

    /// From the highest score down: how many background pixels have it, and which defect pixels.
    fn thresholds(&self) -> impl Iterator<Item = (usize, &[(u32, u32)])> {
        let (mut background, mut defects) = (&self.background[..], &self.defects[..]);
        std::iter::from_fn(move || {
            let top = background.last().copied().max(defects.last().map(|d| d.0))?;
            let alarms = background.iter().rev().take_while(|&&k| k == top).count();
            let hits = defects.iter().rev().take_while(|d| d.0 == top).count();
            background = &background[..background.len() - alarms];
            let (rest, tie) = defects.split_at(defects.len() - hits);
            defects = rest;
            Some((alarms, tie))
        })
    }
}

/// Labels 8-connected regions from 1 on, 0 elsewhere; and the number of pixels of each.
fn regions(mask: &[bool], width: usize) -> (Vec<u32>, Vec<u32>) {
    let height = mask.len() / width;
    let mut labels = vec![0u32; mask.len()];
    let mut areas = Vec::new();
    let mut open = Vec::new();
    for start in 0..mask.len() {
        if !mask[start] || labels[start] != 0 {
            continue;
        }
        areas.push(0);
        let label = areas.len() as u32;
        labels[start] = label;
        open.push(start);
        while let Some(pixel) = open.pop() {
            areas[label as usize - 1] += 1;
            let (row, column) = (pixel / width, pixel % width);
            for r in row.saturating_sub(1)..(row + 2).min(height) {
                for c in column.saturating_sub(1)..(column + 2).min(width) {
                    let neighbour = r * width + c;
                    if mask[neighbour] && labels[neighbour] == 0 {
                        labels[neighbour] = label;
                        open.push(neighbour);
                    }
                }
            }
        }
    }
    (labels, areas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn scores_keep_their_order_as_keys() {
        let sorted = [f32::NEG_INFINITY, -1.5, -1e-40, 0.0, 1e-40, 2.5, f32::INFINITY, f32::NAN];
        assert!(sorted.windows(2).all(|w| key(w[0]) < key(w[1])));
        assert_eq!(key(-0.0), key(0.0));
        assert_eq!(key(-f32::NAN), key(f32::NAN));
    }

    #[test]
    fn a_perfect_and_a_hopeless_ranking() {
        let perfect = image_metrics(&[(0.1, false), (0.2, false), (0.8, true), (0.9, true)]).unwrap();
        assert_eq!((perfect.auroc, perfect.average_precision), (1.0, 1.0));
        assert_eq!(perfect.best_f1, BestF1 { f1: 1.0, threshold: 0.8 });
        let blind = image_metrics(&[(0.5, false), (0.5, true), (0.5, false), (0.5, true)]).unwrap();
        assert_eq!((blind.auroc, blind.average_precision), (0.5, 0.5));
        assert_eq!(image_metrics(&[(0.1, true)]), None);
        assert_eq!(image_metrics(&[]), None);
    }

    #[test]
    fn diagonal_neighbours_are_one_region() {
        let mask = [true, false, false, false, true, false, false, false, false, false, false, true];
        let (labels, areas) = regions(&mask, 3);
        assert_eq!(areas, [2, 1]);
        assert_eq!((labels[0], labels[4], labels[11]), (1, 1, 2));
    }

    #[test]
    fn maps_without_defects_have_no_pixel_metrics() {
        let mut scores = PixelScores::default();
        scores.add(&[0.1, 0.2], &[Truth::Normal; 2], 2).unwrap();
        assert!(scores.metrics().is_none());
        assert!(PixelScores::default().add(&[0.1], &[Truth::Normal; 2], 2).is_err());
    }

    /// By hand: of two normal pixels one is above the defect.
    #[test]
    fn what_is_hidden_makes_no_figure_better() {
        let mut scores = PixelScores::default();
        let truth =
            [Truth::Normal, Truth::Normal, Truth::Defect, Truth::Hidden, Truth::Hidden, Truth::Hidden];
        scores.add(&[0.9, 0.1, 0.5, -0.1, -0.1, -0.1], &truth, 3).unwrap();
        assert_eq!(scores.metrics().unwrap().auroc, 0.5);
    }

    /// The definition itself: every threshold, one at a time.
    fn aupro_by_definition(map: &[f32], mask: &[bool], width: usize, limit: f64) -> f64 {
        let (labels, areas) = regions(mask, width);
        let background = mask.iter().filter(|m| !**m).count() as f64;
        let mut thresholds = map.to_vec();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        let mut curve = vec![(0.0, 0.0)];
        for t in thresholds {
            let above = |i: &usize| map[*i] >= t;
            let alarms = (0..map.len()).filter(above).filter(|&i| !mask[i]).count() as f64;
            let overlap: f64 = (0..map.len())
                .filter(above)
                .filter(|&i| mask[i])
                .map(|i| 1.0 / f64::from(areas[labels[i] as usize - 1]))
                .sum();
            curve.push((alarms / background, overlap / areas.len() as f64));
        }
        let mut area = 0.0;
        for pair in curve.windows(2) {
            let [(x0, y0), (x1, y1)] = [pair[0], pair[1]];
            let end = x1.min(limit);
            if end > x0 {
                let y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0);
                area += (end - x0) * (y0 + y_end) / 2.0;
            }
        }
        area / limit
    }

    /// Made by `tests/goldens/metrics.py` with scikit-learn; in f64 both sides agree to rounding.
    #[test]
    fn agrees_with_the_golden_metrics() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/goldens/metrics.json")).unwrap();
        let (mut scored, mut pixels) = (Vec::new(), PixelScores::default());
        let pictures =
            golden["hundredths"].as_array().unwrap().iter().zip(golden["masks"].as_array().unwrap());
        for (hundredths, mask) in pictures {
            let map: Vec<f32> = hundredths
                .as_array()
                .unwrap()
                .iter()
                .map(|h| (h.as_i64().unwrap() as f64 / 100.0) as f32)
                .collect();
            let mask: Vec<bool> = mask.as_str().unwrap().bytes().map(|b| b == b'1').collect();
            let score = map.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            scored.push((score, mask.contains(&true)));
            let truth: Vec<Truth> = mask.into_iter().map(Truth::from).collect();
            pixels.add(&map, &truth, golden["columns"].as_u64().unwrap() as usize).unwrap();
        }
        let (image, pixel) = (image_metrics(&scored).unwrap(), pixels.metrics().unwrap());
        for (name, got) in [
            ("image_auroc", image.auroc),
            ("image_average_precision", image.average_precision),
            ("image_f1_max", image.best_f1.f1),
            ("image_f1_threshold", f64::from(image.best_f1.threshold)),
            ("pixel_auroc", pixel.auroc),
            ("aupro_30", pixel.aupro_30),
            ("aupro_05", pixel.aupro_05),
        ] {
            let expected = golden[name].as_f64().unwrap();
            assert!((got - expected).abs() < 1e-9, "{name}: {got}, golden {expected}");
        }
    }

    proptest! {
        #[test]
        fn exact_over_all_thresholds(
            pixels in proptest::collection::vec((0u8..20, proptest::bool::weighted(0.3)), 64..=64),
        ) {
            let map: Vec<f32> = pixels.iter().map(|p| f32::from(p.0) - 7.0).collect();
            let mask: Vec<bool> = pixels.iter().map(|p| p.1).collect();
            let mut scores = PixelScores::default();
            let truth: Vec<Truth> = mask.iter().copied().map(Truth::from).collect();
            scores.add(&map, &truth, 8).unwrap();
            if let Some(m) = scores.metrics() {
                for (got, limit) in [(m.aupro_30, 0.30), (m.aupro_05, 0.05)] {
                    let expected = aupro_by_definition(&map, &mask, 8, limit);
                    prop_assert!((got - expected).abs() < 1e-9, "{got} {expected}");
                }
                let scored: Vec<_> = map.iter().copied().zip(mask.iter().copied()).collect();
                let image = image_metrics(&scored).unwrap();
                prop_assert!((m.auroc - image.auroc).abs() < 1e-12);
                let wins: f64 = scored.iter().filter(|p| p.1).flat_map(|p| {
                    scored.iter().filter(|n| !n.1).map(move |n| f64::from(p.0 > n.0) + 0.5 * f64::from(p.0 == n.0))
                }).sum();
                let pairs = scored.iter().filter(|p| p.1).count() * scored.iter().filter(|p| !p.1).count();
                prop_assert!((image.auroc - wins / pairs as f64).abs() < 1e-12);
            }
        }
    }
}

//! How good a model is on a labelled set.
//!
//! In: the set, and whoever judges a picture. Out: the figures of `inspectord evaluate --json`. Not here: the judging
//! itself (an engine of `detector`), the metrics' arithmetic (`metrics`).

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use super::dataset::{Labelled, Sample};
use super::error::TrainingError;
use super::metrics::{PixelScores, Truth, image_metrics};
use super::pictures::see;
use crate::frame::{Picture, Region};
use crate::imaging::{self, Seen, Sight, crop};

/// What an engine says of one picture.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Its score.
    pub score: f32,
    /// Its map at the picture's size, row by row.
    pub map: Vec<f32>,
    /// How long the inspection took, in milliseconds, decoding excluded.
    pub milliseconds: f64,
}

/// Latency percentiles, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// Of a hundred, the slowest but one.
    pub p99: f64,
}

/// How one kind of defect fares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DefectFigures {
    /// Pictures of it.
    pub images: usize,
    /// Image AUROC against all normal pictures; none without normal pictures.
    pub image_auroc: Option<f64>,
    /// The share of it above the threshold, 0–1.
    pub detection_rate: f64,
}

/// All figures; those that the set cannot give are none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    /// Pictures judged.
    pub images: usize,
    /// Of them, pictures all of whose marks a mask hides: what is left to see is no defect, and no figure counts them.
    pub hidden: usize,
    /// Area under the image-wise receiver operating characteristic.
    pub image_auroc: Option<f64>,
    /// Average precision of pictures.
    pub image_ap: Option<f64>,
    /// The best F1 that any threshold reaches.
    pub image_f1_max: Option<f64>,
    /// Area under the pixel-wise receiver operating characteristic.
    pub pixel_auroc: Option<f64>,
    /// Area under the per-region-overlap curve up to a false-positive rate of 0.30.
    pub aupro_30: Option<f64>,
    /// The same up to 0.05.
    pub aupro_05: Option<f64>,
    /// The model's threshold.
    pub threshold: f32,
    /// The share of normal pictures above it.
    pub false_positive_rate: Option<f64>,
    /// The share of anomalous pictures above it.
    pub detection_rate: Option<f64>,
    /// By kind of defect.
    pub per_defect: BTreeMap<String, DefectFigures>,
    /// How long a picture takes.
    pub latency_ms: Latency,
}

/// Judges every picture of `set`, as its camera's line would see it. Pixels that a mask hides count neither for nor against
/// the model, which is not to look there.
///
/// # Errors
/// A picture or mask cannot be read or does not fit, or `judge` fails.
pub fn evaluate<E: From<TrainingError>>(
    set: &Labelled,
    threshold: f32,
    sight: &mut Sight,
    mut judge: impl FnMut(&Sample, &Seen) -> Result<Judged, E>,
) -> Result<Evaluation, E> {
    let mut pixels = set.masked.then(PixelScores::default);
    let (mut judgements, mut times) = (Vec::new(), Vec::new());
    for sample in &set.samples {
        let seen = see(sight, &sample.path)?;
        let judged = judge(sample, &seen)?;
        times.push(judged.milliseconds);
        let mut is_seen = true;
        if let Some(pixels) = &mut pixels {
            let marked = marks(sample, &seen, sight)?;
            let truth = truth(&marked, &seen);
            is_seen = !marked.contains(&true) || truth.contains(&Truth::Defect);
            pixels
                .add(&judged.map, &truth, seen.viewed.width as usize)
                .expect("a map of the picture's size: this is a bug");
        }
        if is_seen {
            judgements.push((sample, judged.score));
        }
    }
    let scored: Vec<(f32, bool)> = judgements.iter().map(|(s, score)| (*score, s.defect.is_some())).collect();
    let above = |anomalous: bool| {
        let of: Vec<f32> = scored.iter().filter(|s| s.1 == anomalous).map(|s| s.0).collect();
        share_above(&of, threshold)
    };
    let (image, pixel) = (image_metrics(&scored), pixels.and_then(PixelScores::metrics));
    Ok(Evaluation {
        images: set.samples.len(),
        hidden: set.samples.len() - scored.len(),
        image_auroc: image.map(|m| m.auroc),
        image_ap: image.map(|m| m.average_precision),
        image_f1_max: image.map(|m| m.best_f1.f1),
        pixel_auroc: pixel.map(|m| m.auroc),
        aupro_30: pixel.map(|m| m.aupro_30),
        aupro_05: pixel.map(|m| m.aupro_05),
        threshold,
        false_positive_rate: above(false),
        detection_rate: above(true),
        per_defect: per_defect(&judgements, threshold),
        latency_ms: latency(times),
    })
}

/// A score that is no number counts as anomalous, as in a verdict.
fn share_above(scores: &[f32], threshold: f32) -> Option<f64> {
    let within = scores.iter().filter(|&&s| s <= threshold).count();
    (!scores.is_empty()).then(|| (scores.len() - within) as f64 / scores.len() as f64)
}

/// What is marked of the inspected part, also where nobody looks.
fn marks(sample: &Sample, seen: &Seen, sight: &mut Sight) -> Result<Vec<bool>, TrainingError> {
    let Region { width, height, .. } = seen.viewed;
    let Some(path) = &sample.mask else { return Ok(vec![false; width as usize * height as usize]) };
    let drawn = load_mask(path)?;
    let (expected, got) = (seen.picture.size(), drawn.size());
    let marked = sight.picture(drawn).ok().filter(|marked| marked.picture.size() == expected);
    let marked = marked.ok_or(TrainingError::MaskSize { mask: path.clone(), expected, got })?;
    let marked = crop(&marked.picture, seen.viewed).expect("both have one size: this is a bug");
    // Some sets mark defects with 255, some with 1 or with the number of the kind.
    Ok(marked.rgb().chunks_exact(3).map(|pixel| pixel.iter().any(|&v| v > 0)).collect())
}

/// What each pixel of the inspected part is.
fn truth(marked: &[bool], seen: &Seen) -> Vec<Truth> {
    let width = seen.viewed.width;
    let hidden =
        |i: usize| seen.mask.as_ref().is_some_and(|mask| mask.hides(i as u32 % width, i as u32 / width));
    let truth = |(i, marked): (usize, &bool)| if hidden(i) { Truth::Hidden } else { (*marked).into() };
    marked.iter().enumerate().map(truth).collect()
}

fn load_mask(path: &Path) -> Result<Picture, TrainingError> {
    Ok(imaging::load(path)?)
}

fn per_defect(judgements: &[(&Sample, f32)], threshold: f32) -> BTreeMap<String, DefectFigures> {
    let of = |defect: Option<&str>| -> Vec<f32> {
        judgements.iter().filter(|(s, _)| s.defect.as_deref() == defect).map(|(_, score)| *score).collect()
    };
    let normal = of(None);
    let mut kinds: Vec<&str> = judgements.iter().filter_map(|(s, _)| s.defect.as_deref()).collect();
    kinds.dedup();
    let figures = |kind: &str| {
        let scores = of(Some(kind));
        let against: Vec<(f32, bool)> =
            normal.iter().map(|&s| (s, false)).chain(scores.iter().map(|&s| (s, true))).collect();
        DefectFigures {
            images: scores.len(),
            image_auroc: image_metrics(&against).map(|m| m.auroc),
            detection_rate: share_above(&scores, threshold).unwrap_or(0.0),
        }
    };
    kinds.into_iter().map(|kind| (kind.to_owned(), figures(kind))).collect()
}

fn latency(mut times: Vec<f64>) -> Latency {
    times.sort_by(f64::total_cmp);
    let at = |q: f64| times[((times.len() - 1) as f64 * q).round() as usize];
    Latency { p50: at(0.50), p99: at(0.99) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::{Areas, View};
    use image::{GrayImage, Luma, RgbImage};

    fn labelled(mask_side: u32) -> (tempfile::TempDir, Labelled) {
        let root = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        for (kind, shade) in [("good", 10), ("hole", 200), ("dent", 90)] {
            RgbImage::from_pixel(8, 8, image::Rgb([shade; 3]))
                .save(folder(&format!("test/{kind}")).join("a.png"))
                .unwrap();
            if kind != "good" {
                let mask = GrayImage::from_fn(mask_side, mask_side, |x, _| Luma([u8::from(x < 2)]));
                mask.save(folder(&format!("ground_truth/{kind}")).join("a_mask.png")).unwrap();
            }
        }
        let set = Labelled::find(root.path()).unwrap();
        (root, set)
    }

    /// Scores a picture by its brightness and its map by the mask's left edge.
    fn judge(_: &Sample, seen: &Seen) -> Result<Judged, TrainingError> {
        let score = f32::from(seen.picture.rgb()[0]);
        let map = (0..64).map(|i| if score > 50.0 && i % 8 < 2 { 1.0 } else { 0.0 }).collect();
        Ok(Judged { score, map, milliseconds: 2.0 })
    }

    #[test]
    fn a_set_is_judged_as_a_whole_and_by_kind() {
        let (_root, set) = labelled(8);
        let figures = evaluate(&set, 100.0, &mut Sight::default(), judge).unwrap();
        assert_eq!((figures.images, figures.image_auroc, figures.image_f1_max), (3, Some(1.0), Some(1.0)));
        assert_eq!((figures.pixel_auroc, figures.aupro_30), (Some(1.0), Some(1.0)));
        assert_eq!((figures.false_positive_rate, figures.detection_rate), (Some(0.0), Some(0.5)));
        assert_eq!(figures.per_defect["hole"].detection_rate, 1.0);
        assert_eq!(figures.per_defect["dent"].detection_rate, 0.0);
        let json = serde_json::to_value(&figures).unwrap();
        assert_eq!(json["latency_ms"]["p99"], 2.0);
    }

    /// The marks are the two columns on the left.
    #[test]
    fn what_a_mask_hides_counts_for_nothing() {
        let (_root, set) = labelled(8);
        let hide = |left: u32, right: u32| {
            let ignore = vec![vec![[left, 0], [right, 0], [right, 8], [left, 8]]];
            let areas = Areas { ignore, ..Areas::default() };
            Sight::open(&View { areas, ..View::default() }).unwrap()
        };
        // Everywhere above what is marked but in the hidden half, whose pixels lie below all others.
        let poor = |_: &Sample, seen: &Seen| -> Result<Judged, TrainingError> {
            let map = (0..64)
                .map(|i| {
                    if i % 8 < 2 {
                        0.5
                    } else if i % 8 < 4 {
                        1.0
                    } else {
                        -1.0
                    }
                })
                .collect();
            Ok(Judged { score: f32::from(seen.picture.rgb()[0]), map, milliseconds: 2.0 })
        };
        let figures = evaluate(&set, 100.0, &mut hide(4, 8), poor).unwrap();
        assert_eq!((figures.hidden, figures.detection_rate), (0, Some(0.5)));
        assert!(figures.pixel_auroc.unwrap() < 0.5, "{figures:?}");
        // A defect that nobody can see is none that was missed.
        let figures = evaluate(&set, 100.0, &mut hide(0, 4), judge).unwrap();
        assert_eq!((figures.images, figures.hidden, figures.detection_rate), (3, 2, None));
        assert!(figures.per_defect.is_empty() && figures.pixel_auroc.is_none(), "{figures:?}");
    }

    #[test]
    fn a_mask_of_another_size_is_named() {
        let (_root, set) = labelled(9);
        let error = evaluate(&set, 100.0, &mut Sight::default(), judge).unwrap_err().to_string();
        assert!(error.contains("a_mask.png") && error.contains("9x9") && error.contains("8x8"), "{error}");
    }
}

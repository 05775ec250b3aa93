//! From a trained model to one that can judge: what is usual on its maps, from pictures that it learnt; the maps' quantiles,
//! from held-out normal pictures alone; and the threshold, from the scores of both.
//!
//! Not here: which pictures are held out (`dataset`), how a threshold follows from scores (`threshold`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;

use super::dataset::{Normals, evenly};
use super::error::TrainingError;
use super::pictures::see;
use super::threshold::{self, ThresholdError};
use crate::efficientad::maps::{self, QuantilePair};
use crate::efficientad::{
    Architecture, CalibratedModel, Calibration, Combination, Look, MapQuantiles, Networks, Normalisation,
    Spread, TrainedModel, UsualMaps, input,
};
use crate::frame::Size;
use crate::imaging::{self, Appearance, Grid, Mask, Resizer, Seen, Sight};

/// The raw maps of one picture, and the size at which it is scored.
struct RawMaps {
    student_teacher: Vec<f32>,
    autoencoder_student: Vec<f32>,
    picture: Size,
    mask: Option<Arc<Mask>>,
    appearance: Appearance,
}

/// As many of the pictures that a model learnt are looked at, which lie evenly among them; more would not tell more.
const LEARNT_LOOKED_AT: usize = 256;

/// Some of the pictures that a model learnt, as many as a calibration looks at.
pub fn some_of(learnt: &[PathBuf]) -> Vec<PathBuf> {
    evenly(learnt, LEARNT_LOOKED_AT).map(|(_, path)| path.clone()).collect()
}

/// Where it stands what is usual on a model's maps.
pub enum Usual {
    /// On those of the pictures that it learnt; without any, nothing is.
    OfLearnt,
    /// It was found before, or nobody knows.
    Known(Option<UsualMaps>),
}

/// Calibrates `model` on normal pictures, those held out and some of those that it learnt, seen as their line sees them, for a
/// false-positive `rate` (0–0.5). The quantiles are of held-out pictures alone, what is usual of learnt ones. `tell` hears how many
/// pictures of how many are done and may end it. What a mask hides counts neither for the quantiles nor for the scores.
pub fn calibrate(
    (model, usual): (TrainedModel, Usual),
    (normals, sight): (&Normals, &mut Sight),
    rate: f64,
    device: &Device,
    tell: &mut dyn FnMut(usize, usize) -> Result<(), TrainingError>,
) -> Result<CalibratedModel, TrainingError> {
    threshold::check_rate(rate)?;
    let networks = model.networks(device)?;
    let (input, mut resizer) = (model.architecture().input, Resizer::new());
    let learnt = some_of(&normals.training);
    let of = learnt.len() + normals.held_out.len();
    let mut maps = Vec::with_capacity(of);
    for path in learnt.iter().chain(&normals.held_out) {
        tell(maps.len(), of)?;
        maps.push(raw_maps(&networks, (path, see(sight, path)?), input, &mut resizer, device)?);
    }
    tell(of, of)?;

    let grid = grid(model.architecture());
    let cells = grid.rows * grid.columns;
    let usual = match usual {
        Usual::Known(known) => known,
        Usual::OfLearnt => mean(&maps[..learnt.len()], cells),
    };
    if let Some(usual) = &usual {
        for RawMaps { student_teacher, autoencoder_student, .. } in &mut maps {
            usual.take_off(student_teacher, autoencoder_student);
        }
    }
    let (learnt, held_out) = maps.split_at(learnt.len());
    let quantiles = quantiles(held_out, grid).ok_or(ThresholdError::NoScores)?;
    let normalisation = Normalisation { quantiles, usual };
    let by = normalisation.of_what_is_unusual(cells);
    let score = |maps: &RawMaps| score(maps, &by, grid);
    let hidden = |path: &PathBuf| TrainingError::Hidden(path.clone());
    let scores = held_out.iter().zip(&normals.held_out);
    let scores = scores.map(|(maps, path)| score(maps).ok_or_else(|| hidden(path)));
    let scores = scores.collect::<Result<Vec<f32>, _>>()?;
    let scores_of_learnt: Vec<f32> = learnt.iter().filter_map(score).collect();
    let found = threshold::find(&scores, &scores_of_learnt, rate)?;
    Ok(model.calibrate(normalisation, Calibration { look: look(held_out), ..found })?)
}

/// The mean of the raw maps of some pictures, cell by cell; none without any.
fn mean(some: &[RawMaps], cells: usize) -> Option<UsualMaps> {
    let mean = |map: fn(&RawMaps) -> &Vec<f32>| {
        let mut sums = vec![0f64; cells];
        for maps in some {
            sums.iter_mut().zip(map(maps)).for_each(|(sum, value)| *sum += f64::from(*value));
        }
        sums.into_iter().map(|sum| (sum / some.len() as f64) as f32).collect()
    };
    (!some.is_empty()).then(|| UsualMaps {
        student_teacher: mean(|m| &m.student_teacher),
        autoencoder_student: mean(|m| &m.autoencoder_student),
    })
}

fn raw_maps(
    networks: &Networks,
    (path, Seen { picture, viewed, mask }): (&Path, Seen),
    input: Size,
    resizer: &mut Resizer,
    device: &Device,
) -> Result<RawMaps, TrainingError> {
    let resized = resizer
        .resize_region(&picture, viewed, input)
        .expect("the networks' input is a legal size: this is a bug");
    let (student_teacher, autoencoder_student) =
        networks.raw_maps(&input::normalise(&[&resized], device)?)?;
    let maps = RawMaps {
        student_teacher: student_teacher.flatten_all()?.to_vec1()?,
        autoencoder_student: autoencoder_student.flatten_all()?.to_vec1()?,
        picture: Size::new(viewed.width, viewed.height),
        mask,
        appearance: imaging::appearance(&resized),
    };
    if !maps.student_teacher.iter().chain(&maps.autoencoder_student).all(|v| v.is_finite()) {
        return Err(TrainingError::NotFinite(path.to_owned()));
    }
    Ok(maps)
}

/// The cells of the networks' maps.
pub(super) fn grid(architecture: &Architecture) -> Grid {
    let [rows, columns] = architecture.map_size();
    Grid { rows, columns, padding: Architecture::MAP_PADDING }
}

/// Over all visible pixels of all maps, as the paper has it.
fn quantiles(all: &[RawMaps], grid: Grid) -> Option<MapQuantiles> {
    let hidden: Vec<_> =
        all.iter().map(|maps| maps.mask.as_ref().map(|mask| mask.hidden_cells(grid))).collect();
    let pair = |pixels: fn(&RawMaps) -> &Vec<f32>| {
        let mut visible = Vec::new();
        for (maps, hidden) in all.iter().zip(&hidden) {
            match hidden {
                Some(hidden) => {
                    visible.extend(pixels(maps).iter().zip(hidden).filter(|(_, h)| !**h).map(|(v, _)| *v));
                }
                None => visible.extend_from_slice(pixels(maps)),
            }
        }
        QuantilePair::of(&mut visible)
    };
    Some(MapQuantiles {
        student_teacher: pair(|m| &m.student_teacher)?,
        autoencoder_student: pair(|m| &m.autoencoder_student)?,
    })
}

/// What the pictures look like, on the whole.
fn look(all: &[RawMaps]) -> Option<Look> {
    let spread = |value: fn(&Appearance) -> f32| {
        let values = || all.iter().map(|maps| value(&maps.appearance));
        let mean = values().sum::<f32>() / all.len() as f32;
        let variance = values().map(|v| (v - mean).powi(2)).sum::<f32>() / all.len() as f32;
        Spread { mean, std: variance.sqrt() }
    };
    (!all.is_empty()).then(|| Look {
        brightness: spread(|a| a.brightness),
        sharpness: spread(|a| a.sharpness),
        red: spread(|a| a.red),
        blue: spread(|a| a.blue),
    })
}

/// As the detector scores: the maximum of the combined map at the picture's own size, over what is visible; none where
/// nothing is.
fn score(maps: &RawMaps, by: &Combination, grid: Grid) -> Option<f32> {
    let mut combined = by.of(&maps.student_teacher, &maps.autoencoder_student);
    let silence = match &maps.mask {
        Some(mask) => Some((mask, mask.silence_cells(&mut combined, grid)?)),
        None => None,
    };
    let mut full = maps::full_size(&combined, grid.rows, grid.columns, maps.picture);
    // A mask of another size hides cells alike, and has no place for each pixel.
    if let Some((mask, floor)) = silence.filter(|(mask, _)| mask.size() == maps.picture) {
        mask.silence(&mut full, floor);
    }
    full.into_iter().reduce(f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::{Inspector, Reference, untrained};
    use crate::efficientad::PdnSize;

    #[test]
    fn whoever_watches_may_end_it_before_the_next_picture() {
        let tiny = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..3).map(|n| folder.path().join(format!("{n}.png"))).collect();
        for path in &paths {
            image::RgbImage::from_pixel(20, 10, image::Rgb([9, 8, 7])).save(path).unwrap();
        }
        let mut heard = 0;
        let mut tell = |done, of| {
            assert_eq!(of, 3);
            heard += 1;
            if done == 1 { Err(TrainingError::Stopped { step: 7 }) } else { Ok(()) }
        };
        let model = untrained::model(&tiny, 0).into_trained();
        let ended = calibrate(
            (model, Usual::Known(None)),
            (&Normals { training: Vec::new(), held_out: paths }, &mut Sight::default()),
            0.01,
            &Device::Cpu,
            &mut tell,
        );
        assert!(matches!(ended, Err(TrainingError::Stopped { step: 7 })));
        assert_eq!(heard, 2);
    }

    #[test]
    fn a_picture_whose_maps_are_no_numbers_is_named_whether_learnt_or_held_out() {
        let tiny = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
        let mut broken = untrained::model(&tiny, 0).into_trained();
        let mut weights = broken.weights().clone();
        let (name, mut weight) = weights
            .iter()
            .find(|(name, _)| name.starts_with("student"))
            .map(|(n, w)| (n.to_owned(), w.clone()))
            .unwrap();
        weight.values.fill(f32::MAX);
        weights.insert(name, weight);
        broken = TrainedModel::new(tiny, weights, broken.training().clone()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part.png");
        std::fs::write(&path, imaging::png(&untrained::picture(Size::new(256, 256), 1))).unwrap();
        for normals in [
            Normals { training: vec![path.clone()], held_out: Vec::new() },
            Normals { training: Vec::new(), held_out: vec![path.clone()] },
        ] {
            let (model, mut sight) = ((broken.clone(), Usual::OfLearnt), Sight::default());
            let ended = calibrate(model, (&normals, &mut sight), 0.01, &Device::Cpu, &mut |_, _| Ok(()));
            let told = ended.unwrap_err().to_string();
            assert!(told.contains("part.png") && told.contains("train the model again"), "{told}");
        }
    }

    #[test]
    fn held_out_pictures_score_as_the_next_part_will() {
        let input = Size::new(256, 256);
        let tiny = Architecture::new(PdnSize::Tiny, input).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pictures: Vec<_> = (0..5).map(|seed| untrained::picture(input, seed)).collect();
        let lay = |(n, picture): (usize, &crate::frame::Picture)| {
            let path = folder.path().join(format!("{n}.png"));
            std::fs::write(&path, imaging::png(picture)).unwrap();
            path
        };
        let paths: Vec<PathBuf> = pictures.iter().enumerate().map(lay).collect();
        let (learnt, held_out) = paths.split_at(2);
        let normals = Normals { training: learnt.to_vec(), held_out: held_out.to_vec() };
        let (model, mut sight) = (untrained::model(&tiny, 0).into_trained(), Sight::default());
        let (model, seen) = ((model, Usual::OfLearnt), (&normals, &mut sight));
        let model = calibrate(model, seen, 0.01, &Device::Cpu, &mut |_, _| Ok(())).unwrap();
        assert!(model.normalisation().usual.is_some());
        let mut engine = Reference::new(&model, Device::Cpu, "cpu".into()).unwrap();
        let score = |picture| {
            let map = engine.infer(&[picture]).unwrap().remove(0);
            maps::full_size(&map.values, 56, 56, input).into_iter().reduce(f32::max).unwrap()
        };
        let highest = pictures[2..].iter().map(score).reduce(f32::max).unwrap();
        let found = model.manifest().calibration.held_out.max;
        assert!((highest - found).abs() < 1e-4 * found.abs(), "{highest} {found}");
    }
}

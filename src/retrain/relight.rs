//! Parts that were never seen under a new light, as they would look under it.
//!
//! In: pictures that were learnt before, and new samples. Out: the old ones with the new samples' brightness and contrast
//! in each colour, as files beside the retraining's other work; none where the new samples' light is the old one. Twenty
//! samples show twenty parts; what the others would look like follows from them, as colour transfer has it (Reinhard et
//! al., 2001). They are learnt from, never judged: what a version is tried on are pictures of parts that were there.

use std::path::{Path, PathBuf};

use super::error::RetrainError;
use super::files;
use crate::efficientad::sha256;
use crate::frame::{Picture, Size};
use crate::imaging::{self, Resizer, png};
use crate::training::dataset::evenly;

/// Pictures that are made at most, and looked at to know a light.
const MOST: usize = 400;
/// The size at which lights are held against each other.
const COMPARED: Size = Size::new(48, 48);
/// Grey levels by which a colour's mean must be off for it to be another light, or more where parts differ by more.
const ANOTHER_LIGHT: f64 = 2.0;
/// Grey levels by which two samples differ that were taken under different lights, and lights that are told apart.
const APART: f64 = 12.0;
const MOST_LIGHTS: usize = 4;
/// How far contrast may be stretched or pressed.
const GAIN: std::ops::RangeInclusive<f64> = 0.5..=2.0;

/// An old picture under another light.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relit {
    /// Which of the old ones it is.
    pub(super) of: usize,
    /// Its file.
    pub(super) path: PathBuf,
}

/// The old pictures under the light of the new ones, at the size that the networks read; under each of several lights in
/// turn.
pub(super) fn relit(
    old: &[PathBuf],
    new: &[PathBuf],
    size: Size,
    work: &Path,
) -> Result<Vec<Relit>, RetrainError> {
    let mut resizer = Resizer::new();
    let (indices, old): (Vec<usize>, Vec<&PathBuf>) = spread(old).into_iter().unzip();
    let Some(before) = Light::of(&old, &mut resizer)? else { return Ok(Vec::new()) };
    let among_old = variation(&old, &mut resizer)?;
    let mut changes = Vec::new();
    let new: Vec<&PathBuf> = spread(new).into_iter().map(|(_, path)| path).collect();
    for alike in groups(&new, APART.max(4.0 * among_old), &mut resizer)? {
        let by_chance = 3.0 * among_old / (alike.len() as f64).sqrt();
        let now = Light::of(&alike, &mut resizer)?;
        changes.push(now.and_then(|now| before.changed_to(&now, ANOTHER_LIGHT.max(by_chance))));
    }
    let folder = work.join("relit");
    files::make_folder(&folder).map_err(RetrainError::file("make", &folder))?;
    let relight = |(of, path, change): (usize, &PathBuf, Change)| -> Result<Relit, RetrainError> {
        let what = format!("{size} {change:?} {}", path.display());
        let relit = folder.join(format!("{}.png", &sha256(what.as_bytes())[..32]));
        if !relit.is_file() {
            let picture = resizer.resize(&imaging::load(path)?, size);
            let mut picture = picture.expect("the networks' input is a legal size: this is a bug");
            change.apply(&mut picture);
            files::replace(&relit, &png(&picture)).map_err(RetrainError::file("write", &relit))?;
        }
        Ok(Relit { of, path: relit })
    };
    let in_turn = indices.into_iter().zip(old).zip(changes.into_iter().cycle());
    in_turn.filter_map(|((of, path), change)| Some((of, path, change?))).map(relight).collect()
}

/// How much the mean of a colour varies from picture to picture under one light: the standard deviation of the colour
/// that varies most.
fn variation(paths: &[&PathBuf], resizer: &mut Resizer) -> Result<f64, RetrainError> {
    let mut means = Vec::new();
    for &path in paths {
        means.extend(Light::of(&[path], resizer)?.map(|Light(light)| light.map(|(mean, _)| mean)));
    }
    let deviation = |channel: usize| {
        let mean = means.iter().map(|m| m[channel]).sum::<f64>() / means.len().max(1) as f64;
        let squares = means.iter().map(|m| (m[channel] - mean).powi(2)).sum::<f64>();
        (squares / means.len().max(1) as f64).sqrt()
    };
    Ok((0..3).map(deviation).fold(0.0, f64::max))
}

/// Samples of one light each: one joins the first group from whose first sample it is not `apart` in any colour.
fn groups<'a>(
    new: &[&'a PathBuf],
    apart: f64,
    resizer: &mut Resizer,
) -> Result<Vec<Vec<&'a PathBuf>>, RetrainError> {
    let mut groups: Vec<(Light, Vec<&PathBuf>)> = Vec::new();
    for &path in new {
        let Some(light) = Light::of(&[path], resizer)? else { continue };
        match groups.iter_mut().find(|(first, _)| !first.is_apart_from(&light, apart)) {
            Some((_, members)) => members.push(path),
            None => groups.push((light, vec![path])),
        }
    }
    groups.sort_by_key(|(_, members)| std::cmp::Reverse(members.len()));
    Ok(groups.into_iter().take(MOST_LIGHTS).map(|(_, members)| members).collect())
}

/// All of few, and of many some that lie evenly among them, with their indices.
pub(super) fn spread(paths: &[PathBuf]) -> Vec<(usize, &PathBuf)> {
    evenly(paths, MOST).collect()
}

/// Mean and standard deviation of each colour over many pictures.
#[derive(Debug, Clone, Copy)]
struct Light([(f64, f64); 3]);

impl Light {
    fn of(paths: &[&PathBuf], resizer: &mut Resizer) -> Result<Option<Self>, RetrainError> {
        let (mut sums, mut squares, mut count) = ([0.0; 3], [0.0; 3], 0.0);
        for path in paths {
            let small = resizer.resize(&imaging::load(path)?, COMPARED);
            let small = small.expect("a small size is legal: this is a bug");
            for pixel in small.rgb().chunks_exact(3) {
                count += 1.0;
                for (channel, &value) in pixel.iter().enumerate() {
                    sums[channel] += f64::from(value);
                    squares[channel] += f64::from(value).powi(2);
                }
            }
        }
        let spread = |c: usize| {
            let mean = sums[c] / count;
            (mean, (squares[c] / count - mean * mean).max(0.0).sqrt())
        };
        Ok((count > 0.0).then(|| Self([spread(0), spread(1), spread(2)])))
    }

    /// Whether the mean of any colour differs by `levels` or more.
    fn is_apart_from(&self, other: &Self, levels: f64) -> bool {
        self.0.iter().zip(other.0).any(|((mean, _), (to, _))| (mean - to).abs() >= levels)
    }

    /// What makes this light the other one, unless they are less than `levels` apart.
    fn changed_to(&self, other: &Self, levels: f64) -> Option<Change> {
        let channel = |c: usize| {
            let ((mean, std), (to_mean, to_std)) = (self.0[c], other.0[c]);
            let gain = if std > 1.0 { (to_std / std).clamp(*GAIN.start(), *GAIN.end()) } else { 1.0 };
            (gain, to_mean - gain * mean)
        };
        self.is_apart_from(other, levels).then(|| Change([channel(0), channel(1), channel(2)]))
    }
}

/// Gain and offset of each colour.
#[derive(Debug, Clone, Copy)]
struct Change([(f64, f64); 3]);

impl Change {
    fn apply(&self, picture: &mut Picture) {
        for pixel in picture.rgb_mut().chunks_exact_mut(3) {
            for (value, (gain, offset)) in pixel.iter_mut().zip(self.0) {
                *value = (f64::from(*value) * gain + offset).round().clamp(0.0, 255.0) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::normal_part;

    const SIZE: Size = Size::new(64, 64);

    fn files(folder: &Path, numbers: std::ops::Range<u64>, light: [f32; 3]) -> Vec<PathBuf> {
        let file = |number| {
            let mut part = normal_part(1, number, SIZE);
            for pixel in part.rgb_mut().chunks_exact_mut(3) {
                pixel
                    .iter_mut()
                    .zip(light)
                    .for_each(|(value, factor)| *value = (f32::from(*value) * factor) as u8);
            }
            let path = folder.join(format!("{number}.png"));
            std::fs::write(&path, png(&part)).unwrap();
            path
        };
        numbers.map(file).collect()
    }

    #[test]
    fn old_parts_look_as_they_would_under_the_new_light() {
        let root = tempfile::tempdir().unwrap();
        let light = [0.95, 0.87, 0.76];
        let old = files(root.path(), 0..30, [1.0; 3]);
        let new = files(root.path(), 30..50, light);
        let relit = relit(&old, &new, SIZE, root.path()).unwrap();
        assert_eq!(relit.len(), old.len());
        let truth = tempfile::tempdir().unwrap();
        for (at, (relit, truth)) in relit.iter().zip(files(truth.path(), 0..30, light)).enumerate() {
            assert_eq!(relit.of, at);
            let (relit, truth) = (imaging::load(&relit.path).unwrap(), imaging::load(&truth).unwrap());
            let off: f64 = relit.rgb().iter().zip(truth.rgb()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
            assert!(off / (relit.rgb().len() as f64) < 4.0, "{off}");
        }
        let again = super::relit(&old, &new, SIZE, root.path()).unwrap();
        assert_eq!(again, relit);
    }

    #[test]
    fn under_several_lights_each_has_its_share_of_the_old_parts() {
        let root = tempfile::tempdir().unwrap();
        let old = files(root.path(), 0..30, [1.0; 3]);
        let warm = files(root.path(), 30..40, [0.95, 0.87, 0.6]);
        let dark = files(root.path(), 40..46, [0.6; 3]);
        let relit = relit(&old, &[warm, dark].concat(), SIZE, root.path()).unwrap();
        let blue_by_red = |paths: &[&PathBuf]| {
            let Light([(red, _), _, (blue, _)]) = Light::of(paths, &mut Resizer::new()).unwrap().unwrap();
            blue / red
        };
        let plain = blue_by_red(&old.iter().collect::<Vec<_>>());
        let warm = relit.iter().filter(|relit| blue_by_red(&[&relit.path]) < 0.8 * plain).count();
        assert_eq!((warm, relit.len()), (15, 30));
    }

    #[test]
    fn under_the_same_light_nothing_is_made() {
        let root = tempfile::tempdir().unwrap();
        let (old, new) = (files(root.path(), 0..30, [1.0; 3]), files(root.path(), 30..50, [1.0; 3]));
        assert_eq!(relit(&old, &new, SIZE, root.path()).unwrap(), Vec::new());
        assert_eq!(relit(&old, &[], SIZE, root.path()).unwrap(), Vec::new());
    }
}

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

/// Pictures that are made at most, and looked at to know a light.
const MOST: usize = 400;
/// The size at which lights are held against each other.
const COMPARED: Size = Size::new(48, 48);
/// Grey levels by which a colour's mean must be off for it to be another light.
const ANOTHER_LIGHT: f64 = 2.0;
/// How far contrast may be stretched or pressed.
const GAIN: std::ops::RangeInclusive<f64> = 0.5..=2.0;

/// The old pictures under the light of the new ones, at the size that the networks read.
pub(super) fn relit(
    old: &[PathBuf],
    new: &[PathBuf],
    size: Size,
    work: &Path,
) -> Result<Vec<PathBuf>, RetrainError> {
    let mut resizer = Resizer::new();
    let old = spread(old);
    let (Some(before), Some(now)) = (Light::of(&old, &mut resizer)?, Light::of(&spread(new), &mut resizer)?)
    else {
        return Ok(Vec::new());
    };
    let Some(change) = before.changed_to(&now) else { return Ok(Vec::new()) };
    let folder = work.join("relit");
    files::make_folder(&folder).map_err(RetrainError::file("make", &folder))?;
    let relight = |path: &&PathBuf| -> Result<PathBuf, RetrainError> {
        let what = format!("{size} {change:?} {}", path.display());
        let relit = folder.join(format!("{}.png", &sha256(what.as_bytes())[..32]));
        if !relit.is_file() {
            let picture = resizer.resize(&imaging::load(path)?, size);
            let mut picture = picture.expect("the networks' input is a legal size: this is a bug");
            change.apply(&mut picture);
            files::replace(&relit, &png(&picture)).map_err(RetrainError::file("write", &relit))?;
        }
        Ok(relit)
    };
    old.iter().map(relight).collect()
}

/// All of few, and of many some that lie evenly among them.
fn spread(paths: &[PathBuf]) -> Vec<&PathBuf> {
    let step = paths.len().div_ceil(MOST).max(1);
    paths.iter().step_by(step).collect()
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

    fn changed_to(&self, other: &Self) -> Option<Change> {
        let differs =
            self.0.iter().zip(other.0).any(|((mean, _), (to, _))| (mean - to).abs() >= ANOTHER_LIGHT);
        let channel = |c: usize| {
            let ((mean, std), (to_mean, to_std)) = (self.0[c], other.0[c]);
            let gain = if std > 1.0 { (to_std / std).clamp(*GAIN.start(), *GAIN.end()) } else { 1.0 };
            (gain, to_mean - gain * mean)
        };
        differs.then(|| Change([channel(0), channel(1), channel(2)]))
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
        for (relit, truth) in relit.iter().zip(files(truth.path(), 0..30, light)) {
            let (relit, truth) = (imaging::load(relit).unwrap(), imaging::load(&truth).unwrap());
            let off: f64 = relit.rgb().iter().zip(truth.rgb()).map(|(a, b)| f64::from(a.abs_diff(*b))).sum();
            assert!(off / (relit.rgb().len() as f64) < 4.0, "{off}");
        }
        let again = super::relit(&old, &new, SIZE, root.path()).unwrap();
        assert_eq!(again, relit);
    }

    #[test]
    fn under_the_same_light_nothing_is_made() {
        let root = tempfile::tempdir().unwrap();
        let (old, new) = (files(root.path(), 0..30, [1.0; 3]), files(root.path(), 30..50, [1.0; 3]));
        assert_eq!(relit(&old, &new, SIZE, root.path()).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(relit(&old, &[], SIZE, root.path()).unwrap(), Vec::<PathBuf>::new());
    }
}

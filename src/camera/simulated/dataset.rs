//! The simulated line as a labelled data set, in the layout of MVTec AD.
//!
//! In: a seed and how many of each. Out: `train/good`, `test/good`, `test/<defect>` and
//! `ground_truth/<defect>/<name>_mask.png` below a folder. Not here: reading data sets (`training`).

use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::defect::DefectKind;
use super::{defective_part, normal_part};
use crate::frame::{Picture, Size};
use crate::imaging::png;

/// Parts of data sets are numbered from here, so that none of them comes by on the running line.
pub const DATASET_FIRST: u64 = 1 << 40;
/// A difference between the spoiled and the unspoiled part that shows, in grey levels.
const VISIBLE: u8 = 12;

/// How many pictures to write, and how large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatasetCounts {
    /// Normal parts to train on.
    pub train: usize,
    /// Normal parts to test with.
    pub good: usize,
    /// Parts of each kind of defect to test with.
    pub per_defect: usize,
    /// Their size, 64x64 to 4096x4096.
    pub size: Size,
}

/// Why a data set was not written.
#[derive(Debug, Error)]
pub enum DatasetError {
    /// There is something already.
    #[error("{0} is not empty: name a new folder, nothing is overwritten")]
    NotEmpty(PathBuf),
    /// It cannot be written.
    #[error("cannot write {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// Writes parts of the line `seed` below `folder`, which must be new or empty.
///
/// # Errors
/// [`DatasetError`].
pub fn write_dataset(folder: &Path, seed: u64, counts: &DatasetCounts) -> Result<(), DatasetError> {
    let empty = fs::read_dir(folder).map_or(true, |mut items| items.next().is_none());
    if !empty {
        return Err(DatasetError::NotEmpty(folder.to_owned()));
    }
    let mut number = DATASET_FIRST;
    let mut next = || {
        number += 1;
        number
    };
    for (part, count) in [("train/good", counts.train), ("test/good", counts.good)] {
        for i in 0..count {
            write(&folder.join(part), &format!("{i:03}.png"), &normal_part(seed, next(), counts.size))?;
        }
    }
    for kind in DefectKind::ALL {
        let (test, truth) = (folder.join("test"), folder.join("ground_truth"));
        for i in 0..counts.per_defect {
            let (picture, mask) = defective_part(seed, next(), counts.size, kind);
            write(&test.join(kind.name()), &format!("{i:03}.png"), &picture)?;
            write(&truth.join(kind.name()), &format!("{i:03}_mask.png"), &mask)?;
        }
    }
    Ok(())
}

fn write(folder: &Path, name: &str, picture: &Picture) -> Result<(), DatasetError> {
    let path = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&path, png(picture)))
        .map_err(|source| DatasetError::File { path, source })
}

/// White where `defective` differs visibly from `normal`, with small gaps closed.
pub(super) fn mask(normal: &Picture, defective: &Picture) -> Picture {
    let Size { width, height } = normal.size();
    let (width, height) = (width as usize, height as usize);
    let differs = |(a, b): (&[u8], &[u8])| a.iter().zip(b).any(|(a, b)| a.abs_diff(*b) >= VISIBLE);
    let seen: Vec<bool> =
        normal.rgb().chunks_exact(3).zip(defective.rgb().chunks_exact(3)).map(differs).collect();
    // Dilated and eroded again, by about a hundredth of the side.
    let reach = (width.min(height) / 128).max(1);
    let dilated = spread(&seen, [width, height], reach, true);
    let closed = spread(&dilated, [width, height], reach, false);
    let rgb = closed.iter().flat_map(|&on| [if on { 255 } else { 0 }; 3]).collect();
    Picture::new(normal.size(), rgb).expect("the mask has the picture's size: this is a bug")
}

/// Spreads `value` by `reach` pixels in a square, first along rows, then along columns.
fn spread(from: &[bool], [width, height]: [usize; 2], reach: usize, value: bool) -> Vec<bool> {
    let pass = |from: &[bool], place: &dyn Fn(usize, usize) -> usize, lines: usize, length: usize| {
        let mut to = from.to_vec();
        for line in 0..lines {
            for i in 0..length {
                let near = i.saturating_sub(reach)..(i + reach + 1).min(length);
                if near.into_iter().any(|j| from[place(line, j)] == value) {
                    to[place(line, i)] = value;
                }
            }
        }
        to
    };
    let rows = pass(from, &|line, i| line * width + i, height, width);
    pass(&rows, &|line, i| i * width + line, width, height)
}

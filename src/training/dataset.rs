//! Pictures to learn from and to be measured on, as folders hold them.
//!
//! In: a flat folder of normal pictures, or the MVTec AD layout (`train/good`, `validation/good`, `test/<defect>`,
//! `ground_truth/<defect>/<name>_mask.png`). Out: paths, sorted by name, and what they are. Not here: decoding
//! (`imaging`), the pictures themselves (`pictures`).

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::efficientad::manifest::PictureSet;

/// The folder of normal pictures, in `train`, `validation` and `test`.
pub const GOOD: &str = "good";
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "bmp", "tif", "tiff"];
/// The first bytes of PNG, JPEG and both kinds of TIFF; a BMP's `BM` begins many a text, too.
const SIGNATURES: [&[u8]; 4] = [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*"];
/// Held-out pictures wanted at least, for the quantiles and the threshold; a tenth where that is more.
const HELD_OUT_AT_LEAST: usize = 8;
/// Of few pictures, training keeps this many for each one held out.
const KEPT_FOR_EACH_HELD_OUT: usize = 3;

/// Why a folder is no data set.
#[derive(Debug, Error)]
pub enum DatasetError {
    /// A folder or file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no picture.
    #[error("there is no picture in {0}: PNG, JPEG, BMP and TIFF files are read, subfolders are not")]
    Empty(PathBuf),
    /// One picture cannot be both learnt from and held out.
    #[error("there is only one picture in {0}: training needs at least two, one of them to calibrate with")]
    Single(PathBuf),
    /// The folder is not laid out for an evaluation.
    #[error(
        "{0} has no `test` folder: a labelled set has normal pictures in test/good, anomalous ones in \
         test/<defect> and, where known, masks in ground_truth/<defect>/<name>_mask.png"
    )]
    NotLabelled(PathBuf),
    /// Some anomalous pictures have masks and this one has none.
    #[error("{picture} has no mask: {expected} is missing, although the data set has a ground_truth folder")]
    MaskMissing {
        /// The picture.
        picture: PathBuf,
        /// Where its mask should be.
        expected: PathBuf,
    },
}

/// All of `items` where they are no more than `most`, or else that many, which lie evenly among them; with their indices.
pub fn evenly<T>(items: &[T], most: usize) -> impl Iterator<Item = (usize, &T)> {
    let taken = items.len().min(most);
    (0..taken).map(move |nth| nth * items.len() / taken).map(|at| (at, &items[at]))
}

/// Normal pictures, those to learn from and those held out to calibrate with; never one in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normals {
    /// To learn from, sorted by name.
    pub training: Vec<PathBuf>,
    /// To calibrate with, sorted by name.
    pub held_out: Vec<PathBuf>,
}

impl Normals {
    /// The normal pictures of `root`. Held out are those of `validation/good`, or else a tenth (but a few at least)
    /// chosen by `seed`.
    pub fn find(root: &Path, seed: u64) -> Result<Self, DatasetError> {
        let train = root.join("train").join(GOOD);
        let folder = if train.is_dir() { train } else { root.to_owned() };
        let training = pictures_in(&folder)?;
        let validation = root.join("validation").join(GOOD);
        if validation.is_dir() {
            return Ok(Self { training, held_out: pictures_in(&validation)? });
        }
        if training.len() < 2 {
            return Err(DatasetError::Single(folder));
        }
        Ok(Self::split(training, seed))
    }

    fn split(mut pictures: Vec<PathBuf>, seed: u64) -> Self {
        let few = HELD_OUT_AT_LEAST.min(pictures.len() / (KEPT_FOR_EACH_HELD_OUT + 1)).max(1);
        let held = pictures.len().div_ceil(10).max(few);
        pictures.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        let mut held_out = pictures.split_off(pictures.len() - held);
        pictures.sort();
        held_out.sort();
        Self { training: pictures, held_out }
    }
}

/// Normal pictures to calibrate a finished model with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationPictures {
    /// Those held out, and what the model learnt where that is known.
    pub normals: Normals,
    /// Whether the layout shows that the model was not trained on those held out.
    pub known_unseen: bool,
}

impl CalibrationPictures {
    /// The pictures of `root` for a model trained with `seed` on `trained_on`: held out are those of `validation/good`; or those
    /// that training held out, where `root` is what it was trained on; or else all normal ones.
    pub fn find(root: &Path, seed: u64, trained_on: &PictureSet) -> Result<Self, DatasetError> {
        let unknown =
            |held_out| Self { normals: Normals { training: Vec::new(), held_out }, known_unseen: false };
        let normals = match Normals::find(root, seed) {
            Err(DatasetError::Single(folder)) => return Ok(unknown(pictures_in(&folder)?)),
            found => found?,
        };
        if picture_set(root, &normals.training)?.digest == trained_on.digest {
            return Ok(Self { normals, known_unseen: true });
        }
        if root.join("validation").join(GOOD).is_dir() {
            return Ok(Self { known_unseen: true, ..unknown(normals.held_out) });
        }
        let mut all = [normals.training, normals.held_out].concat();
        all.sort();
        Ok(unknown(all))
    }
}

/// One picture of a labelled set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The picture.
    pub path: PathBuf,
    /// What is wrong with it: the name of its folder; `None` if nothing is.
    pub defect: Option<String>,
    /// Where its defect is marked.
    pub mask: Option<PathBuf>,
}

/// A labelled set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labelled {
    /// Its pictures, by folder and name.
    pub samples: Vec<Sample>,
    /// Whether every anomalous one has a mask, so that pixels can be judged.
    pub masked: bool,
}

impl Labelled {
    /// The labelled pictures below `root/test`.
    pub fn find(root: &Path) -> Result<Self, DatasetError> {
        let test = root.join("test");
        if !test.is_dir() {
            return Err(DatasetError::NotLabelled(root.to_owned()));
        }
        let truth = root.join("ground_truth");
        let masked = truth.is_dir();
        let mut samples = Vec::new();
        for folder in subfolders(&test)? {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let defect = (name != GOOD).then_some(name);
            for path in pictures_in(&folder)? {
                let mask = match &defect {
                    Some(defect) if masked => Some(mask_of(&path, &truth.join(defect))?),
                    _ => None,
                };
                samples.push(Sample { path, defect: defect.clone(), mask });
            }
        }
        if samples.is_empty() {
            return Err(DatasetError::Empty(test));
        }
        Ok(Self { samples, masked })
    }
}

fn mask_of(picture: &Path, folder: &Path) -> Result<PathBuf, DatasetError> {
    let mut name = picture.file_stem().unwrap_or_default().to_owned();
    name.push("_mask.png");
    let expected = folder.join(name);
    // Some copies of the data set name masks like their pictures.
    let plain = folder.join(picture.file_name().unwrap_or_default()).with_extension("png");
    match (expected.is_file(), plain.is_file()) {
        (true, _) => Ok(expected),
        (false, true) => Ok(plain),
        (false, false) => Err(DatasetError::MaskMissing { picture: picture.to_owned(), expected }),
    }
}

/// The pictures right in `folder`, sorted by name, at least one; hidden files and what is no picture are left out.
pub fn pictures_in(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let mut pictures = Vec::new();
    for path in entries(folder)? {
        if !is_hidden(&path) && path.is_file() && looks_like_a_picture(&path) {
            pictures.push(path);
        }
    }
    if pictures.is_empty() {
        return Err(DatasetError::Empty(folder.to_owned()));
    }
    Ok(pictures)
}

fn looks_like_a_picture(path: &Path) -> bool {
    let known = |e: &OsStr| EXTENSIONS.iter().any(|known| e.eq_ignore_ascii_case(known));
    if path.extension().is_some_and(known) {
        return true;
    }
    let mut head = Vec::with_capacity(8);
    let read = File::open(path).and_then(|file| file.take(8).read_to_end(&mut head));
    read.is_ok() && SIGNATURES.iter().any(|s| head.starts_with(s))
}

fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn subfolders(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_dir() && !is_hidden(path)).collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let failed = |source| DatasetError::Io { path: folder.to_owned(), source };
    let mut paths = fs::read_dir(folder)
        .map_err(failed)?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed)?;
    paths.sort();
    Ok(paths)
}

/// What a bundle records of `paths`: how many, and a digest over their names and bytes, in their order.
pub fn picture_set(name: &Path, paths: &[PathBuf]) -> Result<PictureSet, DatasetError> {
    let mut all = Sha256::new();
    for path in paths {
        let failed = |source| DatasetError::Io { path: path.clone(), source };
        let mut one = Sha256::new();
        io::copy(&mut File::open(path).map_err(failed)?, &mut one).map_err(failed)?;
        let file_name = path.file_name().unwrap_or_default().as_encoded_bytes();
        all.update((file_name.len() as u64).to_le_bytes());
        all.update(file_name);
        all.update(one.finalize());
    }
    let digest = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    // A path of the machine that trained means nothing where the model runs.
    let last: Vec<_> =
        name.components().rev().take(2).map(|part| part.as_os_str().to_string_lossy()).collect();
    let name = last.into_iter().rev().collect::<Vec<_>>().join("/");
    Ok(PictureSet { name, count: paths.len() as u64, digest })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        root
    }

    fn names(paths: &[PathBuf]) -> Vec<String> {
        paths.iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn some_of_many_lie_evenly_among_them() {
        let paths: Vec<PathBuf> = (0..7).map(|n| PathBuf::from(n.to_string())).collect();
        let taken = |most| evenly(&paths, most).map(|(at, path)| (at, path.clone())).collect::<Vec<_>>();
        assert_eq!(taken(3), [0, 2, 4].map(|at| (at, paths[at].clone())));
        assert_eq!(taken(5).len(), 5);
        assert_eq!((taken(7).len(), taken(100).len(), taken(0).len()), (7, 7, 0));
        assert_eq!(evenly::<PathBuf>(&[], 4).count(), 0);
    }

    #[test]
    fn a_flat_folder_holds_normals_by_name() {
        let root = folder(&["b.PNG", "a.jpeg", "c.tif", ".hidden.png", "notes.txt", "sub/d.png", "BM"]);
        fs::write(root.path().join("unnamed"), b"\x89PNG\r\n\x1a\n....").unwrap();
        assert_eq!(names(&pictures_in(root.path()).unwrap()), ["a.jpeg", "b.PNG", "c.tif", "unnamed"]);
        let normals = Normals::find(root.path(), 7).unwrap();
        assert_eq!((normals.training.len(), normals.held_out.len()), (3, 1));
    }

    #[test]
    fn the_split_follows_the_seed_and_loses_nothing() {
        let all: Vec<PathBuf> = (0..209).map(|i| PathBuf::from(format!("{i:03}.png"))).collect();
        let split = Normals::split(all.clone(), 1);
        assert_eq!(split, Normals::split(all.clone(), 1));
        assert_ne!(split, Normals::split(all.clone(), 2));
        assert_eq!(split.held_out.len(), 21);
        let mut both = [split.training, split.held_out].concat();
        both.sort();
        assert_eq!(both, all);
        for (n, held) in [(2, 1), (8, 2), (20, 5), (40, 8), (90, 9)] {
            assert_eq!(Normals::split(all[..n].to_vec(), 0).held_out.len(), held, "{n}");
        }
    }

    #[test]
    fn a_validation_folder_is_what_is_held_out() {
        let root = folder(&["train/good/a.png", "validation/good/v.png", "test/good/t.png"]);
        let normals = Normals::find(root.path(), 0).unwrap();
        assert_eq!(
            (names(&normals.training), names(&normals.held_out)),
            (vec!["a.png".into()], vec!["v.png".into()])
        );
    }

    #[test]
    fn a_finished_model_is_calibrated_with_what_it_has_not_seen() {
        let files: Vec<String> = (0..9).map(|i| format!("{i}.png")).collect();
        let root = folder(&files.iter().map(String::as_str).collect::<Vec<_>>());
        let normals = Normals::find(root.path(), 3).unwrap();
        let trained_on = picture_set(root.path(), &normals.training).unwrap();
        let same = CalibrationPictures::find(root.path(), 3, &trained_on).unwrap();
        assert_eq!(same, CalibrationPictures { normals, known_unseen: true });
        fs::write(root.path().join("new.png"), "new").unwrap();
        let other = CalibrationPictures::find(root.path(), 3, &trained_on).unwrap();
        assert_eq!((other.normals.held_out.len(), other.known_unseen), (10, false));
        assert!(other.normals.training.is_empty());
        let single = folder(&["a.png"]);
        assert_eq!(
            CalibrationPictures::find(single.path(), 3, &trained_on).unwrap().normals.held_out.len(),
            1
        );
    }

    #[test]
    fn a_labelled_set_finds_its_masks() {
        let root = folder(&[
            "test/good/0.png",
            "test/scratch/1.jpg",
            "test/hole/2.png",
            "test/.thumbnails/1.png",
            "ground_truth/scratch/1_mask.png",
            "ground_truth/hole/2.png",
        ]);
        let set = Labelled::find(root.path()).unwrap();
        let defects: Vec<_> = set.samples.iter().map(|s| s.defect.as_deref()).collect();
        assert_eq!(defects, [None, Some("hole"), Some("scratch")]);
        assert!(set.masked && set.samples[0].mask.is_none() && set.samples[2].mask.is_some());
        fs::remove_file(root.path().join("ground_truth/hole/2.png")).unwrap();
        let error = Labelled::find(root.path()).unwrap_err().to_string();
        assert!(error.contains("2.png") && error.contains("2_mask.png"), "{error}");
    }

    #[test]
    fn folders_that_are_no_data_set_say_why() {
        let empty = folder(&["readme.txt"]);
        assert!(matches!(Normals::find(empty.path(), 0), Err(DatasetError::Empty(_))));
        assert!(matches!(Labelled::find(empty.path()), Err(DatasetError::NotLabelled(_))));
        assert!(matches!(Normals::find(&empty.path().join("gone"), 0), Err(DatasetError::Io { .. })));
        let single = folder(&["a.png"]);
        assert!(matches!(Normals::find(single.path(), 0), Err(DatasetError::Single(_))));
    }

    #[test]
    fn a_digest_knows_names_and_bytes() {
        let root = folder(&["a.png", "b.png"]);
        let paths = pictures_in(root.path()).unwrap();
        let set = picture_set(root.path(), &paths).unwrap();
        assert_eq!((set.count, set.digest.len()), (2, 64));
        fs::write(&paths[0], "other").unwrap();
        assert_ne!(set.digest, picture_set(root.path(), &paths).unwrap().digest);
        fs::remove_file(&paths[0]).unwrap();
        assert!(picture_set(root.path(), &paths).unwrap_err().to_string().contains("a.png"));
    }
}

//! Pictures as the camera's line looks at them: its region cut out, where it has one.
//!
//! In: files of samples and of the first training. Out: files to train on, which for a region are cuttings beside the
//! retraining's other work, made once. A picture that has the region's size is one already.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::error::RetrainError;
use super::files;
use crate::frame::{Picture, Region, Size};
use crate::imaging::{self, crop, png};

/// How one camera's pictures are looked at.
#[derive(Debug, Clone)]
pub(super) struct View {
    region: Option<Region>,
    cuttings: PathBuf,
}

impl View {
    pub(super) fn new(region: Option<Region>, work: &Path) -> Self {
        let place = region.map_or(String::new(), |r| format!("{}-{}-{}-{}", r.x, r.y, r.width, r.height));
        Self { region, cuttings: work.join("cuttings").join(place) }
    }

    /// The part of the picture at `path` that the line inspects.
    pub(super) fn load(&self, path: &Path) -> Result<Picture, RetrainError> {
        let picture = imaging::load(path)?;
        match self.region {
            Some(region) if picture.size() != Size::new(region.width, region.height) => {
                crop(&picture, region)
                    .map_err(|source| RetrainError::Region { path: path.to_owned(), source })
            }
            _ => Ok(picture),
        }
    }

    /// The files to train on.
    pub(super) fn files(&self, paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, RetrainError> {
        if self.region.is_none() {
            return Ok(paths);
        }
        files::make_folder(&self.cuttings).map_err(RetrainError::file("make", &self.cuttings))?;
        paths.iter().map(|path| self.cutting(path)).collect()
    }

    fn cutting(&self, path: &Path) -> Result<PathBuf, RetrainError> {
        let bytes = fs::metadata(path).map_err(RetrainError::file("read", path))?.len();
        let digest = Sha256::digest(format!("{bytes} {}", path.display()));
        let name: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let cutting = self.cuttings.join(format!("{name}.png"));
        if !cutting.is_file() {
            let picture = self.load(path)?;
            files::replace(&cutting, &png(&picture)).map_err(RetrainError::file("write", &cutting))?;
        }
        Ok(cutting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::untrained;

    #[test]
    fn a_frame_is_cut_and_what_is_cut_already_is_not() {
        let root = tempfile::tempdir().unwrap();
        let region = Region { x: 8, y: 4, width: 20, height: 10 };
        let view = View::new(Some(region), root.path());
        let (frame, cut) = (root.path().join("frame.png"), root.path().join("cut.png"));
        let picture = untrained::picture(Size::new(40, 30), 1);
        fs::write(&frame, png(&picture)).unwrap();
        fs::write(&cut, png(&crop(&picture, region).unwrap())).unwrap();
        assert_eq!(view.load(&frame).unwrap(), view.load(&cut).unwrap());
        let files = view.files(vec![frame.clone(), cut]).unwrap();
        assert_eq!(imaging::load(&files[0]).unwrap(), imaging::load(&files[1]).unwrap());
        assert_eq!(View::new(None, root.path()).files(vec![frame.clone()]).unwrap(), [frame.clone()]);
        fs::write(&frame, png(&untrained::picture(Size::new(9, 9), 1))).unwrap();
        assert!(view.load(&frame).unwrap_err().to_string().contains("frame.png"));
    }
}

//! Samples as the camera's line looks at them: upright, and its region cut out, where it has one.
//!
//! In: files as the camera delivered them. Out: files to train on, which are cuttings beside the retraining's other work,
//! made once, and pictures to judge, with the line's mask. A picture that has the region's size is cut already.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::error::RetrainError;
use super::files;
use crate::efficientad::sha256;
use crate::frame::{Picture, Size};
use crate::imaging::{self, View, crop, png};

/// How one camera's pictures are looked at.
#[derive(Debug, Clone)]
pub(super) struct Sight {
    view: View,
    cuttings: PathBuf,
    /// Whether it was said how an ambiguous picture is read.
    said: OnceLock<()>,
}

impl Sight {
    pub(super) fn new(view: &View, work: &Path) -> Self {
        Self { view: view.clone(), cuttings: work.join("cuttings"), said: OnceLock::new() }
    }

    /// The line's view.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// How the files that [`Sight::files`] gives are looked at: with the line's mask, and nothing else is left to do. `frame` is
    /// the upright size of the camera's pictures, where that is known.
    pub(super) fn finished(&self, frame: Option<Size>) -> Result<imaging::Sight, RetrainError> {
        Ok(imaging::Sight::of_finished(&self.view, frame)?)
    }

    /// The upright size of a picture that is delivered with `size`.
    pub(super) fn upright(&self, size: Size) -> Size {
        self.view.orientation.upright(size)
    }

    /// Whether it takes the size of the camera's pictures to say where what is hidden lies in one that was scaled.
    pub(super) fn needs_frame(&self) -> bool {
        self.view.region.is_none() && self.view.areas != imaging::Areas::default()
    }

    /// The upright size of the picture at `path`.
    pub(super) fn size_of(&self, path: &Path) -> Result<Size, RetrainError> {
        Ok(self.upright(imaging::load(path)?.size()))
    }

    /// Whether a picture of this size is the line's region already.
    pub(super) fn is_cut(&self, size: Size) -> bool {
        self.view.is_cut(size)
    }

    /// The part of the picture at `path` that the line inspects.
    pub(super) fn load(&self, path: &Path) -> Result<Picture, RetrainError> {
        let picture = imaging::load(path)?;
        self.view.say_if_ambiguous(picture.size(), &self.said);
        if self.is_cut(picture.size()) {
            return Ok(picture);
        }
        let upright = self.view.orientation.apply(picture);
        match self.view.region {
            Some(region) => crop(&upright, region)
                .map_err(|source| RetrainError::Region { path: path.to_owned(), source }),
            None => Ok(upright),
        }
    }

    /// The files to train on.
    pub(super) fn files(&self, paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, RetrainError> {
        if self.view.region.is_none() && self.view.orientation == imaging::Orientation::default() {
            return Ok(paths);
        }
        files::make_folder(&self.cuttings).map_err(RetrainError::file("make", &self.cuttings))?;
        paths.iter().map(|path| self.cutting(path)).collect()
    }

    fn cutting(&self, path: &Path) -> Result<PathBuf, RetrainError> {
        let bytes = fs::metadata(path).map_err(RetrainError::file("read", path))?.len();
        let View { orientation, region, .. } = &self.view;
        let what = format!("{bytes} {orientation:?} {region:?} {}", path.display());
        let cutting = self.cuttings.join(format!("{}.png", &sha256(what.as_bytes())[..32]));
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
    use crate::frame::Region;
    use crate::imaging::{Flip, Orientation, Rotation};

    #[test]
    fn a_frame_is_turned_and_cut_and_what_is_cut_already_is_not() {
        let root = tempfile::tempdir().unwrap();
        let view = View {
            orientation: Orientation { rotate: Rotation::Right, flip: Flip::None },
            region: Some(Region { x: 8, y: 4, width: 20, height: 10 }),
            ..View::default()
        };
        let sight = Sight::new(&view, root.path());
        let (frame, cut) = (root.path().join("frame.png"), root.path().join("cut.png"));
        let picture = untrained::picture(Size::new(30, 40), 1);
        fs::write(&frame, png(&picture)).unwrap();
        let upright = view.orientation.apply(picture);
        fs::write(&cut, png(&crop(&upright, view.region.unwrap()).unwrap())).unwrap();
        assert_eq!(sight.load(&frame).unwrap(), sight.load(&cut).unwrap());
        let files = sight.files(vec![frame.clone(), cut]).unwrap();
        assert_eq!(imaging::load(&files[0]).unwrap(), imaging::load(&files[1]).unwrap());
        let plain = Sight::new(&View::default(), root.path());
        assert_eq!(plain.files(vec![frame.clone()]).unwrap(), std::slice::from_ref(&frame));
        fs::write(&frame, png(&untrained::picture(Size::new(9, 9), 1))).unwrap();
        assert!(sight.load(&frame).unwrap_err().to_string().contains("frame.png"));
    }
}

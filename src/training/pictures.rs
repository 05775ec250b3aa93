//! Pictures as training reads them, over and over: as their camera's line sees them, at the networks' size, kept in memory as
//! far as that is allowed.
//!
//! In: paths. Out: [`Picture`]s, and what of each counts. Owned by the training thread. Not here: which one a step takes (`schedule`), colours
//! (`augment`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::TrainingError;
use crate::frame::{Picture, Region, Size};
use crate::imaging::{self, Mask, Resizer, Seen, Sight};

/// How a picture comes to the networks' size.
#[derive(Debug, Clone)]
pub enum View {
    /// The part that its camera's line inspects, resized.
    Line(Box<Sight>),
    /// The middle of it at twice the size, as the penalty takes it (paper §3.2).
    Centre,
}

/// A list of pictures, all of one size.
#[derive(Debug)]
pub struct Pictures {
    paths: Vec<PathBuf>,
    view: View,
    size: Size,
    resizer: Resizer,
    kept: Vec<Option<Arc<Picture>>>,
    masks: Vec<Option<Arc<Mask>>>,
    room: u64,
}

impl Pictures {
    /// The pictures of `paths` at `size`, with `room` bytes to keep them in.
    pub fn new(paths: Vec<PathBuf>, view: View, size: Size, room: u64) -> Self {
        let (kept, masks) = (vec![None; paths.len()], vec![None; paths.len()]);
        Self { paths, view, size, resizer: Resizer::new(), kept, masks, room }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// The picture at `index`.
    ///
    /// # Errors
    /// Its file cannot be read or decoded; the error names it.
    pub fn get(&mut self, index: usize) -> Result<Arc<Picture>, TrainingError> {
        if let Some(picture) = &self.kept[index] {
            return Ok(picture.clone());
        }
        let picture = Arc::new(self.prepare(index)?);
        let bytes = 3 * self.size.pixels();
        if bytes <= self.room {
            self.room -= bytes;
            self.kept[index] = Some(picture.clone());
        }
        Ok(picture)
    }

    /// Where the picture at `index` lies.
    pub fn path(&self, index: usize) -> &Path {
        &self.paths[index]
    }

    /// What of the picture at `index` counts, once it was read; none where all of it does.
    pub fn mask(&self, index: usize) -> Option<&Arc<Mask>> {
        self.masks[index].as_ref()
    }

    fn prepare(&mut self, index: usize) -> Result<Picture, TrainingError> {
        let (path, size) = (&self.paths[index], self.size);
        let legal = "the networks' input is a legal size: this is a bug";
        match &mut self.view {
            View::Line(sight) => {
                let Seen { picture, viewed, mask } = see(sight, path)?;
                self.masks[index] = mask;
                Ok(self.resizer.resize_region(&picture, viewed, size).expect(legal))
            }
            View::Centre => {
                let loaded = imaging::load(path)?;
                let twice = Size::new(2 * size.width, 2 * size.height);
                let large = self.resizer.resize(&loaded, twice).expect(legal);
                let middle = Region { x: size.width / 2, y: size.height / 2, ..imaging::whole(size) };
                Ok(imaging::crop(&large, middle).expect("the middle half lies inside: this is a bug"))
            }
        }
    }
}

/// The picture at `path` as its camera's line sees it.
pub(super) fn see(sight: &mut Sight, path: &Path) -> Result<Seen, TrainingError> {
    sight.load(path)?.map_err(|source| TrainingError::Sight { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_picture_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.png");
        std::fs::write(&path, "no picture").unwrap();
        let mut pictures =
            Pictures::new(vec![path], View::Line(Box::default()), Size::new(256, 256), 1 << 20);
        assert!(pictures.get(0).unwrap_err().to_string().contains("broken.png"));
    }

    #[test]
    fn pictures_beyond_the_room_are_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = (0..2).map(|i| folder.path().join(format!("{i}.png"))).collect();
        for path in &paths {
            image::RgbImage::from_pixel(20, 10, image::Rgb([9, 8, 7])).save(path).unwrap();
        }
        let mut pictures = Pictures::new(paths.clone(), View::Centre, Size::new(16, 8), 3 * 16 * 8);
        for (i, path) in paths.iter().enumerate() {
            assert_eq!(pictures.get(i).unwrap().rgb()[..3], [9, 8, 7]);
            std::fs::remove_file(path).unwrap();
        }
        assert!(pictures.get(0).is_ok());
        assert!(pictures.get(1).is_err());
    }
}

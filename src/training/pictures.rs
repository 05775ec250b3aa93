//! Pictures as training reads them, over and over: at the networks' size, kept in memory as far as that is allowed.
//!
//! In: paths. Out: [`Picture`]s. Owned by the training thread. Not here: which one a step takes (`schedule`), colours
//! (`augment`).

use std::path::PathBuf;
use std::sync::Arc;

use super::error::TrainingError;
use crate::frame::{Picture, Region, Size};
use crate::imaging::{self, Resizer};

/// How a picture comes to the networks' size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// All of it, resized.
    Whole,
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
    room: u64,
}

impl Pictures {
    /// The pictures of `paths` at `size`, with `room` bytes to keep them in.
    pub fn new(paths: Vec<PathBuf>, view: View, size: Size, room: u64) -> Self {
        let kept = vec![None; paths.len()];
        Self { paths, view, size, resizer: Resizer::new(), kept, room }
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

    fn prepare(&mut self, index: usize) -> Result<Picture, TrainingError> {
        let loaded = imaging::load(&self.paths[index])?;
        let size = self.size;
        let legal = "the networks' input is a legal size: this is a bug";
        match self.view {
            View::Whole => Ok(self.resizer.resize(&loaded, size).expect(legal)),
            View::Centre => {
                let twice = Size::new(2 * size.width, 2 * size.height);
                let large = self.resizer.resize(&loaded, twice).expect(legal);
                let middle = Region { x: size.width / 2, y: size.height / 2, ..imaging::whole(size) };
                Ok(imaging::crop(&large, middle).expect("the middle half lies inside: this is a bug"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_picture_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.png");
        std::fs::write(&path, "no picture").unwrap();
        let mut pictures = Pictures::new(vec![path], View::Whole, Size::new(256, 256), 1 << 20);
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

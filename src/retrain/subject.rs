//! Whose model is retrained.

use std::path::PathBuf;

use crate::frame::CameraId;
use crate::imaging;
use crate::verdict::Threshold;

/// A camera whose model can be retrained.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its name.
    pub camera: CameraId,
    /// The bundle that the settings name.
    pub model: PathBuf,
    /// How its pictures are looked at.
    pub view: imaging::View,
    /// The pictures of the first training.
    pub normals: Option<PathBuf>,
    /// What the model's threshold is overridden with.
    pub threshold: Option<Threshold>,
}

#[cfg(test)]
impl Subject {
    /// The camera `top`, which sees pictures whole and runs the model in the folder `model` below `root`.
    pub(super) fn of(root: &std::path::Path) -> Self {
        Self {
            camera: "top".parse().unwrap(),
            model: root.join("model"),
            view: imaging::View::default(),
            normals: None,
            threshold: None,
        }
    }
}

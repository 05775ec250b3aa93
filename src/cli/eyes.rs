//! A camera's eyes for commands that read picture files: they see what its line would see.
//!
//! In: the camera's name and the settings it stands in, whose model need not be there yet. Out: a [`Sight`]. Not here: what is
//! made of the pictures.

use std::path::{Path, PathBuf};

use tracing::warn;

use super::models;
use crate::frame::CameraId;
use crate::imaging::Sight;
use crate::settings::{DEFAULT_FILE, Settings, Sources};

/// Through whose eyes pictures are seen.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Eyes {
    /// Sees the pictures as this camera of the settings does: turned, its region cut out, what its masks hide left out of
    /// account. Pictures that have the region's size are taken as cut out already [default: whole, as they are]
    #[arg(long, value_name = "NAME")]
    camera: Option<CameraId>,
    /// The settings file in which --camera stands [default: the daemon's]
    #[arg(long, value_name = "FILE", requires = "camera")]
    config: Option<PathBuf>,
}

impl Eyes {
    /// How pictures are looked at.
    pub(super) fn open(&self) -> anyhow::Result<Sight> {
        let Some(name) = &self.camera else { return Ok(Sight::default()) };
        let file = self.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let camera = Settings::load_camera(&Sources::new(file, Vec::new()), Some(name))?;
        Ok(Sight::open(&camera.view)?)
    }

    /// Warns where a camera of the settings runs a version that was retrained from `bundle`, which is to be changed: the
    /// settings' model runs then. Settings that are not to be had say nothing.
    pub(super) fn warn_of_versions(&self, bundle: &Path, version: &str) {
        let file = self.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let Ok(settings) = Settings::load(&Sources::new(file, Vec::new())) else { return };
        let same =
            |model: &Path| matches!((model.canonicalize(), bundle.canonicalize()), (Ok(a), Ok(b)) if a == b);
        for camera in settings.cameras.iter().filter(|camera| same(&camera.model)) {
            let active = models::registry(&settings, camera).active().ok().map(|place| place.version);
            if let Some(active) = active.filter(|active| active != version) {
                warn!(
                    camera = %camera.name, active,
                    "the camera runs a version that was retrained from this model; once it is calibrated, it runs in its place"
                );
            }
        }
    }
}

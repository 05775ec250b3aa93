//! A camera's eyes for commands that read picture files: they see what its line would see.
//!
//! In: the camera's name and the settings it stands in, whose model need not be there yet. Out: a [`Sight`]. Not here: what is
//! made of the pictures.

use std::path::PathBuf;

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
}

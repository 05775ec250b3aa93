//! What several commands share: where the settings are.

use std::path::PathBuf;

use crate::frame::CameraId;
use crate::settings::{Camera, DEFAULT_FILE, Settings, SettingsError, Sources};

/// Where the settings are.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SettingsArgs {
    /// The settings file.
    #[arg(long, global = true, value_name = "FILE", default_value = DEFAULT_FILE)]
    pub(super) config: PathBuf,
    /// Sets one key over file and environment, such as mqtt.host=broker or 'camera[0].threshold=0.6'; may be repeated.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub(super) flags: Vec<String>,
}

impl SettingsArgs {
    /// All settings, validated.
    pub(super) fn load(&self) -> Result<Settings, SettingsError> {
        Settings::load(&Sources::new(self.config.clone(), self.flags.clone()))
    }

    /// One camera, whose model need not be there yet; the only one where it is not named.
    pub(super) fn load_camera(&self, name: Option<&CameraId>) -> Result<Camera, SettingsError> {
        Settings::load_camera(&Sources::new(self.config.clone(), self.flags.clone()), name)
    }
}

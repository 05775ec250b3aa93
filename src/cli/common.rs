//! What several commands share: where the settings are.

use std::path::PathBuf;

use crate::frame::CameraId;
use crate::retrain;
use crate::settings::{Camera, DEFAULT_FILE, Settings, SettingsError, Sources};
use crate::store;

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
        Settings::load(&self.sources())
    }

    /// The `[store]` section alone.
    pub(super) fn load_store(&self) -> Result<store::Options, SettingsError> {
        Settings::load_store(&self.sources())
    }

    /// The `[retrain]` section alone.
    pub(super) fn load_retrain(&self) -> Result<retrain::Options, SettingsError> {
        Settings::load_retrain(&self.sources())
    }

    /// One camera, whose model need not be there yet; the only one where it is not named.
    pub(super) fn load_camera(&self, name: Option<&CameraId>) -> Result<Camera, SettingsError> {
        Settings::load_camera(&self.sources(), name)
    }

    fn sources(&self) -> Sources {
        Sources::new(self.config.clone(), self.flags.clone())
    }
}

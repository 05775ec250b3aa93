//! A camera's eyes for commands that read picture files: they see what its line would see.
//!
//! In: the camera's name and the settings it stands in, whose model need not be there yet. Out: a [`Sight`]. Not here: what is
//! made of the pictures.

use std::path::{Path, PathBuf};

use super::models;
use crate::frame::CameraId;
use crate::imaging::Sight;
use crate::settings::{Camera, DEFAULT_FILE, Settings, Sources};

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

/// A camera that runs a version that was retrained from the model that its settings name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Descendant {
    pub(super) camera: CameraId,
    pub(super) active: String,
}

impl Eyes {
    /// How pictures are looked at.
    pub(super) fn open(&self) -> anyhow::Result<Sight> {
        let Some(name) = &self.camera else { return Ok(Sight::default()) };
        let file = self.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let camera = Settings::load_camera(&Sources::new(file, Vec::new()), Some(name))?;
        Ok(Sight::open(&camera.view)?)
    }

    /// Cameras of the settings that run a version that was retrained from `bundle`, which is `version`. Settings that are not
    /// to be had know of none.
    pub(super) fn descendants(&self, bundle: &Path, version: &str) -> Vec<Descendant> {
        let file = self.config.clone().unwrap_or_else(|| DEFAULT_FILE.into());
        let Ok(settings) = Settings::load(&Sources::new(file, Vec::new())) else { return Vec::new() };
        if !settings.retrain.enabled {
            return Vec::new();
        }
        let same =
            |model: &Path| matches!((model.canonicalize(), bundle.canonicalize()), (Ok(a), Ok(b)) if a == b);
        let descendant = |camera: &Camera| {
            let active = models::registry(&settings, camera).active().ok()?.version;
            (active != version).then(|| Descendant { camera: camera.name.clone(), active })
        };
        settings.cameras.iter().filter(|camera| same(&camera.model)).filter_map(descendant).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::untrained;
    use crate::efficientad::{Architecture, PdnSize};
    use crate::frame::Size;
    use crate::retrain::Report;

    #[test]
    fn cameras_that_run_a_version_of_the_model_are_known() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("in")).unwrap();
        let tiny = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
        let (model, file) = (root.path().join("model"), root.path().join("inspectord.toml"));
        untrained::model(&tiny, 0).save(&model).unwrap();
        let write = |enabled: bool| {
            let text = format!(
                "[box]\nname = \"floor\"\n[mqtt]\nhost = \"127.0.0.1\"\n[store]\npath = \"store\"\n\
                 [retrain]\npath = \"retrain\"\nenabled = {enabled}\n\
                 [[camera]]\nname = \"top\"\nmodel = \"{}\"\n[camera.source]\nkind = \"folder\"\npath = \"in\"\n",
                model.display()
            );
            std::fs::write(&file, text).unwrap();
            Settings::load(&Sources::new(file.clone(), Vec::new())).unwrap()
        };
        let settings = write(true);
        let registry = models::registry(&settings, &settings.cameras[0]);
        let base = registry.active().unwrap().version;
        let eyes = Eyes { camera: None, config: Some(file.clone()) };
        assert_eq!(eyes.descendants(&model, &base), []);
        let active = registry.add(&untrained::model(&tiny, 1), &Report::default()).unwrap().version;
        registry.activate(&active).unwrap();
        let known = Descendant { camera: "top".parse().unwrap(), active };
        assert_eq!(eyes.descendants(&model, &base), [known]);
        assert_eq!(eyes.descendants(&root.path().join("other"), &base), []);
        write(false);
        assert_eq!(eyes.descendants(&model, &base), []);
    }
}

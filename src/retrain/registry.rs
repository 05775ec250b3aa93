//! The versions that a camera's model has, and the pointer to the one that runs.
//!
//! The settings name a bundle: the base. Retraining adds versions below `versions/`, and `active.json` says which of
//! them runs and which ran before. The pointer is replaced by a rename, so that a power cut at any moment leaves
//! exactly one active version; it holds for the base it was written for, and a camera that is given another bundle runs
//! that. Versions go by the name that verdicts carry. Not here: whether a version deserves it (`gate`), running it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::error::RetrainError;
use super::files;
use super::home::Home;
use super::report::Report;
use crate::efficientad::bundle::load_manifest;
use crate::efficientad::{CalibratedModel, Manifest};
use crate::telemetry::chain;

const POINTER_FORMAT: u32 = 1;
const REPORT_FILE: &str = "report.json";
/// How far back a rollback can go.
const MOST_BEFORE: usize = 32;

/// `active.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pointer {
    format: u32,
    /// The version of the bundle that the settings named.
    base: String,
    /// The version that runs.
    active: String,
    /// Those that ran before it, the last one last.
    before: Vec<String>,
    since: Timestamp,
}

/// A version and where its bundle lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub version: String,
    /// Its folder.
    pub path: PathBuf,
}

/// Where a version stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// It runs.
    Active,
    /// It passed the gate, or is the bundle that the settings name.
    Accepted,
    /// The gate refused it.
    Refused,
}

/// A version as `models list` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed {
    /// Its name.
    pub version: String,
    /// Where it stands.
    pub standing: Standing,
    /// Whether it is the bundle that the settings name.
    pub base: bool,
    /// Its folder.
    pub path: PathBuf,
    /// What it says about itself.
    pub manifest: Manifest,
    /// What the gate said of it; none for the base.
    pub report: Option<Report>,
}

/// One camera's versions.
#[derive(Debug, Clone)]
pub struct Registry {
    home: Home,
    base: PathBuf,
}

impl Registry {
    /// The versions in `home` beside the bundle that the settings name.
    pub fn new(home: &Home, base: &Path) -> Self {
        Self { home: home.clone(), base: base.to_owned() }
    }

    /// Where the versions lie.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The version that runs, or would. A pointer that does not count is passed over with a warning: a line that can
    /// inspect inspects.
    ///
    /// # Errors
    /// There is no pointer that counts, and the base cannot be read.
    pub fn active(&self) -> Result<Place, RetrainError> {
        let base = self.base_place()?;
        let camera = self.home.camera();
        match self.pointer() {
            Ok(None) => Ok(base),
            Ok(Some(pointer)) if pointer.base != base.version => {
                warn!(
                    %camera, model = %self.base.display(), base = pointer.base, active = pointer.active,
                    "the settings name another model than the active version descends from; it runs instead"
                );
                Ok(base)
            }
            Ok(Some(pointer)) => match self.place(&pointer.active, &base) {
                Some(place) => Ok(place),
                None => {
                    warn!(%camera, version = pointer.active, "the active version is gone; the settings' model runs");
                    Ok(base)
                }
            },
            Err(error) => {
                warn!(%camera, error = chain(&error), "the active version is unknown; the settings' model runs");
                Ok(base)
            }
        }
    }

    /// Loads the version that runs, or the base where that version is damaged.
    ///
    /// # Errors
    /// Neither can be read.
    pub fn load_active(&self) -> Result<CalibratedModel, RetrainError> {
        let active = self.active()?;
        match CalibratedModel::load(&active.path) {
            Ok(model) => Ok(model),
            Err(error) if active.path != self.base => {
                let camera = self.home.camera();
                warn!(
                    %camera, version = active.version, error = chain(&error),
                    "the active version cannot be read; the settings' model runs"
                );
                Ok(CalibratedModel::load(&self.base)?)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Makes `version` (or its unmistakable beginning) the one that runs.
    ///
    /// # Errors
    /// There is no such version, it is damaged, or it reads pictures of another size.
    pub fn activate(&self, version: &str) -> Result<Place, RetrainError> {
        let _turn = self.home.lock()?;
        self.activate_in_turn(version)
    }

    /// Makes `version` the one that runs in place of `against`; gives the one that runs instead of either and goes on
    /// running, if one does.
    ///
    /// # Errors
    /// As [`Registry::activate`], or what runs cannot be read.
    pub(super) fn replace(&self, against: &str, version: &str) -> Result<Option<String>, RetrainError> {
        let _turn = self.home.lock()?;
        let runs = self.load_active()?.model_ref().version;
        if runs != against && runs != version {
            return Ok(Some(runs));
        }
        self.activate_in_turn(version)?;
        Ok(None)
    }

    /// The caller holds the camera's lock.
    fn activate_in_turn(&self, version: &str) -> Result<Place, RetrainError> {
        let base = self.base_place()?;
        let place = self.find(version)?;
        let model = CalibratedModel::load(&place.path)?;
        let (expected, got) = (load_manifest(&self.base)?.architecture.input, model.architecture().input);
        if expected != got {
            return Err(RetrainError::InputSize { version: place.version, expected, got });
        }
        let (active, mut before) = self.history(&base);
        if active != place.version {
            before.push(active);
        }
        self.point(&base, &place, before)?;
        Ok(place)
    }

    /// Makes the version that ran before the active one run again, or the base where none of those is there any more.
    ///
    /// # Errors
    /// The base runs, and nothing is left that ran before it.
    pub fn rollback(&self) -> Result<Place, RetrainError> {
        let _turn = self.home.lock()?;
        let base = self.base_place()?;
        let (active, mut before) = self.history(&base);
        if before.first() != Some(&base.version) {
            before.insert(0, base.version.clone());
        }
        while let Some(version) = before.pop() {
            if version == active {
                continue;
            }
            if let Some(place) = self.place(&version, &base)
                && CalibratedModel::load(&place.path).is_ok()
            {
                self.point(&base, &place, before)?;
                return Ok(place);
            }
        }
        Err(RetrainError::NothingBefore(self.home.camera().clone()))
    }

    /// Keeps `model` as a version, with what the gate said of it.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn add(&self, model: &CalibratedModel, report: &Report) -> Result<Place, RetrainError> {
        let version = model.model_ref().version;
        let path = self.home.versions().join(&version);
        let folder = self.home.versions();
        files::make_folder(&folder).map_err(RetrainError::file("make", &folder))?;
        model.save(&path)?;
        let file = path.join(REPORT_FILE);
        let text = serde_json::to_vec_pretty(report).expect("a report is plain data: this is a bug");
        files::replace(&file, &text).map_err(RetrainError::file("write", &file))?;
        files::inherit_owner(&path);
        Ok(Place { version, path })
    }

    /// All versions, the oldest first, the base before them.
    ///
    /// # Errors
    /// The base cannot be read; versions that cannot are left out.
    pub fn list(&self) -> Result<Vec<Listed>, RetrainError> {
        let active = self.active()?;
        let listed = |path: PathBuf, base: bool| -> Option<Listed> {
            let manifest = load_manifest(&path).ok()?;
            let version = manifest.model_ref().version;
            let report = (!base).then(|| read_report(&path)).flatten();
            let refused = report.as_ref().is_some_and(|report| !report.accepted);
            let standing = match () {
                () if version == active.version => Standing::Active,
                () if refused => Standing::Refused,
                () => Standing::Accepted,
            };
            Some(Listed { version, standing, base, path, manifest, report })
        };
        let mut versions: Vec<Listed> =
            self.folders()?.into_iter().filter_map(|path| listed(path, false)).collect();
        versions.sort_by_key(|version| version.manifest.created_at);
        versions.splice(0..0, listed(self.base.clone(), true));
        Ok(versions)
    }

    /// Deletes the oldest versions beyond `keep`; never the active one, those it can go back to in one step, the version
    /// that it was made from, or the newest, which somebody may yet want to look at.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn prune(&self, keep: usize) -> Result<(), RetrainError> {
        let _turn = self.home.lock()?;
        let base = self.base_place()?;
        let (active, before) = self.history(&base);
        let versions: Vec<Listed> = self.list()?.into_iter().filter(|version| !version.base).collect();
        let parent = versions
            .iter()
            .find(|version| version.version == active)
            .and_then(|version| version.manifest.training.parent.clone());
        let newest = versions.last().map(|version| version.version.as_str());
        let needed = |version: &str| {
            version == active
                || newest == Some(version)
                || parent.as_deref() == Some(version)
                || before.last().is_some_and(|last| last == version)
        };
        let mut surplus = versions.len().saturating_sub(keep);
        for version in versions.iter().filter(|version| !needed(&version.version)) {
            if surplus == 0 {
                break;
            }
            surplus -= 1;
            info!(camera = %self.home.camera(), version = version.version, "old model version deleted");
            files::remove_folder(&version.path).map_err(RetrainError::file("delete", &version.path))?;
        }
        Ok(())
    }

    /// The version that `text` means: its name or an unmistakable beginning of it.
    ///
    /// # Errors
    /// There is none, or more than one.
    pub fn find(&self, text: &str) -> Result<Place, RetrainError> {
        let base = self.base_place()?;
        let known = self.names(&base)?;
        let joined = |names: &[&String]| names.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", ");
        if let Some(place) = known.iter().find(|name| *name == text).and_then(|name| self.place(name, &base))
        {
            return Ok(place);
        }
        let meant: Vec<&String> =
            known.iter().filter(|name| !text.is_empty() && name.starts_with(text)).collect();
        match meant.as_slice() {
            [one] => self.place(one, &base).ok_or_else(|| self.unknown(text, &known)),
            [] => Err(self.unknown(text, &known)),
            several => Err(RetrainError::Ambiguous { version: text.to_owned(), candidates: joined(several) }),
        }
    }

    fn unknown(&self, version: &str, known: &[String]) -> RetrainError {
        RetrainError::UnknownVersion {
            camera: self.home.camera().clone(),
            version: version.chars().take(80).collect(),
            known: known.join(", "),
        }
    }

    fn base_place(&self) -> Result<Place, RetrainError> {
        let version = load_manifest(&self.base)?.model_ref().version;
        Ok(Place { version, path: self.base.clone() })
    }

    fn place(&self, version: &str, base: &Place) -> Option<Place> {
        if version == base.version {
            return Some(base.clone());
        }
        let path = self.home.versions().join(version);
        let named_so = load_manifest(&path).is_ok_and(|manifest| manifest.model_ref().version == version);
        named_so.then(|| Place { version: version.to_owned(), path })
    }

    fn names(&self, base: &Place) -> Result<Vec<String>, RetrainError> {
        let folders = self.folders()?;
        let own = folders.iter().filter_map(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let mut names: Vec<String> = own.filter(|name| *name != base.version).collect();
        names.sort();
        names.insert(0, base.version.clone());
        Ok(names)
    }

    fn folders(&self) -> Result<Vec<PathBuf>, RetrainError> {
        let folder = self.home.versions();
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(RetrainError::file("list", &folder)(e)),
        };
        let shown = |path: &PathBuf| {
            path.is_dir() && path.file_name().is_some_and(|n| !n.as_encoded_bytes().starts_with(b"."))
        };
        Ok(entries.flatten().map(|entry| entry.path()).filter(shown).collect())
    }

    /// What runs and what ran before, by a pointer that counts, or else the base alone.
    fn history(&self, base: &Place) -> (String, Vec<String>) {
        match self.pointer() {
            Ok(Some(pointer)) if pointer.base == base.version => (pointer.active, pointer.before),
            _ => (base.version.clone(), Vec::new()),
        }
    }

    fn pointer(&self) -> Result<Option<Pointer>, RetrainError> {
        let path = self.home.pointer();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(RetrainError::file("read", &path)(e)),
        };
        let damaged = |message: String| RetrainError::Damaged {
            path: path.clone(),
            message,
            remedy: "name the version that is to run with `inspectord models activate`",
        };
        let pointer: Pointer = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        let legal = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric());
        if pointer.format != POINTER_FORMAT
            || ![&pointer.active].into_iter().chain(&pointer.before).all(legal)
        {
            return Err(damaged("it is of another program".into()));
        }
        Ok(Some(pointer))
    }

    fn point(&self, base: &Place, to: &Place, mut before: Vec<String>) -> Result<(), RetrainError> {
        before.drain(..before.len().saturating_sub(MOST_BEFORE));
        let pointer = Pointer {
            format: POINTER_FORMAT,
            base: base.version.clone(),
            active: to.version.clone(),
            before,
            since: Timestamp::now(),
        };
        let path = self.home.pointer();
        let text = serde_json::to_vec_pretty(&pointer).expect("a pointer is plain data: this is a bug");
        files::replace(&path, &text).map_err(RetrainError::file("write", &path))?;
        info!(camera = %self.home.camera(), version = to.version, "model version activated");
        Ok(())
    }
}

fn read_report(folder: &Path) -> Option<Report> {
    serde_json::from_slice(&fs::read(folder.join(REPORT_FILE)).ok()?).ok()
}

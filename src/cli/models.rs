//! `inspectord models`: the versions that cameras' models have had and have, and which of them runs.
//!
//! Works on a running and on a stopped daemon: a daemon notices within a second which version it is to run. Not here:
//! what a version is (`retrain::registry`).

use std::io::{self, Write};

use anyhow::Context as _;
use jiff::tz::TimeZone;
use serde::Serialize;
use tracing::warn;

use super::common::SettingsArgs;
use super::report::UsageError;
use super::words;
use crate::frame::CameraId;
use crate::retrain::{Check, Home, Listed, Place, Registry, Standing, Underway};
use crate::settings::{Camera, Settings};

/// Lists the versions of cameras' models, and chooses the one that runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  inspectord models list
  inspectord models show 3f9a0c --camera top
  inspectord models activate 3f9a0c --camera top
  inspectord models rollback --camera top
A daemon that is running changes over between two frames, within a second or two.")]
pub struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
    /// The camera; may be left out where there is one only, and lists all.
    #[arg(long, global = true)]
    camera: Option<CameraId>,
    /// Prints JSON.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Lists versions, the oldest first, and how far a retraining is.
    List,
    /// Shows one version: how it was trained, and what the gate said of it.
    Show {
        /// Its name, or an unmistakable beginning of it.
        #[arg(id = "name", value_name = "VERSION")]
        version: String,
    },
    /// Makes a version the one that runs, also one that the gate refused.
    Activate {
        /// Its name, or an unmistakable beginning of it.
        #[arg(id = "name", value_name = "VERSION")]
        version: String,
    },
    /// Makes the version run that ran before.
    Rollback,
}

/// A version with its camera, as JSON.
#[derive(Serialize)]
struct Line<'a> {
    camera: &'a CameraId,
    #[serde(flatten)]
    version: &'a Listed,
}

/// Told where versions are chosen that nothing runs.
pub(super) const SWITCHED_OFF: &str =
    "`[retrain]` is switched off: the daemon runs the models that the settings name until it is switched on";

/// Runs the command.
///
/// # Errors
/// There is no such camera or version, or it cannot be run.
pub fn run(args: Args) -> anyhow::Result<()> {
    let settings = args.settings.load()?;
    if !settings.retrain.enabled {
        warn!("{SWITCHED_OFF}");
    }
    let enabled = settings.retrain.enabled;
    let mut out = io::stdout().lock();
    match &args.action {
        Action::List => {
            for camera in
                settings.cameras.iter().filter(|c| args.camera.as_ref().is_none_or(|id| *id == c.name))
            {
                list(&mut out, camera, &settings, args.json)?;
            }
            if let Some(id) = &args.camera {
                one(&settings, Some(id))?;
            }
            Ok(())
        }
        Action::Show { version } => {
            let camera = one(&settings, args.camera.as_ref())?;
            let registry = registry(&settings, camera);
            let place = registry.find(version)?;
            let versions = listed(&registry, enabled)?;
            let shown = versions.iter().find(|v| v.version == place.version);
            let shown = shown.with_context(|| format!("version {} cannot be read", place.version))?;
            show(&mut out, camera, shown, args.json)
        }
        Action::Activate { version } => {
            let camera = one(&settings, args.camera.as_ref())?;
            let place = registry(&settings, camera).activate(version)?;
            changed(&mut out, camera, (&place, enabled), args.json)
        }
        Action::Rollback => {
            let camera = one(&settings, args.camera.as_ref())?;
            let place = registry(&settings, camera).rollback()?;
            changed(&mut out, camera, (&place, enabled), args.json)
        }
    }
}

/// The versions, of which the settings' model is the active one where `[retrain]` is switched off.
fn listed(registry: &Registry, enabled: bool) -> anyhow::Result<Vec<Listed>> {
    let mut versions = registry.list()?;
    for version in versions.iter_mut().filter(|_| !enabled) {
        version.standing = match (version.base, &version.report) {
            (true, _) => Standing::Active,
            (false, Some(report)) if !report.accepted => Standing::Refused,
            (false, _) => Standing::Accepted,
        };
    }
    Ok(versions)
}

pub(super) fn registry(settings: &Settings, camera: &Camera) -> Registry {
    Registry::new(&Home::new(&settings.retrain.path, &camera.name), &camera.model)
}

/// The camera that was named, or the only one.
pub(super) fn one<'a>(settings: &'a Settings, named: Option<&CameraId>) -> anyhow::Result<&'a Camera> {
    let names = || settings.cameras.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
    match (named, settings.cameras.as_slice()) {
        (None, [only]) => Ok(only),
        (None, _) => Err(UsageError(format!("name one with --camera: {}", names())).into()),
        (Some(id), cameras) => match cameras.iter().find(|camera| camera.name == *id) {
            Some(camera) => Ok(camera),
            None => {
                let told = format!("there is no camera `{id}` in these settings; there are {}", names());
                Err(UsageError(told).into())
            }
        },
    }
}

fn list(out: &mut impl Write, camera: &Camera, settings: &Settings, json: bool) -> anyhow::Result<()> {
    let registry = registry(settings, camera);
    let (versions, underway) =
        (listed(&registry, settings.retrain.enabled)?, Underway::read(registry.home()));
    if json {
        for version in &versions {
            writeln!(out, "{}", serde_json::to_string(&Line { camera: &camera.name, version })?)?;
        }
        if !underway.is_idle() {
            let line = serde_json::json!({"camera": camera.name, "retraining": underway});
            writeln!(out, "{line}")?;
        }
        return Ok(());
    }
    for version in &versions {
        let made =
            version.manifest.created_at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string();
        let remark = match &version.report {
            _ if version.base => "the settings' model".to_owned(),
            Some(report) => format!("{} samples; {}", report.normal + report.anomalous, report.words()),
            None => "without a report".to_owned(),
        };
        let (name, version_name, standing) =
            (camera.name.as_str(), &version.version, standing(version.standing));
        writeln!(out, "{name:<12} {version_name}  {made}  {standing:<8}  {remark}")?;
    }
    if !underway.is_idle() {
        writeln!(out, "{:<12} {}", camera.name.as_str(), in_words(&underway))?;
    }
    Ok(())
}

/// How a retraining fares, and what waits for the next one.
fn in_words(underway: &Underway) -> String {
    let Underway { new_samples, phase, done, of, seconds_left, interrupted } = underway;
    let waiting = format!("{new_samples} new samples wait");
    let Some(phase) = phase else { return waiting };
    let left = match (interrupted, seconds_left) {
        (true, _) => "; interrupted, it goes on where it was".to_owned(),
        (false, Some(seconds)) => format!("; about {} min left of this", seconds.div_ceil(60)),
        (false, None) => String::new(),
    };
    format!("retraining with {new_samples} new samples: {phase}, {done} of {of}{left}")
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Active => "active",
        Standing::Accepted => "accepted",
        Standing::Refused => "refused",
    }
}

fn show(out: &mut impl Write, camera: &Camera, shown: &Listed, json: bool) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string(&Line { camera: &camera.name, version: shown })?)?;
        return Ok(());
    }
    let training = &shown.manifest.training;
    writeln!(out, "version   {} of camera {}, {}", shown.version, camera.name, standing(shown.standing))?;
    writeln!(out, "bundle    {}", shown.path.display())?;
    writeln!(out, "made      {}", shown.manifest.created_at)?;
    writeln!(out, "trained   {} steps on {} pictures", training.steps, training.pictures.count)?;
    writeln!(out, "parent    {}", training.parent.as_deref().unwrap_or("none"))?;
    writeln!(out, "threshold {}", words::threshold(&shown.manifest.calibration))?;
    if let Some(report) = &shown.report {
        let (normal, anomalous) = (report.normal, report.anomalous);
        writeln!(out, "samples   {normal} normal and {anomalous} anomalous, set {}", report.set)?;
        writeln!(out, "gate      {}", if report.accepted { "passed" } else { "refused" })?;
        for check in &report.checks {
            writeln!(out, "  {} {:<16} {}", mark(check), check.name, check.words)?;
        }
    }
    Ok(())
}

/// An answer of the gate at a glance.
pub(super) fn mark(check: &Check) -> char {
    match (check.passed, check.untried) {
        (false, _) => '-',
        (true, true) => '?',
        (true, false) => '+',
    }
}

fn changed(
    out: &mut impl Write,
    camera: &Camera,
    (place, enabled): (&Place, bool),
    json: bool,
) -> anyhow::Result<()> {
    let (name, version) = (&camera.name, &place.version);
    match (json, enabled) {
        (true, _) => writeln!(out, "{}", serde_json::json!({"camera": name, "active": version}))?,
        (false, true) => writeln!(out, "camera {name} runs version {version}")?,
        (false, false) => {
            writeln!(out, "camera {name} will run version {version} once `[retrain]` is switched on")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::untrained;
    use crate::efficientad::{Architecture, PdnSize};
    use crate::frame::Size;
    use crate::retrain::Report;

    #[test]
    fn where_retraining_is_switched_off_the_settings_model_is_the_active_one() {
        let root = tempfile::tempdir().unwrap();
        let tiny = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
        let base = root.path().join("model");
        untrained::model(&tiny, 0).save(&base).unwrap();
        let registry = Registry::new(&Home::new(root.path(), &"top".parse().unwrap()), &base);
        let report = |accepted| Report { accepted, ..Report::default() };
        let chosen = registry.add(&untrained::model(&tiny, 1), &report(false)).unwrap();
        registry.activate(&chosen.version).unwrap();
        let standings = |enabled| -> Vec<Standing> {
            listed(&registry, enabled).unwrap().iter().map(|version| version.standing).collect()
        };
        assert_eq!(standings(true), [Standing::Accepted, Standing::Active]);
        assert_eq!(standings(false), [Standing::Active, Standing::Refused]);
    }
}

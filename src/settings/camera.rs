//! The `[[camera]]` sections: what a camera is called, what it looks at, and which model judges it.
//!
//! In: the sections as written. Out: validated [`Camera`]s. Not here: opening one (`camera`), running its line (`pipeline`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Value;

use super::MAX_CAMERAS;
use super::fault::Faults;
use super::reading::{read, suggest};
use super::view::{WrittenBounds, WrittenView};
use crate::camera;
use crate::efficientad::bundle::MANIFEST_FILE;
use crate::frame::{CameraId, Region};
use crate::imaging::{Flip, Polygon, Rotation, View};
use crate::pipeline::{Views, WhenFull};
use crate::verdict::Threshold;

/// How the fault begins that says that a model has not been made yet.
pub(super) const NO_BUNDLE: &str = "there is no model bundle at";

/// The longest deadline or patience, in milliseconds; beyond ten minutes it is a typing error.
const MAX_WAIT_MS: u64 = 600_000;

/// One camera and what is to be done with its frames.
#[derive(Debug, Clone, PartialEq)]
pub struct Camera {
    /// Its name: a level of its topics and the folder of its evidence.
    pub name: CameraId,
    /// The folder of the model bundle that judges its frames.
    pub model: PathBuf,
    /// Where its frames come from.
    pub source: camera::Options,
    /// How its picture is looked at.
    pub view: View,
    /// What makes it inspect.
    pub trigger: TriggerMode,
    /// How many frames each trigger takes.
    pub views: Views,
    /// What the model's own threshold is overridden with.
    pub threshold: Option<Threshold>,
    /// The normal pictures that its model was trained on, as `inspectord train --data` took them.
    pub normals: Option<PathBuf>,
    /// Hours after which a golden part that was not shown is asked for.
    pub golden_hours: Option<u32>,
}

/// What makes a camera inspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerMode {
    /// Every frame that comes.
    Free {
        /// What happens to a frame that comes while the line is busy.
        when_full: WhenFull,
    },
    /// One part per trigger message.
    Software {
        /// The deadline of triggers that state none, in milliseconds from their arrival.
        deadline_ms: Option<u64>,
        /// How long the camera's frame is waited for where there is no deadline, in milliseconds.
        patience_ms: u64,
        /// How long after its trigger a part may still be exposed, in milliseconds.
        expose_within_ms: u64,
    },
    /// One part per tick of a timer.
    Timed {
        /// From one tick to the next, in milliseconds.
        every_ms: u64,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WrittenTrigger {
    #[default]
    Free,
    Software,
    Timed,
}

/// A section as written. The source is kept apart, since its keys depend on its kind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Written {
    name: Option<CameraId>,
    model: Option<PathBuf>,
    rotate: Rotation,
    flip: Flip,
    region: Option<Region>,
    polygon: Option<Polygon>,
    ignore: Vec<Polygon>,
    ignore_mask: Option<PathBuf>,
    picture: WrittenBounds,
    trigger: WrittenTrigger,
    when_full: Option<WhenFull>,
    deadline_ms: Option<u64>,
    patience_ms: Option<u64>,
    expose_within_ms: Option<u64>,
    every_ms: Option<u64>,
    views: Option<u32>,
    view_every_ms: Option<u64>,
    threshold: Option<Threshold>,
    normals: Option<PathBuf>,
    golden_hours: Option<u32>,
}

/// A month; whoever shows golden parts more seldom need not be reminded.
const MAX_GOLDEN_HOURS: u32 = 744;

/// The most views of a part; each is held in memory until all are there.
const MAX_VIEWS: u32 = 16;

/// Waiting longer than this for a triggered frame means that the camera is not going to answer.
const DEFAULT_PATIENCE_MS: u64 = 5_000;

/// As long as a trigger may have waited at the broker: a part of a line that does not rest has moved on by then.
const DEFAULT_EXPOSE_WITHIN_MS: u64 = 1_000;

impl Camera {
    /// Takes relative paths from `base`; the section stands at `at`.
    fn anchor(&mut self, base: &Path, at: &str, faults: &mut Faults) {
        if let camera::Options::Folder(folder) = &mut self.source {
            super::anchor(base, &mut folder.path);
        }
        self.normals.iter_mut().for_each(|normals| super::anchor(base, normals));
        if let Some(mask) = &mut self.view.areas.ignore_mask {
            super::anchor(base, mask);
            if !mask.is_file() {
                let message = format!("there is no file {}: draw it, or correct the path", mask.display());
                faults.add(&format!("{at}.ignore_mask"), message);
            }
        }
    }
}

/// Reads all sections; those that lack what a camera must have are left out of the answer.
pub(super) fn read_all(
    written: Option<Value>,
    base: &Path,
    models: &Path,
    faults: &mut Faults,
) -> Vec<Camera> {
    let sections = match written {
        Some(Value::Array(sections)) => sections,
        None => Vec::new(),
        Some(_) => {
            faults.add("camera", "is to be a list: write [[camera]], with two brackets, once per camera");
            return Vec::new();
        }
    };
    if sections.is_empty() {
        faults.add("camera", "there is none: add a [[camera]] section with name, model and source");
    }
    if sections.len() > MAX_CAMERAS {
        faults.add("camera", format!("{} are too many: a box has at most {MAX_CAMERAS}", sections.len()));
        return Vec::new();
    }
    let mut cameras = Vec::with_capacity(sections.len());
    let mut names = HashMap::new();
    for (i, section) in sections.into_iter().enumerate() {
        let at = format!("camera[{i}]");
        let Value::Table(mut table) = section else {
            faults.add(&at, "is to be a section: write [[camera]] above its keys");
            continue;
        };
        let source = table.remove("source");
        let Some(written) = read::<Written>(table, &at, faults) else { continue };
        if let Some(name) = &written.name
            && let Some(earlier) = names.insert(name.clone(), i)
        {
            let message = format!("`{name}` is the name of camera[{earlier}] already: give each its own");
            faults.add(&format!("{at}.name"), message);
        }
        if let Some(mut camera) = complete(written, source, &at, models, faults) {
            camera.anchor(base, &at, faults);
            cameras.push(camera);
        }
    }
    cameras
}

fn complete(
    written: Written,
    source: Option<Value>,
    at: &str,
    models: &Path,
    faults: &mut Faults,
) -> Option<Camera> {
    let source = read_source(source, &format!("{at}.source"), faults);
    let trigger = written.trigger(source.as_ref(), at, faults);
    let views = written.views(at, faults);
    if written.threshold.is_some_and(|t| !t.0.is_finite()) {
        faults.add(&format!("{at}.threshold"), "is to be a number; leave it out to use the model's own");
    }
    written.golden(at, faults);
    let live = source.as_ref().is_some_and(camera::Options::is_live);
    let view = WrittenView {
        rotate: written.rotate,
        flip: written.flip,
        region: written.region,
        polygon: written.polygon,
        ignore: written.ignore,
        ignore_mask: written.ignore_mask,
        picture: written.picture,
    };
    let view = view.read(live, at, faults);
    if written.name.is_none() {
        faults.add(&format!("{at}.name"), "is missing: it becomes a level of the camera's topics");
    }
    let model = written.model.filter(|m| !m.as_os_str().is_empty()).map(|m| models.join(m));
    match &model {
        None => {
            faults.add(&format!("{at}.model"), "is missing: name the model bundle that judges this camera")
        }
        Some(path) if !path.join(MANIFEST_FILE).is_file() => {
            let message = format!(
                "{NO_BUNDLE} {}: make one with `inspectord train --out {0}`, or correct the name",
                path.display()
            );
            faults.add(&format!("{at}.model"), message);
        }
        Some(_) => {}
    }
    Some(Camera {
        name: written.name?,
        model: model?,
        source: source?,
        view,
        trigger,
        views,
        threshold: written.threshold,
        normals: written.normals,
        golden_hours: written.golden_hours,
    })
}

impl Written {
    fn golden(&self, at: &str, faults: &mut Faults) {
        let at = format!("{at}.golden_hours");
        match self.golden_hours {
            Some(_) if self.trigger != WrittenTrigger::Software => {
                faults.add(&at, "needs trigger = \"software\": a trigger's fields say which part is golden");
            }
            Some(hours) if !(1..=MAX_GOLDEN_HOURS).contains(&hours) => {
                faults.add(&at, format!("{hours} is out of bounds: give 1 to {MAX_GOLDEN_HOURS} hours"));
            }
            _ => {}
        }
    }

    fn trigger(&self, source: Option<&camera::Options>, at: &str, faults: &mut Faults) -> TriggerMode {
        let unasked = source.is_none_or(camera::Options::delivers_unasked);
        let by_line = source.is_some_and(camera::Options::exposes_by_line);
        match self.trigger {
            WrittenTrigger::Free if !unasked => faults.add(
                &format!("{at}.source.expose"),
                "a camera that exposes on request needs something that asks: set trigger = \"software\" or \"timed\"",
            ),
            WrittenTrigger::Software | WrittenTrigger::Timed if by_line => faults.add(
                &format!("{at}.trigger"),
                "the camera's line triggers it: set trigger = \"free\", so that every exposure is a part",
            ),
            _ => {}
        }
        let mut idle = |key: &str, given: bool, remedy: &str| {
            if given {
                let message = format!("has no effect here: remove it, or set trigger = {remedy}");
                faults.add(&format!("{at}.{key}"), message);
            }
        };
        let is = |trigger| self.trigger == trigger;
        let (free, software) = (is(WrittenTrigger::Free), is(WrittenTrigger::Software));
        let timed = is(WrittenTrigger::Timed);
        idle("when_full", self.when_full.is_some() && !free, "\"free\"");
        idle("deadline_ms", self.deadline_ms.is_some() && !software, "\"software\"");
        idle("patience_ms", self.patience_ms.is_some() && !software, "\"software\"");
        idle("expose_within_ms", self.expose_within_ms.is_some() && !software, "\"software\"");
        idle("every_ms", self.every_ms.is_some() && !timed, "\"timed\"");
        let several = self.views.is_some() || self.view_every_ms.is_some();
        idle("views", several && free, "\"software\" or \"timed\"");
        for (key, ms) in [
            ("deadline_ms", self.deadline_ms),
            ("patience_ms", self.patience_ms),
            ("expose_within_ms", self.expose_within_ms),
            ("every_ms", self.every_ms),
        ] {
            if ms.is_some_and(|ms| !(1..=MAX_WAIT_MS).contains(&ms)) {
                let message = format!("is out of bounds: give 1 to {MAX_WAIT_MS} milliseconds");
                faults.add(&format!("{at}.{key}"), message);
            }
        }
        match self.trigger {
            WrittenTrigger::Free => {
                // Files wait; a live camera would only deliver ever older frames, and a line's signal is a part.
                let live = source.is_some_and(camera::Options::is_live);
                let default = match (by_line, live) {
                    (true, _) => WhenFull::Uninspected,
                    (false, true) => WhenFull::Skip,
                    (false, false) => WhenFull::Wait,
                };
                TriggerMode::Free { when_full: self.when_full.unwrap_or(default) }
            }
            WrittenTrigger::Software => {
                let patience_ms = self.patience_ms.unwrap_or(DEFAULT_PATIENCE_MS);
                let expose_within_ms = self.expose_within_ms.unwrap_or(DEFAULT_EXPOSE_WITHIN_MS);
                TriggerMode::Software { deadline_ms: self.deadline_ms, patience_ms, expose_within_ms }
            }
            WrittenTrigger::Timed => {
                if self.every_ms.is_none() {
                    faults.add(
                        &format!("{at}.every_ms"),
                        "is missing: give the milliseconds from tick to tick",
                    );
                }
                TriggerMode::Timed { every_ms: self.every_ms.unwrap_or(1000) }
            }
        }
    }

    fn views(&self, at: &str, faults: &mut Faults) -> Views {
        let (count, every_ms) = (self.views.unwrap_or(1), self.view_every_ms.unwrap_or(0));
        if !(1..=MAX_VIEWS).contains(&count) {
            faults.add(&format!("{at}.views"), format!("is out of bounds: give 1 to {MAX_VIEWS}"));
        }
        if every_ms > MAX_WAIT_MS {
            let message = format!("is out of bounds: give up to {MAX_WAIT_MS} milliseconds");
            faults.add(&format!("{at}.view_every_ms"), message);
        }
        if let (WrittenTrigger::Timed, Some(period)) = (self.trigger, self.every_ms)
            && u64::from(count.saturating_sub(1)) * every_ms >= period
        {
            faults.add(&format!("{at}.view_every_ms"), "the views take as long as every_ms: shorten one");
        }
        Views { count: count.clamp(1, MAX_VIEWS), every: Duration::from_millis(every_ms.min(MAX_WAIT_MS)) }
    }
}

/// Reads a source by its `kind`, so that faults name the very key.
fn read_source(written: Option<Value>, at: &str, faults: &mut Faults) -> Option<camera::Options> {
    const KINDS: [&str; 4] = ["folder", "v4l2", "genicam", "simulated"];
    let Some(written) = written else {
        faults.add(at, "is missing: write [camera.source] with kind = \"folder\", \"v4l2\", \"genicam\" or \"simulated\"");
        return None;
    };
    let Value::Table(mut table) = written else {
        faults.add(at, "is to be a section: write [camera.source] above its keys");
        return None;
    };
    let kind = table.remove("kind");
    let options = match kind.as_ref().and_then(Value::as_str) {
        Some("folder") => camera::Options::Folder(read(table, at, faults)?),
        Some("v4l2") => camera::Options::V4l2(read(table, at, faults)?),
        Some("genicam") => camera::Options::Genicam(read(table, at, faults)?),
        Some("simulated") => camera::Options::Simulated(read(table, at, faults)?),
        Some(other) => {
            faults.add(
                &format!("{at}.kind"),
                format!("`{other:.40}` is no kind of camera{}", suggest(other, &KINDS)),
            );
            return None;
        }
        None => {
            faults
                .add(&format!("{at}.kind"), "is missing: \"folder\", \"v4l2\", \"genicam\" or \"simulated\"");
            return None;
        }
    };
    faults.add_all(at, options.faults());
    Some(options)
}

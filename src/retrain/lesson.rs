//! What one retraining learns and what it is tried on.
//!
//! In: the set, the pictures of the first training. Out: files to train on, those of them that come more often, and the
//! pictures for the trial, which nothing is learnt from. Not here: the training (`retraining`), the trial (`trial`).

use std::path::PathBuf;

use tracing::warn;

use super::error::RetrainError;
use super::home::Home;
use super::recent;
use super::relight::relit;
use super::retraining::Subject;
use super::set::{Kind, SampleSet};
use super::sight::Sight;
use super::trial::Pictures;
use crate::efficientad::CalibratedModel;
use crate::frame::Size;
use crate::imaging;
use crate::training::dataset::Normals;

/// Of so many new samples one is held out; always the same ones, since their content decides.
const HOLD_OUT_EVERY: u8 = 5;
/// New samples come as often as makes them at least this share of an epoch.
const SHARE_OF_NEW: f64 = 0.15;
/// But none more often than this.
const MOST_REPEATS: usize = 12;

pub(super) struct Lesson {
    pub(super) sight: Sight,
    /// How the files to learn from and those held out are looked at.
    pub(super) finished: imaging::Sight,
    pub(super) training: Vec<PathBuf>,
    /// Indices of new ones, as often as they come again in an epoch.
    pub(super) again: Vec<usize>,
    pub(super) trial: Pictures,
}

impl Lesson {
    pub(super) fn assemble(
        subject: &Subject,
        home: &Home,
        set: &SampleSet,
        active: &CalibratedModel,
    ) -> Result<Self, RetrainError> {
        let sight = Sight::new(&subject.view, &home.work());
        // The seed of the first training, so that what it held out stays unseen.
        let seed = active.manifest().training.seed;
        let old = match &subject.normals {
            Some(folder) => Normals::find(folder, seed)?,
            None => {
                warn!(
                    camera = %subject.camera,
                    "the camera has no `normals`: the new version may forget what is not among the samples"
                );
                Normals { training: Vec::new(), held_out: Vec::new() }
            }
        };
        let (held, learnt) = split(set);
        // Those of the first training are taken as it took them: through the line's view, or cut out by hand.
        let old = match active.manifest().training.view {
            Some(_) => Normals { training: sight.files(old.training)?, held_out: sight.files(old.held_out)? },
            None => old,
        };
        let sizes = set.samples().iter().map(|sample| Size::new(sample.width, sample.height));
        let frame = sizes.filter(|size| !sight.is_cut(*size)).map(|size| sight.upright(size)).next();
        let finished = sight.finished(frame)?;
        let held_out = [old.held_out, sight.files(held)?].concat();
        let learnt = sight.files(learnt)?;
        let relit = relit(&old.training, &learnt, active.architecture().input, &home.work())?;
        let known = old.training.len() + relit.len();
        let training = [old.training, relit, learnt].concat();
        if training.is_empty() || held_out.is_empty() {
            return Err(RetrainError::NoSamples(home.normal()));
        }
        let again = again(known, training.len());
        let defects = set.of(Kind::Anomalous).map(|s| (set.path(s), s.name.clone())).collect();
        let trial = Pictures { held_out, defects, recent: recent::frames(home) };
        Ok(Self { sight, finished, training, again, trial })
    }
}

/// The new ones, which stand behind the `known` ones, again, until they are a good share of every epoch.
fn again(known: usize, all: usize) -> Vec<usize> {
    let new = all - known;
    if new == 0 || known == 0 {
        return Vec::new();
    }
    let wanted = SHARE_OF_NEW / (1.0 - SHARE_OF_NEW) * known as f64;
    let repeats = ((wanted / new as f64).ceil() as usize).clamp(1, MOST_REPEATS) - 1;
    (known..all).flat_map(|index| std::iter::repeat_n(index, repeats)).collect()
}

/// New normal samples: held out, and learnt.
fn split(set: &SampleSet) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let first_byte = |sha: &str| sha.get(..2).and_then(|byte| u8::from_str_radix(byte, 16).ok()).unwrap_or(0);
    let mut normal: Vec<_> = set.of(Kind::Normal).collect();
    normal.sort_by(|a, b| a.sha256.cmp(&b.sha256));
    let (mut held, mut learnt): (Vec<_>, Vec<_>) =
        normal.into_iter().partition(|sample| first_byte(&sample.sha256) % HOLD_OUT_EVERY == 0);
    // Of few, chance may hold out none or all.
    if held.is_empty() && learnt.len() > 1 {
        held.push(learnt.remove(0));
    } else if learnt.is_empty() && held.len() > 1 {
        learnt.push(held.remove(0));
    }
    let paths = |samples: Vec<_>| samples.into_iter().map(|sample| set.path(sample)).collect();
    (paths(held), paths(learnt))
}

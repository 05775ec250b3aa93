//! What one retraining learns and what it is tried on.
//!
//! In: the set, the pictures of the first training. Out: files to train on, those of them that come more often, and the
//! pictures for the trial, which nothing is learnt from. Not here: the training (`retraining`), the trial (`trial`).

use std::path::PathBuf;

use tracing::warn;

use super::error::RetrainError;
use super::home::Home;
use super::kind::Kind;
use super::recent;
use super::relight::relit;
use super::set::{Sample, SampleSet};
use super::sight::Sight;
use super::subject::Subject;
use super::trial::{Pictures, name};
use crate::efficientad::CalibratedModel;
use crate::frame::Size;
use crate::imaging;
use crate::training::calibrate::some_of;
use crate::training::dataset::Normals;

/// Of so many new samples one is held out; always the same ones, since their content decides.
const HOLD_OUT_EVERY: u8 = 5;
/// New samples come as often as makes them at least this share of an epoch.
const SHARE_OF_NEW: f64 = 0.15;
/// But none more often than this.
const MOST_REPEATS: usize = 12;
/// Hard old ones come so many times in an epoch where others come once, and so do they under a new light.
const HARD_COME: usize = 4;

pub(super) struct Lesson {
    pub(super) sight: Sight,
    /// How the files to learn from and those held out are looked at.
    pub(super) finished: imaging::Sight,
    pub(super) training: Vec<PathBuf>,
    /// Which old picture each of the first ones to learn from shows, the old ones and those under another light; the others
    /// are new.
    shows: Vec<usize>,
    old: usize,
    pub(super) trial: Pictures,
}

impl Lesson {
    /// The trial looks at the kept frames numbered below `recent`.
    pub(super) fn assemble(
        subject: &Subject,
        home: &Home,
        set: &SampleSet,
        active: &CalibratedModel,
        recent: usize,
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
        let names = old.held_out.iter().map(|path| name(path)).chain(held.iter().map(|s| s.name.clone()));
        let names: Vec<String> = names.collect();
        let paths = |samples: Vec<&Sample>| samples.into_iter().map(|sample| set.path(sample)).collect();
        let frame = match frame_size(home, set, &sight) {
            // Without samples and before the first frame, the old pictures are all that tells it.
            None if sight.needs_frame() => {
                old.training.first().map(|path| sight.size_of(path)).transpose()?
            }
            known => known,
        };
        // Those of the first training are taken as it took them: through the line's view, or cut out by hand.
        let old = match active.manifest().training.view {
            Some(_) => Normals { training: sight.files(old.training)?, held_out: sight.files(old.held_out)? },
            None => old,
        };
        let finished = sight.finished(frame)?;
        let held_out: Vec<_> =
            [old.held_out, sight.files(paths(held))?].concat().into_iter().zip(names).collect();
        let learnt = sight.files(paths(learnt))?;
        let relit = relit(&old.training, &learnt, active.architecture().input, &home.work())?;
        let shows = (0..old.training.len()).chain(relit.iter().map(|relit| relit.of)).collect();
        let known = old.training.len();
        let relit = relit.into_iter().map(|relit| relit.path).collect();
        let training = [old.training, relit, learnt].concat();
        if training.is_empty() || held_out.is_empty() {
            return Err(RetrainError::NoSamples(home.normal()));
        }
        let defects = set.of(Kind::Anomalous).map(|s| (set.path(s), s.name.clone())).collect();
        let recent = recent::frames(home, recent);
        let trial = Pictures { held_out, learnt: some_of(&training), defects, recent };
        Ok(Self { sight, finished, training, shows, old: known, trial })
    }

    /// The old pictures to learn from.
    pub(super) fn old(&self) -> &[PathBuf] {
        &self.training[..self.old]
    }

    /// Indices of what comes again in an epoch, as often as it does, if `hard` are the hard ones among the old.
    pub(super) fn again(&self, hard: &[usize]) -> Vec<usize> {
        again(&self.shows, hard, self.training.len())
    }
}

/// The upright size of the camera's pictures: that of its last frames, or else of the first sample that is no cutting.
fn frame_size(home: &Home, set: &SampleSet, sight: &Sight) -> Option<Size> {
    let sizes = set.samples().iter().map(|sample| Size::new(sample.width, sample.height));
    let of_sample = || sizes.filter(|size| !sight.is_cut(*size)).map(|size| sight.upright(size)).next();
    recent::frame_size(home).or_else(of_sample)
}

/// Hard ones by so much, and then the new ones, which stand behind those that show old parts, until they are a good share of
/// every epoch.
fn again(shows: &[usize], hard: &[usize], all: usize) -> Vec<usize> {
    let known = shows.len();
    let is_hard = |index: &usize| hard.contains(&shows[*index]);
    let mut again: Vec<usize> =
        (0..known).filter(is_hard).flat_map(|index| std::iter::repeat_n(index, HARD_COME - 1)).collect();
    let (of_known, new) = (known + again.len(), all - known);
    if new > 0 && known > 0 {
        let wanted = SHARE_OF_NEW / (1.0 - SHARE_OF_NEW) * of_known as f64;
        let repeats = ((wanted / new as f64).ceil() as usize).clamp(1, MOST_REPEATS) - 1;
        again.extend((known..all).flat_map(|index| std::iter::repeat_n(index, repeats)));
    }
    again
}

/// New normal samples: held out, and learnt.
fn split(set: &SampleSet) -> (Vec<&Sample>, Vec<&Sample>) {
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
    (held, learnt)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::detector::untrained;
    use crate::efficientad::{Architecture, PdnSize};
    use crate::imaging::{Areas, View, png};
    use crate::retrain::set::Candidate;

    fn picture(size: Size, seed: u64) -> Vec<u8> {
        png(&untrained::picture(size, seed))
    }

    /// What hides the right half of a camera's pictures of 64×48.
    fn view() -> View {
        let ignore = vec![vec![[32, 0], [64, 0], [64, 48], [32, 48]]];
        View { areas: Areas { ignore, ..Areas::default() }, ..View::default() }
    }

    fn assemble(root: &Path, home: &Home) -> Lesson {
        let normals = root.join("normals");
        fs::create_dir_all(&normals).unwrap();
        for n in 0..6 {
            fs::write(normals.join(format!("{n}.png")), picture(Size::new(64, 48), n)).unwrap();
        }
        let subject = Subject { view: view(), normals: Some(normals), ..Subject::of(root) };
        let active = untrained::model(&Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap(), 0);
        Lesson::assemble(&subject, home, &SampleSet::read(home).unwrap(), &active, 0).unwrap()
    }

    #[test]
    fn what_polygons_hide_lies_where_the_camera_has_it_whatever_size_samples_have() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::new(root.path(), &"top".parse().unwrap());
        let mut without_samples = assemble(root.path(), &home);
        let mask = without_samples.finished.finished_mask().unwrap();
        assert_eq!((mask.size(), mask.hidden_share()), (Size::new(64, 48), 0.5));
        // The camera's last frame is asked first, a sample of half the size only where there is none.
        let small = untrained::picture(Size::new(32, 24), 9);
        let bytes = png(&small);
        let candidate =
            Candidate { kind: Kind::Normal, name: "a.png", bytes: &bytes, extension: "png", picture: &small };
        SampleSet::open(&home).unwrap().add(&candidate, &mut imaging::Resizer::new()).unwrap();
        fs::create_dir_all(home.recent()).unwrap();
        let note = r#"{"size":{"width":64,"height":48},"next":1}"#;
        fs::write(home.recent().join("frame.json"), note).unwrap();
        let mask = assemble(root.path(), &home).finished.finished_mask().unwrap();
        assert_eq!((mask.size(), mask.hidden_share()), (Size::new(64, 48), 0.5));
    }

    /// By hand: 20 old ones, each also under another light, and two new ones.
    #[test]
    fn hard_old_parts_come_four_times_under_either_light_and_new_ones_are_a_seventh() {
        let shows: Vec<usize> = (0..20).chain(0..20).collect();
        let again = again(&shows, &[3, 7], 42);
        let come = |index: usize| 1 + again.iter().filter(|again| **again == index).count();
        assert_eq!([0, 3, 7, 23, 27, 39].map(come), [1, 4, 4, 4, 4, 1]);
        // 15 in 85 of 52 are 9.2.
        assert_eq!([40, 41].map(come), [5, 5]);
        assert!(super::again(&[], &[], 5).is_empty());
        assert!(super::again(&[0, 1], &[], 2).is_empty());
    }
}

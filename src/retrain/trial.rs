//! The trial: the active version and a candidate look at the same pictures, for the gate to decide.
//!
//! In: two models and where the pictures lie. Out: the gate's checks. Runs on the retraining's thread. Not here: what
//! follows from what they say (`gate`).

use std::path::{Path, PathBuf};

use super::error::{Refusal, RetrainError};
use super::gate::{self, Judged, Limit, Planted};
use super::planted::plant;
use super::report::Check;
use super::sight::Sight;
use crate::detector::{self, Detector};
use crate::efficientad::CalibratedModel;
use crate::frame::{Picture, Pixels};
use crate::imaging::{self, Preparation, Resizer};
use crate::shutdown::Shutdown;
use crate::training::dataset::evenly;

/// Planted defects at least, so that one is no more than a hundredth; each held-out picture gets as many, and recent frames
/// what is missing then.
const PLANTED: usize = 100;
/// And at most so many in one picture.
const MOST_IN_ONE: usize = 10;

/// What a candidate is tried on.
pub(super) struct Pictures {
    /// Normal ones that neither version has learnt, as files that the line's view was applied to, with their names.
    pub(super) held_out: Vec<(PathBuf, String)>,
    /// Some of those that the candidate learnt, as such files, as many as its calibration looked at.
    pub(super) learnt: Vec<PathBuf>,
    /// Known defects, as they came, with their names.
    pub(super) defects: Vec<(PathBuf, String)>,
    /// Frames that were `ok`, as they came.
    pub(super) recent: Vec<PathBuf>,
}

/// What a trial goes by.
pub(super) struct Terms<'a> {
    pub(super) sight: &'a Sight,
    /// How pictures are looked at that the view was applied to.
    pub(super) finished: &'a imaging::Sight,
    pub(super) limit: Limit,
    pub(super) margin: f64,
    pub(super) seed: u64,
    pub(super) inference: &'a detector::Options,
}

/// A version that judges.
struct Judge {
    detector: Detector,
    resizer: Resizer,
    /// As the line prepares its frames, mask included.
    preparation: Preparation,
    finished: imaging::Sight,
}

impl Judge {
    fn open(model: &CalibratedModel, terms: &Terms) -> Result<Self, RetrainError> {
        let mut detector = Detector::open(model.clone(), terms.inference)?;
        if let Some(given) = terms.limit.given {
            detector.set_threshold(given);
        }
        let preparation = Preparation::open(terms.sight.view(), detector.input())?;
        Ok(Self { detector, resizer: Resizer::new(), preparation, finished: terms.finished.clone() })
    }

    fn score(&mut self, picture: &Picture) -> Result<f32, RetrainError> {
        score((&mut self.detector, &mut self.resizer), &mut self.finished, picture)
    }

    /// Whether it raises an alarm on a frame as the camera delivers it.
    fn alarms_on_frame(&mut self, frame: &Pixels) -> Result<bool, Refusal> {
        let prepared = self.preparation.look(frame)?;
        let inspected =
            self.detector.inspect_visible(&prepared.input, prepared.viewed, prepared.mask.as_deref())?;
        Ok(inspected.finding.score.0 > self.detector.threshold().0)
    }

    fn alarms(&mut self, picture: &Picture) -> Result<bool, RetrainError> {
        Ok(self.score(picture)? > self.detector.threshold().0)
    }
}

/// What `detector` makes of a picture that the view was applied to.
pub(super) fn score(
    (detector, resizer): (&mut Detector, &mut Resizer),
    finished: &mut imaging::Sight,
    picture: &Picture,
) -> Result<f32, RetrainError> {
    let input = resizer.resize(picture, detector.input());
    let input = input.expect("the networks' input is a legal size: this is a bug");
    let mask = finished.finished_mask();
    // A picture that was scaled is judged as the line would judge it: at the mask's size.
    let viewed = imaging::whole(mask.as_ref().map_or(picture.size(), |mask| mask.size()));
    Ok(detector.inspect_visible(&input, viewed, mask.as_deref())?.finding.score.0)
}

/// Both versions.
struct Pair<'a> {
    before: Judge,
    after: Judge,
    terms: &'a Terms<'a>,
}

impl Pair<'_> {
    /// The picture number `at` with its defect number `n`.
    fn spoiled(&self, picture: &Picture, at: usize, n: usize) -> Picture {
        plant(picture, self.terms.seed, (at * MOST_IN_ONE + n) as u64)
    }

    /// Puts `each` defects into a picture on which the active version is quiet.
    fn plant(
        &mut self,
        picture: &Picture,
        (at, called): (usize, &str),
        each: usize,
    ) -> Result<Vec<Judged>, RetrainError> {
        let judged = |n: usize| {
            let spoiled = self.spoiled(picture, at, n);
            let (before, after) = (self.before.alarms(&spoiled)?, self.after.alarms(&spoiled)?);
            Ok(Judged { name: format!("{called} {n}"), before, after })
        };
        (0..each).map(judged).collect()
    }

    /// A held-out picture: the new version's score, and what is found of the defects that are put into it.
    fn held_out(
        &mut self,
        picture: &Picture,
        (at, called): (usize, &str),
        (each, planted): (usize, &mut Planted),
    ) -> Result<f32, RetrainError> {
        let score = self.after.score(picture)?;
        // What is an alarm as it is proves nothing with a defect in it.
        if !self.before.alarms(picture)? {
            planted.known.extend(self.plant(picture, (at, called), each)?);
        } else if score <= self.after.detector.threshold().0 {
            for n in 0..MOST_IN_ONE {
                planted.learnt.push(self.after.alarms(&self.spoiled(picture, at, n))?);
            }
        }
        Ok(score)
    }

    /// What both make of a picture as it came.
    fn judge(&mut self, path: &Path, name: String) -> Result<Judged, RetrainError> {
        let picture = imaging::load(path)?;
        let (sight, size) = (self.terms.sight, picture.size());
        let mask = self.before.finished.finished_mask();
        // The line's mask has places for frames of the camera's size only.
        let scaled =
            sight.view().region.is_none() && mask.is_some_and(|mask| mask.size() != sight.upright(size));
        if sight.is_cut(size) || scaled {
            let picture = sight.load(path)?;
            let (before, after) = (self.before.alarms(&picture)?, self.after.alarms(&picture)?);
            return Ok(Judged { name, before, after });
        }
        let frame = encoded(path)?;
        let failed = |refusal| RetrainError::Unfit { path: path.to_owned(), refusal };
        let before = self.before.alarms_on_frame(&frame).map_err(failed)?;
        Ok(Judged { name, before, after: self.after.alarms_on_frame(&frame).map_err(failed)? })
    }

    /// Puts defects into recent frames until there are enough of them, a few in each.
    fn plant_in_recent(
        &mut self,
        quiet: &[&PathBuf],
        first: usize,
        planted: &mut Planted,
        step: &mut dyn FnMut(usize) -> Result<(), RetrainError>,
    ) -> Result<(), RetrainError> {
        let missing = PLANTED.saturating_sub(planted.known.len());
        if missing == 0 || quiet.is_empty() {
            return Ok(());
        }
        let each = missing.div_ceil(quiet.len()).min(MOST_IN_ONE);
        // Spread over the time that they show.
        for (at, (_, path)) in evenly(quiet, missing).enumerate() {
            step(each)?;
            let picture = match self.terms.sight.load(path) {
                Err(RetrainError::Picture(_) | RetrainError::Region { .. }) => continue,
                loaded => loaded?,
            };
            if !self.before.alarms(&picture)? {
                planted.known.extend(self.plant(&picture, (first + at, &name(path)), each)?);
            }
        }
        Ok(())
    }
}

/// Asks both versions; `tell` hears how many pictures of how many are done.
pub(super) fn run(
    active: &CalibratedModel,
    candidate: &CalibratedModel,
    pictures: &Pictures,
    terms: &Terms,
    (stop, tell): (&Shutdown, &mut dyn FnMut(u64, u64)),
) -> Result<Vec<Check>, RetrainError> {
    let mut pair = Pair { before: Judge::open(active, terms)?, after: Judge::open(candidate, terms)?, terms };
    let each = PLANTED.div_ceil(pictures.held_out.len().max(1)).min(MOST_IN_ONE);
    // A threshold that is given follows from no score.
    let ask_about = if terms.limit.given.is_none() { pictures.learnt.as_slice() } else { &[] };
    let of = pictures.held_out.len() * (1 + each)
        + ask_about.len()
        + pictures.defects.len()
        + pictures.recent.len();
    let mut done = 0;
    let mut step = |more: usize| {
        done += more as u64;
        tell(done, done.max(of as u64));
        if stop.requested() { Err(RetrainError::Stopped { step: 0 }) } else { Ok(()) }
    };
    step(0)?;

    let (mut held_out, mut planted) = (Vec::new(), Planted::default());
    for (at, (path, called)) in pictures.held_out.iter().enumerate() {
        let score = pair.held_out(&imaging::load(path)?, (at, called), (each, &mut planted))?;
        held_out.push((called.clone(), score));
        step(1 + each)?;
    }
    let mut learnt = Vec::new();
    for path in ask_about {
        step(1)?;
        learnt.push(pair.after.score(&imaging::load(path)?)?);
    }
    let mut defects = Vec::new();
    for (path, name) in &pictures.defects {
        step(1)?;
        defects.push(pair.judge(path, name.clone())?);
    }
    let (mut recent, mut quiet) = (Vec::new(), Vec::new());
    for path in &pictures.recent {
        step(1)?;
        let judged = match pair.judge(path, name(path)) {
            // A frame may be overwritten or cut short while it is looked at; the others suffice.
            Err(RetrainError::Picture(_) | RetrainError::Unfit { .. }) => continue,
            judged => judged?,
        };
        if !judged.before {
            quiet.push(path);
        }
        recent.push(judged);
    }
    pair.plant_in_recent(&quiet, held_out.len(), &mut planted, &mut step)?;
    Ok(vec![
        gate::false_alarms(&held_out, &learnt, terms.limit),
        gate::known_defects(&defects),
        gate::planted_defects(&planted, terms.margin),
        gate::shadow(&recent, terms.limit.rate),
    ])
}

/// The file as a camera would deliver it.
fn encoded(path: &Path) -> Result<Pixels, RetrainError> {
    Ok(Pixels::Encoded(std::fs::read(path).map_err(RetrainError::file("read", path))?))
}

/// What a file is called.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::efficientad::{Architecture, PdnSize};
    use crate::frame::Size;
    use crate::imaging::{View, png};
    use crate::verdict::Threshold;

    const SIZE: Size = Size::new(256, 256);

    struct Stand {
        root: tempfile::TempDir,
        sight: Sight,
        finished: imaging::Sight,
    }

    impl Stand {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let sight = Sight::new(&View::default(), root.path());
            let finished = sight.finished(None).unwrap();
            Self { root, sight, finished }
        }

        fn terms<'a>(&'a self, inference: &'a detector::Options) -> Terms<'a> {
            Terms {
                sight: &self.sight,
                finished: &self.finished,
                limit: Limit { rate: 0.001, given: None },
                margin: 0.05,
                seed: 1,
                inference,
            }
        }

        fn lay(&self, name: &str, picture: &Picture) -> PathBuf {
            let path = self.root.path().join(name);
            fs::write(&path, png(picture)).unwrap();
            path
        }
    }

    /// The same networks with another threshold.
    fn model(threshold: f32) -> CalibratedModel {
        let model = detector::untrained::model(&Architecture::new(PdnSize::Tiny, SIZE).unwrap(), 3);
        let (normalisation, mut calibration) = (model.normalisation(), model.manifest().calibration.clone());
        calibration.threshold = Threshold(threshold);
        model.into_trained().calibrate(normalisation, calibration).unwrap()
    }

    /// As without `normals`, where all that is held out are alarms of the active version.
    #[test]
    fn a_blind_version_does_not_pass_for_want_of_pictures_and_without_any_a_person_decides() {
        let (stand, inference) = (Stand::new(), detector::Options::default());
        let terms = stand.terms(&inference);
        let mut judge = Judge::open(&model(0.0), &terms).unwrap();
        let parts = (3..6).map(|seed| detector::untrained::picture(SIZE, seed));
        let mut parts: Vec<(f32, Picture)> = parts.map(|part| (judge.score(&part).unwrap(), part)).collect();
        parts.sort_by(|a, b| a.0.total_cmp(&b.0));
        let [(quiet, frame), _, (loud, alarm)] = parts.as_slice() else { panic!("there are three") };
        assert!(quiet < loud);
        let active = model(*quiet);
        let mut pictures = Pictures {
            held_out: vec![(stand.lay("alarm.png", alarm), "alarm.png".into())],
            learnt: Vec::new(),
            defects: Vec::new(),
            recent: vec![stand.lay("00000.png", frame)],
        };
        let ask = |candidate: f32, pictures: &Pictures| {
            let candidate = model(candidate);
            let checks =
                run(&active, &candidate, pictures, &terms, (&Shutdown::new(), &mut |_, _| {})).unwrap();
            checks.into_iter().find(|check| check.name == "planted_defects").unwrap()
        };
        let sound = ask(*quiet, &pictures);
        assert!(sound.passed && !sound.untried, "{sound:?}");
        assert!(sound.figures["before"].as_f64().unwrap() > 0.2, "{sound:?}");
        let blind = ask(f32::MAX, &pictures);
        assert!(!blind.passed, "{blind:?}");
        pictures.recent.clear();
        let untried = ask(f32::MAX, &pictures);
        assert!(untried.untried && untried.words.contains("activate it by hand"), "{untried:?}");
    }
}

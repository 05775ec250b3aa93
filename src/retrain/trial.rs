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

/// Planted defects at least, so that one is no more than a hundredth; each held-out picture gets as many.
const PLANTED: usize = 100;
/// And at most so many in one picture.
const MOST_IN_ONE: usize = 10;

/// What a candidate is tried on.
pub(super) struct Pictures {
    /// Normal ones that neither version has learnt, as files that the line's view was applied to, with their names.
    pub(super) held_out: Vec<(PathBuf, String)>,
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
    let mask = finished.mask_of(picture.size());
    let viewed = imaging::whole(picture.size());
    Ok(detector.inspect_visible(&input, viewed, mask.as_deref())?.finding.score.0)
}

/// Asks both versions; `tell` hears how many pictures of how many are done.
pub(super) fn run(
    active: &CalibratedModel,
    candidate: &CalibratedModel,
    pictures: &Pictures,
    terms: &Terms,
    (stop, tell): (&Shutdown, &mut dyn FnMut(u64, u64)),
) -> Result<Vec<Check>, RetrainError> {
    let (mut before, mut after) = (Judge::open(active, terms)?, Judge::open(candidate, terms)?);
    let each = PLANTED.div_ceil(pictures.held_out.len().max(1)).min(MOST_IN_ONE);
    let of = pictures.held_out.len() * (1 + each) + pictures.defects.len() + pictures.recent.len();
    let mut done = 0;
    let mut step = |more: usize| {
        done += more as u64;
        tell(done, of as u64);
        if stop.requested() { Err(RetrainError::Stopped { step: 0 }) } else { Ok(()) }
    };
    step(0)?;

    let (mut held_out, mut planted) = (Vec::new(), Planted::default());
    for (at, (path, called)) in pictures.held_out.iter().enumerate() {
        let picture = imaging::load(path)?;
        let score = after.score(&picture)?;
        held_out.push((called.clone(), score));
        // What is an alarm as it is proves nothing with a defect in it.
        let known = !before.alarms(&picture)?;
        let learnt = !known && score <= after.detector.threshold().0;
        for n in 0..if known { each } else { MOST_IN_ONE } {
            if !known && !learnt {
                break;
            }
            let spoiled = plant(&picture, terms.seed, (at * MOST_IN_ONE + n) as u64);
            let found = after.alarms(&spoiled)?;
            if known {
                let (name, before) = (format!("{called} {n}"), before.alarms(&spoiled)?);
                planted.known.push(Judged { name, before, after: found });
            } else {
                planted.learnt.push(found);
            }
        }
        step(1 + each)?;
    }
    let mut both = |path: &Path, name: String| -> Result<Judged, RetrainError> {
        step(1)?;
        let picture = imaging::load(path)?;
        if terms.sight.is_cut(picture.size()) {
            return Ok(Judged { name, before: before.alarms(&picture)?, after: after.alarms(&picture)? });
        }
        let frame = encoded(path)?;
        let failed = |refusal| RetrainError::Unfit { path: path.to_owned(), refusal };
        let alarms = before.alarms_on_frame(&frame).map_err(failed)?;
        Ok(Judged { name, before: alarms, after: after.alarms_on_frame(&frame).map_err(failed)? })
    };
    let defects = pictures.defects.iter().map(|(path, name)| both(path, name.clone()));
    let defects = defects.collect::<Result<Vec<_>, _>>()?;
    // A frame may be overwritten or cut short while it is looked at; the others suffice.
    let recent: Vec<Judged> = pictures
        .recent
        .iter()
        .filter_map(|path| match both(path, name(path)) {
            Err(RetrainError::Picture(_) | RetrainError::Unfit { .. }) => None,
            judged => Some(judged),
        })
        .collect::<Result<_, _>>()?;
    Ok(vec![
        gate::false_alarms(&held_out, terms.limit),
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

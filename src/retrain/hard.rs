//! Which of the old parts the active version finds hardest: they come more often in a retraining.
//!
//! A threshold for one part in a thousand lies above the hardest good parts, and those are the rare ones, which chance
//! shows to a short training once or not at all. In: the old pictures. Out: the tenth of them with the highest scores, noted
//! beside the retraining's other work, so that one that goes on asks for the same, unless the pictures are others now. Not
//! here: how much more often (`lesson`).

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::RetrainError;
use super::files;
use super::relight::spread;
use super::trial::score;
use crate::detector::{self, Detector};
use crate::efficientad::{CalibratedModel, sha256};
use crate::imaging::{self, Resizer};
use crate::shutdown::Shutdown;

/// Of so many old pictures one is hard.
const ONE_OF: usize = 10;

/// Who judges the old pictures, and how it looks at them.
pub(super) struct Examiner<'a> {
    pub(super) active: &'a CalibratedModel,
    pub(super) inference: &'a detector::Options,
    pub(super) sight: imaging::Sight,
}

/// `work/hard.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Noted {
    /// Which pictures were looked at.
    of: String,
    /// Indices of the hardest.
    hard: Vec<usize>,
}

/// Indices of the hardest of `old`, or those that were found before; `tell` hears how many pictures of how many are done.
pub(super) fn hardest(
    old: &[PathBuf],
    mut examiner: Examiner,
    work: &Path,
    (stop, tell): (&Shutdown, &mut dyn FnMut(usize, usize)),
) -> Result<Vec<usize>, RetrainError> {
    let (path, of) = (work.join("hard.json"), identity(old));
    let noted = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Noted>(&text).ok());
    if let Some(noted) = noted.filter(|noted| noted.of == of) {
        return Ok(noted.hard);
    }
    let mut detector = Detector::open(examiner.active.clone(), examiner.inference)?;
    let (mut resizer, looked_at) = (Resizer::new(), spread(old));
    let (all, mut scores) = (looked_at.len(), Vec::with_capacity(looked_at.len()));
    for (index, path) in looked_at {
        tell(scores.len(), all);
        if stop.requested() {
            return Err(RetrainError::Stopped { step: 0 });
        }
        let picture = imaging::load(path)?;
        scores.push((index, score((&mut detector, &mut resizer), &mut examiner.sight, &picture)?));
    }
    let noted = Noted { of, hard: highest(scores) };
    let text = serde_json::to_vec(&noted).expect("a note is plain data: this is a bug");
    files::replace(&path, &text).map_err(RetrainError::file("write", &path))?;
    Ok(noted.hard)
}

/// What tells these pictures, in this order, from others.
fn identity(pictures: &[PathBuf]) -> String {
    let paths: Vec<_> = pictures.iter().map(|path| path.as_os_str().as_encoded_bytes()).collect();
    sha256(&paths.join(&b"\0"[..]))
}

/// The indices of the highest tenth.
fn highest(mut scores: Vec<(usize, f32)>) -> Vec<usize> {
    scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scores.truncate(scores.len().div_ceil(ONE_OF));
    let mut hard: Vec<usize> = scores.into_iter().map(|(index, _)| index).collect();
    hard.sort_unstable();
    hard
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_hard_and_at_least_one_where_there_are_any() {
        let scores = |n: usize| (0..n).map(|i| (i, (i * 7 % n) as f32)).collect::<Vec<_>>();
        assert_eq!(highest(scores(0)), Vec::<usize>::new());
        assert_eq!(highest(scores(4)).len(), 1);
        // 7·17 % 20 = 19 and 7·14 % 20 = 18.
        assert_eq!(highest(scores(20)), [14, 17]);
    }
    #[test]
    fn what_was_noted_of_other_pictures_is_not_taken() {
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let before = identity(&paths(&["a.png", "c.png"]));
        assert_eq!(before, identity(&paths(&["a.png", "c.png"])));
        for other in [&["a.png", "b.png", "c.png"][..], &["c.png", "a.png"], &["a.pngc.png"], &[]] {
            assert_ne!(before, identity(&paths(other)), "{other:?}");
        }
    }
}

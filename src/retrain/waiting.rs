//! What waits to be learnt: looked at twice a second, and read again only where something has changed.
//!
//! In: the set and what the last retraining left. Out: what no retraining has seen, and the set's version. Owned by the
//! `retrain` thread. Not here: what follows from it (`due`, `school`).

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::error::RetrainError;
use super::home::Home;
use super::kind::Kind;
use super::learnt::{Learnt, Pending};
use super::set::{JOURNAL, SampleSet};

/// No file system tells times apart less well.
const COARSEST: Duration = Duration::from_secs(2);

/// What changes whenever the set does or something was learnt, and is had without reading either.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    /// The journal's.
    bytes: Option<u64>,
    /// The journal's, those of the folders of files, which tell what was taken back, and when something was learnt.
    changed: [Option<SystemTime>; 4],
}

impl Stamp {
    /// Whether a further change would bear another time: clocks of file systems are coarse.
    fn is_settled(&self, now: SystemTime) -> bool {
        let newest = self.changed.iter().flatten().max();
        newest.is_none_or(|newest| now.duration_since(*newest).is_ok_and(|age| age >= COARSEST))
    }

    fn of(home: &Home) -> Self {
        let (folder, journal) = (home.set(), home.set().join(JOURNAL));
        let changed = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
        let of_kind = |kind: Kind| changed(&folder.join(kind.name()));
        Self {
            bytes: fs::metadata(&journal).ok().map(|found| found.len()),
            changed: [
                changed(&journal),
                of_kind(Kind::Normal),
                of_kind(Kind::Anomalous),
                changed(&home.learnt()),
            ],
        }
    }
}

/// What waits for one camera's next retraining.
#[derive(Debug, Default)]
pub(super) struct Waiting(Option<Known>);

#[derive(Debug)]
struct Known {
    stamp: Stamp,
    pending: Pending,
    set: String,
}

impl Waiting {
    /// What waits, and the set's version.
    ///
    /// # Errors
    /// The set cannot be read.
    pub(super) fn look(&mut self, home: &Home) -> Result<(Pending, String), RetrainError> {
        // Before anything is read: what changes meanwhile is met again.
        let stamp = Stamp::of(home);
        if let Some(known) = self.0.as_ref().filter(|known| known.stamp == stamp) {
            return Ok((known.pending, known.set.clone()));
        }
        let set = SampleSet::read(home)?;
        let (pending, version) = (Pending::of(&set, Learnt::read(home).as_ref()), set.version());
        let settled = stamp.is_settled(SystemTime::now());
        self.0 = settled.then(|| Known { stamp, pending, set: version.clone() });
        Ok((pending, version))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::detector::untrained;
    use crate::frame::Size;
    use crate::imaging::{Resizer, png};
    use crate::retrain::learnt::Ending;
    use crate::retrain::set::Candidate;

    #[test]
    fn a_set_is_read_again_only_when_something_was_added_or_taken_back_or_learnt() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::new(root.path(), &"top".parse().unwrap());
        let add = |seed: u64| {
            let picture = untrained::picture(Size::new(96, 80), seed);
            let bytes = png(&picture);
            let (kind, name, extension) = (Kind::Normal, "a.png", "png");
            let candidate = Candidate { kind, name, bytes: &bytes, extension, picture: &picture };
            SampleSet::open(&home).unwrap().add(&candidate, &mut Resizer::new()).unwrap();
        };
        // As if it had been a while ago.
        let settle = || {
            for path in [
                home.set().join(JOURNAL),
                home.set().join("normal"),
                home.set().join("anomalous"),
                home.learnt(),
            ] {
                if let Ok(file) = File::open(path) {
                    let changed = file.metadata().unwrap().modified().unwrap();
                    file.set_modified(changed - Duration::from_secs(3600)).unwrap();
                }
            }
        };
        let mut waiting = Waiting::default();
        let mut look = || {
            // Told apart from what is read by a version that no set has.
            waiting.0.iter_mut().for_each(|known| known.set = "kept".into());
            let (pending, version) = waiting.look(&home).unwrap();
            (pending.count, if version == "kept" { "as it was" } else { "read" })
        };
        assert_eq!([look(), look()], [(0, "read"), (0, "as it was")]);
        add(1);
        // So soon after a change another one may bear the same time.
        assert_eq!([look(), look()], [(1, "read"), (1, "read")]);
        settle();
        assert_eq!([look(), look()], [(1, "read"), (1, "as it was")]);
        let set = SampleSet::read(&home).unwrap();
        Learnt::new(Ending::Refused, "v".into(), String::new(), &set).write(&home).unwrap();
        settle();
        assert_eq!([look(), look()], [(0, "read"), (0, "as it was")]);
        add(2);
        settle();
        assert_eq!([look(), look()], [(1, "read"), (1, "as it was")]);
        let set = SampleSet::read(&home).unwrap();
        fs::remove_file(set.path(&set.samples()[1])).unwrap();
        assert_eq!(look(), (0, "read"));
    }
}

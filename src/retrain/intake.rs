//! Intake: from a file that somebody dropped in to a sample of the set, or to a refusal that says why.
//!
//! In: `samples/normal` and `samples/anomalous`, watched as a folder camera watches, so that half-copied files wait.
//! Out: the set; or `samples/refused/NAME` with `NAME.why.txt` beside it. A file is deleted only once its content is
//! durable elsewhere: a crash or a full disk leaves it where it is, to be met again. Owned by one thread.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};

use super::error::RetrainError;
use super::files;
use super::home::Home;
use super::kind::Kind;
use super::set::{Added, Candidate, Sample, SampleSet};
use super::sight::Sight;
use crate::camera::{self, Camera, CameraError, FolderOptions, Next, may_be_a_picture};
use crate::frame::{Picture, Pixels, Size, SourceRef};
use crate::imaging::{self, Format, Resizer, View};
use crate::telemetry::chain;

/// Sides may differ from the camera's by this share, as they do where a picture was scaled and rounded.
const ASPECT_TOLERANCE: f64 = 0.01;

/// What came of a look at the folders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Normal samples that are new in the set.
    pub normal: usize,
    /// Anomalous ones.
    pub anomalous: usize,
    /// Files set aside.
    pub refused: usize,
}

impl Taken {
    /// Whether anything happened.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// A folder that samples of one kind are dropped into, and the watch over it while there is one.
type Folder = (Kind, PathBuf, Option<Box<dyn Camera>>);

/// The intake of one camera.
pub struct Intake {
    home: Home,
    sight: Sight,
    look_every: Duration,
    folders: Vec<Folder>,
    resizer: Resizer,
}

impl Intake {
    /// The intake of the camera whose line looks at its pictures as `view` says; folders are looked at every
    /// `look_every`.
    pub fn new(home: &Home, view: &View, look_every: Duration) -> Self {
        let sight = Sight::new(view, &home.work());
        let folders = vec![(Kind::Normal, home.normal(), None), (Kind::Anomalous, home.anomalous(), None)];
        Self { home: home.clone(), sight, look_every, folders, resizer: Resizer::new() }
    }

    /// Takes every finished file, waiting at most `wait` in each folder for files to be finished.
    ///
    /// # Errors
    /// The set cannot be read or written; what was not taken is met again.
    pub fn look(&mut self, wait: Duration) -> Result<Taken, RetrainError> {
        self.home.make()?;
        let mut taken = Taken::default();
        for at in 0..self.folders.len() {
            while let Some(arrival) = self.next(at, wait)? {
                if let Err(failure) = self.settle(at, &arrival, &mut taken) {
                    // A watch delivers a file once; a fresh one meets it again.
                    self.folders[at].2 = None;
                    return Err(failure);
                }
            }
        }
        Ok(taken)
    }

    /// Whether files lie there that may be samples.
    pub(super) fn is_waited_for(&self) -> bool {
        let mut folders = self.folders.iter().filter_map(|(_, folder, _)| fs::read_dir(folder).ok());
        folders.any(|mut entries| entries.any(|entry| entry.is_ok_and(|e| may_be_a_picture(&e.file_name()))))
    }

    fn next(&mut self, at: usize, wait: Duration) -> Result<Option<Arrival>, RetrainError> {
        let (_, folder, watch) = &mut self.folders[at];
        let failed = |error: CameraError| match error {
            CameraError::File { path, source } => RetrainError::File { action: "read", path, source },
            other => RetrainError::file("watch", folder)(io::Error::other(chain(&other))),
        };
        let open = match watch {
            Some(open) => open,
            None => {
                let options = FolderOptions {
                    path: folder.clone(),
                    look_every_ms: self.look_every.as_millis() as u64,
                    ..FolderOptions::default()
                };
                let options = camera::Options::Folder(options);
                watch.insert(
                    camera::open(self.home.camera(), &options, &camera::none_judged).map_err(&failed)?,
                )
            }
        };
        match open.next(wait) {
            Ok(Next::Frame(frame)) => match (frame.pixels, frame.source) {
                (Pixels::Encoded(bytes), Some(source)) => Ok(Some(Arrival { source, bytes: Ok(bytes) })),
                _ => Ok(None),
            },
            Ok(Next::Nothing | Next::End) => Ok(None),
            Err(CameraError::BadFrame { message, origin: Some(source), .. }) => {
                Ok(Some(Arrival { source, bytes: Err(message) }))
            }
            Err(error) => {
                let error = failed(error);
                *watch = None;
                Err(error)
            }
        }
    }

    fn settle(&mut self, at: usize, arrival: &Arrival, taken: &mut Taken) -> Result<(), RetrainError> {
        let (kind, folder, _) = &self.folders[at];
        let (kind, name) = (*kind, arrival.source.name.as_str());
        let path = folder.join(name);
        let camera = self.home.camera().clone();
        match self.judge(kind, arrival)? {
            Ok(added) => {
                match kind {
                    _ if added == Added::Known => {}
                    Kind::Normal => taken.normal += 1,
                    Kind::Anomalous => taken.anomalous += 1,
                }
                info!(%camera, file = name, kind = kind.name(), known = added == Added::Known, "sample taken");
                remove(&path, &arrival.source)
            }
            Err(why) => {
                taken.refused += 1;
                warn!(%camera, file = name, kind = kind.name(), why, "sample refused");
                self.refuse(&path, &why)
            }
        }
    }

    /// Takes it into the set, or says why not.
    fn judge(&mut self, kind: Kind, arrival: &Arrival) -> Result<Result<Added, String>, RetrainError> {
        let bytes = match &arrival.bytes {
            Ok(bytes) => bytes,
            Err(why) => return Ok(Err(why.clone())),
        };
        let picture = match imaging::decode_bytes(bytes) {
            Ok(picture) => picture,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let _turn = self.home.lock()?;
        let mut set = SampleSet::open(&self.home)?;
        if let Err(why) = self.fits(&picture, &set) {
            return Ok(Err(why));
        }
        let extension = Format::of(bytes).map_or("bin", Format::extension);
        let candidate = Candidate { kind, name: &arrival.source.name, bytes, extension, picture: &picture };
        Ok(match set.add(&candidate, &mut self.resizer)? {
            Added::Duplicate { of, kind: as_kind } if as_kind != kind => Err(format!(
                "the same picture is in the set as {} already, as `{of}`: decide what it shows; to take that one \
                 back, delete it from the folder set/{}",
                as_kind.name(),
                as_kind.name()
            )),
            Added::Duplicate { of, .. } => Err(format!(
                "it shows the same as `{of}`, which is in the set already: there is nothing new in it"
            )),
            added => Ok(added),
        })
    }

    /// Whether the picture can be this camera's.
    fn fits(&self, picture: &Picture, set: &SampleSet) -> Result<(), String> {
        if self.sight.is_cut(picture.size()) {
            return Ok(());
        }
        let size = self.sight.upright(picture.size());
        let of_sample = |sample: &Sample| Size::new(sample.width, sample.height);
        let frames = set.samples().iter().map(of_sample).find(|&size| !self.sight.is_cut(size));
        let frames = frames.map(|size| self.sight.upright(size));
        let expected = super::recent::frame_size(&self.home).or(frames);
        let Some(region) = self.sight.view().region else {
            return match expected {
                Some(expected) if !same_aspect(size, expected) => Err(format!(
                    "it is {size} where this camera's pictures are {expected}: it was cut, turned, or is of another \
                     camera"
                )),
                _ => Ok(()),
            };
        };
        let cut = Size::new(region.width, region.height);
        let covers = region.x + region.width <= size.width && region.y + region.height <= size.height;
        match expected {
            Some(expected) if expected != size => Err(format!(
                "it is {size} where this camera's pictures are {expected} and its region is {cut}: give pictures as the \
                 camera takes them"
            )),
            _ if !covers => Err(format!("it is {size}, too small for the camera's region of {cut}")),
            _ => Ok(()),
        }
    }

    fn refuse(&self, path: &Path, why: &str) -> Result<(), RetrainError> {
        let folder = self.home.refused();
        files::make_folder(&folder).map_err(RetrainError::file("make", &folder))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut target = folder.join(&name);
        for n in 2.. {
            if !target.exists() {
                break;
            }
            target = folder.join(format!("{n}-{name}"));
        }
        let mut note = target.clone().into_os_string();
        note.push(".why.txt");
        let note = PathBuf::from(note);
        files::replace(&note, format!("{why}\n").as_bytes()).map_err(RetrainError::file("write", &note))?;
        match fs::rename(path, &target) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(RetrainError::file("move", path)(e)),
            _ => Ok(()),
        }
    }
}

/// A file that two looks found alike, or what is wrong with reading it.
struct Arrival {
    source: SourceRef,
    bytes: Result<Vec<u8>, String>,
}

fn same_aspect(a: Size, b: Size) -> bool {
    let aspect = |s: Size| f64::from(s.width) / f64::from(s.height);
    (aspect(a) / aspect(b) - 1.0).abs() <= ASPECT_TOLERANCE
}

/// Deletes the file that was taken, not one that was written under its name since.
fn remove(path: &Path, source: &SourceRef) -> Result<(), RetrainError> {
    let removed = fs::metadata(path)
        .and_then(|now| if now.len() == source.bytes { fs::remove_file(path) } else { Ok(()) });
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(RetrainError::file("delete", path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::untrained;
    use crate::frame::Region;
    use crate::imaging::png;

    struct Drop {
        _root: tempfile::TempDir,
        home: Home,
        intake: Intake,
    }

    impl Drop {
        fn new(view: View) -> Self {
            let root = tempfile::tempdir().unwrap();
            let home = Home::new(root.path(), &"top".parse().unwrap());
            home.make().unwrap();
            let intake = Intake::new(&home, &view, Duration::from_millis(10));
            Self { _root: root, home, intake }
        }

        /// Looks until a whole round brings nothing.
        fn look(&mut self) -> Taken {
            let mut all = Taken::default();
            loop {
                let taken = self.intake.look(Duration::from_millis(40)).unwrap();
                if !taken.any() {
                    return all;
                }
                all.normal += taken.normal;
                all.anomalous += taken.anomalous;
                all.refused += taken.refused;
            }
        }

        fn why(&self, name: &str) -> String {
            fs::read_to_string(self.home.refused().join(format!("{name}.why.txt"))).unwrap()
        }
    }

    fn picture(width: u32, height: u32, seed: u64) -> Vec<u8> {
        png(&untrained::picture(Size::new(width, height), seed))
    }

    #[test]
    fn what_fits_is_taken_and_what_does_not_is_set_aside_with_its_reason() {
        let mut drop = Drop::new(View::default());
        let (normal, anomalous) = (drop.home.normal(), drop.home.anomalous());
        fs::write(normal.join("a.png"), picture(96, 80, 1)).unwrap();
        assert_eq!(drop.look(), Taken { normal: 1, ..Taken::default() });
        fs::write(normal.join("b.png"), picture(96, 80, 2)).unwrap();
        fs::write(normal.join("half.png.part"), "x").unwrap();
        fs::write(normal.join("turned.png"), picture(80, 96, 3)).unwrap();
        fs::write(normal.join("text.png"), "this is no picture, however long it gets").unwrap();
        fs::write(anomalous.join("c.png"), picture(96, 80, 4)).unwrap();
        fs::write(anomalous.join("a.png"), picture(96, 80, 1)).unwrap();
        // A file that is no whole picture is given some seconds to be finished.
        let mut all = Taken::default();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while all.refused < 3 && std::time::Instant::now() < deadline {
            let taken = drop.look();
            all.normal += taken.normal;
            all.anomalous += taken.anomalous;
            all.refused += taken.refused;
        }
        assert_eq!(all, Taken { normal: 1, anomalous: 1, refused: 3 });
        assert!(drop.why("turned.png").contains("80x96") && drop.why("turned.png").contains("96x80"));
        assert!(drop.why("text.png").contains("text file"), "{}", drop.why("text.png"));
        assert!(drop.why("a.png").contains("as normal already"), "{}", drop.why("a.png"));
        let left: Vec<_> = fs::read_dir(&normal).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["half.png.part"]);
        assert_eq!(SampleSet::read(&drop.home).unwrap().samples().len(), 3);
    }

    #[test]
    fn with_a_region_a_sample_is_a_frame_or_the_region_itself() {
        let region = Region { x: 10, y: 0, width: 64, height: 64 };
        let mut drop = Drop::new(View { region: Some(region), ..View::default() });
        for (name, width, height) in [("frame.png", 96, 80), ("cut.png", 64, 64), ("small.png", 70, 80)] {
            fs::write(drop.home.normal().join(name), picture(width, height, 1)).unwrap();
        }
        assert_eq!(drop.look(), Taken { normal: 2, anomalous: 0, refused: 1 });
        assert!(drop.why("small.png").contains("70x80"));
    }

    #[test]
    fn what_cannot_be_written_stays_where_it_is_and_is_met_again() {
        let mut drop = Drop::new(View::default());
        // A file in the set's place stands for a disk that takes nothing.
        fs::write(drop.home.set(), "in the way").unwrap();
        let path = drop.home.normal().join("a.png");
        fs::write(&path, picture(96, 80, 1)).unwrap();
        let error = (0..100).find_map(|_| drop.intake.look(Duration::from_millis(40)).err());
        assert!(error.unwrap().to_string().contains("set"));
        assert!(path.exists());
        fs::remove_file(drop.home.set()).unwrap();
        assert_eq!(drop.look(), Taken { normal: 1, ..Taken::default() });
        assert!(!path.exists());
    }
}

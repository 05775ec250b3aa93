//! The samples that were accepted: files named by their content, and a journal that only grows.
//!
//! `set/normal/<sha256>.<ext>`, `set/anomalous/…`, and `set/journal.jsonl` with a line per sample. A sample is in the
//! set when its file is: the file comes first, the line after it, and a file without a line (a crash came between)
//! gets one at the next opening. Whoever deletes a file takes the sample back. `set/reduced/` holds what pictures are compared
//! by; it can be deleted at any time. Not here: what may come in (`intake`).

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::RetrainError;
use super::files;
use super::home::Home;
use super::kind::Kind;
use super::print::{self, Print};
use crate::durable;
use crate::efficientad::sha256;
use crate::frame::{Picture, Size};
use crate::imaging::{self, Resizer};

pub(super) const JOURNAL: &str = "journal.jsonl";
/// The folder of samples' pictures as they are compared, by content: to decode them all for each that comes would take
/// minutes.
const REDUCED: &str = "reduced";
/// Far more samples than a camera ever needs.
const MAX_JOURNAL_BYTES: u64 = 256 << 20;

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// SHA-256 of its file.
    pub sha256: String,
    /// What it shows.
    pub kind: Kind,
    /// Its file's extension.
    pub extension: String,
    /// What it was called when it was dropped in.
    pub name: String,
    /// When it was taken.
    pub at: Timestamp,
    /// Its picture's size.
    pub width: u32,
    /// Its picture's size.
    pub height: u32,
    print: Print,
}

impl Sample {
    fn file(&self) -> String {
        format!("{}/{}.{}", self.kind.name(), self.sha256, self.extension)
    }
}

/// A picture that may become a sample.
pub(super) struct Candidate<'a> {
    pub(super) kind: Kind,
    pub(super) name: &'a str,
    pub(super) bytes: &'a [u8],
    pub(super) extension: &'static str,
    pub(super) picture: &'a Picture,
}

/// What became of a candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Added {
    /// It is in the set, and durable.
    New,
    /// This very file is in the set already.
    Known,
    /// It shows what a sample of the set shows.
    Duplicate { of: String, kind: Kind },
}

/// The set of one camera.
#[derive(Debug, Clone)]
pub struct SampleSet {
    folder: PathBuf,
    samples: Vec<Sample>,
}

impl SampleSet {
    /// The set as it is on disk; changes nothing. One that was never begun is empty.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn read(home: &Home) -> Result<Self, RetrainError> {
        let folder = home.set();
        let (samples, _whole) = read_journal(&folder.join(JOURNAL))?;
        let mut set = Self { folder, samples };
        set.keep_what_is_there();
        Ok(set)
    }

    /// The set, mended where a crash interrupted a sample's coming. The caller holds the camera's lock.
    pub(super) fn open(home: &Home) -> Result<Self, RetrainError> {
        let folder = home.set();
        for kind in Kind::ALL {
            let of_kind = folder.join(kind.name());
            files::make_folder(&of_kind).map_err(RetrainError::file("make", &of_kind))?;
        }
        let journal = folder.join(JOURNAL);
        let (samples, whole) = read_journal(&journal)?;
        if let Some(whole) = whole {
            let failed = RetrainError::file("cut the torn end off", &journal);
            let file = File::options().write(true).open(&journal).map_err(&failed)?;
            file.set_len(whole).and_then(|()| file.sync_all()).map_err(&failed)?;
        }
        let mut set = Self { folder, samples };
        set.adopt_orphans()?;
        let before = set.samples.clone();
        set.keep_what_is_there();
        set.forget_reduced(&before);
        Ok(set)
    }

    /// Its samples, in the order in which they came.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Those of one kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.kind == kind)
    }

    /// Where a sample's file lies.
    pub fn path(&self, sample: &Sample) -> PathBuf {
        self.folder.join(sample.file())
    }

    /// The set's version: 12 hexadecimal digits that follow from its members alone.
    pub fn version(&self) -> String {
        let mut members: Vec<String> = self.samples.iter().map(Sample::file).collect();
        members.sort();
        sha256(members.join("\n").as_bytes())[..12].to_owned()
    }

    /// Only those samples.
    pub(super) fn only(mut self, members: &HashSet<String>) -> Self {
        self.samples.retain(|sample| members.contains(&sample.sha256));
        self
    }

    /// Takes a candidate in, unless the set has it. The caller holds the camera's lock.
    pub(super) fn add(
        &mut self,
        candidate: &Candidate,
        resizer: &mut Resizer,
    ) -> Result<Added, RetrainError> {
        let sha256 = sha256(candidate.bytes);
        let print = Print::of(candidate.picture, resizer);
        let reduced = print::reduced(candidate.picture, resizer);
        if let Some(twin) = self.twin_of((&sha256, &print), &reduced, resizer) {
            let itself = twin.sha256 == sha256 && twin.kind == candidate.kind;
            let (of, kind) = (twin.name.clone(), twin.kind);
            return Ok(if itself { Added::Known } else { Added::Duplicate { of, kind } });
        }
        let Size { width, height } = candidate.picture.size();
        let sample = Sample {
            sha256,
            kind: candidate.kind,
            extension: candidate.extension.to_owned(),
            name: candidate.name.to_owned(),
            at: Timestamp::now(),
            width,
            height,
            print,
        };
        let path = self.path(&sample);
        files::replace(&path, candidate.bytes).map_err(RetrainError::file("write", &path))?;
        self.append(&sample)?;
        self.keep_reduced(&sample, &reduced);
        self.samples.push(sample);
        Ok(Added::New)
    }

    fn twin_of(
        &self,
        (sha256, print): (&str, &Print),
        reduced: &Picture,
        resizer: &mut Resizer,
    ) -> Option<&Sample> {
        self.samples.iter().find(|sample| {
            sample.sha256 == sha256
                || sample.print.resembles(print)
                    && self.reduced(sample, resizer).is_some_and(|it| print::same(&it, reduced))
        })
    }

    fn reduced_path(&self, sample: &Sample) -> PathBuf {
        self.folder.join(REDUCED).join(&sample.sha256)
    }

    /// A sample's picture as it is compared; kept where it was not yet.
    fn reduced(&self, sample: &Sample, resizer: &mut Resizer) -> Option<Picture> {
        let kept = fs::read(self.reduced_path(sample)).ok();
        if let Some(picture) = kept.and_then(|rgb| Picture::new(print::REDUCED, rgb).ok()) {
            return Some(picture);
        }
        let picture = print::reduced(&imaging::load(&self.path(sample)).ok()?, resizer);
        self.keep_reduced(sample, &picture);
        Some(picture)
    }

    fn keep_reduced(&self, sample: &Sample, reduced: &Picture) {
        let path = self.reduced_path(sample);
        // What is not there is made anew when it is needed.
        let _not_kept = path
            .parent()
            .map_or(Ok(()), files::make_folder)
            .and_then(|()| files::replace(&path, reduced.rgb()));
    }

    fn append(&self, sample: &Sample) -> Result<(), RetrainError> {
        let path = self.folder.join(JOURNAL);
        let mut line = serde_json::to_vec(sample).expect("a sample is plain data: this is a bug");
        line.push(b'\n');
        let written = (|| {
            let fresh = !path.exists();
            let mut file = File::options().append(true).create(true).open(&path)?;
            file.write_all(&line)?;
            file.sync_all()?;
            if fresh {
                files::inherit_owner(&path);
                durable::sync_folder_of(&path)?;
            }
            Ok(())
        })();
        written.map_err(RetrainError::file("write", &path))
    }

    /// Files whose line a crash took.
    fn adopt_orphans(&mut self) -> Result<(), RetrainError> {
        let known: HashSet<String> = self.samples.iter().map(Sample::file).collect();
        for kind in Kind::ALL {
            let folder = self.folder.join(kind.name());
            let failed = RetrainError::file("list", &folder);
            for entry in fs::read_dir(&folder).map_err(&failed)? {
                let path = entry.map_err(&failed)?.path();
                // By its name alone: to decode what has its line would take as long as all samples together.
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if known.contains(&format!("{}/{name}", kind.name())) {
                    continue;
                }
                let Some(sample) = orphan(&path, kind) else { continue };
                self.append(&sample)?;
                self.samples.push(sample);
            }
        }
        Ok(())
    }

    /// Of samples that were taken back, nothing else is to stay.
    fn forget_reduced(&self, before: &[Sample]) {
        let kept: HashSet<&str> = self.samples.iter().map(|sample| sample.sha256.as_str()).collect();
        for gone in before.iter().filter(|sample| !kept.contains(sample.sha256.as_str())) {
            let _went_before = fs::remove_file(self.reduced_path(gone));
        }
    }

    fn keep_what_is_there(&mut self) {
        let mut seen = HashSet::new();
        let folder = self.folder.clone();
        self.samples.retain(|s| folder.join(s.file()).is_file() && seen.insert(s.file()));
    }
}

fn orphan(path: &Path, kind: Kind) -> Option<Sample> {
    let name = path.file_name()?.to_str()?;
    let (stem, extension) = name.split_once('.').filter(|(stem, _)| stem.len() == 64)?;
    let bytes = fs::read(path).ok()?;
    let picture = imaging::decode_bytes(&bytes).ok()?;
    let Size { width, height } = picture.size();
    (sha256(&bytes) == stem).then(|| Sample {
        sha256: stem.to_owned(),
        kind,
        extension: extension.to_owned(),
        name: name.to_owned(),
        at: Timestamp::now(),
        width,
        height,
        print: Print::of(&picture, &mut Resizer::new()),
    })
}

/// The journal's lines, and where its torn end begins if it has one.
fn read_journal(path: &Path) -> Result<(Vec<Sample>, Option<u64>), RetrainError> {
    let bytes = match fs::metadata(path)
        .and_then(|m| if m.len() > MAX_JOURNAL_BYTES { Err(too_large()) } else { fs::read(path) })
    {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), None)),
        Err(e) => return Err(RetrainError::file("read", path)(e)),
    };
    let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let damaged = |(number, message): (usize, String)| RetrainError::Damaged {
        path: path.to_owned(),
        message: format!("line {}: {message}", number + 1),
        remedy: "move it aside; it is written anew from the files beside it",
    };
    let lines = bytes[..whole].split(|&b| b == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    let samples = lines
        .map(|(number, line)| {
            let sample: Sample =
                serde_json::from_slice(line).map_err(|e| damaged((number, e.to_string())))?;
            let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric());
            if plain(&sample.sha256) && plain(&sample.extension) {
                Ok(sample)
            } else {
                Err(damaged((number, "its file has no legal name".into())))
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok((samples, (whole < bytes.len()).then_some(whole as u64)))
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is larger than any journal of samples")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::untrained;
    use crate::imaging::png;

    struct Shelf {
        _root: tempfile::TempDir,
        home: Home,
    }

    impl Shelf {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let home = Home::new(root.path(), &"top".parse().unwrap());
            Self { _root: root, home }
        }

        fn add(&self, kind: Kind, name: &str, picture: &Picture) -> Added {
            let bytes = png(picture);
            let candidate = Candidate { kind, name, bytes: &bytes, extension: "png", picture };
            SampleSet::open(&self.home).unwrap().add(&candidate, &mut Resizer::new()).unwrap()
        }

        fn journal(&self) -> PathBuf {
            self.home.set().join(JOURNAL)
        }
    }

    fn picture(seed: u64) -> Picture {
        untrained::picture(Size::new(96, 80), seed)
    }

    #[test]
    fn a_set_holds_each_picture_once_and_its_version_follows_from_its_members() {
        let (shelf, other) = (Shelf::new(), Shelf::new());
        assert_eq!(shelf.add(Kind::Normal, "a.png", &picture(1)), Added::New);
        assert_eq!(shelf.add(Kind::Normal, "again.png", &picture(1)), Added::Known);
        let known = Added::Duplicate { of: "a.png".into(), kind: Kind::Normal };
        assert_eq!(shelf.add(Kind::Anomalous, "b.png", &picture(1)), known);
        let one = SampleSet::read(&shelf.home).unwrap().version();
        assert_eq!(shelf.add(Kind::Anomalous, "b.png", &picture(2)), Added::New);
        let set = SampleSet::read(&shelf.home).unwrap();
        assert_eq!((set.of(Kind::Normal).count(), set.of(Kind::Anomalous).count()), (1, 1));
        assert_ne!(set.version(), one);
        other.add(Kind::Anomalous, "x.png", &picture(2));
        other.add(Kind::Normal, "y.png", &picture(1));
        assert_eq!(SampleSet::read(&other.home).unwrap().version(), set.version());
    }

    #[test]
    fn a_sample_that_comes_decodes_none_of_those_that_are_there() {
        let shelf = Shelf::new();
        let part = crate::camera::normal_part(1, 7, Size::new(320, 320));
        shelf.add(Kind::Normal, "a.png", &part);
        let set = SampleSet::read(&shelf.home).unwrap();
        let first = &set.samples()[0];
        let reduced = fs::read(set.reduced_path(first)).unwrap();
        // What can be decoded no more is known again all the same, in another size, too.
        fs::write(set.path(first), "no picture").unwrap();
        let twice = Resizer::new().resize(&part, Size::new(640, 640)).unwrap();
        let known = Added::Duplicate { of: "a.png".into(), kind: Kind::Normal };
        assert_eq!(shelf.add(Kind::Normal, "larger.png", &twice), known);
        // Without what is compared it is made anew from the picture; with the sample it goes.
        fs::remove_file(set.reduced_path(first)).unwrap();
        fs::write(set.path(first), png(&part)).unwrap();
        assert_eq!(shelf.add(Kind::Normal, "larger.png", &twice), known);
        assert_eq!(fs::read(set.reduced_path(first)).unwrap(), reduced);
        fs::remove_file(set.path(first)).unwrap();
        assert_eq!(shelf.add(Kind::Normal, "larger.png", &twice), Added::New);
        assert!(!set.reduced_path(first).exists());
    }

    #[test]
    fn a_crash_at_any_byte_of_the_journal_loses_no_sample() {
        let shelf = Shelf::new();
        for seed in 0..3 {
            shelf.add(Kind::Normal, &format!("{seed}.png"), &picture(seed));
        }
        let version = SampleSet::read(&shelf.home).unwrap().version();
        let whole = fs::read(shelf.journal()).unwrap();
        for length in (0..whole.len()).step_by(37) {
            fs::write(shelf.journal(), &whole[..length]).unwrap();
            assert_eq!(SampleSet::open(&shelf.home).unwrap().version(), version, "{length}");
            assert_eq!(SampleSet::read(&shelf.home).unwrap().version(), version, "{length}");
        }
    }

    #[test]
    fn a_deleted_file_is_a_sample_taken_back() {
        let shelf = Shelf::new();
        shelf.add(Kind::Normal, "a.png", &picture(1));
        let set = SampleSet::read(&shelf.home).unwrap();
        fs::remove_file(set.path(&set.samples()[0])).unwrap();
        assert_eq!(SampleSet::open(&shelf.home).unwrap().samples().len(), 0);
        assert_eq!(shelf.add(Kind::Normal, "a.png", &picture(1)), Added::New);
        assert_eq!(SampleSet::read(&shelf.home).unwrap().samples().len(), 1);
    }

    #[test]
    fn a_journal_that_somebody_edited_is_refused_with_its_line() {
        let shelf = Shelf::new();
        shelf.add(Kind::Normal, "a.png", &picture(1));
        fs::write(shelf.journal(), "{}\n").unwrap();
        let error = SampleSet::read(&shelf.home).unwrap_err().to_string();
        assert!(error.contains("line 1") && error.contains("move it aside"), "{error}");
    }
}

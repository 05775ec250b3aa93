//! A folder as a camera: watched for files that other programs drop in, or played as a recording.
//!
//! In: files with a picture's extension. Out: frames with their bytes as they are; what does not decode gets its verdict
//! later, like any frame. Each file is delivered once: files that were there at the start are asked after and skipped
//! where they are judged already, files delivered since are remembered, and a file that is written anew under its old name counts as another.
//! Owned by one capture thread. Not here: decoding (`imaging`); deleting or moving files, which is nobody's business here.

mod entry;
mod replay;
mod watch;

use std::io::{ErrorKind, Read};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tracing::warn;

use super::pace::Pace;
use super::{Camera, CameraError, FolderMode, FolderOptions, Judged, Next};
use crate::frame::{CameraId, Frame, MAX_ENCODED_BYTES, Pixels, SourceRef};
use crate::imaging::looks_complete;
use entry::Entry;
pub use entry::{may_be_a_picture, modified_ns};
use replay::Replay;
use watch::Watch;

/// How often a file that cannot be read is tried before it is given up with a verdict.
const ATTEMPTS: u32 = 3;
/// How long a file that seems unfinished is left alone before it is taken as it is: copies over a network may pause.
const DOUBT: Duration = Duration::from_secs(3);
/// How old a file may be for its time to count as the exposure's; an older one was copied or moved here.
const FRESH: Duration = Duration::from_secs(3600);

/// Where the next file comes from.
enum Files {
    Watch(Watch),
    Replay(Replay),
}

/// What came of reading one file.
enum Taken {
    Frame(Box<Frame>),
    /// Gone, changed or unfinished: it is met again if it is still there.
    NotYet,
}

/// See the module.
pub(super) struct FolderCamera {
    id: CameraId,
    options: FolderOptions,
    files: Files,
    pace: Pace,
    doubt: Duration,
}

impl FolderCamera {
    /// A camera over the folder, which must exist.
    pub(super) fn open(
        id: &CameraId,
        options: &FolderOptions,
        judged: &Judged<'_>,
    ) -> Result<Self, CameraError> {
        let path = &options.path;
        std::fs::read_dir(path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => CameraError::NotFound {
                name: id.to_string(),
                hint: format!("the folder {} does not exist: create it, or correct `path`", path.display()),
            },
            ErrorKind::NotADirectory => CameraError::Unusable {
                name: id.to_string(),
                message: format!(
                    "{} is not a folder: name the folder that holds the pictures",
                    path.display()
                ),
            },
            _ => CameraError::Unusable {
                name: id.to_string(),
                message: format!("the folder {} cannot be read ({e}): check its permissions", path.display()),
            },
        })?;
        let files = match options.mode {
            FolderMode::Watch => Files::Watch(Watch::new(id, options, judged)?),
            FolderMode::Replay => Files::Replay(Replay::new(id, options, judged)?),
        };
        Ok(Self {
            id: id.clone(),
            options: options.clone(),
            files,
            pace: Pace::new(options.rate),
            doubt: DOUBT,
        })
    }

    fn take(&mut self, entry: &Entry) -> Result<Taken, CameraError> {
        let asked = Instant::now();
        let bad = |message: String| CameraError::BadFrame {
            name: self.id.to_string(),
            message: format!("{}: {message}", entry.origin.name),
            taken: asked,
            origin: self.origin(entry),
        };
        if entry.origin.bytes > MAX_ENCODED_BYTES {
            return Err(bad(format!(
                "{} bytes are more than the {MAX_ENCODED_BYTES} of the largest picture",
                entry.origin.bytes
            )));
        }
        let bytes = match self.read(entry) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(Taken::NotYet),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Taken::NotYet),
            Err(e) => {
                let watched = matches!(self.files, Files::Watch(_));
                if watched && entry.attempts + 1 < ATTEMPTS {
                    warn!(camera = %self.id, file = entry.origin.name, error = %e, "file not readable yet");
                    return Ok(Taken::NotYet);
                }
                return Err(bad(format!("cannot be read ({e}): check its permissions")));
            }
        };
        let doubted_for = entry.noticed.map(|noticed| noticed.elapsed());
        if doubted_for.is_some_and(|age| age < self.doubt) && !looks_complete(&bytes) {
            return Ok(Taken::NotYet);
        }
        Ok(Taken::Frame(Box::new(Frame {
            pixels: Pixels::Encoded(bytes),
            captured_at: self.captured_at(entry),
            captured: asked,
            source: self.origin(entry),
            planted: None,
        })))
    }

    /// The file's bytes, or none if it is no longer the file that was looked at.
    fn read(&self, entry: &Entry) -> std::io::Result<Option<Vec<u8>>> {
        let file = std::fs::File::open(self.options.path.join(&entry.file))?;
        let mut bytes = Vec::with_capacity(entry.origin.bytes as usize);
        (&file).take(entry.origin.bytes + 1).read_to_end(&mut bytes)?;
        let unchanged = bytes.len() as u64 == entry.origin.bytes
            && entry::modified_ns(&file.metadata()?) == entry.origin.modified_ns;
        Ok(unchanged.then_some(bytes))
    }

    /// The time that a watched file was written, if it is recent enough to be the exposure's; else now.
    fn captured_at(&self, entry: &Entry) -> Timestamp {
        let now = Timestamp::now();
        let written = Timestamp::from_nanosecond(entry.origin.modified_ns.into());
        match written {
            Ok(written)
                if matches!(self.files, Files::Watch(_))
                    && written <= now
                    && now.duration_since(written).unsigned_abs() < FRESH =>
            {
                written
            }
            _ => now,
        }
    }

    /// A file that is played again and again is never settled.
    fn origin(&self, entry: &Entry) -> Option<SourceRef> {
        (!self.options.repeat).then(|| entry.origin.clone())
    }
}

impl Camera for FolderCamera {
    fn describe(&self) -> String {
        let mode = match (self.options.mode, self.options.repeat) {
            (FolderMode::Watch, _) => "watched",
            (FolderMode::Replay, false) => "replayed",
            (FolderMode::Replay, true) => "replayed without end",
        };
        format!("folder {}, {mode}", self.options.path.display())
    }

    fn next(&mut self, wait: Duration) -> Result<Next, CameraError> {
        let deadline = Instant::now() + wait;
        if !self.pace.wait(deadline) {
            return Ok(Next::Nothing);
        }
        loop {
            let entry = match &mut self.files {
                Files::Watch(watch) => watch.next(deadline)?,
                Files::Replay(replay) => match replay.next()? {
                    None => return Ok(Next::End),
                    entry => entry,
                },
            };
            let Some(entry) = entry else { return Ok(Next::Nothing) };
            let taken = self.take(&entry);
            if let Files::Watch(watch) = &mut self.files {
                watch.settle(&entry, !matches!(taken, Ok(Taken::NotYet)));
            }
            match taken {
                Ok(Taken::NotYet) => {}
                Ok(Taken::Frame(frame)) => {
                    self.pace.delivered();
                    return Ok(Next::Frame(frame));
                }
                Err(error) => {
                    self.pace.delivered();
                    return Err(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

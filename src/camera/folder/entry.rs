//! What a look at a folder finds: the files that may be pictures.
//!
//! In: a folder. Out: an [`Entry`] for each file that has a picture's extension and no temporary file's name, and the names
//! of the few that the system would tell nothing about. Whether a file's content is a picture shows later.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Instant, UNIX_EPOCH};

use rustix::io::Errno;
use tracing::{info, warn};

use crate::camera::{CameraError, Judged};
use crate::frame::{CameraId, FileKey, SourceRef};

const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "jpe", "bmp", "dib", "tif", "tiff"];
/// What programs put before the extension, or at its place, while they still write.
const UNFINISHED: [&str; 5] = [".tmp", ".temp", ".part", ".partial", ".filepart"];

/// With more files than this unseen, it is the folder that cannot be looked at.
const MOST_UNSEEN: usize = 64;

/// A file that may be a picture.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its name, as the system spells it.
    pub(super) file: OsString,
    /// What it is known by after a restart.
    pub(super) origin: SourceRef,
    /// When a watch first found it as it is now; a replay does not ask.
    pub(super) noticed: Option<Instant>,
    /// How often it could not be taken.
    pub(super) attempts: u32,
}

impl Entry {
    /// What stands for it among many.
    pub(super) fn known(&self) -> Known {
        Known { name: NameHash::of(&self.file), key: self.origin.key() }
    }
}

/// Stands for a name in 8 bytes, as long as the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct NameHash(u64);

impl NameHash {
    pub(super) fn of(file: &OsStr) -> Self {
        let mut hasher = DefaultHasher::new();
        file.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// Stands for a file in 24 bytes: its name alone, and the file as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Known {
    pub(super) name: NameHash,
    key: FileKey,
}

/// A file that is there, and of which the system would not tell what it is.
#[derive(Debug)]
pub(super) struct Unseen {
    pub(super) file: OsString,
    source: io::Error,
}

/// Reads one folder, over and over.
#[derive(Debug)]
pub(super) struct Folder {
    camera: CameraId,
    path: PathBuf,
    said_what_is_ignored: bool,
    /// Until a look sees every file.
    said_what_is_unseen: bool,
}

impl Folder {
    pub(super) fn new(camera: &CameraId, path: &Path) -> Self {
        let (camera, path) = (camera.clone(), path.to_owned());
        Self { camera, path, said_what_is_ignored: false, said_what_is_unseen: false }
    }

    /// Those of the files that are there now which are judged already, and those that could not be asked after.
    pub(super) fn judged(
        &mut self,
        judged: &Judged<'_>,
    ) -> Result<(HashSet<Known>, Vec<Unseen>), CameraError> {
        let mut known = HashSet::new();
        let unseen = self.look(|_| true, |entry| known.extend([entry.known()]))?;
        let judged = judged(&known.iter().map(|known: &Known| known.key).collect());
        known.retain(|known| judged.contains(&known.key));
        Ok((known, unseen))
    }

    /// Calls `found` for each file that may be a picture, in no order. `wanted` sees the name before the file is asked
    /// for its size, which is slow over a network. Returns the files that the system would tell nothing about, such as
    /// those that a server has locked for a moment: they are there, and judged or not as before.
    ///
    /// # Errors
    /// The folder cannot be read, or none of its files, or many of them not.
    pub(super) fn look(
        &mut self,
        wanted: impl Fn(&OsStr) -> bool,
        mut found: impl FnMut(Entry),
    ) -> Result<Vec<Unseen>, CameraError> {
        let failed = |path: &Path, source| CameraError::File { path: path.to_owned(), source };
        let (mut any, mut unseen) = (false, Vec::new());
        for item in std::fs::read_dir(&self.path).map_err(|e| failed(&self.path, e))? {
            let item = item.map_err(|e| failed(&self.path, e))?;
            let file = item.file_name();
            match kind(&file) {
                Kind::Picture => {}
                Kind::Unfinished => continue,
                Kind::Other => {
                    self.say_what_is_ignored(&item);
                    continue;
                }
            }
            if !wanted(&file) {
                continue;
            }
            // Links are followed.
            match std::fs::metadata(item.path()) {
                Ok(metadata) => {
                    any = true;
                    if metadata.is_file() {
                        found(entry(file, &metadata));
                    }
                }
                Err(e) if leads_nowhere(&e) => {}
                Err(source) => unseen.push(Unseen { file, source }),
            }
            if unseen.len() > MOST_UNSEEN {
                break;
            }
        }
        if (unseen.len() > MOST_UNSEEN || !any)
            && let Some(last) = unseen.pop()
        {
            return Err(self.cannot_see(last));
        }
        self.say_what_is_unseen(unseen.first());
        Ok(unseen)
    }

    /// The failure to look at a file.
    pub(super) fn cannot_see(&self, unseen: Unseen) -> CameraError {
        CameraError::File { path: self.path.join(unseen.file), source: unseen.source }
    }

    fn say_what_is_unseen(&mut self, first: Option<&Unseen>) {
        if let Some(Unseen { file, source }) = first
            && !self.said_what_is_unseen
        {
            warn!(
                camera = %self.camera,
                folder = %self.path.display(),
                example = %file.display(),
                error = %source,
                "files of the folder cannot be looked at; they wait until they can"
            );
        }
        self.said_what_is_unseen = first.is_some();
    }

    fn say_what_is_ignored(&mut self, item: &std::fs::DirEntry) {
        if self.said_what_is_ignored || !item.file_type().is_ok_and(|t| t.is_file()) {
            return;
        }
        self.said_what_is_ignored = true;
        info!(
            camera = %self.camera,
            folder = %self.path.display(),
            example = %item.file_name().display(),
            "files without a picture's extension are ignored"
        );
    }
}

fn entry(file: OsString, metadata: &Metadata) -> Entry {
    let name = file.to_string_lossy().into_owned();
    let origin = SourceRef { name, bytes: metadata.len(), modified_ns: modified_ns(metadata) };
    Entry { file, origin, noticed: None, attempts: 0 }
}

/// Whether a name is nobody's: the file was moved on meanwhile, or it is a link to nothing or in a circle.
fn leads_nowhere(error: &io::Error) -> bool {
    let circle = Errno::from_io_error(error) == Some(Errno::LOOP);
    circle || matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// When a file was last written, in nanoseconds since 1970; 0 where the file system does not know.
pub fn modified_ns(metadata: &Metadata) -> i64 {
    let modified = metadata.modified().ok();
    let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|age| i64::try_from(age.as_nanos()).ok()).unwrap_or(0)
}

/// Whether a file of this name is one that a folder camera takes: a picture's, and no temporary file's.
pub fn may_be_a_picture(file: &OsStr) -> bool {
    kind(file) == Kind::Picture
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Picture,
    Unfinished,
    Other,
}

fn kind(file: &OsStr) -> Kind {
    let name = file.to_string_lossy().to_ascii_lowercase();
    let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, ""));
    let unfinished = |text: &str| UNFINISHED.iter().any(|end| text.ends_with(end));
    if name.starts_with(['.', '~']) || name.ends_with('~') || unfinished(&name) || unfinished(stem) {
        Kind::Unfinished
    } else if EXTENSIONS.contains(&extension) {
        Kind::Picture
    } else {
        Kind::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_may_be_a_picture() {
        for name in ["a.png", "B.JPG", "c.d.tiff", "umlaut-ä.jpeg"] {
            assert_eq!(kind(OsStr::new(name)), Kind::Picture, "{name}");
        }
        for name in [".a.png.x7Yz", "a.png.partial", "a.tmp.png", "~a.png", "a.png~", ".png"] {
            assert_eq!(kind(OsStr::new(name)), Kind::Unfinished, "{name}");
        }
        for name in ["notes.txt", "png", "a.gif"] {
            assert_eq!(kind(OsStr::new(name)), Kind::Other, "{name}");
        }
    }
}

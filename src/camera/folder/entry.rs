//! What a look at a folder finds: the files that may be pictures.
//!
//! In: a folder. Out: an [`Entry`] for each file that has a picture's extension and no temporary file's name. Whether
//! its content is a picture shows later.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::{Instant, UNIX_EPOCH};

use tracing::info;

use crate::camera::{CameraError, Judged};
use crate::frame::{CameraId, FileKey, SourceRef};

const EXTENSIONS: [&str; 8] = ["png", "jpg", "jpeg", "jpe", "bmp", "dib", "tif", "tiff"];
/// What programs put before the extension, or at its place, while they still write.
const UNFINISHED: [&str; 5] = [".tmp", ".temp", ".part", ".partial", ".filepart"];

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

/// Reads one folder, over and over.
#[derive(Debug)]
pub(super) struct Folder {
    camera: CameraId,
    path: PathBuf,
    said_what_is_ignored: bool,
}

impl Folder {
    pub(super) fn new(camera: &CameraId, path: &Path) -> Self {
        Self { camera: camera.clone(), path: path.to_owned(), said_what_is_ignored: false }
    }

    /// Those of the files that are there now which are judged already.
    pub(super) fn judged(&mut self, judged: &Judged<'_>) -> Result<HashSet<FileKey>, CameraError> {
        let mut there = HashSet::new();
        self.look(|_| true, |entry| there.extend([entry.origin.key()]))?;
        Ok(judged(&there))
    }

    /// Calls `found` for each file that may be a picture, in no order. `wanted` sees the name before the file is asked
    /// for its size, which is slow over a network.
    pub(super) fn look(
        &mut self,
        wanted: impl Fn(&OsStr) -> bool,
        mut found: impl FnMut(Entry),
    ) -> Result<(), CameraError> {
        let failed = |path: &Path, source| CameraError::File { path: path.to_owned(), source };
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
            // Links are followed; what vanished meanwhile was moved on by somebody.
            let Ok(metadata) = std::fs::metadata(item.path()) else { continue };
            if metadata.is_file() {
                let name = file.to_string_lossy().into_owned();
                let modified_ns = modified_ns(&metadata);
                let origin = SourceRef { name, bytes: metadata.len(), modified_ns };
                found(Entry { file, origin, noticed: None, attempts: 0 });
            }
        }
        Ok(())
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

/// When a file was last written, in nanoseconds since 1970; 0 where the file system does not know.
pub(super) fn modified_ns(metadata: &Metadata) -> i64 {
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

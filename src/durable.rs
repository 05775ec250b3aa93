//! Files that are there whole or not at all, whatever happens to the power.
//!
//! Not here: the journal, which grows (`store`), and bundles, which are folders (`efficientad`).

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Puts `bytes` at `path`, in place of what is there: whoever looks, also after a power cut, sees the old or the new.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_prepared(path, bytes, |_| {})
}

/// As [`replace`]; `prepare` is shown the file before it gets its name.
pub(crate) fn replace_prepared(path: &Path, bytes: &[u8], prepare: impl FnOnce(&Path)) -> io::Result<()> {
    let temporary = beside(path);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        prepare(&temporary);
        fs::rename(&temporary, path)?;
        sync_folder_of(path)
    })();
    if written.is_err() {
        let _first_error_counts = fs::remove_file(&temporary);
    }
    written
}

/// Makes the folder at `path` and what is missing above it; there after a power cut, too.
pub(crate) fn make_folder(path: &Path) -> io::Result<()> {
    let missing = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let missing: Vec<_> = missing.collect();
    fs::create_dir_all(path)?;
    // A crash may have left the last one made and its name not durable.
    for made in std::iter::once(path).chain(missing.into_iter().skip(1)) {
        match sync_folder_of(made) {
            // One may add to folders that one may not open.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Makes durable that names in `path`'s folder came or went.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// A hidden name in the same folder; always the same, so that what a killed writer left is overwritten by the next.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".tmp");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        fs::write(beside(&path), "left by a killed writer").unwrap();
        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_folder_is_made_with_those_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c");
        make_folder(&path).unwrap();
        make_folder(&path).unwrap();
        assert!(path.is_dir());
        fs::write(path.join("file"), "in the way").unwrap();
        assert!(make_folder(&path.join("file/d")).is_err());
    }

    #[test]
    fn what_cannot_get_its_name_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"x").is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

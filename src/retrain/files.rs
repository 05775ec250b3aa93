//! Durable files and folders that the daemon may go on writing although root made them.
//!
//! Not here: what stands in them.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Gid, Uid, chown};

use crate::durable;

/// Puts `bytes` at `path`, in place of what is there: whoever looks, also after a power cut, sees the old or the new.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    durable::replace_prepared(path, bytes, inherit_owner)
}

/// Makes `folder` and those above it, each owned like the one that it lies in: `inspectord models` is run by root, and
/// the service by a user of its own.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|p| !p.as_os_str().is_empty()) {
        make_folder(parent)?;
    }
    match fs::create_dir(folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    inherit_owner(folder);
    durable::sync_folder_of(folder)
}

/// Gives `path` to the owner of its folder, where this process may.
pub(super) fn inherit_owner(path: &Path) {
    let owner = |path: &Path| fs::metadata(path).map(|m| (m.uid(), m.gid())).ok();
    if let (Some(own), Some(theirs)) = (owner(path), path.parent().and_then(owner))
        && own != theirs
    {
        let (user, group) = (Uid::from_raw(theirs.0), Gid::from_raw(theirs.1));
        let _only_root_may = chown(path, Some(user), Some(group));
    }
}

/// Removes a folder so that a power cut leaves it whole, or hidden, never half under its name.
pub(super) fn remove_folder(folder: &Path) -> io::Result<()> {
    let mut name = OsString::from(".");
    name.push(folder.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    let hidden = folder.with_file_name(name);
    match fs::rename(folder, &hidden) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    fs::remove_dir_all(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        make_folder(&folder).unwrap();
        let path = folder.join("x.json");
        replace(&path, b"old").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        remove_folder(&folder).unwrap();
        remove_folder(&folder).unwrap();
        assert_eq!(fs::read_dir(root.path().join("a")).unwrap().count(), 0);
    }
}

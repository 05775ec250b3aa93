//! Finding a camera's device file by the name in the settings.
//!
//! In: a name and the `/dev` folder. Out: the device file, or which names there are. `/dev/videoN` changes when cameras are
//! replugged; the links below `by-id` and `by-path` do not. Not here: opening it (`device`).

use std::path::{Path, PathBuf};

/// The device file that `name` means, below `dev`.
///
/// # Errors
/// The names of the cameras that there are, for a hint.
pub(super) fn find(name: &str, dev: &Path) -> Result<PathBuf, String> {
    let given = Path::new(name);
    let candidates = if given.is_absolute() {
        vec![given.to_owned()]
    } else {
        [dev.join("v4l/by-id"), dev.join("v4l/by-path"), dev.to_owned()]
            .map(|folder| folder.join(name))
            .to_vec()
    };
    let found = candidates.iter().find_map(|path| std::fs::canonicalize(path).ok());
    found.ok_or_else(|| match stable_names(dev) {
        names if !names.is_empty() => format!("there are {}", names.join(", ")),
        _ => match nodes(dev) {
            nodes if !nodes.is_empty() => {
                let nodes: Vec<_> = nodes.iter().map(|n| n.display().to_string()).collect();
                format!("there are {}", nodes.join(", "))
            }
            _ => "no camera is connected, or the program may not see it (in a container, pass its device in)"
                .into(),
        },
    })
}

/// The number of a device file `videoN`.
pub(super) fn number(node: &Path) -> Option<u32> {
    node.file_name()?.to_str()?.strip_prefix("video")?.parse().ok()
}

/// Every `videoN` below `dev`, by number. One camera may have several, of which the first delivers pictures.
pub(super) fn nodes(dev: &Path) -> Vec<PathBuf> {
    let items = std::fs::read_dir(dev).into_iter().flatten().flatten();
    let mut nodes: Vec<_> = items.map(|item| item.path()).filter(|path| number(path).is_some()).collect();
    nodes.sort_by_key(|path| number(path));
    nodes
}

/// The name that stays with the camera behind `node`: its link below `by-id`, else the device file.
pub(super) fn stable_name(node: &Path, dev: &Path) -> String {
    let links = std::fs::read_dir(dev.join("v4l/by-id")).into_iter().flatten().flatten();
    let target = std::fs::canonicalize(node).ok();
    let link = links.map(|l| l.path()).find(|l| target.is_some() && std::fs::canonicalize(l).ok() == target);
    link.unwrap_or_else(|| node.to_owned()).display().to_string()
}

fn stable_names(dev: &Path) -> Vec<String> {
    let links = std::fs::read_dir(dev.join("v4l/by-id")).into_iter().flatten().flatten();
    let mut names: Vec<_> = links.map(|l| l.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn dev() -> tempfile::TempDir {
        let dev = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dev.path().join("v4l/by-id")).unwrap();
        for node in ["video0", "video1", "video10", "videoscope"] {
            std::fs::write(dev.path().join(node), "").unwrap();
        }
        symlink("../../video10", dev.path().join("v4l/by-id/usb-Maker_Cam_42-video-index0")).unwrap();
        dev
    }

    #[test]
    fn a_camera_is_found_by_each_of_its_names() {
        let dev = dev();
        let root = std::fs::canonicalize(dev.path()).unwrap();
        let absolute = root.join("v4l/by-id/usb-Maker_Cam_42-video-index0");
        for name in ["usb-Maker_Cam_42-video-index0", "video10", absolute.to_str().unwrap()] {
            assert_eq!(find(name, &root).unwrap(), root.join("video10"), "{name}");
        }
        assert_eq!(number(&root.join("video10")), Some(10));
        assert_eq!(stable_name(&root.join("video10"), &root), absolute.display().to_string());
        assert_eq!(stable_name(&root.join("video0"), &root), root.join("video0").display().to_string());
        assert_eq!(nodes(&root), ["video0", "video1", "video10"].map(|n| root.join(n)));
    }

    #[test]
    fn a_camera_that_is_not_there_is_answered_with_those_that_are() {
        let dev = dev();
        assert!(find("usb-Other", dev.path()).unwrap_err().contains("usb-Maker_Cam_42-video-index0"));
        let empty = tempfile::tempdir().unwrap();
        assert!(find("video0", empty.path()).unwrap_err().contains("no camera is connected"));
    }
}

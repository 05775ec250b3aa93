//! Finding a camera's device file by the name in the settings.
//!
//! In: a name and the `/dev` folder. Out: the device file, or which names there are. `/dev/videoN` changes when cameras are
//! replugged; the links below `by-id` and `by-path` do not. Not here: opening it (`device`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use nokhwa::utils::ApiBackend;

/// Where udev links cameras by names that stay, the better ones first.
const LINKS: [&str; 2] = ["v4l/by-id", "v4l/by-path"];

/// The device file that `name` means, below `dev`.
///
/// # Errors
/// The names of the cameras that there are, for a hint.
pub(super) fn find(name: &str, dev: &Path) -> Result<PathBuf, String> {
    let given = Path::new(name);
    let candidates = if given.is_absolute() {
        vec![given.to_owned()]
    } else {
        LINKS.iter().map(|links| dev.join(links).join(name)).chain([dev.join(name)]).collect()
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

/// What the cameras below `/dev` call themselves, by number, as the kernel tells without their being opened: also those that
/// another program uses or that may not be opened.
pub(super) fn cards() -> BTreeMap<u32, String> {
    // nokhwa takes every `/dev/video…` for a camera, and panics at one without a number.
    let names = std::fs::read_dir("/dev").into_iter().flatten().flatten().map(|item| item.path());
    let mut cameras =
        names.filter(|path| path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"video")));
    if !cameras.all(|path| number(&path).is_some()) {
        return BTreeMap::new();
    }
    let found = nokhwa::query(ApiBackend::Video4Linux).unwrap_or_default();
    found.iter().filter_map(|card| Some((card.index().as_index().ok()?, card.human_name()))).collect()
}

/// The name that stays with the camera behind `node`: its link below `by-id`, else the one below `by-path`, which names
/// its socket, else the device file.
pub(super) fn stable_name(node: &Path, dev: &Path) -> String {
    let target = std::fs::canonicalize(node).ok();
    let links = LINKS.iter().flat_map(|folder| links(&dev.join(folder)));
    let mut links = links.filter(|link| target.is_some() && std::fs::canonicalize(link).ok() == target);
    links.next().unwrap_or_else(|| node.to_owned()).display().to_string()
}

/// One name for each camera.
fn stable_names(dev: &Path) -> Vec<String> {
    let name = |link: PathBuf| Some(link.file_name()?.to_string_lossy().into_owned());
    let names = LINKS.map(|folder| links(&dev.join(folder)).into_iter().filter_map(name).collect::<Vec<_>>());
    names.into_iter().find(|names| !names.is_empty()).unwrap_or_default()
}

fn links(folder: &Path) -> Vec<PathBuf> {
    let items = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut links: Vec<_> = items.map(|item| item.path()).collect();
    links.sort();
    links
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
    fn a_camera_without_a_serial_number_is_named_by_its_socket() {
        let dev = dev();
        let root = std::fs::canonicalize(dev.path()).unwrap();
        let link = root.join("v4l/by-path/pci-0000:00-usb-0:2:1.0-video-index0");
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink("../../video1", &link).unwrap();
        assert_eq!(stable_name(&root.join("video1"), &root), link.display().to_string());
        assert_eq!(find("pci-0000:00-usb-0:2:1.0-video-index0", &root).unwrap(), root.join("video1"));
        std::fs::remove_dir_all(root.join("v4l/by-id")).unwrap();
        assert!(find("usb-Other", &root).unwrap_err().contains("pci-0000:00-usb-0:2:1.0-video-index0"));
    }

    #[test]
    fn a_camera_that_is_not_there_is_answered_with_those_that_are() {
        let dev = dev();
        assert!(find("usb-Other", dev.path()).unwrap_err().contains("usb-Maker_Cam_42-video-index0"));
        let empty = tempfile::tempdir().unwrap();
        assert!(find("video0", empty.path()).unwrap_err().contains("no camera is connected"));
    }
}

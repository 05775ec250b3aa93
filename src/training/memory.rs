//! Whether a training fits into this machine's memory, asked before it starts: later, Linux ends the process without
//! a word.
//!
//! Also how much of it caches may take. Not here: what is cached (`pictures`, `teacher`).

use std::path::Path;

use super::error::TrainingError;
use crate::efficientad::Architecture;

/// Gradients, buffers of the convolutions and the allocator, on top of what the networks hold.
const OVERHEAD: f64 = 2.5;
/// Training picture, penalty picture, augmented picture.
const PICTURES: u64 = 3;

/// What the largest cache may take of what a step leaves free. The two of pictures take half as much each, so that all
/// together take half; the rest is for whoever else runs here.
const SHARE_FOR_CACHES: u64 = 4;

/// Bytes that the largest cache of a training may hold: `wanted`, or less where less is free. Refuses a training whose steps alone do
/// not fit; wherever the system does not tell what is free, anything does.
pub(super) fn room(architecture: &Architecture, wanted: u64) -> Result<u64, TrainingError> {
    match free() {
        Some(free) => shared(free, estimate(architecture), wanted),
        None => Ok(wanted),
    }
}

fn shared(free: u64, needed: u64, wanted: u64) -> Result<u64, TrainingError> {
    match free.checked_sub(needed) {
        Some(left) => Ok(wanted.min(left / SHARE_FOR_CACHES)),
        None => Err(TrainingError::TooLittleMemory { needed_mib: needed >> 20, available_mib: free >> 20 }),
    }
}

/// What is free or could be made so. A hardened service does not see `/proc/meminfo`; the kernel's view of each node says much
/// the same.
fn free() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text));
    told.or_else(|| of_nodes(Path::new("/sys/devices/system/node"))).or_else(of_all)
}

/// `sysinfo` counts files that are kept in memory as used, so that it knows too little: half of the machine is a guess.
fn of_all() -> Option<u64> {
    let told = rustix::system::sysinfo();
    told.totalram.checked_mul(u64::from(told.mem_unit.max(1))).map(|bytes| bytes / 2)
}

fn available(meminfo: &str) -> Option<u64> {
    bytes_of(meminfo, "MemAvailable:")
}

/// What is free on all nodes, and of the kept files those that were not used lately.
fn of_nodes(folder: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let texts = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("meminfo")).ok());
    texts
        .filter_map(|text| Some(bytes_of(&text, "MemFree:")? + bytes_of(&text, "Inactive(file):")?))
        .reduce(|sum, node| sum.saturating_add(node))
}

/// The number behind `key`, wherever in its line that stands.
fn bytes_of(text: &str, key: &str) -> Option<u64> {
    let (_, value) = text.lines().find_map(|line| line.split_once(key))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Bytes that a training step holds at its worst, roughly.
fn estimate(architecture: &Architecture) -> u64 {
    let weights: u64 = architecture.model_tensors().iter().map(|t| t.elements() as u64).sum();
    let (mut width, mut height) = (u64::from(architecture.input.width), u64::from(architecture.input.height));
    let mut activations = 0;
    for layer in architecture.student() {
        width -= layer.kernel as u64 - 1;
        height -= layer.kernel as u64 - 1;
        // Before and after the ReLU.
        activations += 2 * layer.output as u64 * width * height;
        if layer.pool {
            (width, height) = (width / 2, height / 2);
            activations += layer.output as u64 * width * height;
        }
    }
    ((4 * weights + PICTURES * activations) as f64 * OVERHEAD * 4.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::efficientad::PdnSize;
    use crate::frame::Size;

    #[test]
    fn a_training_grows_with_its_pictures_and_the_system_tells_what_is_free() {
        let need = |side| estimate(&Architecture::new(PdnSize::Small, Size::new(side, side)).unwrap());
        assert!((512 << 20..4 << 30).contains(&need(256)), "{}", need(256) >> 20);
        assert!(need(2048) > 40 * need(256));
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
        assert_eq!(available("nonsense"), None);
        assert!(of_all().is_some_and(|half| half > 16 << 20));
    }

    #[test]
    fn a_service_that_sees_no_meminfo_adds_up_its_nodes() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(of_nodes(root.path()), None);
        for (node, free) in [("node0", 3), ("node1", 4)] {
            std::fs::create_dir(root.path().join(node)).unwrap();
            let text = format!(
                "Node 0 MemTotal:  99 kB\nNode 0 MemFree:   {free} kB\nNode 0 Inactive(anon): 50 kB\n\
                 Node 0 Inactive(file):  10 kB\n"
            );
            std::fs::write(root.path().join(node).join("meminfo"), text).unwrap();
        }
        assert_eq!(of_nodes(root.path()), Some(27 << 10));
    }

    #[test]
    fn caches_take_no_more_than_a_share_of_what_a_step_leaves() {
        assert_eq!(shared(100, 20, 10).unwrap(), 10);
        assert_eq!(shared(100, 20, 50).unwrap(), 20);
        assert_eq!(shared(20, 20, 50).unwrap(), 0);
        let refused = shared(1 << 20, 2 << 20, 0).unwrap_err().to_string();
        assert!(refused.contains("about 2 MiB") && refused.contains("1 MiB are free"), "{refused}");
    }
}

//! Evidence: the picture, the heat map and the verdict of a part that was not `ok`, as plain files.
//!
//! Written by the evidence thread before the verdict is recorded: into a temporary folder, made durable, then renamed,
//! so that a folder with its final name is whole. Not here: when evidence is deleted (`retention`), drawing (`imaging`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};

use tracing::warn;

use super::segment::sync_folder;
use crate::frame::CameraId;
use crate::telemetry::chain;
use crate::verdict::Verdict;

/// The store's folder of evidence; every `Verdict::evidence` begins with it.
pub(super) const FOLDER: &str = "evidence";
const UNFINISHED: &str = ".partial";
/// A file of this name in an evidence folder keeps it for ever.
pub(super) const PIN: &str = "keep";

/// What is kept of a part, besides its verdict.
#[derive(Clone)]
pub struct Evidence {
    /// The picture, encoded.
    pub picture: Vec<u8>,
    /// How the picture's file name ends, such as `png` or `jpg`.
    pub extension: &'static str,
    /// The heat map over the picture, as a PNG file.
    pub heatmap_png: Option<Vec<u8>>,
}

impl Evidence {
    /// Its bytes, as they count against the queue.
    pub(super) fn bytes(&self) -> u64 {
        (self.picture.len() + self.heatmap_png.as_ref().map_or(0, Vec::len)) as u64
    }
}

impl std::fmt::Debug for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Evidence({} bytes of {})", self.bytes(), self.extension)
    }
}

/// Bytes that a file of `length` takes, in blocks of 4 KiB.
fn on_disk(length: u64) -> u64 {
    length.div_ceil(4096) * 4096
}

/// Bytes on disk of all files below `path`, as they count against the store's limits.
pub(super) fn bytes_below(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => on_disk(meta.len()),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Where a verdict's evidence lies, relative to the store: `evidence/<camera>/<yyyy-mm-dd>/<sequence>-<id>`.
pub(super) fn path_of(verdict: &Verdict) -> String {
    let day = verdict.judgement.captured_at.strftime("%Y-%m-%d");
    format!("{FOLDER}/{}/{day}/{}-{}", verdict.camera(), verdict.sequence, verdict.id)
}

/// The folder of a verdict's evidence below `store`, if it is still there.
pub fn evidence_folder(store: &Path, verdict: &Verdict) -> Option<PathBuf> {
    let place = Path::new(verdict.evidence.as_deref()?);
    // A record is trusted as far as its checksum goes, which is not far enough to leave the store.
    let inside = place.components().all(|part| matches!(part, Component::Normal(_)));
    Some(store.join(place)).filter(|folder| inside && folder.is_dir())
}

/// Writes a verdict's evidence to where the verdict says; durable when it returns. Tells how many bytes on disk it takes.
pub(super) fn write(store: &Path, verdict: &Verdict, evidence: &Evidence) -> io::Result<u64> {
    let place =
        verdict.evidence.as_deref().ok_or_else(|| io::Error::other("the verdict names no evidence"))?;
    let place = store.join(place);
    let day = place.parent().ok_or_else(|| io::Error::other("evidence has no folder"))?;
    let mut unfinished = place.clone().into_os_string();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    let begin = || make_folders(store, day).and_then(|()| fs::create_dir(&unfinished));
    // Retention removes empty folders, such as one that has just been made.
    let begun =
        begin().or_else(|error| if error.kind() == io::ErrorKind::NotFound { begin() } else { Err(error) });
    let written = begun
        .and_then(|()| write_files(&unfinished, verdict, evidence))
        .and_then(|bytes| fs::rename(&unfinished, &place).map(|()| bytes))
        .and_then(|bytes| sync_folder(day).map(|()| bytes));
    if written.is_err() {
        let _best_effort = fs::remove_dir_all(&unfinished);
        let _best_effort = fs::remove_dir_all(&place);
    }
    written
}

fn write_files(folder: &Path, verdict: &Verdict, evidence: &Evidence) -> io::Result<u64> {
    let legal =
        !evidence.extension.is_empty() && evidence.extension.bytes().all(|b| b.is_ascii_alphanumeric());
    let extension = if legal { evidence.extension } else { "bin" };
    let mut taken = write_file(&folder.join(format!("picture.{extension}")), &evidence.picture)?;
    if let Some(heatmap) = &evidence.heatmap_png {
        taken += write_file(&folder.join("heatmap.png"), heatmap)?;
    }
    let mut json = serde_json::to_vec_pretty(verdict)?;
    json.push(b'\n');
    taken += write_file(&folder.join("verdict.json"), &json)?;
    sync_folder(folder)?;
    Ok(taken)
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<u64> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    Ok(on_disk(bytes.len() as u64))
}

/// Makes `day` and what is missing above it, durably, up to the store.
fn make_folders(store: &Path, day: &Path) -> io::Result<()> {
    if day.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(day)?;
    for folder in day.ancestors().skip(1).take_while(|folder| folder.starts_with(store)) {
        sync_folder(folder)?;
    }
    Ok(())
}

/// Removes what a crash left: unfinished folders, and evidence of verdicts that were never recorded.
///
/// `sequences` is each camera's last recorded sequence, or `None` if the journal does not tell for certain. Only each
/// camera's two folders that changed last can hold such. What somebody has pinned stays.
pub(super) fn remove_leftovers(store: &Path, sequences: Option<&BTreeMap<CameraId, u64>>) {
    let Ok(cameras) = fs::read_dir(store.join(FOLDER)) else { return };
    for camera in cameras.flatten() {
        let last = camera.file_name().to_str().and_then(|name| name.parse().ok());
        let last = match sequences {
            Some(sequences) => last.and_then(|id: CameraId| sequences.get(&id).copied()).unwrap_or(0),
            None => u64::MAX,
        };
        let mut days: Vec<_> = fs::read_dir(camera.path()).into_iter().flatten().flatten().collect();
        days.sort_by_key(|day| std::cmp::Reverse(day.metadata().and_then(|m| m.modified()).ok()));
        for day in days.iter().take(2) {
            remove_leftovers_of_day(&day.path(), last);
        }
    }
}

fn remove_leftovers_of_day(day: &Path, last: u64) {
    for folder in fs::read_dir(day).into_iter().flatten().flatten() {
        let name = folder.file_name();
        let name = name.to_string_lossy();
        let leftover =
            name.ends_with(UNFINISHED) || sequence_in(&name).is_some_and(|sequence| sequence > last);
        let folder = folder.path();
        if leftover && !folder.join(PIN).exists() {
            match fs::remove_dir_all(&folder) {
                Ok(()) => warn!(folder = %folder.display(), "evidence without a verdict was removed"),
                Err(e) => {
                    warn!(folder = %folder.display(), error = %chain(&e), "evidence without a verdict stays")
                }
            }
        }
    }
}

/// The sequence in an evidence folder's name, `<sequence>-<id>`.
pub(super) fn sequence_in(name: &str) -> Option<u64> {
    name.split_once('-').and_then(|(sequence, _)| sequence.parse().ok())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::verdict::tests::judgement;
    use crate::verdict::{Outcome, Reason};

    fn verdict(sequence: u64) -> Verdict {
        let judgement = judgement("top", 0.9);
        let mut verdict =
            Verdict { id: Uuid::now_v7(), box_name: "box".into(), sequence, judgement, evidence: None };
        verdict.evidence = Some(path_of(&verdict));
        verdict
    }

    fn evidence() -> Evidence {
        Evidence { picture: vec![1; 100], extension: "png", heatmap_png: Some(vec![2; 50]) }
    }

    #[test]
    fn evidence_lies_where_the_verdict_says() {
        let store = tempfile::tempdir().unwrap();
        let verdict = verdict(7);
        write(store.path(), &verdict, &evidence()).unwrap();
        let place = verdict.evidence.as_deref().unwrap();
        assert_eq!(place, format!("evidence/top/2026-01-02/7-{}", verdict.id));
        let place = store.path().join(place);
        assert_eq!(fs::read(place.join("picture.png")).unwrap(), [1; 100]);
        assert_eq!(fs::read(place.join("heatmap.png")).unwrap(), [2; 50]);
        let json = fs::read(place.join("verdict.json")).unwrap();
        assert_eq!(serde_json::from_slice::<Verdict>(&json).unwrap(), verdict);
    }

    #[test]
    fn evidence_that_cannot_be_written_leaves_nothing() {
        let store = tempfile::tempdir().unwrap();
        let (good, bad) = (verdict(1), verdict(2));
        write(store.path(), &good, &evidence()).unwrap();
        let place = |verdict: &Verdict| store.path().join(verdict.evidence.as_deref().unwrap());
        // Its files can be written, and not brought to their place.
        fs::write(place(&bad), "in the way").unwrap();
        assert!(write(store.path(), &bad, &evidence()).is_err());
        let day = fs::read_dir(place(&good).parent().unwrap()).unwrap();
        let mut left: Vec<_> = day.map(|entry| entry.unwrap().path()).collect();
        left.sort();
        assert_eq!(left, [place(&good), place(&bad)]);
        assert!(place(&bad).is_file());
    }

    #[test]
    fn what_is_written_counts_as_what_is_deleted() {
        let store = tempfile::tempdir().unwrap();
        let mut verdict = verdict(1);
        let detail = "x".repeat(10_000);
        verdict.judgement.outcome = Outcome::Uninspected { reason: Reason::Camera, detail };
        let written = write(store.path(), &verdict, &evidence()).unwrap();
        assert_eq!(written, bytes_below(store.path()));
    }

    #[test]
    fn evidence_of_verdicts_that_were_never_recorded_is_removed() {
        let store = tempfile::tempdir().unwrap();
        let verdicts = [verdict(1), verdict(2), verdict(3)];
        for verdict in &verdicts {
            write(store.path(), verdict, &evidence()).unwrap();
        }
        fs::write(store.path().join(verdicts[2].evidence.as_deref().unwrap()).join(PIN), "").unwrap();
        let unfinished = store.path().join("evidence/top/2026-01-02/3-x.partial");
        fs::create_dir(&unfinished).unwrap();
        remove_leftovers(store.path(), Some(&[("top".parse().unwrap(), 1)].into()));
        let there = |v: &Verdict| store.path().join(v.evidence.as_deref().unwrap()).exists();
        assert_eq!(verdicts.each_ref().map(there), [true, false, true], "the last is pinned");
        assert!(!unfinished.exists());
    }
}

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
    /// Its bytes as they count against the store's limits, the verdict's included.
    pub(super) fn bytes_on_disk(&self) -> u64 {
        let heatmap = self.heatmap_png.as_ref().map_or(0, |heatmap| on_disk(heatmap.len() as u64));
        on_disk(self.picture.len() as u64) + heatmap + on_disk(1)
    }

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
pub(super) fn on_disk(length: u64) -> u64 {
    length.div_ceil(4096) * 4096
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

/// Writes a verdict's evidence to where the verdict says; durable when it returns.
pub(super) fn write(store: &Path, verdict: &Verdict, evidence: &Evidence) -> io::Result<()> {
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
        .and_then(|()| fs::rename(&unfinished, &place))
        .and_then(|()| sync_folder(day));
    if written.is_err() {
        let _best_effort = fs::remove_dir_all(&unfinished);
        let _best_effort = fs::remove_dir_all(&place);
    }
    written
}

fn write_files(folder: &Path, verdict: &Verdict, evidence: &Evidence) -> io::Result<()> {
    let legal =
        !evidence.extension.is_empty() && evidence.extension.bytes().all(|b| b.is_ascii_alphanumeric());
    let extension = if legal { evidence.extension } else { "bin" };
    write_file(&folder.join(format!("picture.{extension}")), &evidence.picture)?;
    if let Some(heatmap) = &evidence.heatmap_png {
        write_file(&folder.join("heatmap.png"), heatmap)?;
    }
    let mut json = serde_json::to_vec_pretty(verdict)?;
    json.push(b'\n');
    write_file(&folder.join("verdict.json"), &json)?;
    sync_folder(folder)
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_data()
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
/// camera's two folders that changed last can hold such.
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
        if leftover {
            let folder = folder.path();
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
        let (good, mut bad) = (verdict(1), verdict(2));
        write(store.path(), &good, &evidence()).unwrap();
        bad.evidence = Some(format!("{}/verdict.json/2-x", good.evidence.as_deref().unwrap()));
        assert!(write(store.path(), &bad, &evidence()).is_err());
    }

    #[test]
    fn evidence_of_verdicts_that_were_never_recorded_is_removed() {
        let store = tempfile::tempdir().unwrap();
        let verdicts = [verdict(1), verdict(2)];
        for verdict in &verdicts {
            write(store.path(), verdict, &evidence()).unwrap();
        }
        let unfinished = store.path().join("evidence/top/2026-01-02/3-x.partial");
        fs::create_dir(&unfinished).unwrap();
        remove_leftovers(store.path(), Some(&[("top".parse().unwrap(), 1)].into()));
        let there = |v: &Verdict| store.path().join(v.evidence.as_deref().unwrap()).exists();
        assert_eq!(verdicts.each_ref().map(there), [true, false]);
        assert!(!unfinished.exists());
    }
}

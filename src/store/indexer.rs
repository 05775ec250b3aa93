//! The index thread: follows the journal with the index, and renews the index when it is damaged or outgrown.
//!
//! Owns the index's files. In: the journal, up to the newest durable position. Out: the open index, to whoever asks.
//! Recording never waits for it; what is not indexed yet is read from the journal. A damaged index is put aside with
//! an alarm and rebuilt. One that was open when the machine went down is rebuilt unasked, since sled does not survive
//! that for certain. Not here: what the index holds (`index`).

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};
use uuid::Uuid;

use super::index::{Fault, Index, move_aside};
use super::reader::{Cursor, Found};
use super::segment::sync_folder;
use super::shared::Shared;
use super::{Position, lock};
use crate::telemetry::chain;

/// The index's folder in the store.
pub(super) const FOLDER: &str = "index";
/// Names the boot during which the index was opened and not closed.
const MARKER: &str = "index.boot";
/// How often the journal is looked at for more; queries read what came since from the journal.
const LOOK: Duration = Duration::from_millis(250);
/// How often entries of deleted segments are removed and the size is looked at.
const TIDY: Duration = Duration::from_secs(60);
/// Verdicts that are indexed at once.
const BATCH: usize = 1000;
/// An index beyond this and [`BYTES_PER_VERDICT`] for each verdict in the journal is mostly waste.
const BYTES_ANYWAY: u64 = 64 << 20;
const BYTES_PER_VERDICT: u64 = 1024;
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(300);

/// Why the index thread begins anew.
enum Renew {
    Damaged(Fault),
    Unasked(&'static str),
}

impl From<Fault> for Renew {
    fn from(fault: Fault) -> Self {
        Self::Damaged(fault)
    }
}

/// The index thread's own things.
pub(super) struct Indexer {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Uuid,
    pub(super) cache: u64,
}

impl Indexer {
    /// Keeps the index until the store is closed.
    pub(super) fn run(self) {
        let mut retry = FIRST_RETRY;
        loop {
            let started = Instant::now();
            let ended = self.keep();
            self.shared.index.put(None, Position::START);
            match ended {
                Ok(()) => return,
                Err(Renew::Unasked(reason)) => {
                    info!(reason, "the index is rebuilt from the journal");
                    // Durably, before its marker names this boot: it must not be there after another power cut.
                    let removed =
                        fs::remove_dir_all(self.folder()).and_then(|()| sync_folder(&self.shared.path));
                    let stays = removed.is_err();
                    self.report_removal(removed);
                    if stays && self.shared.closed.sleep(LAST_RETRY) {
                        return;
                    }
                }
                Err(Renew::Damaged(fault)) => {
                    self.damaged(fault);
                    if started.elapsed() > LAST_RETRY {
                        retry = FIRST_RETRY;
                    }
                    if self.shared.closed.sleep(retry) {
                        return;
                    }
                    retry = (retry * 2).min(LAST_RETRY);
                }
            }
        }
    }

    fn damaged(&self, fault: Fault) {
        let slot = &self.shared.index;
        slot.damaged.increment();
        error!(
            fault,
            "the index is damaged; it is put aside and rebuilt from the journal, while recording goes on"
        );
        *lock(&slot.last_fault) = Some(fault);
        self.report_removal(move_aside(&self.folder()));
    }

    fn report_removal(&self, removed: std::io::Result<()>) {
        if let Err(error) = removed {
            warn!(error = %chain(&error), folder = %self.folder().display(), "the old index cannot be removed");
        }
    }

    fn folder(&self) -> PathBuf {
        self.shared.path.join(FOLDER)
    }

    /// Opens the index and follows the journal with it, until the store is closed.
    fn keep(&self) -> Result<(), Renew> {
        let marker = self.shared.path.join(MARKER);
        let boot = boot();
        let opened = fs::read_to_string(&marker).ok();
        if went_down(opened.as_deref(), boot.as_deref()) && self.folder().exists() {
            return Err(Renew::Unasked("the machine went down while it was open"));
        }
        mark(&marker, boot.as_deref().unwrap_or_default());
        let index = Index::open(&self.folder(), self.cache, self.store, self.shared.outbox.newest())?;
        let upto = index.upto()?;
        self.shared.index.put(Some(index.clone()), upto);
        self.follow(&index, upto)?;
        index.flush()?;
        self.shared.index.put(None, upto);
        drop(index);
        if sync_files(&self.folder()).is_ok() {
            let _rebuilt_for_nothing_otherwise = fs::remove_file(&marker);
        }
        Ok(())
    }

    fn follow(&self, index: &Index, upto: Position) -> Result<(), Renew> {
        let slot = &self.shared.index;
        let mut cursor = self.shared.reader.after(upto);
        let mut tidied = Instant::now();
        while !self.shared.closed.requested() {
            if let Some(fault) = lock(&slot.broken).take() {
                return Err(Renew::Damaged(fault));
            }
            let batch = self.read(&mut cursor);
            index.add(&batch)?;
            if let Some(last) = batch.last() {
                slot.upto.store(last.position.0, Ordering::Release);
            }
            if batch.len() == BATCH {
                continue;
            }
            if !slot.ready.swap(true, Ordering::Relaxed) {
                info!(upto = slot.upto.load(Ordering::Relaxed), "the index is ready");
            }
            if tidied.elapsed() > TIDY {
                self.tidy(index)?;
                tidied = Instant::now();
            }
            self.shared.closed.sleep(LOOK);
        }
        Ok(())
    }

    /// The next durable verdicts, at most a batch.
    fn read(&self, cursor: &mut Cursor) -> Vec<Found> {
        let newest = self.shared.outbox.newest();
        let mut batch = Vec::new();
        while batch.len() < BATCH && cursor.wants() <= newest {
            match cursor.next_upto(newest) {
                Ok(Some(found)) => batch.push(found),
                Ok(None) => break,
                Err(error) => {
                    warn!(error = %chain(&error), "the journal cannot be read for the index; it is tried again");
                    break;
                }
            }
        }
        batch
    }

    /// Removes entries of deleted segments, and has an index rebuilt that has outgrown its use.
    fn tidy(&self, index: &Index) -> Result<(), Renew> {
        let Ok(segments) = self.shared.reader.segments() else { return Ok(()) };
        let Some(oldest) = segments.first() else { return Ok(()) };
        let sequences = oldest.before.as_ref().map(|before| before.sequences.clone()).unwrap_or_default();
        while index.prune((oldest.number, oldest.header.first), &sequences)? {
            if self.shared.closed.requested() {
                return Ok(());
            }
        }
        let verdicts = self.shared.outbox.newest().0.saturating_sub(oldest.header.first.0);
        if index.bytes()? > BYTES_ANYWAY + BYTES_PER_VERDICT * verdicts {
            return Err(Renew::Unasked("it has outgrown its use"));
        }
        Ok(())
    }
}

/// Names this boot of the machine. A hardened service cannot see it in /proc; its unit passes it as a variable.
fn boot() -> Option<String> {
    let passed = std::env::var("BOOT_ID").ok();
    let named = passed.or_else(|| fs::read_to_string("/proc/sys/kernel/random/boot_id").ok())?;
    let named = named.trim().replace('-', "");
    (!named.is_empty()).then_some(named)
}

/// Whether the machine may have gone down while the index was open, during the boot that its marker names. Where boots
/// have no names, it may have.
fn went_down(opened: Option<&str>, boot: Option<&str>) -> bool {
    opened.is_some_and(|opened| boot != Some(opened))
}

/// Notes, durably, that the index is open.
fn mark(marker: &Path, boot: &str) {
    let marked = File::create(marker).and_then(|mut file| {
        file.write_all(boot.as_bytes())?;
        file.sync_all()?;
        marker.parent().map_or(Ok(()), sync_folder)
    });
    if let Err(error) = marked {
        warn!(error = %chain(&error), "it cannot be noted that the index is open; a power cut may damage it unnoticed");
    }
}

/// Makes the index's files durable, which sled leaves to chance.
fn sync_files(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_files(&path)?;
        } else {
            File::open(path)?.sync_all()?;
        }
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::super::shared::Bounds;
    use super::super::state::State;
    use super::*;

    #[test]
    fn an_index_of_another_boot_is_gone_before_this_boot_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().to_owned();
        let bounds = Bounds { min_free_bytes: 0, reserve_bytes: 0, max_evidence_waiting: 0 };
        let shared = Arc::new(Shared::new(store.clone(), &State::default(), 0, &bounds));
        let indexer = Indexer { shared, store: Uuid::nil(), cache: 1 << 20 };
        fs::create_dir(store.join(FOLDER)).unwrap();
        fs::write(store.join(MARKER), "another").unwrap();
        assert!(matches!(indexer.keep(), Err(Renew::Unasked(_))));
        // A power cut now must not let it be trusted.
        assert_eq!(fs::read_to_string(store.join(MARKER)).unwrap(), "another");
        indexer.shared.closed.request();
        assert!(indexer.keep().is_err(), "it is there still");
        fs::remove_dir_all(store.join(FOLDER)).unwrap();
        assert!(indexer.keep().is_ok());
        assert!(!store.join(MARKER).exists(), "it was closed in order");
    }

    #[test]
    fn an_open_index_is_trusted_only_within_the_boot_that_opened_it() {
        assert!(!went_down(None, Some("b")));
        assert!(!went_down(None, None));
        assert!(!went_down(Some("b"), Some("b")));
        assert!(went_down(Some("a"), Some("b")));
        assert!(went_down(Some(""), Some("b")));
        assert!(went_down(Some(""), None), "a service that cannot see the boot's name must not rely on it");
    }
}

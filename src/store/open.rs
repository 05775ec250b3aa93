//! Opening and closing: the lock, recovery, and the store's threads.
//!
//! Not here: what the threads do (`thread`, `evidence_thread`, `indexer`, `retention`).

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};

use super::command::Command;
use super::evidence_thread::write_evidence;
use super::handle::StoreHandle;
use super::indexer::Indexer;
use super::journal::{Disk, Journal, Medium};
use super::recovery::recover;
use super::retention::{Limits, Retention};
use super::shared::{Bounds, Shared};
use super::thread::Writer;
use super::{JOURNAL_FOLDER, Options, StoreError, evidence};
use crate::durable;
use crate::lockfile::{Holder, LockError, LockFile};

const LOCK: &str = "lock";
/// How long dropping an open store may take.
const DROP_WITHIN: Duration = Duration::from_secs(5);

/// The store, to be opened.
#[derive(Debug)]
pub struct Store;

/// The store's threads. The store is open until this is closed or dropped, whatever handles there are.
#[derive(Debug)]
pub struct StoreThread {
    handle: StoreHandle,
    writer: Option<JoinHandle<Result<(), StoreError>>>,
    /// With what each does, for people.
    others: [(&'static str, Option<JoinHandle<()>>); 3],
    _lock: LockFile,
}

impl Store {
    /// Opens the store for the box named `box_name`: takes the lock, reads the journal's end, answers for triggers that
    /// a crash has interrupted, and starts the threads.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it, [`StoreError::Unusable`] if the folder cannot be written,
    /// [`StoreError::NewerFormat`] if a newer program wrote it.
    pub fn open(options: &Options, box_name: &str) -> Result<(StoreHandle, StoreThread), StoreError> {
        Self::open_on(options, box_name, Box::new(Disk))
    }

    pub(super) fn open_on(
        options: &Options,
        box_name: &str,
        mut medium: Box<dyn Medium>,
    ) -> Result<(StoreHandle, StoreThread), StoreError> {
        let path = &options.path;
        durable::make_folder(path).map_err(unusable(path))?;
        let lock = take_lock(path)?;
        for folder in [JOURNAL_FOLDER, evidence::FOLDER] {
            let folder = path.join(folder);
            durable::make_folder(&folder).map_err(unusable(&folder))?;
        }
        let folder = path.join(JOURNAL_FOLDER);
        let recovered = recover(&folder, medium.as_mut())?;
        let state = recovered.state;
        let certain = recovered.damaged == 0 && state.checkpoint.tip.0 > 0;
        evidence::remove_leftovers(path, certain.then_some(&state.checkpoint.sequences));

        let bounds = Bounds {
            min_free_bytes: options.min_free_megabytes << 20,
            reserve_bytes: options.reserve_megabytes << 20,
            max_evidence_waiting: options.evidence_queue_megabytes << 20,
        };
        let shared = Arc::new(Shared::new(path.clone(), &state, recovered.damaged, &bounds));
        let start = (recovered.store, state, recovered.next_number);
        let segment_bytes = u64::from(options.segment_megabytes) << 20;
        let mut journal = Journal::new(folder.clone(), medium, segment_bytes, start);
        journal.begin_early().map_err(unusable(&folder))?;

        let (commands, queue) = bounded(options.queue.max(1));
        // Bounded by the bytes that may wait, not by number.
        let (jobs, job_queue) = unbounded();
        let (done, done_queue) = unbounded();
        let writer = Writer::new(box_name, journal, queue, (jobs, done_queue), shared.clone());
        let writer = spawn("store", move || writer.run())?;
        let indexer = Indexer {
            shared: shared.clone(),
            store: recovered.store,
            cache: u64::from(options.index_cache_megabytes) << 20,
        };
        let indexer = spawn("index", move || indexer.run())?;
        let retention = Retention { shared: shared.clone(), limits: Limits::new(options) };
        let retention = spawn("retention", move || retention.run())?;
        let evidence_shared = shared.clone();
        let evidence = spawn("evidence", move || write_evidence(&job_queue, &done, &evidence_shared))?;
        let handle = StoreHandle { shared, commands };
        let threads = StoreThread {
            handle: handle.clone(),
            writer: Some(writer),
            others: [
                ("writing evidence", Some(evidence)),
                ("keeping the index", Some(indexer)),
                ("making room in the store", Some(retention)),
            ],
            _lock: lock,
        };
        Ok((handle, threads))
    }
}

impl StoreThread {
    /// Records everything that waits, then closes the store; handles get [`StoreError::Closed`] from then on.
    ///
    /// # Errors
    /// [`StoreError::Unwritten`] if the disk did not take everything within `time`.
    pub fn close(mut self, time: Duration) -> Result<(), StoreError> {
        self.stop(time)
    }

    /// What of it has ended though nobody asked it to: by a fault.
    pub fn ended(&self) -> Option<&'static str> {
        let writer = self.writer.iter().map(|thread| ("recording verdicts", thread.is_finished()));
        let others =
            self.others.iter().filter_map(|(what, thread)| Some((*what, thread.as_ref()?.is_finished())));
        writer.chain(others).find_map(|(what, ended)| ended.then_some(what))
    }

    /// Has the thread end that records, as a fault would.
    #[cfg(test)]
    pub(crate) fn end_recording(&self) {
        let _full_or_gone = self.handle.commands.send(Command::Close);
    }

    fn stop(&mut self, time: Duration) -> Result<(), StoreError> {
        let Some(writer) = self.writer.take() else { return Ok(()) };
        self.handle.shared.close_within(time);
        // With a full queue the thread sees by itself that it is time, once the disk has answered.
        let _full_or_gone = self.handle.commands.send_timeout(Command::Close, time);
        let result = writer.join().unwrap_or(Err(StoreError::Closed));
        self.handle.shared.closed.request();
        for thread in self.others.iter_mut().filter_map(|(_, thread)| thread.take()) {
            let _panicked_and_logged = thread.join();
        }
        result
    }
}

impl Drop for StoreThread {
    fn drop(&mut self) {
        let _logged = self.stop(DROP_WITHIN);
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, StoreError> {
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(StoreError::Thread)
}

fn unusable(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Unusable { path, source }
}

/// Takes the store for this process, until the file is closed.
fn take_lock(store: &Path) -> Result<LockFile, StoreError> {
    let path = store.join(LOCK);
    LockFile::take(&path).map_err(|error| match error {
        LockError::Held(holder) => StoreError::Locked { path: store.to_owned(), holder: holder.to_string() },
        LockError::Io(source) => StoreError::Unusable { path, source },
    })
}

/// The process that has the store in the folder `path` open, if one has.
pub(crate) fn holder(path: &Path) -> Option<Holder> {
    LockFile::holder(&path.join(LOCK))
}

#[cfg(test)]
mod tests {
    use super::super::tests::options;
    use super::*;
    use crate::testing::wait_for;

    #[test]
    fn a_thread_that_ends_unasked_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let (handle, mut threads) = Store::open(&options(folder.path()), "box").unwrap();
        assert_eq!(threads.ended(), None);
        let evidence = threads.others[0].1.replace(spawn("evidence", || panic!("a fault")).unwrap());
        let wait_for = |threads: &StoreThread, what| wait_for(what, || threads.ended() == Some(what));
        wait_for(&threads, "writing evidence");
        threads.others[0].1 = evidence;
        assert_eq!(threads.ended(), None);
        threads.end_recording();
        wait_for(&threads, "recording verdicts");
        threads.writer = None;
        wait_for(&threads, "writing evidence");
        threads.others[0].1 = None;
        handle.shared.closed.request();
        wait_for(&threads, "keeping the index");
        threads.others[1].1 = None;
        wait_for(&threads, "making room in the store");
    }
}

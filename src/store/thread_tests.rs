//! What the store thread does when others do not do their part.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TryRecvError};

use super::evidence_thread::{Done, Job};
use super::journal::{Disk, Journal};
use super::shared::{Bounds, Shared};
use super::state::State;
use super::tests::request;
use super::thread::Writer;
use super::*;

/// A writer and a handle on it, without a thread, and what the evidence thread would have.
pub(super) fn writer_of(folder: &Path) -> (Writer, StoreHandle, (Receiver<Job>, Sender<Done>)) {
    let path = folder.join("journal");
    fs::create_dir(&path).unwrap();
    let start = (uuid::Uuid::now_v7(), State::default(), 1);
    let journal = Journal::new(path, Box::new(Disk), 1 << 20, start);
    let bounds = Bounds { min_free_bytes: 0, reserve_bytes: 0, max_evidence_waiting: 1 << 20 };
    let shared = Arc::new(Shared::new(folder.to_owned(), &State::default(), 0, &bounds));
    let (commands, queue) = crossbeam_channel::bounded(4);
    let (jobs, job_queue) = crossbeam_channel::unbounded();
    let (done, done_queue) = crossbeam_channel::unbounded();
    let writer = Writer::new("box", journal, queue, (jobs, done_queue), shared.clone());
    (writer, StoreHandle { shared, commands }, (job_queue, done))
}

pub(super) fn evidence() -> Option<Evidence> {
    Some(Evidence { picture: vec![7; 1000], extension: "png", heatmap_png: None })
}

#[test]
fn verdicts_go_on_without_evidence_when_what_writes_it_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, handle, (job_queue, done)) = writer_of(folder.path());
    let record = || handle.record(RecordRequest { evidence: evidence(), ..request("top", 0.9) });
    let mut pending = vec![record(), record()];
    writer.gather();
    let taken = job_queue.recv().unwrap();
    assert!(taken.claim.take(), "it ends while it has one in hand");
    drop((job_queue, done));
    pending.push(record());
    writer.gather();
    writer.wait();
    writer.commit().unwrap();
    for (n, pending) in pending.into_iter().enumerate() {
        let verdict = pending.wait().unwrap();
        assert_eq!((verdict.sequence, verdict.evidence), (n as u64 + 1, None));
    }
    let health = handle.health();
    assert_eq!(health.evidence_lost, 3);
    assert!(health.thinning.unwrap().error.contains("restart the program"));
    assert_eq!(
        writer.done.try_recv().map(|_| ()),
        Err(TryRecvError::Empty),
        "it is not asked in vain for ever"
    );
}

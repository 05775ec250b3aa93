//! What survives: kills at any byte, power cuts, damage, and disks that are full or fail.

use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::evidence_thread::write_evidence;
use super::journal::Disk;
use super::recovery::recover;
use super::simulated::{Fault, FaultyDisk};
use super::tests::{options, request};
use super::thread_tests::{evidence, writer_of};
use super::*;
use crate::delivery::Delivery;
use crate::verdict::{Trigger, Verdict};

pub(super) const SOON: Duration = Duration::from_secs(30);

/// A store with `count` verdicts of two cameras, closed.
pub(super) fn store_of(folder: &Path, count: usize) -> Vec<Verdict> {
    let (handle, thread) = Store::open(&options(folder), "box").unwrap();
    let cameras = ["top", "side"];
    let pending: Vec<_> = (0..count).map(|n| handle.record(request(cameras[n % 2], 0.1))).collect();
    let verdicts = pending.into_iter().map(|p| p.wait().unwrap()).collect();
    thread.close(SOON).unwrap();
    verdicts
}

pub(super) fn reopen(folder: &Path) -> (Vec<Verdict>, Health) {
    let (handle, thread) = Store::open(&options(folder), "box").unwrap();
    let verdicts = handle.outbox(Position::START, 10_000).unwrap();
    let health = handle.health();
    thread.close(SOON).unwrap();
    (verdicts.into_iter().map(|(_, verdict)| verdict).collect(), health)
}

fn assert_gap_free(verdicts: &[Verdict]) {
    for camera in ["top", "side"] {
        let mine = verdicts.iter().filter(|v| v.camera().as_str() == camera);
        let sequences: Vec<_> = mine.map(|v| v.sequence).collect();
        assert!(sequences.iter().copied().eq(1..=sequences.len() as u64), "{camera}: {sequences:?}");
    }
}

#[test]
fn a_journal_cut_at_any_byte_keeps_every_whole_record() {
    let folder = tempfile::tempdir().unwrap();
    let verdicts = store_of(folder.path(), 8);
    let journal = folder.path().join("store/journal");
    let segment = segment::path(&journal, 1);
    let whole = fs::read(&segment).unwrap();
    let mut kept_before = 0;
    for cut in whole.len() / 2..=whole.len() {
        fs::remove_dir_all(&journal).unwrap();
        fs::create_dir(&journal).unwrap();
        fs::write(&segment, &whole[..cut]).unwrap();
        let recovered = recover(&journal, &mut FaultyDisk::default()).unwrap();
        let kept = recovered.state.checkpoint.tip.0 as usize;
        assert!(kept >= kept_before, "cut at {cut}");
        assert_eq!(recovered.damaged, 0);
        // Whole openings take their time; a prime step meets every field.
        if kept > kept_before || cut % 31 == 0 {
            assert_eq!(reopen(folder.path()).0, verdicts[..kept], "cut at {cut}");
        }
        kept_before = kept;
    }
    assert_eq!(kept_before, 8);
}

#[test]
fn after_a_cut_the_sequence_goes_on_without_a_gap() {
    let folder = tempfile::tempdir().unwrap();
    store_of(folder.path(), 8);
    let segment = segment::path(&folder.path().join("store/journal"), 1);
    let length = fs::metadata(&segment).unwrap().len();
    fs::File::options().write(true).open(&segment).unwrap().set_len(length - 5).unwrap();
    let added = {
        let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
        let verdict = handle.record(request("side", 0.1)).wait().unwrap();
        thread.close(SOON).unwrap();
        verdict
    };
    assert_eq!(added.sequence, 4);
    let (verdicts, _) = reopen(folder.path());
    assert_gap_free(&verdicts);
    assert_eq!(verdicts.last(), Some(&added));
}

#[test]
fn damage_to_what_was_promised_is_reported_and_the_rest_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut verdicts = store_of(folder.path(), 4);
    // One commit each: later commits bear witness to what earlier ones promised.
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    verdicts.extend((0..4).map(|_| handle.record(request("top", 0.1)).wait().unwrap()));
    thread.close(SOON).unwrap();
    let segment = segment::path(&folder.path().join("store/journal"), 2);
    let mut bytes = fs::read(&segment).unwrap();
    let id = verdicts[5].id.to_string();
    let at = bytes.windows(id.len()).position(|w| w == id.as_bytes()).unwrap();
    bytes[at] = b'!';
    fs::write(&segment, &bytes).unwrap();
    let (kept, health) = reopen(folder.path());
    let lost = verdicts.remove(5);
    assert_eq!(kept, verdicts, "only {} is lost", lost.sequence);
    assert_eq!(health.damaged, 1);
}

#[test]
fn a_damaged_header_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut verdicts = store_of(folder.path(), 4);
    verdicts.extend(store_of(folder.path(), 4));
    for number in [1, 2] {
        let segment = segment::path(&folder.path().join("store/journal"), number);
        let mut bytes = fs::read(&segment).unwrap();
        bytes[20] ^= 0xff;
        fs::write(&segment, &bytes).unwrap();
    }
    let (kept, health) = reopen(folder.path());
    assert_eq!(kept, verdicts);
    assert!(health.damaged > 0);
}

#[test]
fn a_full_disk_delays_verdicts_and_loses_none() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (handle, thread) = Store::open_on(&options(folder.path()), "box", Box::new(disk.clone())).unwrap();
    handle.record(request("top", 0.1)).wait().unwrap();
    disk.keep_failing(Some(Fault::Full));
    let pending: Vec<_> = (0..20).map(|_| handle.record(request("top", 0.1))).collect();
    while handle.health().failing.is_none() {
        std::thread::yield_now();
    }
    assert!(pending[0].poll().is_none());
    assert_eq!(handle.outbox(Position::START, 100).unwrap().len(), 1);
    disk.keep_failing(None);
    for (n, pending) in pending.into_iter().enumerate() {
        assert_eq!(pending.wait().unwrap().sequence, n as u64 + 2);
    }
    assert!(handle.health().failing.is_none());
    thread.close(SOON).unwrap();
    assert_eq!(reopen(folder.path()).0.len(), 21);
}

/// What a start would find if there were a crash now.
fn noted_packets(folder: &Path) -> Vec<u16> {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(folder.join("store/journal")).unwrap().flatten() {
        let _abandoned_meanwhile = fs::copy(file.path(), copy.path().join(file.file_name()));
    }
    recover(copy.path(), &mut Disk).unwrap().state.checkpoint.deliveries.iter().map(|d| d.packet).collect()
}

#[test]
fn a_trigger_is_not_called_noted_before_its_note_is_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (handle, thread) = Store::open_on(&options(folder.path()), "box", Box::new(disk.clone())).unwrap();
    let arrival = |packet| Arrival {
        camera: "top".parse().unwrap(),
        trigger: Trigger::default(),
        at: jiff::Timestamp::now(),
        delivery: Some(Delivery { session: 1, packet, digest: 7 }),
    };
    let accept = |packet| {
        let (told, noted) = crossbeam_channel::bounded(1);
        handle.accept_then(arrival(packet), move || told.send(()).unwrap()).unwrap();
        noted
    };
    accept(1).recv().unwrap();
    disk.keep_failing(Some(Fault::Sync));
    let noted = accept(2);
    while handle.health().write_failures < 2 {
        std::thread::yield_now();
    }
    assert!(noted.try_recv().is_err());
    // A crash now would forget it, and the broker deliver it again.
    assert_eq!(noted_packets(folder.path()), [1]);
    disk.keep_failing(None);
    noted.recv().unwrap();
    thread.close(SOON).unwrap();
    assert_eq!(noted_packets(folder.path()), [1, 2]);
}

#[test]
fn a_store_that_cannot_write_says_at_closing_what_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (handle, thread) = Store::open_on(&options(folder.path()), "box", Box::new(disk.clone())).unwrap();
    disk.keep_failing(Some(Fault::Write));
    let pending = handle.record(request("top", 0.1));
    let error = thread.close(Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, StoreError::Unwritten { records: 1, .. }), "{error}");
    assert!(matches!(pending.wait(), Err(StoreError::Closed)));
}

#[test]
fn whoever_waits_for_a_disk_that_takes_nothing_lives_and_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let options = Options { queue: 1, ..options(folder.path()) };
    let (handle, thread) = Store::open_on(&options, "box", Box::new(disk.clone())).unwrap();
    disk.keep_failing(Some(Fault::Write));
    let tried = handle.record(request("top", 0.1));
    while handle.health().failing.is_none() {
        std::thread::yield_now();
    }
    let queued = handle.record(request("top", 0.1));
    let (alive, signs) = crossbeam_channel::unbounded();
    let (told, answer) = crossbeam_channel::bounded(1);
    let waiting = {
        let handle = handle.clone();
        let request = request("top", 0.1);
        std::thread::spawn(move || {
            handle.record_alive(
                request,
                || alive.send(()).unwrap(),
                move |verdict| told.send(verdict).unwrap(),
            );
        })
    };
    for _ in 0..3 {
        signs.recv_timeout(SOON).unwrap();
    }
    assert!(answer.try_recv().is_err(), "it waits");
    handle.wait_until(std::time::Instant::now());
    assert!(matches!(answer.recv_timeout(SOON).unwrap(), Err(StoreError::Busy { .. })));
    waiting.join().unwrap();
    let error = thread.close(Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, StoreError::Unwritten { records: 2, .. }), "{error}");
    assert!(matches!((tried.wait(), queued.wait()), (Err(_), Err(_))));
}

#[test]
fn a_disk_that_hangs_is_called_slow_while_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let (handle, thread) = Store::open_on(&options(folder.path()), "box", Box::new(disk.clone())).unwrap();
    let hanging = disk.hang();
    let pending = handle.record(request("top", 0.1));
    while handle.health().slow.is_none() {
        std::thread::yield_now();
    }
    assert!(pending.poll().is_none());
    drop(hanging);
    pending.wait().unwrap();
    while handle.health().slow.is_some() {
        handle.record(request("top", 0.1)).wait().unwrap();
    }
    thread.close(SOON).unwrap();
}

#[test]
fn what_a_killed_program_left_in_memory_is_on_disk_before_it_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::default();
    let open = |disk: FaultyDisk| Store::open_on(&options(folder.path()), "box", Box::new(disk)).unwrap();
    let (handle, thread) = open(disk.clone());
    let told = handle.record(request("top", 0.1)).wait().unwrap();
    disk.fail(&[Fault::Kill]);
    let untold = handle.record(request("top", 0.1));
    while handle.health().failing.is_none() {
        std::thread::yield_now();
    }
    thread.close(Duration::ZERO).unwrap_err();
    assert!(untold.wait().is_err());

    let (handle, thread) = open(disk.for_the_next());
    let believed: Vec<_> =
        handle.outbox(Position::START, 10).unwrap().into_iter().map(|(_, verdict)| verdict).collect();
    assert_eq!((believed.len(), &believed[0]), (2, &told));
    let third = handle.record(request("top", 0.1)).wait().unwrap();
    disk.cut_power(&mut ChaCha8Rng::seed_from_u64(1));
    let _off = thread.close(Duration::ZERO);
    let (kept, _) = reopen(folder.path());
    assert_eq!(kept, [believed[0].clone(), believed[1].clone(), third]);
}

#[test]
fn verdicts_go_on_without_evidence_that_the_disk_is_too_slow_for() {
    let folder = tempfile::tempdir().unwrap();
    let (mut writer, handle, (job_queue, done)) = writer_of(folder.path());
    writer.evidence_wait = Duration::from_millis(1);
    let writer = std::thread::spawn(move || writer.run());

    // Nobody writes evidence yet, and more waits than the queue holds.
    let pending: Vec<_> = (0..20u32)
        .map(|n| if n % 5 == 0 { evidence() } else { None })
        .map(|evidence| handle.record(RecordRequest { evidence, ..request("top", 0.9) }))
        .collect();
    for (n, pending) in pending.into_iter().enumerate() {
        let verdict = pending.wait().unwrap();
        assert_eq!((verdict.sequence, verdict.evidence), (n as u64 + 1, None));
    }
    assert_eq!(handle.health().evidence_lost, 4);
    // What comes too late is not kept.
    // There may have been no room for a word that it is time to close.
    handle.shared.close_within(SOON);
    writer.join().unwrap().unwrap();
    write_evidence(&job_queue, &done, &handle.shared);
    assert!(!folder.path().join("evidence").exists());
    assert_eq!(handle.health().evidence_waiting, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Whatever fails in whatever order, and wherever the power is cut: what was acknowledged is there, in order,
    /// without gaps, once.
    #[test]
    fn nothing_acknowledged_is_lost_in_a_power_cut(seed: u64) {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let folder = tempfile::tempdir().unwrap();
        let mut acknowledged: Vec<Verdict> = Vec::new();
        for _life in 0..3 {
            let disk = FaultyDisk::default();
            let (handle, thread) =
                Store::open_on(&options(folder.path()), "box", Box::new(disk.clone())).unwrap();
            let faults: Vec<_> = (0..chance.random_range(0..4))
                .map(|_| [Fault::Full, Fault::Write, Fault::Sync][chance.random_range(0..3)])
                .collect();
            disk.fail(&faults);
            let pending: Vec<_> = (0..chance.random_range(1..30))
                .map(|n| handle.record(request(["top", "side"][n % 2], 0.1)))
                .collect();
            let waited = chance.random_range(0..=pending.len());
            let mut pending = pending.into_iter();
            acknowledged.extend(pending.by_ref().take(waited).map(|p| p.wait().unwrap()));
            disk.cut_power(&mut chance);
            // Those may have been promised just before.
            let _unwritten = thread.close(Duration::ZERO);
            acknowledged.extend(pending.filter_map(|p| p.wait().ok()));
        }
        let (kept, _) = reopen(folder.path());
        assert_gap_free(&kept);
        for verdict in &acknowledged {
            let found = kept.iter().filter(|v| v.id == verdict.id).count();
            prop_assert_eq!(found, 1, "{:?} of {}", verdict.sequence, verdict.camera());
        }
    }
}

//! What survives damage to what was promised: bits that flipped, and what the disk cannot read any more.

use std::fs;
use std::ops::Range;

use super::crash_tests::{SOON, reopen, store_of};
use super::tests::{options, request};
use super::*;
use crate::verdict::Verdict;

/// Everything that is to be published.
fn to_be_sent(handle: &StoreHandle) -> Vec<(Position, Verdict)> {
    let mut verdicts = Vec::new();
    let mut after = handle.published_upto();
    while after < handle.health().newest {
        match handle.outbox(after, 1000) {
            Ok(batch) if batch.is_empty() => break,
            Ok(batch) => {
                after = batch.last().unwrap().0;
                verdicts.extend(batch);
            }
            Err(StoreError::Unreadable) => {}
            Err(error) => panic!("{error}"),
        }
    }
    verdicts
}

#[test]
fn what_the_disk_cannot_read_of_the_journal_costs_only_that() {
    let folder = tempfile::tempdir().unwrap();
    let verdicts: Vec<_> = (0..3).flat_map(|_| store_of(folder.path(), 40)).collect();
    let journal = folder.path().join("store/journal");
    // All of the second segment, and the start of the newest with its header.
    simulated::make_unreadable(&segment::path(&journal, 2), 0..1 << 20);
    simulated::make_unreadable(&segment::path(&journal, 3), 0..1);
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    assert!(handle.health().damaged >= 2);
    let kept = to_be_sent(&handle);
    let kept: Vec<_> = kept.into_iter().map(|(_, verdict)| verdict).collect();
    let health = handle.health();
    assert!(health.unread.is_none() && health.gaps.is_some() && health.unsent as usize == 120 - kept.len());
    assert_eq!(kept[..40], verdicts[..40]);
    assert!(kept.len() > 50 && kept.ends_with(&verdicts[110..]), "{} are kept", kept.len());
    let next = handle.record(request("top", 0.1)).wait().unwrap();
    assert_eq!(next.sequence, 61);
    assert!(!handle.history(&Query::default()).unwrap().is_empty());
    thread.close(SOON).unwrap();
}

#[test]
fn a_newest_segment_that_cannot_even_be_opened_keeps_nothing_from_going_on() {
    let folder = tempfile::tempdir().unwrap();
    let verdicts: Vec<_> = (0..2).flat_map(|_| store_of(folder.path(), 40)).collect();
    simulated::make_unopenable(&segment::path(&folder.path().join("store/journal"), 2));
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    assert!(handle.health().damaged > 0);
    let next = handle.record(request("top", 0.1)).wait().unwrap();
    assert!(next.sequence > 40, "{}", next.sequence);
    let sent: Vec<_> = to_be_sent(&handle).into_iter().map(|(_, verdict)| verdict).collect();
    assert_eq!((sent.len(), &sent[..40], &sent[40]), (41, &verdicts[..40], &next));
    let health = handle.health();
    assert!(health.gaps.is_some() && health.unsent >= 40, "{health:?}");
    let mut history = handle.history(&Query::default()).unwrap();
    history.reverse();
    assert_eq!(history, sent);
    thread.close(SOON).unwrap();
}

#[test]
fn a_disk_that_reads_again_after_a_moment_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let verdicts: Vec<_> = (0..3).flat_map(|_| store_of(folder.path(), 40)).collect();
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    let path = segment::path(&folder.path().join("store/journal"), 2);
    simulated::make_unreadable(&path, 0..1 << 20);
    let before = handle.outbox(Position::START, 1000).unwrap();
    assert_eq!(before.len(), 40, "what comes behind waits for it");
    simulated::make_unreadable(&path, 0..0);
    let after = handle.outbox(before.last().unwrap().0, 1000).unwrap();
    let sent = before.into_iter().chain(after).map(|(_, verdict)| verdict).collect::<Vec<_>>();
    assert_eq!(sent, verdicts);
    assert_eq!((handle.health().unsent, handle.health().gaps), (0, None));
    thread.close(SOON).unwrap();
}

/// What was published from there stays true: `sequence` names one part, and what comes next is published.
#[test]
fn a_number_that_a_lost_verdict_may_have_had_is_not_given_again() {
    let after_damage = |published: usize, bad: &dyn Fn(u64) -> Range<u64>| {
        let folder = tempfile::tempdir().unwrap();
        let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
        for camera in ["side", "top"] {
            let pending: Vec<_> = (0..40).map(|_| handle.record(request(camera, 0.1))).collect();
            pending.into_iter().for_each(|pending| drop(pending.wait().unwrap()));
        }
        handle.published(Position(published as u64));
        thread.close(SOON).unwrap();
        let path = segment::path(&folder.path().join("store/journal"), 1);
        simulated::make_unreadable(&path, bad(fs::metadata(&path).unwrap().len()));
        let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
        assert!(handle.health().damaged > 0);
        let next = ["side", "top", "new"].map(|camera| handle.record(request(camera, 0.1)).wait().unwrap());
        let to_send = to_be_sent(&handle);
        let ends_with = to_send.iter().rev().take(3).rev().map(|(_, verdict)| verdict);
        assert!(ends_with.eq(&next), "what comes next is published");
        handle.published(to_send.last().unwrap().0);
        assert_eq!((handle.unpublished(), to_be_sent(&handle).len()), (0, 0));
        thread.close(SOON).unwrap();
        // Nor is it after another start.
        simulated::make_unreadable(&path, 0..0);
        let (kept, _) = reopen(folder.path());
        assert!(kept.ends_with(&next), "what can be read again hides nothing");
        next.map(|verdict| verdict.sequence)
    };
    // Parts of the side alone, all before the last of the top: their number is known, though not whose they were.
    let [side, top, _] = after_damage(80, &|_| 8192..12288);
    assert_eq!([side, top], [41, 41]);
    // The end: their number can be bounded. All had been published, or none.
    for published in [80, 0] {
        let [side, top, _] = after_damage(published, &|length| length - 4096..length);
        assert!((41..=41 + 33).contains(&side) && (41..=41 + 33).contains(&top), "{side} {top}");
    }
    // All of the top and some of the side.
    let [side, top, new] = after_damage(80, &|length| 8192..length);
    assert!(side > 40 && top > 40 && top == new && top < 400, "{side} {top} {new}");
}

#[test]
fn what_was_published_and_lost_does_not_keep_the_next_from_being_published() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    let verdicts: Vec<_> = (0..3).map(|_| handle.record(request("top", 0.1)).wait().unwrap()).collect();
    handle.published(Position(3));
    thread.close(SOON).unwrap();
    let path = segment::path(&folder.path().join("store/journal"), 1);
    let mut bytes = fs::read(&path).unwrap();
    let id = verdicts[2].id.to_string();
    let at = bytes.windows(id.len()).position(|window| window == id.as_bytes()).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    let next = handle.record(request("top", 0.1)).wait().unwrap();
    assert!(next.sequence > 3);
    let to_send = handle.outbox(handle.published_upto(), 10).unwrap();
    assert_eq!(to_send.into_iter().map(|(_, verdict)| verdict).collect::<Vec<_>>(), [next]);
    thread.close(SOON).unwrap();
}

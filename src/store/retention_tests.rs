//! What retention deletes, and what it never does.

use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::evidence::PIN;
use super::retention::{Limits, Retention, Turns};
use super::shared::Lost;
use super::tests::{options, request};
use super::*;
use crate::frame::SourceRef;
use crate::verdict::Verdict;

const SOON: Duration = Duration::from_secs(30);

/// A store that has seen `lives` starts with `each` verdicts of two cameras each, all with evidence.
fn store_of(folder: &Path, lives: usize, each: usize) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for _ in 0..lives {
        let (handle, thread) = Store::open(&options(folder), "box").unwrap();
        let evidence = || Some(Evidence { picture: vec![7; 5000], extension: "png", heatmap_png: None });
        let record =
            |n| handle.record(RecordRequest { evidence: evidence(), ..request(["top", "side"][n % 2], 0.9) });
        let pending: Vec<_> = (0..each).map(record).collect();
        verdicts.extend(pending.into_iter().map(|p| p.wait().unwrap()));
        thread.close(SOON).unwrap();
    }
    verdicts
}

fn source(n: u64) -> SourceRef {
    SourceRef { name: format!("{n}.png"), bytes: n, modified_ns: 1 }
}

/// A store that has seen four starts with a judged file each, open.
fn store_of_files(folder: &Path) -> (StoreHandle, StoreThread) {
    for life in 0..4 {
        let (handle, thread) = Store::open(&options(folder), "box").unwrap();
        let mut request = request("top", 0.1);
        request.judgement.source = Some(source(life));
        handle.record(request).wait().unwrap();
        thread.close(SOON).unwrap();
    }
    Store::open(&options(folder), "box").unwrap()
}

fn retention(handle: &StoreHandle, keep_days: u32, max_megabytes: u64) -> Retention {
    let limits =
        Limits::new(&Options { keep_days, max_megabytes, min_free_megabytes: 1, ..Options::default() });
    Retention { shared: handle.shared.clone(), limits }
}

fn later(days: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24 * days)
}

const PLENTY: fn() -> u64 = || u64::MAX;
const NONE: fn() -> u64 = || 0;

#[test]
fn what_is_too_old_goes_once_it_is_published() {
    let folder = tempfile::tempdir().unwrap();
    let verdicts = store_of(folder.path(), 4, 2);
    let (handle, _thread) = Store::open(&options(folder.path()), "box").unwrap();
    let retention = retention(&handle, 30, 0);
    let kept = || verdicts.iter().filter(|v| handle.evidence(v).is_some()).count();
    retention.tidy(later(31), &PLENTY).unwrap();
    assert_eq!((kept(), handle.outbox(Position::START, 100).unwrap().len()), (8, 8), "nothing is published");
    handle.published(Position(5));
    retention.tidy(later(29), &PLENTY).unwrap();
    assert_eq!((kept(), handle.outbox(Position::START, 100).unwrap().len()), (8, 8), "nothing is old");
    retention.tidy(later(31), &PLENTY).unwrap();
    assert_eq!((kept(), handle.outbox(Position::START, 100).unwrap().len()), (3, 4));
    assert_eq!(handle.outbox(Position(5), 100).unwrap().len(), 3);
    handle.published(Position(8));
    retention.tidy(later(31), &PLENTY).unwrap();
    assert_eq!(kept(), 0);
    // The newest closed segment carries the sequences on, and stays.
    assert_eq!(handle.outbox(Position::START, 100).unwrap().len(), 2);
    assert_eq!(handle.record(request("top", 0.1)).wait().unwrap().sequence, 5);
}

#[test]
fn sequences_go_on_when_everything_old_was_deleted() {
    let folder = tempfile::tempdir().unwrap();
    store_of(folder.path(), 2, 4);
    for life in 0..5 {
        let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
        handle.published(Position(100));
        retention(&handle, 1, 0).tidy(later(100), &NONE).unwrap();
        let verdict = handle.record(request("side", 0.1)).wait().unwrap();
        assert_eq!(verdict.sequence, 5 + life);
        handle.published(Position(100));
        thread.close(SOON).unwrap();
    }
    let (handle, _thread) = Store::open(&options(folder.path()), "box").unwrap();
    assert_eq!(handle.record(request("top", 0.1)).wait().unwrap().sequence, 5);
    assert_eq!(handle.tip().borrow().0, 14);
}

#[test]
fn for_space_the_oldest_evidence_goes_before_any_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let verdicts = store_of(folder.path(), 4, 4);
    let (handle, _thread) = Store::open(&options(folder.path()), "box").unwrap();
    handle.published(Position(16));
    let pinned = handle.evidence(&verdicts[1]).unwrap();
    std::fs::write(pinned.join(PIN), "").unwrap();
    let retention = retention(&handle, 0, 0);
    let enough_after = |deleted: u64| {
        let shared = handle.shared.clone();
        move || if shared.kept.deleted_evidence.get() >= deleted { u64::MAX } else { 0 }
    };
    retention.tidy(later(0), &enough_after(3)).unwrap();
    let there: Vec<_> = verdicts.iter().map(|v| handle.evidence(v).is_some()).collect();
    assert_eq!(there[..6], [false, true, false, false, true, true]);
    assert_eq!(handle.outbox(Position::START, 100).unwrap().len(), 16);
    retention.tidy(later(0), &NONE).unwrap();
    assert!(pinned.exists());
    assert_eq!(verdicts.iter().filter(|v| handle.evidence(v).is_some()).count(), 1);
    assert_eq!(handle.outbox(Position::START, 100).unwrap().len(), 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn what_is_not_published_is_never_deleted(published in 0u64..=12, days in 0i64..100) {
        let folder = tempfile::tempdir().unwrap();
        let verdicts = store_of(folder.path(), 3, 4);
        let (handle, _thread) = Store::open(&options(folder.path()), "box").unwrap();
        handle.published(Position(published));
        retention(&handle, 1, 1).tidy(later(days), &NONE).unwrap();
        let left = handle.outbox(Position(published), 100).unwrap();
        prop_assert!(left.iter().map(|(p, _)| p.0).eq(published + 1..=12));
        for (at, verdict) in verdicts.iter().enumerate() {
            let unpublished = at as u64 >= published;
            prop_assert_eq!(handle.evidence(verdict).is_some(), unpublished, "{}", at);
        }
    }
}

/// Whether all these files stand in the list of those that outlive their verdicts.
fn remembers(folder: &Path, files: &[u64]) -> bool {
    let mut unknown = files.iter().map(|n| source(*n).key()).collect();
    super::judged::take_remembered(&folder.join("store"), &"top".parse().unwrap(), &mut unknown).unwrap();
    unknown.is_empty()
}

#[test]
fn a_segment_whose_header_is_damaged_looks_no_older_than_the_next() {
    let folder = tempfile::tempdir().unwrap();
    store_of(folder.path(), 5, 2);
    let header = segment::path(&folder.path().join("store/journal"), 2);
    let mut bytes = std::fs::read(&header).unwrap();
    bytes[44] ^= 0xff;
    std::fs::write(&header, &bytes).unwrap();
    let (handle, _thread) = Store::open(&options(folder.path()), "box").unwrap();
    handle.published(Position(10));
    let retention = retention(&handle, 30, 0);
    retention.tidy(later(29), &PLENTY).unwrap();
    assert_eq!(handle.outbox(Position::START, 100).unwrap().len(), 10, "nothing is old");
    retention.tidy(later(31), &PLENTY).unwrap();
    assert_eq!(handle.outbox(Position::START, 100).unwrap().len(), 2);
}

#[test]
fn limits_that_cannot_be_kept_to_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { min_free_megabytes: 1 << 30, ..options(folder.path()) };
    let (handle, thread) = Store::open(&options, "box").unwrap();
    while handle.health().crowded.is_none() {
        std::thread::yield_now();
    }
    thread.close(SOON).unwrap();
    let retention = retention(&handle, 0, 0);
    assert!(retention.tidy(later(0), &PLENTY).unwrap());
    assert!(!retention.tidy(later(0), &NONE).unwrap());
}

#[test]
fn what_was_used_of_the_reserve_is_made_room_for_beside_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let verdicts = store_of(folder.path(), 1, 6);
    let options = Options { reserve_megabytes: 1, min_free_megabytes: 1, ..options(folder.path()) };
    let (handle, thread) = Store::open(&options, "box").unwrap();
    handle.shared.refill_reserve(u64::MAX);
    handle.published(Position(6));
    // Its own retention is not to come in between.
    thread.close(SOON).unwrap();
    assert!(handle.shared.use_reserve());
    let retention = retention(&handle, 0, 0);
    // Above the limit and its margin, and less than the reserve wants.
    let deleted = || handle.shared.kept.deleted_evidence.get();
    let free = || if deleted() < 3 { 5 << 18 } else { 3 << 20 };
    let (mut turns, mut calendar) = (Turns::default(), retention.calendar());
    assert!(retention.look(&mut turns, &mut calendar, &free));
    assert_eq!(deleted(), 3);
    assert!(handle.health().pressed.is_some());
    assert!(!retention.look(&mut turns, &mut calendar, &free), "there is room enough");
    assert!(handle.health().pressed.is_none());
    assert_eq!(verdicts.iter().filter(|v| handle.evidence(v).is_some()).count(), 3);
}

#[test]
fn making_room_in_vain_is_not_repeated_at_once() {
    let mut turns = Turns::default();
    assert!(turns.is_due(false), "it has never been done");
    turns.is_over(false, true);
    assert!(!turns.is_due(false) && turns.is_due(true));
    for _ in 0..2 {
        turns.is_over(true, false);
        assert!(!turns.is_due(true) && turns.is_due(false));
    }
}

#[test]
fn room_that_cannot_be_made_is_not_tried_for_every_second() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    thread.close(SOON).unwrap();
    let journal = folder.path().join("store/journal");
    std::fs::remove_dir_all(&journal).unwrap();
    std::fs::write(&journal, "in the way").unwrap();
    let retention = retention(&handle, 0, 0);
    let (mut turns, mut calendar) = (Turns::default(), retention.calendar());
    retention.tidy(later(0), &NONE).unwrap_err();
    assert!(retention.look(&mut turns, &mut calendar, &NONE));
    assert!(!retention.look(&mut turns, &mut calendar, &NONE));
}

#[test]
fn that_evidence_is_not_kept_stands_until_what_was_in_its_way_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    // Its own retention is not to come in between.
    thread.close(SOON).unwrap();
    let thinning = || handle.health().thinning.map(|failing| failing.error);
    for (cause, goes) in [(Lost::Room, true), (Lost::Late, true), (Lost::Failed, false)] {
        handle.shared.evidence_lost(1, cause, "first");
        handle.shared.evidence_lost(1, cause, "second");
        assert_eq!(thinning().as_deref(), Some("first"));
        handle.shared.look_for_room_for_evidence();
        assert_eq!(thinning().is_none(), goes, "{cause:?}");
    }
    handle.shared.evidence_is_kept();
    assert_eq!(thinning(), None);
    handle.shared.evidence_waits(1);
    handle.shared.evidence_lost(1, Lost::Late, "some waits");
    handle.shared.look_for_room_for_evidence();
    assert!(thinning().is_some());
}

#[test]
fn a_file_stays_judged_when_its_verdict_is_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _thread) = store_of_files(folder.path());
    handle.published(Position(4));
    retention(&handle, 30, 0).tidy(later(31), &PLENTY).unwrap();
    assert!(handle.outbox(Position::START, 100).unwrap().len() < 4, "nothing was deleted");
    let files = (0..4).map(|n| source(n).key()).collect();
    assert_eq!(handle.judged(&"top".parse().unwrap(), &files), files);
}

#[test]
fn files_of_the_oldest_segment_are_remembered_before_there_is_no_room_for_that() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _thread) = store_of_files(folder.path());
    let mut ahead = None;
    // The store's own thread may have done so, too.
    retention(&handle, 30, 0).remember_ahead(&mut ahead);
    assert!(remembers(folder.path(), &[0, 1]));
    assert!(ahead.is_some());
    // What is there takes no room when its segment goes.
    let list = folder.path().join("store/judged/top.files");
    let bytes = std::fs::metadata(&list).unwrap().len();
    handle.published(Position(4));
    retention(&handle, 30, 0).tidy(later(31), &PLENTY).unwrap();
    assert!(handle.outbox(Position::START, 100).unwrap().len() < 4, "nothing was deleted");
    assert_eq!(std::fs::metadata(&list).unwrap().len(), bytes);
}

#[test]
fn files_that_cannot_be_remembered_yet_are_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, thread) = store_of_files(folder.path());
    // Its own retention is not to come in between.
    thread.close(SOON).unwrap();
    let lists = folder.path().join("store/judged");
    std::fs::remove_dir_all(&lists).ok();
    std::fs::write(&lists, "in the way").unwrap();
    let (retention, mut ahead) = (retention(&handle, 30, 0), None);
    retention.remember_ahead(&mut ahead);
    assert_eq!(ahead, None);
    std::fs::remove_file(&lists).unwrap();
    retention.remember_ahead(&mut ahead);
    assert!(ahead.is_some());
    assert!(remembers(folder.path(), &[0]));
}

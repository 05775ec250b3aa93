//! The store's behaviour through its public handle, on a real disk in a temporary folder.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::delivery::Delivery;
use crate::verdict::tests::judgement;
use crate::verdict::{Outcome, Reason, Trigger, Verdict};

const SOON: Duration = Duration::from_secs(30);

pub(super) fn options(path: &Path) -> Options {
    Options {
        path: path.join("store"),
        min_free_megabytes: 0,
        reserve_megabytes: 0,
        segment_megabytes: 1,
        ..Options::default()
    }
}

pub(super) fn request(camera: &str, score: f32) -> RecordRequest {
    RecordRequest { judgement: judgement(camera, score), evidence: None, ticket: None }
}

fn evidence() -> Option<Evidence> {
    Some(Evidence { picture: vec![7; 1000], extension: "png", heatmap_png: None })
}

#[test]
fn sequences_rise_by_one_per_camera_also_across_restarts() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
        for n in 1..=4 {
            let top = handle.record(request("top", 0.1)).wait().unwrap();
            assert_eq!(top.sequence, round * 4 + n);
            assert_eq!(top.box_name, "box");
            assert_eq!(handle.record(request("side", 0.1)).wait().unwrap().sequence, round * 4 + n);
        }
        thread.close(SOON).unwrap();
        assert!(matches!(handle.record(request("top", 0.1)).wait(), Err(StoreError::Closed)));
    }
    let (handle, _thread) = Store::open(&options(folder.path()), "box").unwrap();
    let all = handle.outbox(Position::START, 100).unwrap();
    let positions: Vec<_> = all.iter().map(|(position, _)| position.0).collect();
    assert_eq!(positions, (1..=24).collect::<Vec<_>>());
    let ids: std::collections::HashSet<_> = all.iter().map(|(_, verdict)| verdict.id).collect();
    assert_eq!(ids.len(), 24);
}

#[test]
fn the_order_of_a_camera_is_the_order_of_calls_whatever_evidence_takes() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _thread) = Store::open(&options(folder.path()), "box").unwrap();
    let pending: Vec<_> = (0..60)
        .map(|n| {
            let camera = if n % 2 == 0 { "top" } else { "side" };
            let score = n as f32;
            let evidence = if n % 3 == 0 { evidence() } else { None };
            handle.record(RecordRequest { evidence, ..request(camera, score) })
        })
        .collect();
    for (n, pending) in pending.into_iter().enumerate() {
        let verdict = pending.wait().unwrap();
        assert_eq!(verdict.sequence, n as u64 / 2 + 1);
        assert_eq!(verdict.evidence.is_some(), n % 3 == 0);
        if let Some(place) = &verdict.evidence {
            let place = folder.path().join("store").join(place);
            assert_eq!(fs::read(place.join("picture.png")).unwrap().len(), 1000);
        }
    }
    for camera in ["top", "side"] {
        let outbox = handle.outbox(Position::START, 100).unwrap();
        let mine = outbox.iter().filter(|(_, v)| v.camera().as_str() == camera);
        assert!(mine.map(|(_, v)| v.sequence).eq(1..=30), "{camera}");
    }
}

#[test]
fn the_outbox_goes_on_where_the_broker_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    for _ in 0..10 {
        handle.record(request("top", 0.1)).wait().unwrap();
    }
    assert_eq!(handle.unpublished(), 10);
    assert!(handle.oldest_unpublished().unwrap().is_some());
    handle.published(Position(7));
    handle.published(Position(3));
    assert_eq!((handle.published_upto(), handle.unpublished()), (Position(7), 3));
    handle.published(Position(99));
    assert_eq!(handle.published_upto(), Position(10), "what does not exist cannot be acknowledged");
    thread.close(SOON).unwrap();

    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    assert_eq!((handle.published_upto(), handle.unpublished()), (Position(10), 0));
    assert_eq!(handle.outbox(handle.published_upto(), 10).unwrap(), []);
    assert_eq!(handle.oldest_unpublished().unwrap(), None);
    let verdict = handle.record(request("top", 0.1)).wait().unwrap();
    assert_eq!(handle.outbox(Position(10), 10).unwrap(), [(Position(11), verdict)]);
    assert_eq!(*handle.tip().borrow(), Position(11));
    thread.close(SOON).unwrap();
}

#[test]
fn the_outbox_reads_across_segments_in_any_step() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    let pending: Vec<_> = (0..4000).map(|_| handle.record(request("top", 0.1))).collect();
    assert!(pending.into_iter().all(|p| p.wait().is_ok()));
    thread.close(SOON).unwrap();
    let segments = fs::read_dir(folder.path().join("store/journal")).unwrap().count();
    assert!(segments > 1, "{segments}");

    let (handle, _thread) = Store::open(&options(folder.path()), "box").unwrap();
    for step in [1, 7, 999, 5000] {
        let mut after = Position(if step == 1 { 3900 } else { 0 });
        let mut seen = after.0;
        loop {
            let read = handle.outbox(after, step).unwrap();
            let Some((last, _)) = read.last() else { break };
            after = *last;
            for (position, verdict) in &read {
                seen += 1;
                assert_eq!((position.0, verdict.sequence), (seen, seen));
            }
        }
        assert_eq!(seen, 4000, "in steps of {step}");
    }
    let again = handle.replay(&"top".parse().unwrap(), (3990, 9999), 100).unwrap();
    assert!(again.iter().map(|v| v.sequence).eq(3990..=4000));
    let again = handle.replay(&"top".parse().unwrap(), (5, 9), 3).unwrap();
    assert!(again.iter().map(|v| v.sequence).eq(5..=7));
    assert!(handle.replay(&"none".parse().unwrap(), (1, 9), 3).unwrap().is_empty());
    let each = |range, most: usize| {
        let mut seen = Vec::new();
        let take = |verdict: Verdict| {
            seen.push(verdict.sequence);
            seen.len() < most
        };
        handle.replay_each(&"top".parse().unwrap(), range, take).unwrap();
        seen
    };
    assert!(each((3, 9999), usize::MAX).into_iter().eq(3..=4000));
    assert!(each((2001, 2003), usize::MAX).into_iter().eq(2001..=2003));
    assert!(each((5, 9), 3).into_iter().eq(5..=7), "no more are read than are taken");
    assert!(each((4001, 9999), usize::MAX).is_empty());
}

#[test]
fn a_trigger_that_a_crash_interrupted_is_answered_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let camera = "top".parse().unwrap();
    let trigger: Trigger = serde_json::from_str(r#"{"part_id":"A1","lot":7}"#).unwrap();
    let at = "2026-01-02T03:04:05Z".parse().unwrap();
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    let first = handle.accept(&camera, &trigger, at).unwrap();
    handle.accept(&camera, &trigger, at).unwrap();
    handle.record(RecordRequest { ticket: Some(first), ..request("top", 0.1) }).wait().unwrap();
    assert_eq!(handle.health().open_triggers, 1);
    thread.close(SOON).unwrap();

    for round in 0..2 {
        let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
        let mut tip = handle.tip();
        while tip.borrow_and_update().0 < 2 {
            std::thread::yield_now();
        }
        let outbox = handle.outbox(Position::START, 10).unwrap();
        assert_eq!(outbox.len(), 2, "in round {round}");
        let verdict = &outbox[1].1;
        assert_eq!((verdict.sequence, verdict.judgement.captured_at), (2, at));
        assert_eq!(verdict.judgement.trigger.as_ref(), Some(&trigger));
        assert!(matches!(&verdict.judgement.outcome, Outcome::Uninspected { reason: Reason::Internal, .. }));
        thread.close(SOON).unwrap();
    }
}

#[test]
fn the_messages_that_triggers_came_in_are_known_after_restarts_and_across_segments() {
    let folder = tempfile::tempdir().unwrap();
    let trigger: Trigger = serde_json::from_value(json!({"text": "x".repeat(60_000)})).unwrap();
    for round in 0..3u16 {
        let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
        assert!(handle.deliveries().iter().map(|d| d.packet).eq(0..30 * round));
        for packet in 30 * round..30 * (round + 1) {
            let delivery = Some(Delivery { session: 1, packet, digest: u64::from(packet) });
            let (camera, at) = ("top".parse().unwrap(), jiff::Timestamp::now());
            let ticket =
                handle.accept_then(Arrival { camera, trigger: trigger.clone(), at, delivery }, || {});
            let ticket = Some(ticket.unwrap());
            handle.record(RecordRequest { ticket, ..request("top", 0.1) }).wait().unwrap();
        }
        thread.close(SOON).unwrap();
    }
    assert!(segment::list(&folder.path().join("store/journal")).unwrap().len() > 3);
}

#[test]
fn a_second_daemon_is_told_who_has_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let (_handle, _thread) = Store::open(&options(folder.path()), "box").unwrap();
    let error = Store::open(&options(folder.path()), "box").unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    assert!(error.contains("store"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("store"), "in the way").unwrap();
    let error = Store::open(&options(folder.path()), "box").unwrap_err();
    assert!(matches!(&error, StoreError::Unusable { path, .. } if path.ends_with("store")), "{error}");
    assert!(error.to_string().contains("this user may write"), "{error}");
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    handle.record(request("top", 0.1)).wait().unwrap();
    thread.close(SOON).unwrap();
    let segment = segment::path(&folder.path().join("store/journal"), 1);
    let mut bytes = fs::read(&segment).unwrap();
    bytes[8] = 9;
    fs::write(&segment, &bytes).unwrap();
    let error = Store::open(&options(folder.path()), "box").unwrap_err();
    assert!(matches!(error, StoreError::NewerFormat { got: 9, known: 1, .. }), "{error}");
    assert_eq!(fs::read(&segment).unwrap(), bytes);
}

#[test]
fn a_judgement_that_json_cannot_hold_is_recorded_as_uninspected() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    let verdict = handle.record(request("top", f32::NAN)).wait().unwrap();
    assert!(matches!(verdict.judgement.outcome, Outcome::Uninspected { reason: Reason::Model, .. }));
    thread.close(SOON).unwrap();
    let (handle, _thread) = Store::open(&options(folder.path()), "box").unwrap();
    assert_eq!(handle.outbox(Position::START, 10).unwrap(), [(Position(1), verdict)]);
}

#[test]
fn restarts_do_not_pile_up_segments() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..5 {
        let (_, thread) = Store::open(&options(folder.path()), "box").unwrap();
        thread.close(SOON).unwrap();
    }
    assert_eq!(fs::read_dir(folder.path().join("store/journal")).unwrap().count(), 0);
}

#[test]
fn evidence_that_cannot_be_written_costs_no_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _thread) = Store::open(&options(folder.path()), "box").unwrap();
    fs::write(folder.path().join("store/evidence/top"), "in the way").unwrap();
    let verdict =
        handle.record(RecordRequest { evidence: evidence(), ..request("top", 0.9) }).wait().unwrap();
    assert_eq!(verdict.evidence, None);
    assert_eq!(handle.health().evidence_lost, 1);
    assert_eq!(handle.health().evidence_waiting, 0);
}

#[test]
fn evidence_beyond_the_queue_is_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { evidence_queue_megabytes: 1, ..options(folder.path()) };
    let (handle, _thread) = Store::open(&options, "box").unwrap();
    let large = || Some(Evidence { picture: vec![7; 900 << 10], extension: "png", heatmap_png: None });
    let pending: Vec<_> =
        (0..50).map(|_| handle.record(RecordRequest { evidence: large(), ..request("top", 0.9) })).collect();
    let kept = pending.into_iter().map(|p| p.wait().unwrap().evidence);
    let kept = kept.flatten().count() as u64;
    assert!(kept >= 1);
    assert_eq!(handle.health().evidence_lost, 50 - kept);
}

#[test]
fn an_outbox_that_cannot_be_read_is_told_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    handle.record(request("top", 0.1)).wait().unwrap();
    thread.close(SOON).unwrap();
    let (handle, _thread) = Store::open(&options(folder.path()), "box").unwrap();
    let segment = segment::path(&folder.path().join("store/journal"), 1);
    let aside = folder.path().join("aside");
    fs::rename(&segment, &aside).unwrap();
    fs::create_dir(&segment).unwrap();
    handle.outbox(Position::START, 10).unwrap_err();
    assert!(handle.health().unread.is_some());
    fs::remove_dir(&segment).unwrap();
    fs::rename(&aside, &segment).unwrap();
    assert_eq!(handle.outbox(Position::START, 10).unwrap().len(), 1);
    assert!(handle.health().unread.is_none());
}

#[test]
fn history_gives_the_newest_that_are_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let (handle, _thread) = Store::open(&options(folder.path()), "box").unwrap();
    let start: jiff::Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
    let pending: Vec<_> = (0..3000u32)
        .map(|n| {
            let mut judgement = judgement(if n % 3 == 0 { "side" } else { "top" }, (n % 10) as f32 / 10.0);
            judgement.captured_at = start + Duration::from_secs(n.into());
            handle.record(RecordRequest { judgement, evidence: None, ticket: None })
        })
        .collect();
    let all: Vec<_> = pending.into_iter().map(|p| p.wait().unwrap()).collect();
    let reader = Reader::open(&folder.path().join("store")).unwrap();
    let side: crate::frame::CameraId = "side".parse().unwrap();
    let after = |n: u64| Some(start + Duration::from_secs(n));
    let queries = [
        Query::default(),
        Query { limit: 0, ..Query::default() },
        Query { limit: usize::MAX, ..Query::default() },
        Query { camera: Some(side.clone()), limit: 7, ..Query::default() },
        Query { since: after(2990), ..Query::default() },
        Query { since: after(10), until: after(20), ..Query::default() },
        Query { decision: Some(crate::verdict::Decision::Anomalous), limit: 1000, ..Query::default() },
        Query { camera: Some(side), since: after(1500), limit: usize::MAX, ..Query::default() },
        Query { since: after(9999), ..Query::default() },
    ];
    for query in queries {
        let wanted = |v: &&crate::verdict::Verdict| {
            query.wants(v.camera().as_str(), v.judgement.captured_at, v.decision())
        };
        let expected: Vec<_> = all.iter().rev().filter(wanted).take(query.limit).cloned().collect();
        assert_eq!(reader.history(&query).unwrap(), expected, "{query:?}");
        assert_eq!(handle.history(&query).unwrap(), expected, "{query:?}");
    }
    assert!(matches!(Reader::open(folder.path()), Err(StoreError::Missing { .. })));
}

#[test]
fn the_files_a_camera_has_judged_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let source = |n: u64| crate::frame::SourceRef { name: format!("{n}.png"), bytes: n, modified_ns: 1 };
    for round in 0..2 {
        let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
        for n in 0..50 {
            let mut request = request(if n % 2 == 0 { "top" } else { "side" }, 0.1);
            request.judgement.source = Some(source(100 * round + n));
            handle.record(request).wait().unwrap();
        }
        let all = (0..200).map(|n| source(n).key()).collect();
        let judged = (0..=round).flat_map(|r| (0..50).step_by(2).map(move |n| source(100 * r + n).key()));
        assert_eq!(handle.judged(&"top".parse().unwrap(), &all), judged.collect());
        thread.close(SOON).unwrap();
    }
}

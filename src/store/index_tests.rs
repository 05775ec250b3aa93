//! The index can be missing, late, damaged or wrong: answers stay right and recording goes on.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::tests::{options, request};
use super::*;
use crate::frame::CameraId;

const SOON: Duration = Duration::from_secs(30);

fn until_indexed(handle: &StoreHandle) {
    let newest = *handle.tip().borrow();
    while !(handle.health().index.ready && handle.health().index.upto == newest) {
        std::thread::yield_now();
    }
}

/// A store with `count` verdicts, indexed and closed.
fn store_of(folder: &Path, count: usize) -> Vec<crate::verdict::Verdict> {
    let (handle, thread) = Store::open(&options(folder), "box").unwrap();
    let verdicts = (0..count)
        .map(|n| {
            let mut request = request(["top", "side"][n % 2], 0.1);
            let name = format!("{n}.png");
            request.judgement.source = Some(crate::frame::SourceRef { name, bytes: 1, modified_ns: 1 });
            handle.record(request)
        })
        .map(|pending| pending.wait().unwrap())
        .collect();
    until_indexed(&handle);
    thread.close(SOON).unwrap();
    verdicts
}

/// Asserts that the store gives the right answers, now and when it is indexed.
fn assert_right(folder: &Path, verdicts: &[crate::verdict::Verdict]) -> IndexHealth {
    let (handle, thread) = Store::open(&options(folder), "box").unwrap();
    let top: CameraId = "top".parse().unwrap();
    let all: Vec<_> = verdicts.iter().rev().cloned().collect();
    let of_top: Vec<_> = all.iter().filter(|v| *v.camera() == top).cloned().collect();
    for _ in 0..2 {
        assert_eq!(handle.history(&Query::default()).unwrap(), all);
        let query = Query { camera: Some(top.clone()), limit: 3, ..Query::default() };
        assert_eq!(handle.history(&query).unwrap(), of_top[..3]);
        let replayed = handle.replay(&top, (2, 1000), 1000).unwrap();
        assert!(replayed.iter().eq(of_top.iter().rev().skip(1)));
        let files = of_top.iter().map(|v| v.judgement.source.as_ref().unwrap().key()).collect();
        assert_eq!(handle.judged(&top, &files), files);
        until_indexed(&handle);
    }
    let health = handle.health().index;
    thread.close(SOON).unwrap();
    health
}

fn index(folder: &Path) -> PathBuf {
    folder.join("store/index")
}

#[test]
fn a_deleted_index_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let verdicts = store_of(folder.path(), 40);
    fs::remove_dir_all(index(folder.path())).unwrap();
    assert_eq!(assert_right(folder.path(), &verdicts).damaged, 0);
    assert!(index(folder.path()).exists());
}

#[test]
fn a_damaged_index_is_put_aside_and_rebuilt_with_an_alarm() {
    let folder = tempfile::tempdir().unwrap();
    let verdicts = store_of(folder.path(), 40);
    let mut damaged = 0;
    for (name, content) in
        [("conf", &b"nonsense"[..]), ("db", &[0xa5; 5000]), ("db", b""), ("conf", &[0xff; 100])]
    {
        fs::write(index(folder.path()).join(name), content).unwrap();
        damaged += assert_right(folder.path(), &verdicts).damaged;
    }
    assert!(damaged > 0);
    assert!(index(folder.path()).with_extension("damaged").exists());
}

#[test]
fn damage_anywhere_in_the_index_never_changes_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let verdicts = store_of(folder.path(), 40);
    let db = index(folder.path()).join("db");
    let whole = fs::read(&db).unwrap();
    let used = whole.iter().rposition(|b| *b != 0).unwrap();
    for at in (0..used).step_by(used / 12) {
        let mut bytes = whole.clone();
        bytes[at..(at + 40).min(used)].fill(0x5a);
        fs::write(&db, &bytes).unwrap();
        assert_right(folder.path(), &verdicts);
    }
}

#[test]
fn damage_under_an_open_index_never_changes_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let mut verdicts = store_of(folder.path(), 400);
    let db = index(folder.path()).join("db");
    let (handle, thread) = Store::open(&options(folder.path()), "box").unwrap();
    until_indexed(&handle);
    // In place: the file that is open, not another one of its name.
    let length = fs::metadata(&db).unwrap().len() as usize;
    fs::OpenOptions::new().write(true).open(&db).unwrap().write_all(&vec![0x5a; length]).unwrap();
    for n in 0..400 {
        let all: Vec<_> = verdicts.iter().rev().cloned().collect();
        if n % 20 == 0 {
            assert_eq!(
                handle.history(&Query::default()).unwrap(),
                all[..Query::default().limit.min(all.len())]
            );
            assert_eq!(handle.replay(&"top".parse().unwrap(), (2, 20), 1000).unwrap().len(), 19);
        }
        verdicts.push(handle.record(request("top", 0.1)).wait().unwrap());
    }
    until_indexed(&handle);
    thread.close(SOON).unwrap();
}

#[test]
fn a_panic_inside_sled_is_a_fault_of_the_index() {
    let text = index::guarded(|| -> Result<(), _> { panic!("page {} is missing", 7) });
    assert_eq!(text, Err("sled panicked: page 7 is missing".into()));
    let literal = index::guarded(|| -> Result<(), _> { panic!("a literal") });
    assert_eq!(literal, Err("sled panicked: a literal".into()));
    assert_eq!(index::guarded(|| Ok(7)), Ok(7));
}

#[test]
fn an_index_of_another_store_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let verdicts = store_of(folder.path(), 10);
    store_of(other.path(), 30);
    fs::remove_dir_all(index(folder.path())).unwrap();
    fs::rename(index(other.path()), index(folder.path())).unwrap();
    assert_eq!(assert_right(folder.path(), &verdicts).damaged, 1);
}

#[test]
fn an_index_that_was_open_when_the_machine_went_down_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    let verdicts = store_of(folder.path(), 10);
    let stamp = index(folder.path()).join("left behind");
    fs::write(&stamp, "").unwrap();
    fs::write(folder.path().join("store/index.boot"), "another boot").unwrap();
    assert_eq!(assert_right(folder.path(), &verdicts).damaged, 0);
    assert!(!stamp.exists());
    assert!(!folder.path().join("store/index.boot").exists());
}

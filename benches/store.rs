//! What durability costs: verdicts a second, and the time from handing one over until it is on disk.
//!
//! `cargo bench --bench store [-- FOLDER]`; the folder decides which disk is measured, by default the current one's.
//! `cargo bench --bench store -- million [FOLDER]` writes a million verdicts, asks questions of them with and without the
//! index, and has retention give the space back; it takes some minutes.

#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inspectord::frame::{CameraId, FileKey};
use inspectord::store::{Evidence, Options, Position, Query, RecordRequest, Store, StoreHandle};
use inspectord::verdict::{Decision, Finding, Judgement, ModelRef, Outcome, Score, Threshold, Timings};

/// Verdicts a second that a busy box makes.
const RATE: u32 = 500;
const SECONDS: u32 = 10;
const LONG: Duration = Duration::from_secs(60);

fn request(n: u32, picture: Option<&[u8]>) -> RecordRequest {
    let score = Score(if picture.is_some() { 0.9 } else { 0.1 });
    let judgement = Judgement {
        camera: format!("camera{}", n % 8).parse().expect("a legal name"),
        captured_at: jiff::Timestamp::now(),
        outcome: Outcome::Inspected(Finding {
            score,
            threshold: Threshold(0.5),
            peak: [1, 2],
            regions: Vec::new(),
            model: ModelRef { name: "bottle".into(), version: "0123456789ab".into() },
        }),
        timings: Timings::default(),
        trigger: None,
        views: None,
        source: None,
        other_sources: Vec::new(),
    };
    let evidence = picture.map(|picture| Evidence {
        picture: picture.to_vec(),
        extension: "png",
        heatmap_png: Some(picture.to_vec()),
    });
    RecordRequest { judgement, evidence, ticket: None }
}

/// Hands over verdicts at a steady rate, every `every`th with evidence; milliseconds until durable, sorted.
fn latencies(handle: &StoreHandle, every: Option<u32>) -> Vec<f64> {
    let picture = vec![0x5a; 200 << 10];
    let times = Arc::new(Mutex::new(Vec::new()));
    let start = Instant::now();
    let mut last = None;
    for n in 0..RATE * SECONDS {
        let due = start + Duration::from_secs(1) * n / RATE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let evidence = every.is_some_and(|every| n % every == 0).then_some(&picture[..]);
        let (times, (sender, durable)) = (times.clone(), std::sync::mpsc::channel());
        let handed = Instant::now();
        handle.record_then(request(n, evidence), move |verdict| {
            verdict.expect("the disk works");
            times.lock().expect("nobody panics").push(handed.elapsed().as_secs_f64() * 1e3);
            let _nobody_waits = sender.send(());
        });
        last = Some(durable);
    }
    last.expect("some were recorded").recv().expect("the last is durable");
    let mut times = std::mem::take(&mut *times.lock().expect("nobody panics"));
    times.sort_by(f64::total_cmp);
    times
}

fn report(what: &str, times: &[f64]) {
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
    println!(
        "{what}: p50 {:.2} ms, p99 {:.2} ms, worst {:.2} ms ({} verdicts)",
        at(0.5),
        at(0.99),
        at(1.0),
        times.len()
    );
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let million = arguments.first().is_some_and(|arg| arg == "million");
    let folder = arguments.get(usize::from(million)).map_or_else(
        || std::env::current_dir().expect("there is a current folder").join("target"),
        PathBuf::from,
    );
    let folder = tempfile::tempdir_in(folder).expect("the folder can be written");
    let options = Options { path: folder.path().join("store"), min_free_megabytes: 0, ..Options::default() };
    if million { a_million(&options) } else { durability(&options) }
}

fn durability(options: &Options) {
    let (handle, thread) = Store::open(options, "bench").expect("the store opens");
    record_many(&handle, 50_000);
    report("500 verdicts/s", &latencies(&handle, None));
    report("500 verdicts/s, 5 of them with 400 KiB of evidence", &latencies(&handle, Some(100)));
    timed("closing", || thread.close(LONG).expect("everything is written"));
    let (_handle, thread) = timed("opening again", || Store::open(options, "bench").expect("it opens"));
    thread.close(LONG).expect("everything is written");
}

fn record_many(handle: &StoreHandle, count: u32) {
    let start = Instant::now();
    let mut last = None;
    for n in 0..count {
        last = Some(handle.record(request(n, None)));
    }
    last.expect("some were recorded").wait().expect("the disk works");
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    println!("as fast as it goes: {rate:.0} durable verdicts/s over {count}");
}

fn a_million(options: &Options) {
    let (handle, thread) = Store::open(options, "bench").expect("the store opens");
    record_many(&handle, 1_000_000);
    timed("indexing the rest", || until(|| is_indexed(&handle)));
    sizes(options);
    questions("with the index", &handle);
    timed("closing", || thread.close(LONG).expect("everything is written"));

    std::fs::remove_dir_all(options.path.join("index")).expect("the index can be deleted");
    let (handle, thread) =
        timed("opening without the index", || Store::open(options, "bench").expect("it opens"));
    questions("while it is rebuilt", &handle);
    timed("rebuilding the rest of the index", || until(|| is_indexed(&handle)));
    let drain = Instant::now();
    let mut after = Position::START;
    while let Some((last, _)) = handle.outbox(after, 1000).expect("the journal can be read").pop() {
        after = last;
    }
    let rate = after.0 as f64 / drain.elapsed().as_secs_f64();
    println!("reading the backlog: {rate:.0} verdicts/s; resident {} MiB", resident() >> 20);
    handle.published(after);
    thread.close(LONG).expect("everything is written");

    let small = Options { max_megabytes: 64, ..options.clone() };
    let (handle, thread) = Store::open(&small, "bench").expect("it opens");
    timed("making room", || until(|| folder_bytes(&options.path) <= 64 << 20));
    sizes(options);
    println!("segments deleted: {}", handle.health().segments_deleted);
    thread.close(LONG).expect("everything is written");
}

fn questions(when: &str, handle: &StoreHandle) {
    let camera: CameraId = "camera3".parse().expect("a legal name");
    let one = Query { camera: Some(camera.clone()), limit: 50, ..Query::default() };
    timed(&format!("50 newest of a camera, {when}"), || handle.history(&one).expect("it answers"));
    let rare = Query { decision: Some(Decision::Anomalous), ..Query::default() };
    timed(&format!("anomalies, of which there are none, {when}"), || {
        handle.history(&rare).expect("it answers")
    });
    timed(&format!("replay of 100 old ones, {when}"), || {
        handle.replay(&camera, (1000, 1099), 100).expect("it answers")
    });
    let files = (0..100_000_u128).map(|n| FileKey(n.to_le_bytes())).collect();
    timed(&format!("100,000 files, of which none is judged, {when}"), || handle.judged(&camera, &files));
}

fn is_indexed(handle: &StoreHandle) -> bool {
    let index = handle.health().index;
    index.ready && index.upto == *handle.tip().borrow()
}

fn until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    println!("{what}: {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
    result
}

fn sizes(options: &Options) {
    let size = |name: &str| folder_bytes(&options.path.join(name)) >> 20;
    let (journal, index) = (size("journal"), size("index"));
    println!("journal {journal} MiB, index {index} MiB, resident {} MiB", resident() >> 20);
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => folder_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

/// Bytes of memory that this process holds.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    4096 * pages.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0)
}

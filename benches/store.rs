//! What durability costs: verdicts a second, and the time from handing one over until it is on disk.
//!
//! `cargo bench --bench store [-- FOLDER]`; the folder decides which disk is measured, by default the current one's.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inspectord::store::{Evidence, Options, RecordRequest, Store, StoreHandle};
use inspectord::verdict::{Finding, Judgement, ModelRef, Outcome, Score, Threshold, Timings};

/// Verdicts a second that a busy box makes.
const RATE: u32 = 500;
const SECONDS: u32 = 10;

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
        source: None,
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
    let folder = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).map_or_else(
        || std::env::current_dir().expect("there is a current folder").join("target"),
        PathBuf::from,
    );
    let folder = tempfile::tempdir_in(folder).expect("the folder can be written");
    let options = Options { path: folder.path().join("store"), min_free_megabytes: 0, ..Options::default() };
    let (handle, thread) = Store::open(&options, "bench").expect("the store opens");

    let count = 50_000u32;
    let start = Instant::now();
    let pending: Vec<_> = (0..count).map(|n| handle.record(request(n, None))).collect();
    for pending in pending {
        pending.wait().expect("the disk works");
    }
    println!(
        "as fast as it goes: {:.0} durable verdicts/s",
        f64::from(count) / start.elapsed().as_secs_f64()
    );
    report("500 verdicts/s", &latencies(&handle, None));
    report("500 verdicts/s, 5 of them with 400 KiB of evidence", &latencies(&handle, Some(100)));

    let start = Instant::now();
    thread.close(Duration::from_secs(60)).expect("everything is written");
    println!("closing: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    let (_handle, thread) = Store::open(&options, "bench").expect("the store opens again");
    println!("opening again: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    thread.close(Duration::from_secs(60)).expect("everything is written");
}

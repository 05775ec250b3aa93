//! The store and real processes: killed with SIGKILL while writing, opened twice, read beside a running writer.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use inspectord::store::{Evidence, Options, Position, Query, Reader, RecordRequest, Store, StoreError};
use inspectord::verdict::{
    Finding, Judgement, ModelRef, Outcome, Score, Threshold, Timings, Trigger, Verdict,
};

/// Tells the writing process where its store is.
const FOLDER: &str = "INSPECTORD_TEST_STORE";
const CAMERAS: [&str; 3] = ["top", "side", "end"];

fn options(folder: &Path) -> Options {
    Options { path: folder.to_owned(), min_free_megabytes: 0, segment_megabytes: 1, ..Options::default() }
}

fn judgement(camera: &str, score: f32) -> Judgement {
    Judgement {
        camera: camera.parse().unwrap(),
        captured_at: jiff::Timestamp::now(),
        outcome: Outcome::Inspected(Finding {
            score: Score(score),
            threshold: Threshold(0.5),
            peak: [1, 2],
            regions: Vec::new(),
            model: ModelRef { name: "bottle".into(), version: "0123456789ab".into() },
        }),
        timings: Timings::default(),
        trigger: None,
        views: None,
        other_sources: Vec::new(),
        source: None,
    }
}

/// The writing process, not a test: records for ever and prints `camera sequence id` once each is durable.
#[test]
#[ignore = "run by the tests that kill it"]
fn writes_until_killed() {
    let folder = std::env::var_os(FOLDER).unwrap();
    let (handle, _thread) = Store::open(&options(Path::new(&folder)), "box").unwrap();
    let mut published = Position::START;
    for n in 0u64.. {
        let camera = CAMERAS[n as usize % 3];
        let trigger = Trigger { part_id: Some(n.to_string()), ..Trigger::default() };
        let anomalous = n % 7 == 0;
        let mut judgement = judgement(camera, if anomalous { 0.9 } else { 0.1 });
        let ticket = loop {
            match handle.accept(&judgement.camera, &trigger, judgement.captured_at) {
                Ok(ticket) => break ticket,
                Err(StoreError::TooLarge { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        judgement.trigger = Some(trigger);
        let picture = vec![n as u8; 20_000];
        let evidence = anomalous.then_some(Evidence { picture, extension: "png", heatmap_png: None });
        let request = RecordRequest { judgement, evidence, ticket: Some(ticket) };
        handle.record_then(request, |verdict| {
            let verdict = verdict.unwrap();
            println!("durable {} {} {}", verdict.camera(), verdict.sequence, verdict.id);
        });
        if n % 50 == 0 {
            published = published.max(*handle.tip().borrow());
            handle.published(published);
        }
    }
}

struct Writer(Child);

impl Writer {
    fn start(folder: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["store::writes_until_killed", "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// What it says is durable, at least `count`, until it is killed.
    fn kill_after(mut self, count: usize) -> Vec<(String, u64, String)> {
        let out = BufReader::new(self.0.stdout.take().unwrap());
        let mut durable = Vec::new();
        for line in out.lines() {
            let Ok(line) = line else { break };
            let words: Vec<_> = line.split_whitespace().collect();
            // The test harness says things of its own, also on the same line.
            if let Some(at) = words.iter().position(|word| *word == "durable")
                && let [camera, sequence, id] = words[at + 1..]
            {
                durable.push((camera.to_owned(), sequence.parse().unwrap(), id.to_owned()));
            }
            if durable.len() == count {
                self.0.kill().unwrap();
            }
        }
        durable
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

fn outbox(folder: &Path) -> Vec<Verdict> {
    let (handle, thread) = Store::open(&options(folder), "box").unwrap();
    let mut verdicts: Vec<Verdict> = Vec::new();
    let mut after = Position::START;
    loop {
        let read = handle.outbox(after, 1000).unwrap();
        let Some((last, _)) = read.last() else { break };
        assert_eq!(read[0].0.0, after.0 + 1);
        after = *last;
        verdicts.extend(read.into_iter().map(|(_, verdict)| verdict));
    }
    thread.close(Duration::from_secs(60)).unwrap();
    verdicts
}

#[test]
fn nothing_durable_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("store");
    let mut durable = Vec::new();
    for count in [1, 300, 37, 900] {
        durable.extend(Writer::start(&folder).kill_after(count));
    }
    let verdicts = outbox(&folder);
    let by_id: HashMap<_, _> = verdicts.iter().map(|v| (v.id.to_string(), v)).collect();
    assert_eq!(by_id.len(), verdicts.len(), "no verdict is there twice");
    for (camera, sequence, id) in &durable {
        let verdict = by_id.get(id).unwrap_or_else(|| panic!("{camera} {sequence} was durable and is lost"));
        assert_eq!((verdict.camera().as_str(), verdict.sequence), (camera.as_str(), *sequence));
    }
    for camera in CAMERAS {
        let sequences = verdicts.iter().filter(|v| v.camera().as_str() == camera).map(|v| v.sequence);
        assert!(sequences.eq(1..=verdicts.iter().filter(|v| v.camera().as_str() == camera).count() as u64));
    }
    let mut kept = 0;
    for verdict in &verdicts {
        if let Some(place) = &verdict.evidence {
            let picture = std::fs::read(folder.join(place).join("picture.png")).unwrap();
            assert_eq!(picture.len(), 20_000);
            kept += 1;
        }
    }
    assert!(kept > 100, "{kept}");
}

#[test]
fn a_store_in_use_can_be_read_and_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("store");
    let mut writer = Writer::start(&folder);
    let reader = loop {
        match Reader::open(&folder) {
            Ok(reader) if reader.history(&Query::default()).unwrap().len() >= 50 => break reader,
            Ok(_) | Err(StoreError::Missing { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    let error = Store::open(&options(&folder), "box").unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", writer.0.id())), "{error}");
    let query = Query { camera: Some("top".parse().unwrap()), limit: 20, ..Query::default() };
    for _ in 0..20 {
        let verdicts = reader.history(&query).unwrap();
        let newest = verdicts[0].sequence;
        assert!(verdicts.iter().map(|v| v.sequence).eq((newest - 19..=newest).rev()));
    }
    writer.0.kill().unwrap();
}

//! Every way in from outside, with thousands of damaged examples: no panic, no bound broken. The same claims are put to
//! more by the targets in `fuzz/`.

use std::fs;
use std::path::Path;

use inspectord::detector::untrained;
use inspectord::efficientad::{Architecture, PdnSize};
use inspectord::frame::Size;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

#[path = "../../fuzz/claims.rs"]
mod claims;

/// Puts `claim` to the examples and to `times` damaged ones; says which made it fail.
fn try_out(claim: fn(&[u8]), examples: &[Vec<u8>], times: usize) {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    examples.iter().for_each(|example| claim(example));
    for round in 0..times {
        let bytes = damaged(examples, &mut random);
        let held = std::panic::catch_unwind(|| claim(&bytes));
        assert!(held.is_ok(), "round {round} broke it: {}", String::from_utf8_lossy(&bytes));
    }
}

fn damaged(examples: &[Vec<u8>], random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = examples.choose(random).unwrap().clone();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => {
                bytes[at] = *[0, 1, 0x7f, 0x80, 0xff, b'"', b'-', b'9'].choose(random).unwrap()
            }
            2 => bytes.truncate(at),
            3 => {
                let other = examples.choose(random).unwrap();
                let from = random.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            4 => {
                let to = (at + random.random_range(0..64)).min(bytes.len());
                let piece = bytes[at..to].to_vec();
                bytes.splice(at..at, piece);
            }
            _ => {
                let to = (at + random.random_range(0..16)).min(bytes.len());
                bytes.drain(at..to);
            }
        }
    }
    bytes
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

#[test]
fn no_trigger_or_command_breaks_its_bounds() {
    let examples = texts(&[
        r#"{"part_id":"A-17","deadline_ms":250,"order":88231,"lot":{"no":[1,2.5e3,null,true]}}"#,
        r#"{"id":"r1","command":"replay","from":1,"to":99}"#,
        r#"{"id":"r2","command":"threshold","value":0.4}"#,
        r#"{"id":"r3","command":"activate","name":"bottle-2"}"#,
        "{\"part_id\":\"\\ud83d\\ude00\",\"a\":1e308,\"b\":-0.0,\"c\":18446744073709551615}",
    ]);
    try_out(claims::request, &examples, 20_000);
}

#[test]
fn no_settings_make_it_panic() {
    let shipped = fs::read_to_string("config/inspectord.toml").unwrap();
    let small = "[box]\nname = \"b\"\n[[camera]]\nname = \"top\"\nmodel = \"m\"\ntrigger = \"software\"\n\
                 source = { kind = \"simulated\", rate = 2 }\nregion = [0, 0, 10, 10]\n[mqtt]\nhost = \"h\"\n\
                 inflight = 7\n[store]\npath = \"s\"\nkeep_days = 3\n";
    let examples = texts(&[
        &shipped,
        small,
        &format!("{small}\ncamera[0].threshold=0.4"),
        &format!("{small}\nmqtt.port=1"),
    ]);
    try_out(claims::settings, &examples, 1500);
}

#[test]
fn no_picture_breaks_the_bounds_of_pictures() {
    let files = fs::read_dir("tests/goldens/pictures").unwrap().flatten();
    let pictures = files.filter(|file| file.metadata().unwrap().len() < 60_000);
    let examples: Vec<_> = pictures.map(|file| fs::read(file.path()).unwrap()).collect();
    assert!(examples.len() > 10);
    try_out(claims::picture, &examples, 4000);
}

#[test]
fn no_recorded_verdict_names_evidence_outside_the_store() {
    let verdict = |evidence: &str| {
        format!(
            r#"{{"schema":1,"id":"019a4c2e-77f1-7b3c-9f0e-0c5d1e2f3a4b","box":"b","camera":"top","sequence":7,
            "part_id":"p","captured_at":"2026-11-02T06:12:09.731Z","decision":"anomalous","reason":null,"detail":null,
            "score":0.83,"threshold":0.41,"model":{{"name":"m","version":"1"}},"peak":[4,2],"regions":[],
            "evidence":{evidence},"timings_ms":{{"capture":1.0,"queue":0.0,"prepare":1.0,"infer":1.0,"total":3.0}},
            "trigger":{{"part_id":"p"}}}}"#
        )
    };
    let examples =
        [r#""evidence/top/2026-11-02/7-x""#, r#""../../etc""#, r#""/etc""#, r#""a/./b/../..""#, "null"];
    let mut examples: Vec<_> = examples.iter().map(|e| verdict(e).into_bytes()).collect();
    examples.extend(texts(&["top", "..", "a/b", "a.b-c_d", ""]));
    try_out(claims::evidence, &examples, 20_000);
}

#[test]
fn no_forged_bundle_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let architecture = Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap();
    untrained::model(&architecture, 1).save(&folder.path().join("model")).unwrap();
    let read = |name: &str| fs::read(folder.path().join("model").join(name)).unwrap();
    let (manifest, tensors) = (read("manifest.json"), read("model.safetensors"));
    // The beginning of the tensors is what says how large each is.
    let joined = |tensors: &[u8]| {
        let length = u16::try_from(manifest.len()).unwrap().to_le_bytes();
        [&length[..], &manifest, tensors].concat()
    };
    let header = usize::try_from(u64::from_le_bytes(tensors[..8].try_into().unwrap())).unwrap() + 8;
    claims::bundle(&joined(&tensors));
    try_out(
        claims::bundle,
        &[joined(&tensors[..header + 64]), joined(&tensors[..header]), joined(b"")],
        3000,
    );
    assert!(Path::new("fuzz/claims.rs").exists());
}

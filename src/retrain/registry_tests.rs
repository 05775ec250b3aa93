//! Versions and their pointer: what is activated runs, the way back stays open, and a power cut leaves one of them.

use std::fs;

use super::error::RetrainError;
use super::home::Home;
use super::registry::{Registry, Standing};
use super::report::Report;
use crate::detector::untrained;
use crate::efficientad::{Architecture, CalibratedModel, PdnSize};
use crate::frame::Size;

fn model(seed: u64) -> CalibratedModel {
    untrained::model(&Architecture::new(PdnSize::Tiny, Size::new(256, 256)).unwrap(), seed)
}

struct Shelf {
    root: tempfile::TempDir,
    registry: Registry,
}

impl Shelf {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        model(0).save(&root.path().join("base")).unwrap();
        let home = Home::new(&root.path().join("retrain"), &"top".parse().unwrap());
        let registry = Registry::new(&home, &root.path().join("base"));
        Self { root, registry }
    }

    fn add(&self, seed: u64, accepted: bool) -> String {
        let report = Report { accepted, ..Report::default() };
        self.registry.add(&model(seed), &report).unwrap().version
    }

    fn runs(&self) -> String {
        self.registry.load_active().unwrap().model_ref().version
    }
}

#[test]
fn versions_are_activated_and_rolled_back_to_the_base() {
    let shelf = Shelf::new();
    let base = shelf.runs();
    let (one, two) = (shelf.add(1, true), shelf.add(2, false));
    assert_eq!(shelf.runs(), base);
    shelf.registry.activate(&one).unwrap();
    shelf.registry.activate(&two[..8]).unwrap();
    assert_eq!(shelf.runs(), two);
    let standings: Vec<_> =
        shelf.registry.list().unwrap().into_iter().map(|v| (v.version, v.standing)).collect();
    assert_eq!(standings[0], (base.clone(), Standing::Accepted));
    assert!(standings.contains(&(two, Standing::Active)));
    assert_eq!(shelf.registry.rollback().unwrap().version, one);
    assert_eq!(shelf.registry.rollback().unwrap().version, base);
    assert!(matches!(shelf.registry.rollback(), Err(RetrainError::NothingBefore(_))));
    assert_eq!(shelf.runs(), base);
}

#[test]
fn what_cannot_run_is_refused_with_a_remedy() {
    let shelf = Shelf::new();
    let one = shelf.add(1, true);
    let error = shelf.registry.activate("nothing").unwrap_err().to_string();
    assert!(error.contains(&one) && error.contains("`top`"), "{error}");
    let wide = Architecture::new(PdnSize::Tiny, Size::new(260, 256)).unwrap();
    let wide = shelf.registry.add(&untrained::model(&wide, 3), &Report::default()).unwrap();
    let error = shelf.registry.activate(&wide.version).unwrap_err().to_string();
    assert!(error.contains("260x256") && error.contains("restart"), "{error}");
    fs::write(shelf.registry.home().versions().join(&one).join("model.safetensors"), "cut").unwrap();
    assert!(shelf.registry.activate(&one).is_err());
}

#[test]
fn a_pointer_counts_only_for_the_bundle_it_was_written_for() {
    let shelf = Shelf::new();
    let one = shelf.add(1, true);
    shelf.registry.activate(&one).unwrap();
    assert_eq!(shelf.runs(), one);
    model(9).save(&shelf.root.path().join("base")).unwrap();
    assert_eq!(shelf.runs(), model(9).model_ref().version);
}

#[test]
fn whatever_a_power_cut_leaves_there_is_exactly_one_active_version() {
    let shelf = Shelf::new();
    let (base, one, two) = (shelf.runs(), shelf.add(1, true), shelf.add(2, true));
    shelf.registry.activate(&one).unwrap();
    let before = fs::read(shelf.registry.home().pointer()).unwrap();
    shelf.registry.activate(&two).unwrap();
    let after = fs::read(shelf.registry.home().pointer()).unwrap();
    // The rename has happened or it has not; beside the pointer may lie any beginning of the next one.
    let beside = shelf.registry.home().pointer().with_file_name(".active.json.1.tmp");
    for length in (0..after.len()).step_by(11) {
        fs::write(&beside, &after[..length]).unwrap();
        fs::write(shelf.registry.home().pointer(), &before).unwrap();
        assert_eq!(shelf.runs(), one);
    }
    fs::write(shelf.registry.home().pointer(), &after).unwrap();
    assert_eq!(shelf.runs(), two);
    // A disk that breaks its promise is not what the pointer can mend; the line inspects all the same.
    fs::write(shelf.registry.home().pointer(), &after[..20]).unwrap();
    assert_eq!(shelf.runs(), base);
    fs::write(shelf.registry.home().pointer(), &after).unwrap();
    fs::remove_dir_all(shelf.registry.home().versions().join(&two)).unwrap();
    assert_eq!(shelf.runs(), base);
}

#[test]
fn old_versions_go_but_never_the_active_one_or_the_way_back() {
    let shelf = Shelf::new();
    let versions: Vec<String> = (1..=6).map(|seed| shelf.add(seed, true)).collect();
    shelf.registry.activate(&versions[0]).unwrap();
    shelf.registry.activate(&versions[1]).unwrap();
    shelf.registry.prune(3).unwrap();
    let left: Vec<String> =
        shelf.registry.list().unwrap().into_iter().filter(|v| !v.base).map(|v| v.version).collect();
    assert_eq!(left, [&versions[0], &versions[1], &versions[5]].map(String::clone));
    assert_eq!(shelf.registry.rollback().unwrap().version, versions[0]);
}

#[test]
fn the_version_that_was_just_made_is_kept_for_looking_at_however_few_are_kept() {
    let shelf = Shelf::new();
    let versions: Vec<String> = (1..=4).map(|seed| shelf.add(seed, true)).collect();
    shelf.registry.activate(&versions[1]).unwrap();
    shelf.registry.activate(&versions[2]).unwrap();
    shelf.registry.prune(2).unwrap();
    assert!(shelf.registry.find(&versions[3]).is_ok());
    assert!(shelf.registry.find(&versions[0]).is_err());
}

#[test]
fn the_way_back_ends_at_the_base_also_where_the_versions_between_are_gone() {
    let shelf = Shelf::new();
    let (base, one) = (shelf.runs(), shelf.add(1, true));
    shelf.registry.activate(&one).unwrap();
    let path = shelf.registry.home().pointer();
    let pointer = fs::read_to_string(&path).unwrap();
    let mut pointer: serde_json::Value = serde_json::from_str(&pointer).unwrap();
    pointer["before"] = ["a1b2c3", "d4e5f6"].as_slice().into();
    fs::write(&path, pointer.to_string()).unwrap();
    assert_eq!(shelf.registry.rollback().unwrap().version, base);
    let error = shelf.registry.rollback().unwrap_err().to_string();
    assert!(error.contains("no version that ran before it is left"), "{error}");
}

#[test]
fn a_version_replaces_what_it_was_held_against_and_nothing_else() {
    let shelf = Shelf::new();
    let (base, one, two) = (shelf.runs(), shelf.add(1, true), shelf.add(2, true));
    assert_eq!(shelf.registry.replace(&base, &one).unwrap(), None);
    assert_eq!(shelf.registry.replace(&base, &two).unwrap(), Some(one.clone()));
    assert_eq!(shelf.runs(), one);
    // What runs where the active version is damaged is the base, and that is what a new one was held against.
    fs::write(shelf.registry.home().versions().join(&one).join("model.safetensors"), "cut").unwrap();
    assert_eq!(shelf.registry.replace(&base, &two).unwrap(), None);
    assert_eq!(shelf.runs(), two);
}

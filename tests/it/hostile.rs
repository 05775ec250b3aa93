//! Bad input through the binary: each is refused with an exit code, and a message that names the thing and the remedy.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::inspectord::{self, Ended, arg};

/// A folder with settings that are without fault but for what a test adds.
struct Bench {
    folder: TempDir,
}

impl Bench {
    fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("models")).unwrap();
        fs::create_dir_all(folder.path().join("pictures")).unwrap();
        let common = "[box]\nname = \"bench\"\nmodels = \"models\"\n[[camera]]\nname = \"top\"\nmodel = \"bottle\"\n\
                      source = { kind = \"folder\", path = \"pictures\" }\n";
        fs::write(folder.path().join("inspectord.toml"), format!("{common}{settings}")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn check(&self) -> Ended {
        inspectord::run(&["check", "--config", arg(&self.path("inspectord.toml"))])
    }
}

#[test]
fn a_missing_settings_file_is_named_with_the_way_to_another() {
    let ended = inspectord::run(&["check", "--config", "/nowhere/inspectord.toml"]);
    ended.refuses(2, &["/nowhere/inspectord.toml", "--config", "No such file"]);
}

#[test]
fn an_unknown_key_is_named_with_the_one_that_was_meant() {
    let bench = Bench::new("[mqtt]\nhots = \"broker\"\n[store]\nkeep_dais = 3\n");
    bench.check().refuses(2, &["mqtt.hots", "did you mean `host`?", "store.keep_dais", "`keep_days`"]);
}

#[test]
fn a_missing_model_is_named_with_the_command_that_makes_one() {
    let bench = Bench::new("");
    bench.check().refuses(2, &["camera[0].model", arg(&bench.path("models/bottle")), "inspectord train"]);
}

#[test]
fn wrong_usage_is_told_from_failure() {
    inspectord::run(&["chekc"]).refuses(2, &["chekc", "check"]);
    inspectord::run(&["check", "--jsno"]).refuses(2, &["--jsno", "--json"]);
    assert_eq!(inspectord::run(&["--version"]).code, Some(0));
}

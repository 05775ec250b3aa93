//! The house rules that the compiler does not know: who may import whom, and what every file owes its reader.
//!
//! The table is `ARCHITECTURE.md`'s; test modules may import what they like.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const VOCABULARY: &[&str] = &[
    "frame",
    "verdict",
    "health",
    "clock",
    "backoff",
    "durable",
    "lockfile",
    "delivery",
    "runtime",
    "shutdown",
    "telemetry",
];
const EDGES: &[&str] = &["camera", "publish", "store", "systemd"];

/// What each room may import beside the vocabulary; the command line may import everything.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("frame", &[]),
    ("verdict", &[]),
    ("health", &[]),
    ("clock", &[]),
    ("backoff", &[]),
    ("durable", &[]),
    ("lockfile", &[]),
    ("delivery", &[]),
    ("runtime", &[]),
    ("shutdown", &[]),
    ("telemetry", &[]),
    ("efficientad", &[]),
    ("imaging", &[]),
    ("detector", &["efficientad", "imaging"]),
    ("training", &["efficientad", "imaging"]),
    ("camera", &["imaging"]),
    ("publish", &[]),
    ("store", &[]),
    ("systemd", &[]),
    (
        "pipeline",
        &["efficientad", "imaging", "detector", "training", "camera", "publish", "store", "systemd"],
    ),
    ("retrain", &["efficientad", "imaging", "detector", "training", "camera"]),
    ("web", &["efficientad", "imaging", "detector", "training", "camera", "publish", "store", "systemd"]),
    (
        "settings",
        &[
            "efficientad",
            "imaging",
            "detector",
            "training",
            "camera",
            "publish",
            "store",
            "pipeline",
            "retrain",
            "web",
        ],
    ),
];
const MAY_IMPORT_EVERYTHING: &[&str] = &["cli", "main", "lib"];

/// The longest file, in lines, and those that are longer for a reason.
const MAX_LINES: usize = 450;
const LONGER: &[(&str, &str)] = &[];

struct Source {
    path: PathBuf,
    text: String,
    /// Without test modules and comments.
    code: String,
}

impl Source {
    fn name(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// The path's parts below `src`.
    fn parts(&self) -> Vec<String> {
        let below = self.path.strip_prefix("src").unwrap().with_extension("");
        below.iter().map(|part| part.to_string_lossy().into_owned()).collect()
    }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn read(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    files(&root.join(folder), &mut paths);
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(root).unwrap().to_owned(), text)
        })
        .collect()
}

/// The product's sources: `src` without the files that are compiled for tests only.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut tests = BTreeSet::new();
    for (path, text) in read("src") {
        let (code, test_modules) = product_code(&text);
        let stem = path.file_stem().unwrap().to_string_lossy();
        let is_root = matches!(stem.as_ref(), "mod" | "lib" | "main");
        let folder = if is_root { path.parent().unwrap().to_owned() } else { path.with_extension("") };
        tests.extend(test_modules.into_iter().map(|module| folder.join(module)));
        sources.push(Source { path, text, code });
    }
    let of_test = |path: &Path| path.with_extension("").ancestors().any(|a| tests.contains(a));
    sources.retain(|source| !of_test(&source.path));
    assert!(sources.len() > 20, "the sources were not found");
    sources
}

/// The code without comments and test modules, and the names of test modules that have files of their own. Relies on
/// rustfmt: a module's closing brace stands as far in as its opening line.
fn product_code(text: &str) -> (String, Vec<String>) {
    let mut code = String::new();
    let mut test_modules = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("//") {
            continue;
        }
        if line.trim() != "#[cfg(test)]" {
            code += line.split(" // ").next().unwrap_or_default();
            code.push('\n');
            continue;
        }
        let Some(item) = lines.by_ref().find(|l| !l.trim_start().starts_with("#[")) else { break };
        if let Some(name) = item.trim().strip_suffix(';').and_then(|i| i.rsplit_once("mod ")) {
            test_modules.push(name.1.to_owned());
        } else if item.trim_end().ends_with('{') {
            let indent = &item[..item.len() - item.trim_start().len()];
            let end = format!("{indent}}}");
            lines.by_ref().find(|l| *l == end);
        }
    }
    (code, test_modules)
}

/// The rooms that `code` names as `crate::room` or `crate::{room, …}`.
fn rooms_named(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    for (at, marker) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + marker.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            rooms.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        let mut first = true;
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => first = true,
                c if first && !c.is_whitespace() => {
                    rooms.insert(word(&group[i..]));
                    first = false;
                }
                _ => {}
            }
        }
    }
    rooms
}

#[test]
fn rooms_import_downwards_only() {
    let mut wrong = Vec::new();
    for source in sources() {
        let parts = source.parts();
        let room = parts[0].as_str();
        if MAY_IMPORT_EVERYTHING.contains(&room) {
            continue;
        }
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("{}: the room `{room}` has no place in the table of layers", source.name()));
            continue;
        };
        for named in rooms_named(&source.code) {
            let fine = named == room || VOCABULARY.contains(&&*named) || allowed.contains(&&*named);
            if !fine {
                wrong.push(format!("{}: `{room}` must not import `{named}`", source.name()));
            }
        }
        let depth = parts.iter().filter(|part| *part != "mod").count();
        if source.code.contains(&"super::".repeat(depth)) {
            wrong.push(format!("{}: leaves its room by `super`; say `crate::`", source.name()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_edges_know_nothing_of_each_other() {
    for edge in EDGES {
        let (_, allowed) = MAY_IMPORT.iter().find(|(name, _)| name == edge).unwrap();
        assert!(allowed.iter().all(|room| !EDGES.contains(room)), "{edge}");
    }
}

#[test]
fn every_file_opens_with_its_contract() {
    for folder in ["src", "tests", "benches"] {
        for (path, text) in read(folder) {
            assert!(text.starts_with("//!"), "{} does not open with //!", path.display());
        }
    }
}

#[test]
fn nothing_unwraps_outside_tests() {
    for source in sources() {
        let line = source.code.lines().find(|line| line.contains(".unwrap()"));
        assert_eq!(
            line,
            None,
            "{} unwraps: give an error, or say expect(\"…: this is a bug\")",
            source.name()
        );
    }
}

#[test]
fn files_stay_short_enough_to_be_read() {
    for source in sources() {
        let lines = source.text.lines().count();
        let excused = LONGER.iter().any(|(path, _reason)| Path::new(path) == source.path);
        assert!(
            lines <= MAX_LINES || excused,
            "{} has {lines} lines: look for the missing concept, or excuse it with a reason",
            source.name()
        );
    }
}

#[test]
fn imports_are_found_in_every_form() {
    let code = "use crate::{frame, store::{self, x}, verdict};\nlet y = crate::camera::open();\n";
    let rooms: Vec<_> = rooms_named(code).into_iter().collect();
    assert_eq!(rooms, ["camera", "frame", "store", "verdict"]);
    let (code, modules) =
        product_code("a\n#[cfg(test)]\nmod tests {\n    b\n}\n// c\n#[cfg(test)]\nmod more;\nd\n");
    assert_eq!((code.as_str(), modules), ("a\nd\n", vec!["more".to_owned()]));
}

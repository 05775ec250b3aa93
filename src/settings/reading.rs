//! Reading a section key by key: a fault is noted, cut out, and reading begins anew, so that one run names them all.
//!
//! In: a TOML table and the type it is to become. Out: the value, with defaults in place of faulty keys, and the faults.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};
use toml::{Table, Value};

use super::fault::Faults;

/// The most faults that one section can have; a file with more is not worth a longer list.
const MAX_FAULTS: usize = 64;

/// The settings as written, section by section.
pub(super) struct Root(pub(super) Table);

impl Root {
    /// Takes a section out, unread.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Takes a section out and reads it; one that is absent has its defaults.
    pub(super) fn section<T: DeserializeOwned>(&mut self, name: &str, faults: &mut Faults) -> Option<T> {
        match self.take(name) {
            None => read(Table::new(), name, faults),
            Some(Value::Table(table)) => read(table, name, faults),
            Some(_) => {
                faults.add(name, format!("is to be a section: write [{name}] above its keys"));
                None
            }
        }
    }

    /// Notes what was not taken as a fault.
    pub(super) fn refuse_the_rest(self, known: &[&str], faults: &mut Faults) {
        for name in self.0.keys() {
            faults.add(name, format!("is no section of the settings{}", suggest(name, known)));
        }
    }
}

/// Reads `table`, which stands at the key path `at`; nothing if even without its faulty keys it makes no `T`.
pub(super) fn read<T: DeserializeOwned>(mut table: Table, at: &str, faults: &mut Faults) -> Option<T> {
    for _ in 0..MAX_FAULTS {
        let error = match serde_path_to_error::deserialize::<_, T>(Value::Table(table.clone())) {
            Ok(read) => return Some(read),
            Err(error) => error,
        };
        let key = key_path(at, error.path());
        let Some((parent, name)) = holder(&mut table, error.path()) else {
            faults.add(&key, reword(error.inner().message()));
            return None;
        };
        let faulty = parent.remove(name);
        // A variable's text may look like a number where text is wanted.
        match faults.text_of(&key) {
            Some(text) if faulty.is_some_and(|v| !v.is_str()) => {
                parent.insert(name.to_owned(), Value::String(text.to_owned()));
            }
            _ => faults.add(&key, reword(error.inner().message())),
        }
    }
    None
}

fn key_path(at: &str, path: &Path) -> String {
    path.iter().fold(at.to_owned(), |key, segment| match segment {
        Segment::Map { key: name } => format!("{key}.{name}"),
        Segment::Seq { index } => format!("{key}[{index}]"),
        Segment::Enum { .. } | Segment::Unknown => key,
    })
}

/// The innermost table on the way to what is faulty, and the name in it that has to go.
fn holder<'a, 'p>(root: &'a mut Table, path: &'p Path) -> Option<(&'a mut Table, &'p str)> {
    let mut names = Vec::new();
    for segment in path {
        match segment {
            Segment::Map { key } => names.push(key.as_str()),
            _ => break,
        }
    }
    let (last, way) = names.split_last()?;
    let mut table = root;
    for name in way {
        table = table.get_mut(*name)?.as_table_mut()?;
    }
    Some((table, last))
}

/// A deserializer's message, in words for people.
fn reword(message: &str) -> String {
    if let Some((unknown, known)) = message.strip_prefix("unknown field `").and_then(|m| m.split_once('`')) {
        return format!("is no key of this section{}", suggest(unknown, &quoted(known)));
    }
    if let Some((unknown, known)) = message.strip_prefix("unknown variant `").and_then(|m| m.split_once('`'))
    {
        return format!("`{unknown}` is not possible here{}", suggest(unknown, &quoted(known)));
    }
    let (what, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
    let wanted = match expected {
        "" => return message.to_owned(),
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, not below 0",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => "text in quotes",
        other if other.starts_with("struct ") => "a section with keys of its own",
        other => other,
    };
    format!(
        "{}, expected {wanted}",
        what.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ")
    )
}

/// What stands in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The end of a sentence that names what was probably meant, or else what there is.
pub(super) fn suggest(unknown: &str, known: &[&str]) -> String {
    let likeness = |name: &str| strsim::jaro_winkler(unknown, name);
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best {
        Some(name) if likeness(name) > 0.8 => format!("; did you mean `{name}`?"),
        _ => format!("; possible: {}", known.join(", ")),
    }
}

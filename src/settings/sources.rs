//! Where settings come from: a file, then the environment, then flags, merged by the `config` crate.
//!
//! Out: one TOML table, and who set which key. Strict types are kept: unlike `config`'s own reading, the text "yes" is
//! no truth value and 1.5 no whole number; only variables and flags, which have no types, are guessed at.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use config::{Config, ConfigError, FileFormat, ValueKind};
use toml::{Table, Value};

use super::MAX_CAMERAS;
use super::fault::{Faults, Setter, SettingsError};
use super::reading::Root;

/// Where the settings lie unless `--config` says otherwise.
pub const DEFAULT_FILE: &str = "/etc/inspectord/inspectord.toml";
/// What the names of variables that are settings begin with; `__` stands between the parts of a key.
pub const ENVIRONMENT_PREFIX: &str = "INSPECTORD__";
/// The most bytes a settings file may have.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Where to read settings from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file; none for settings from variables and flags alone.
    pub file: Option<PathBuf>,
    /// Variables, of which those that begin with [`ENVIRONMENT_PREFIX`] count.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags, `KEY=VALUE`, with the key as its faults name it: `camera[0].threshold=0.4`.
    pub flags: Vec<String>,
}

impl Sources {
    /// `file`, this process's environment, and `flags`.
    pub fn new(file: PathBuf, flags: Vec<String>) -> Self {
        Self { file: Some(file), environment: std::env::vars_os().collect(), flags }
    }

    /// The folder that relative paths start from: the file's own.
    pub(super) fn base(&self) -> PathBuf {
        let folder = self.file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
        std::path::absolute(folder).or_else(|_| std::env::current_dir()).unwrap_or_else(|_| folder.to_owned())
    }

    /// The settings' origin, for people.
    pub(super) fn describe(&self) -> String {
        self.file.as_ref().map_or_else(|| "the settings".into(), |file| file.display().to_string())
    }

    /// Reads and merges.
    pub(super) fn read(&self) -> Result<(Root, Faults), SettingsError> {
        let path = self.file.clone().unwrap_or_default();
        let text = if self.file.is_some() { read_text(&path)? } else { String::new() };
        let syntax = |e: ConfigError| SettingsError::Syntax { path: path.clone(), message: toml_message(&e) };
        let mut builder = Config::builder().add_source(config::File::from_str(&text, FileFormat::Toml));
        let (setters, refused) = self.setters();
        for (key, setter) in &setters {
            builder = builder.set_override(key, guess(&setter.text)).map_err(syntax)?;
        }
        let merged = builder.build().map_err(syntax)?.cache;
        let mut faults = Faults::new(setters);
        for (key, message) in refused {
            faults.add(&key, message);
        }
        match typed(merged.kind) {
            Some(Value::Table(table)) => Ok((Root(table), faults)),
            _ => Ok((Root(Table::new()), faults)),
        }
    }

    /// The keys that variables and flags set, and what cannot be a key.
    fn setters(&self) -> (HashMap<String, Setter>, Vec<(String, String)>) {
        let mut setters = HashMap::new();
        let mut refused = Vec::new();
        let mut set = |key: Result<String, String>, who: String, text: String| match key {
            Ok(key) => drop(setters.insert(key, Setter { who, text })),
            Err(why) => refused.push((who, why)),
        };
        for (name, text) in &self.environment {
            let Some(name) = name.to_str() else { continue };
            let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            match text.to_str() {
                Some(text) => set(key_of_variable(key), name.to_owned(), text.to_owned()),
                None => set(Err("is not UTF-8 text".into()), name.to_owned(), String::new()),
            }
        }
        for flag in &self.flags {
            let (key, text) = flag.split_once('=').unwrap_or((flag, ""));
            let who = format!("--set {key}");
            let key =
                if flag.contains('=') { checked(key) } else { Err("has no value: write KEY=VALUE".into()) };
            set(key, who, text.to_owned());
        }
        (setters, refused)
    }
}

fn read_text(path: &Path) -> Result<String, SettingsError> {
    let failed = |source| SettingsError::File { path: path.to_owned(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(SettingsError::Size { path: path.to_owned(), limit: MAX_FILE_BYTES });
    }
    Ok(text)
}

/// `CAMERA__0__SOURCE__RATE` is `camera[0].source.rate`.
fn key_of_variable(name: &str) -> Result<String, String> {
    let mut key = String::new();
    for part in name.split("__") {
        if !key.is_empty() && !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()) {
            key += &format!("[{part}]");
        } else {
            let dot = if key.is_empty() { "" } else { "." };
            key += &format!("{dot}{}", part.to_ascii_lowercase());
        }
    }
    checked(&key)
}

/// `key`, if it is one: names with dots between them, and small indices.
fn checked(key: &str) -> Result<String, String> {
    let no_key = || format!("`{key:.80}` is no key: write it as in `camera[0].threshold` or `mqtt.host`");
    for part in key.split('.') {
        let name = part.split('[').next().unwrap_or_default();
        let indices = part.strip_prefix(name).unwrap_or_default();
        let named =
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        // A large index would make a list of that length.
        let index = indices.strip_prefix('[').and_then(|i| i.strip_suffix(']')).map(str::parse::<usize>);
        if !named || !(indices.is_empty() || matches!(index, Some(Ok(i)) if i < MAX_CAMERAS)) {
            return Err(no_key());
        }
    }
    Ok(key.to_owned())
}

/// The type that a variable's text looks like.
fn guess(text: &str) -> ValueKind {
    let number = text.trim_start_matches(['-', '+']).starts_with(|c: char| c.is_ascii_digit());
    match text {
        "true" => ValueKind::Boolean(true),
        "false" => ValueKind::Boolean(false),
        _ if number => match (text.parse(), text.parse()) {
            (Ok(whole), _) => ValueKind::I64(whole),
            (_, Ok(real)) => ValueKind::Float(real),
            _ => ValueKind::String(text.to_owned()),
        },
        _ => ValueKind::String(text.to_owned()),
    }
}

/// A merged value as TOML; nothing where there is none, as between two cameras that variables number 0 and 2.
fn typed(kind: ValueKind) -> Option<Value> {
    Some(match kind {
        ValueKind::Nil => return None,
        ValueKind::Boolean(b) => Value::Boolean(b),
        ValueKind::I64(i) => Value::Integer(i),
        ValueKind::I128(i) => i.try_into().map_or_else(|_| Value::String(i.to_string()), Value::Integer),
        ValueKind::U64(i) => i.try_into().map_or_else(|_| Value::String(i.to_string()), Value::Integer),
        ValueKind::U128(i) => i.try_into().map_or_else(|_| Value::String(i.to_string()), Value::Integer),
        ValueKind::Float(f) => Value::Float(f),
        ValueKind::String(text) => Value::String(text),
        ValueKind::Table(map) => {
            Value::Table(map.into_iter().filter_map(|(key, v)| Some((key, typed(v.kind)?))).collect())
        }
        ValueKind::Array(items) => {
            Value::Array(items.into_iter().map(|v| typed(v.kind).unwrap_or(Value::Boolean(false))).collect())
        }
    })
}

/// The parser's message alone, without the crate's "in <unknown file>".
fn toml_message(error: &ConfigError) -> String {
    match error {
        ConfigError::FileParse { cause, .. } => cause.to_string().trim_end().to_owned(),
        other => other.to_string(),
    }
}

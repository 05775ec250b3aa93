//! What is wrong with the settings: all of it, each with its key's path, what it is and the remedy.
//!
//! Not here: finding faults (`reading`, and `faults()` of each room's options).

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where: `camera[0].source.rate`.
    pub key: String,
    /// What, and the remedy.
    pub message: String,
    /// Who set it, where that was not the file: a variable's name or a flag.
    pub set_by: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)?;
        match &self.set_by {
            Some(who) => write!(f, " (set by {who})"),
            None => Ok(()),
        }
    }
}

/// Why there are no settings to go by.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// The file is not there or cannot be read.
    #[error(
        "cannot read the settings file {path}; name another with --config, or start from config/inspectord.toml"
    )]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is far too large to be settings.
    #[error("{path} is larger than {limit} bytes and cannot be a settings file: correct --config")]
    Size {
        /// Which.
        path: PathBuf,
        /// The most bytes that are read.
        limit: u64,
    },
    /// The file is no TOML.
    #[error("{path} is not valid TOML\n{message}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// Where and why, with the line.
        message: String,
    },
    /// The file is TOML, and not what this program understands.
    #[error("{} in {origin}{}", count(.faults.len()), lines(.faults))]
    Faults {
        /// Where the settings came from.
        origin: String,
        /// Everything that is wrong.
        faults: Vec<Fault>,
    },
}

fn count(faults: usize) -> String {
    if faults == 1 { "there is a fault".into() } else { format!("there are {faults} faults") }
}

fn lines(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("\n  {fault}")).collect()
}

/// A key that was set by other than the file.
#[derive(Debug)]
pub(super) struct Setter {
    /// The variable's name, or the flag.
    pub(super) who: String,
    /// What it was set to, as written.
    pub(super) text: String,
}

/// The faults found so far.
#[derive(Debug, Default)]
pub(super) struct Faults {
    found: Vec<Fault>,
    setters: HashMap<String, Setter>,
}

impl Faults {
    /// None found; `setters` are the keys that did not come from the file.
    pub(super) fn new(setters: HashMap<String, Setter>) -> Self {
        Self { found: Vec::new(), setters }
    }

    /// What a variable or flag set `key` to, as written.
    pub(super) fn text_of(&self, key: &str) -> Option<&str> {
        self.setters.get(key).map(|setter| setter.text.as_str())
    }

    /// Adds one, unless the key or what it lies in has been found faulty before: that one is the cause.
    pub(super) fn add(&mut self, key: &str, message: impl Into<String>) {
        if !self.found.iter().any(|fault| lies_in(key, &fault.key)) {
            let set_by = self.setters.get(key).map(|setter| setter.who.clone());
            self.found.push(Fault { key: key.to_owned(), message: message.into(), set_by });
        }
    }

    /// Adds what a room's options found inside `section`.
    pub(super) fn add_all(&mut self, section: &str, faults: Vec<(String, String)>) {
        for (key, message) in faults {
            self.add(&format!("{section}.{key}"), message);
        }
    }

    /// Forgets those outside `section`.
    pub(super) fn keep_only(&mut self, section: &str) {
        self.found.retain(|fault| lies_in(&fault.key, section));
    }

    /// Forgets those that do not matter to whoever asks.
    pub(super) fn forget(&mut self, matters_not: impl Fn(&Fault) -> bool) {
        self.found.retain(|fault| !matters_not(fault));
    }

    /// All of them as one error, in the order of the sections, or nothing where there are none.
    pub(super) fn into_result(self, origin: String) -> Result<(), SettingsError> {
        if self.found.is_empty() { Ok(()) } else { Err(SettingsError::Faults { origin, faults: self.found }) }
    }
}

/// Whether `key` is `ancestor` or lies below it.
fn lies_in(key: &str, ancestor: &str) -> bool {
    key.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

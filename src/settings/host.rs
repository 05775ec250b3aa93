//! The `[box]` section: what the box is called, and where its models lie.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The name of a box: 1–64 of `a–z A–Z 0–9 _ -`, so that it is safe as a topic level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BoxName(String);

impl BoxName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The machine's own name, with what a topic does not take replaced by `-`.
    fn of_this_machine() -> Self {
        // Not from /proc, which a hardened service cannot see.
        let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let safe = |c: char| if legal(c) { c } else { '-' };
        let name: String = machine.chars().map(safe).take(64).collect();
        Self(if name.is_empty() { "inspectord".into() } else { name })
    }
}

fn legal(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

impl FromStr for BoxName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if (1..=64).contains(&name.len()) && name.chars().all(legal) {
            Ok(Self(name.to_owned()))
        } else {
            Err(format!("`{name:.80}` cannot name a box: use 1 to 64 of the characters a-z A-Z 0-9 _ -"))
        }
    }
}

impl TryFrom<String> for BoxName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<BoxName> for String {
    fn from(name: BoxName) -> Self {
        name.0
    }
}

impl fmt::Display for BoxName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `[box]`, as written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Options {
    /// The box's name; default: the machine's host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<BoxName>,
    /// The folder that relative model names start from. Default: below the state folder that systemd makes.
    pub(super) models: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        Self { name: None, models: PathBuf::from("/var/lib/inspectord/models") }
    }
}

impl Options {
    pub(super) fn faults(&self) -> Vec<(String, String)> {
        if self.models.as_os_str().is_empty() {
            vec![("models".into(), "is empty: name the folder that holds the model bundles".into())]
        } else {
            Vec::new()
        }
    }

    pub(super) fn resolve(self) -> BoxName {
        self.name.unwrap_or_else(BoxName::of_this_machine)
    }
}

//! The two kinds of samples.

use serde::{Deserialize, Serialize};

/// What a sample shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A good part.
    Normal,
    /// A part with a defect.
    Anomalous,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Normal, Self::Anomalous];

    /// Its folder's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Anomalous => "anomalous",
        }
    }
}

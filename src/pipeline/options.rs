//! How a line runs: what makes it take a picture, and what it does when it cannot keep up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What makes a line inspect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureMode {
    /// Every frame the camera delivers.
    Free {
        /// What happens to a frame that comes while the line is busy.
        when_full: WhenFull,
    },
    /// One part per trigger message.
    Software {
        /// How long to wait for the camera's frame, once it was asked for, where the trigger states no deadline.
        patience: Duration,
        /// How long after its trigger a part may still be exposed: by then it has moved on.
        expose_within: Duration,
    },
    /// One part per tick of a timer.
    Timed {
        /// From one tick to the next, and how long a tick waits for the camera's frame.
        period: Duration,
    },
}

impl CaptureMode {
    /// How long after its trigger a part may still be exposed.
    pub(super) fn expose_within(self) -> Duration {
        match self {
            Self::Software { expose_within, .. } => expose_within,
            Self::Free { .. } | Self::Timed { .. } => Duration::MAX,
        }
    }
}

/// How many frames a triggered part takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Views {
    /// How many; at least one.
    pub count: u32,
    /// From one to the next.
    pub every: Duration,
}

impl Default for Views {
    fn default() -> Self {
        Self { count: 1, every: Duration::ZERO }
    }
}

/// What happens to a free-running frame that comes while the line is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenFull {
    /// The camera waits: right for files, which do not go away.
    Wait,
    /// The frame is let go without a verdict, and counted: right where frames are many per part.
    Skip,
    /// The frame gets the verdict `uninspected` with reason `overload`: right where each frame is a part.
    Uninspected,
}

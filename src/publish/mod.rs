//! Verdicts, states and replies out over MQTT; triggers and commands in.
//!
//! ```text
//! outbox ─▶ Outgoing ─┐                             ┌─▶ <camera>/verdict, <camera>/alarm
//! replays, early alarms ──▶ Session: window, back-off ─▶ <camera>/state, <camera>/reply, status
//! pipeline ─▶ states, Reply ─┘                      │
//! outbox ◀─ acknowledged position ◀─────────────────┤
//! pipeline ◀─ Incoming ◀──────── inbox ◀────────────┴── <camera>/trigger, <camera>/command
//! ```
//!
//! The session is one task; it owns the connection and keeps what the broker has not acknowledged, at most a window of
//! it. Not here: the outbox (`store`), which keeps a verdict until its position is acknowledged.

pub mod broker;
mod connection;
mod conversation;
mod credentials;
mod error;
mod excerpt;
mod health;
mod inbox;
mod options;
mod payload;
mod receipt;
mod request;
mod run;
mod session;
mod strikes;
mod topics;
mod window;

pub use crate::health::Retraining;
pub use connection::{Probe, probe};
pub use credentials::has_password;
pub use error::PublishError;
pub use health::{Counters, Health, Link, Monitor};
pub use inbox::{Incoming, Request};
pub use options::{Options, Tls};
pub use payload::{Asked, Availability, CameraCounters, CameraState, Presence, Reply, Status};
pub use receipt::Receipt;
pub use request::{
    Command, MAX_DEADLINE_MS, MAX_DEPTH, MAX_FIELDS, MAX_PART_ID_BYTES, MAX_REPLAY, MAX_REQUEST_BYTES,
    MAX_REQUEST_ID_BYTES, MAX_VALUES, RequestError, RequestId, read_command, read_trigger,
};
pub use session::{Outgoing, Replayed, Seam, Session};
pub use topics::Topics;

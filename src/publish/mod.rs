//! publish: verdicts, states and replies out over MQTT; triggers and commands in.

mod options;
mod payload;
mod request;
mod topics;

pub use options::{Options, Tls};
pub use payload::{Asked, Availability, CameraCounters, CameraState, Presence, Reply, Status};
pub use request::{
    Command, MAX_DEADLINE_MS, MAX_DEPTH, MAX_FIELDS, MAX_PART_ID_BYTES, MAX_REPLAY, MAX_REQUEST_BYTES,
    MAX_REQUEST_ID_BYTES, RequestError, RequestId,
};
pub use topics::Topics;

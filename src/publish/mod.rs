//! publish: verdicts, states and replies out over MQTT; triggers and commands in.

mod options;

pub use options::{Options, Tls};

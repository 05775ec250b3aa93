//! Behaviour through the public interface and the binary, against real brokers and real processes; one test binary,
//! since each costs a link.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test, as it should")]

mod architecture;
mod demo_broker;
mod goldens;
mod hostile;
mod inspectord;
mod mosquitto;
mod mqtt;
mod proxy;
mod session_rig;
mod subscriber;

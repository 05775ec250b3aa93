//! Behaviour through the public interface and the binary, against real brokers and real processes; one test binary,
//! since each costs a link.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod acknowledge;
mod architecture;
mod backbones;
mod backlog;
mod busy_line;
mod cameras;
mod daemon;
mod demo;
mod demo_broker;
mod distill;
mod eyes;
mod fuzzed;
mod genicam;
mod gige;
mod goldens;
mod hostile;
mod hostile_peer;
mod http;
mod inspectord;
mod line;
mod mosquitto;
mod mqtt;
mod proxy;
mod retrain;
mod session_rig;
mod sick_disk;
mod small_disk;
mod soak;
mod store;
mod subscriber;
mod tampering;
mod training;
mod web;

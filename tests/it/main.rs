//! Behaviour through the public interface and the binary, against real brokers and real processes; one test binary,
//! since each costs a link.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod architecture;
mod backbones;
mod cameras;
mod daemon;
mod demo;
mod demo_broker;
mod distill;
mod eyes;
mod genicam;
mod gige;
mod goldens;
mod hostile;
mod http;
mod inspectord;
mod line;
mod mosquitto;
mod mqtt;
mod proxy;
mod retrain;
mod session_rig;
mod soak;
mod store;
mod subscriber;
mod training;
mod web;

//! Integration tests: behaviour through the public API, in one binary.

mod demo_broker;
mod goldens;
mod mosquitto;
mod mqtt;
mod proxy;
mod session_rig;
mod subscriber;

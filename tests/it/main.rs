//! Behaviour through the public interface, against real brokers; one binary, since each costs a link.

mod mosquitto;
mod mqtt;
mod proxy;
mod session_rig;
mod subscriber;

//! Behaviour through the public interface and the binary, against real brokers and real processes; one test binary,
//! since each costs a link.

mod backbones;
mod goldens;
mod mosquitto;
mod mqtt;
mod proxy;
mod session_rig;
mod subscriber;

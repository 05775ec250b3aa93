//! cli: under construction.

pub mod history;

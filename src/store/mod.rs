//! store: under construction.

mod options;

pub use options::Options;

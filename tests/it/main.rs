//! Integration tests: behaviour through the public API, in one binary.

mod goldens;
mod store;

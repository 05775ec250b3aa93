//! Integration tests: behaviour through the public API and the binary, in one binary.

mod architecture;
mod goldens;
mod hostile;
mod inspectord;

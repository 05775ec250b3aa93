//! inspectord.
fn main() {}

//! See `claims::request`.

#![no_main]

#[path = "../claims.rs"]
#[expect(dead_code, reason = "each target makes one of the claims")]
mod claims;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| claims::request(bytes));

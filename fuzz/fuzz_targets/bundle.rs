//! See `claims::bundle`.

#![no_main]

#[path = "../claims.rs"]
#[expect(dead_code, reason = "each target makes one of the claims")]
mod claims;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| claims::bundle(bytes));

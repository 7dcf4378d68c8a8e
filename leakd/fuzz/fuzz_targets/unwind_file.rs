//! Any bytes as an ELF file.
#![no_main]

use std::time::Duration;

use leakd::unwind::Limits;
use leakd::unwind::convert::convert_bytes;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let limits = Limits { bytes: 64 << 20, time: Duration::from_secs(2) };
    if let Ok(table) = convert_bytes(input, limits) {
        leakd_fuzz::ask(&table);
    }
});

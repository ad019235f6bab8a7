#![no_main]

mod files;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| files::open_bytes(bytes, "pt"));

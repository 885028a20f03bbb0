#![no_main]

use libfuzzer_sys::fuzz_target;
use hostile_input::records;

fuzz_target!(|bytes: &[u8]| records::record(bytes));

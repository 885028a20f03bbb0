#![no_main]

use libfuzzer_sys::fuzz_target;
use system_tests::hostile::records;

fuzz_target!(|bytes: &[u8]| records::record(bytes));

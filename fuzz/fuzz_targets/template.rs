#![no_main]

use libfuzzer_sys::fuzz_target;
use system_tests::hostile::templates;

fuzz_target!(|bytes: &[u8]| templates::template(bytes));

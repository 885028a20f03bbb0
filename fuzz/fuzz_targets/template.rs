#![no_main]

use libfuzzer_sys::fuzz_target;
use hostile_input::templates;

fuzz_target!(|bytes: &[u8]| templates::template(bytes));

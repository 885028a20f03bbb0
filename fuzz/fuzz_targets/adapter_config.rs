#![no_main]

use libfuzzer_sys::fuzz_target;
use hostile_input::folders;

fuzz_target!(|bytes: &[u8]| folders::adapter_config(bytes));

#![no_main]

use libfuzzer_sys::fuzz_target;
use system_tests::hostile::folders;

fuzz_target!(|bytes: &[u8]| folders::tokenizer(bytes));

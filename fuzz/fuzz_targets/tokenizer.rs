#![no_main]

use libfuzzer_sys::fuzz_target;
use hostile_input::folders;

// The library catches panics of its dependencies, but the default hook of libFuzzer ends at each of them. A panic
// that the library does not catch still ends it.
fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| ())),
    |bytes: &[u8]| folders::tokenizer(bytes)
);

#![no_main]

use libfuzzer_sys::fuzz_target;
use hostile_input::templates;

// The library turns panics of its dependencies into errors; libFuzzer would end at each of them. One that comes
// through still ends it.
fuzz_target!(
    init: std::panic::set_hook(Box::new(|_| ())),
    |bytes: &[u8]| templates::template(bytes)
);

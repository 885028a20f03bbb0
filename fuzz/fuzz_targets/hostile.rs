//! Runs the function of the target that the variable `TARGET` names.

#![no_main]

use std::sync::LazyLock;

use hostile_input::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("TARGET").unwrap_or_default();
    Target::find(&name)
        .unwrap_or_else(|| panic!("TARGET is `{name}`; give the name of a folder in corpus"))
});

fuzz_target!(
    init: {
        // The library catches panics of its dependencies in these, but the hook of libFuzzer ends at each of
        // them. A panic that the library does not catch still ends it.
        if ["template", "tokenizer", "tokenizer_config"].contains(&TARGET.name) {
            std::panic::set_hook(Box::new(|_| ()));
        }
    },
    |bytes: &[u8]| (TARGET.body)(bytes)
);

//! `lisa devices`: the backends of this build, the devices that they find, and which one is used.

use std::panic::{catch_unwind, set_hook, take_hook};

use anyhow::Result;
use burn::tensor::{Device, DeviceType};

use crate::device::{BACKENDS, backends, device};
use crate::machine::available_bytes;
use crate::terminal::output::say;
use crate::terminal::text::{printable, size};

/// Prints the devices.
pub(super) fn devices() -> Result<()> {
    let used = device()?;
    let built = backends();
    for (name, kind) in &built {
        let found = found(kind.clone());
        if found.is_empty() {
            say(format_args!(
                "{name:<8} no device: is its driver installed?"
            ))?;
        }
        for one in found {
            let shown = printable(&format!("{one:?}"));
            let mark = if one == used {
                "  (used by `lisa train`)"
            } else {
                ""
            };
            say(format_args!("{name:<8} {shown}{mark}"))?;
        }
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = available_bytes().map_or_else(
        || "an unknown amount of memory".to_owned(),
        |bytes| format!("{} of memory", size(bytes)),
    );
    say(format_args!(
        "the machine has {threads} CPU threads, and {memory} available"
    ))?;
    let absent = |name: &&&str| built.iter().all(|(built, _)| built != *name);
    let absent: Vec<&str> = BACKENDS.iter().filter(absent).copied().collect();
    if !absent.is_empty() {
        say(format_args!(
            "not in this build: {}; `cargo build --release --features NAME` adds one",
            absent.join(", ")
        ))?;
    }
    say("BURN_DEVICE=NAME chooses a backend of this build")?;
    Ok(())
}

/// The devices of a backend. Burn panics where a backend has no driver.
fn found(kind: DeviceType) -> Vec<Device> {
    let hook = take_hook();
    set_hook(Box::new(|_| ()));
    let found = catch_unwind(|| Device::enumerate(kind).into_vec());
    set_hook(hook);
    found.unwrap_or_default()
}

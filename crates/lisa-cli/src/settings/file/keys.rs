//! The keys of a settings file.

use super::super::names;
use super::super::{InputFlags, MemoryFlags, MethodFlags, OutputFlags, TrainingFlags};

/// The keys of all settings, with underscores.
pub(super) fn all() -> Vec<&'static str> {
    let keys = [
        InputFlags::KEYS,
        MethodFlags::KEYS,
        MemoryFlags::KEYS,
        TrainingFlags::KEYS,
        OutputFlags::KEYS,
    ];
    keys.concat()
}

/// Whether this is the name of a setting, or another name of one.
pub(super) fn is_known(key: &str) -> bool {
    let name = names::setting(key).replace('-', "_");
    names::translated(key).is_some() || all().contains(&name.as_str())
}

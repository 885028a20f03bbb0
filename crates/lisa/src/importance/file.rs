//! JSON files of what was measured.

use std::io::{self, Write};
use std::path::Path;

use burn_pack::AtomicFile;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{ErrorKind, LisaError};

/// Saves a value to a JSON file, atomically.
pub(super) fn save(value: &impl Serialize, path: &Path, what: &str) -> Result<(), LisaError> {
    let attempt = || -> io::Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        let (scratch, mut file) = AtomicFile::create(path).map_err(io::Error::other)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        drop(file);
        scratch.commit().map_err(io::Error::other)
    };
    attempt().map_err(|e| {
        let message = format!("cannot save {what} to `{}`: {e}", path.display());
        LisaError::new(ErrorKind::Io, message).with_source(e)
    })
}

/// Loads a value of this type, which is `what`, from a JSON file.
pub(super) fn load<T: DeserializeOwned>(
    path: &Path,
    [what, name]: [&str; 2],
) -> Result<T, LisaError> {
    let failed = |kind, e: &dyn std::fmt::Display| {
        let message = format!("cannot read {what} from `{}`: {e}", path.display());
        LisaError::new(kind, message).with_help(format!(
            "give a file of {what} that `{name}::save` or `lisa importance` wrote"
        ))
    };
    let text =
        std::fs::read_to_string(path).map_err(|e| failed(ErrorKind::Io, &e).with_source(e))?;
    serde_json::from_str(&text).map_err(|e| failed(ErrorKind::Record, &e).with_source(e))
}

//! Writing results, and the folder of the bundled model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Makes a folder, with those above it.
pub(crate) fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path)
        .with_context(|| format!("cannot make the folder `{}`", path.display()))
}

/// Writes a file completely or not at all.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    Ok(lisa_lm::files::write_atomically(path, text.as_bytes())?)
}

/// A folder of the program's package: `base` is the bundled model, `data` the instruction set.
pub(crate) fn bundled(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates/lisa-cli")
        .join(name)
}

//! [`write_atomically`], and the error for a failed file operation.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use burn::store::burn_pack::AtomicFile;

use crate::error::{Error, ErrorKind};

/// Writes a file atomically: writes a temporary file in the same folder, syncs it, and renames it.
///
/// # Errors
///
/// A failed file operation, with the path. The previous file is then unchanged.
///
/// # Example
///
/// ```
/// use lisa_lm::files::write_atomically;
///
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path();
/// let path = folder.join("state.json");
/// write_atomically(&path, b"first")?;
/// write_atomically(&path, b"second")?;
/// assert_eq!(std::fs::read(&path)?, b"second");
/// // No temporary file is left.
/// assert_eq!(std::fs::read_dir(folder)?.count(), 1);
///
/// let error = write_atomically(&folder.join("missing/state.json"), b"third").unwrap_err();
/// assert_eq!(error.kind(), lisa_lm::ErrorKind::Io);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let attempt = || -> io::Result<()> {
        let (scratch, mut file): (AtomicFile, File) =
            AtomicFile::create(path).map_err(io::Error::other)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        drop(file);
        scratch.commit().map_err(io::Error::other)
    };
    attempt().map_err(|e| failed("write", path, e))
}

/// The error of a file operation.
pub(crate) fn failed(verb: &str, path: &Path, error: io::Error) -> Error {
    let message = format!("cannot {verb} {}: {error}", path.display());
    Error::new(ErrorKind::Io, message).with_source(error)
}

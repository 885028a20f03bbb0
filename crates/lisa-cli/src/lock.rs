//! [`Lock`]: one command at a time writes into a folder.

use std::fs::{File, TryLockError};
use std::path::Path;

use anyhow::{Context, Result};

use crate::leftovers::Leftover;
use crate::user_error::require;

/// The name of the file that is locked.
pub(crate) const LOCK: &str = ".lisa-lock";

/// The folder is in use until this value is dropped, or the process ends in any way.
#[derive(Debug)]
pub struct Lock {
    /// If the file stays, the next command locks it again.
    _path: Leftover,
    _file: File,
}

impl Lock {
    /// Locks the folder, which exists. `None` where the file system has no locks.
    pub fn of(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(LOCK);
        let open = || {
            let options = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path);
            options.with_context(|| format!("cannot write to the folder `{}`", folder.display()))
        };
        loop {
            let file = open()?;
            let is_free = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(_)) => return Ok(None),
            };
            require!(
                is_free,
                "wait until it ends, or begin a new run in another folder with --out",
                "another command writes into `{}` now",
                folder.display()
            );
            if is_at(&file, &path) {
                return Ok(Some(Self {
                    _path: Leftover::file(path),
                    _file: file,
                }));
            }
        }
    }
}

/// Whether the open file is the one at the path. A command that ended between opening and locking has
/// removed it, and another one may have made a new file.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let place = |found: std::fs::Metadata| (found.dev(), found.ino());
    let (open, there) = (file.metadata().map(place), path.metadata().map(place));
    matches!((open, there), (Ok(open), Ok(there)) if open == there)
}

/// Elsewhere a file that is open is not removed.
#[cfg(not(unix))]
fn is_at(_: &File, _: &Path) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_command_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::of(dir.path()).unwrap();
        let error = Lock::of(dir.path()).unwrap_err().to_string();
        assert!(error.contains("another command writes into"), "{error}");
        drop(lock);
        assert!(!dir.path().join(LOCK).exists());
        // A file that a killed process left.
        std::fs::write(dir.path().join(LOCK), "").unwrap();
        assert!(Lock::of(dir.path()).unwrap().is_some());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_was_removed_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LOCK);
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path));
        File::create(&path).unwrap();
        assert!(!is_at(&file, &path));
    }
}

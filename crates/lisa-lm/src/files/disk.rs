//! The file operations that change a folder, each with an error that names the path.
//!
//! In tests, `fault` counts them and lets all after a chosen one fail, as if the process had been
//! killed there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::failed;
use crate::error::Error;

/// Creates a folder, and its parents.
pub(crate) fn create_folder(path: &Path) -> Result<(), Error> {
    run("create", path, || fs::create_dir_all(path))
}

/// Creates a file, and syncs it.
pub(crate) fn create(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    run("write", path, || {
        let mut file = File::create_new(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    })
}

/// Renames a file or a folder.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    run("move", from, || fs::rename(from, to))
}

/// Makes a hard link to a file.
pub(crate) fn link(from: &Path, to: &Path) -> Result<(), Error> {
    run("link", from, || fs::hard_link(from, to))
}

/// Removes a file or a link. It may be missing.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    run("remove", path, || match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    })
}

/// Removes a folder with its files; its links are not followed. It may be missing.
pub(crate) fn remove_folder(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(metadata) if !metadata.is_dir() => return remove(path),
        _ => {}
    }
    for entry in entries(path)? {
        if entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            remove(&entry.path())?;
        }
    }
    run("remove", path, || fs::remove_dir_all(path))
}

/// Sets the permissions of a file or a folder.
pub(crate) fn set_permissions(path: &Path, permissions: fs::Permissions) -> Result<(), Error> {
    run("set the permissions of", path, || {
        fs::set_permissions(path, permissions)
    })
}

/// Makes the names of a folder's files durable. Windows has no such operation.
pub(crate) fn sync_folder(path: &Path) -> Result<(), Error> {
    run("sync", path, || {
        if cfg!(unix) {
            File::open(path)?.sync_all()?;
        }
        Ok(())
    })
}

/// Exchanges two folders in one operation. Not every system and file system can.
pub(crate) fn exchange(a: &Path, b: &Path) -> Result<(), Error> {
    run("exchange", b, || {
        #[cfg(test)]
        if !fault::can_exchange() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        #[cfg(any(target_os = "linux", target_vendor = "apple"))]
        {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).map_err(io::Error::from)
        }
        #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
        {
            let _ = a;
            Err(io::ErrorKind::Unsupported.into())
        }
    })
}

/// The entries of a folder.
pub(crate) fn entries(path: &Path) -> Result<Vec<fs::DirEntry>, Error> {
    let read = || fs::read_dir(path)?.collect::<io::Result<Vec<_>>>();
    read().map_err(|e| failed("read", path, e))
}

fn run(verb: &str, path: &Path, operation: impl FnOnce() -> io::Result<()>) -> Result<(), Error> {
    #[cfg(test)]
    fault::step().map_err(|e| failed(verb, path, e))?;
    operation().map_err(|e| failed(verb, path, e))
}

/// Faults at a chosen operation, for tests.
#[cfg(test)]
pub(crate) mod fault {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
        static NO_EXCHANGE: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `work`. The operations of this thread after the first `count` fail, as after a kill.
    /// Returns whether one did.
    pub(crate) fn killed_after(count: usize, work: impl FnOnce()) -> bool {
        LEFT.set(Some(count + 1));
        work();
        LEFT.replace(None) == Some(0)
    }

    /// Runs `work` as on a file system that cannot exchange folders.
    pub(crate) fn without_exchange<T>(work: impl FnOnce() -> T) -> T {
        NO_EXCHANGE.set(true);
        let result = work();
        NO_EXCHANGE.set(false);
        result
    }

    pub(crate) fn can_exchange() -> bool {
        !NO_EXCHANGE.get()
    }

    pub(super) fn step() -> io::Result<()> {
        match LEFT.get() {
            None => return Ok(()),
            Some(left) => LEFT.set(Some(left.saturating_sub(1))),
        }
        match LEFT.get() {
            Some(0) => Err(io::Error::other("killed")),
            _ => Ok(()),
        }
    }
}

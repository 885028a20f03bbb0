//! [`Leftover`]: a lock or an empty folder that does not outlive the command that made it.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The paths of all values in the process.
static ALL: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A file, or a folder, which is removed when this value is dropped. A folder that is not empty stays.
#[derive(Debug)]
pub(crate) struct Leftover(PathBuf);

impl Leftover {
    pub(crate) fn new(path: PathBuf) -> Self {
        all().push(path.clone());
        Self(path)
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        remove(&self.0);
        all().retain(|path| *path != self.0);
    }
}

/// Removes all of them. Only for a process that ends now, without dropping its values.
pub(crate) fn remove_all() {
    let mut paths = std::mem::take(&mut *all());
    // Files, and then the folders that they are in.
    paths.sort_by_key(|path| Reverse(path.components().count()));
    for path in paths {
        remove(&path);
    }
}

fn remove(path: &Path) {
    // Whatever cannot be removed stays: the next command takes the lock and the folder.
    let _ = if path.is_dir() {
        fs::remove_dir(path)
    } else {
        fs::remove_file(path)
    };
}

fn all() -> MutexGuard<'static, Vec<PathBuf>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_empty_folders_are_removed_and_other_folders_stay() {
        let dir = tempfile::tempdir().unwrap();
        let [file, empty, full] = ["file", "empty", "full"].map(|name| dir.path().join(name));
        fs::write(&file, "").unwrap();
        fs::create_dir(&empty).unwrap();
        fs::create_dir(&full).unwrap();
        fs::write(full.join("a"), "").unwrap();
        let paths = [file.clone(), empty.clone(), full.clone()];
        let leftovers = paths.clone().map(Leftover::new);
        assert!(paths.iter().all(|path| all().contains(path)));
        drop(leftovers);
        assert!(!paths.iter().any(|path| all().contains(path)));
        assert!(!file.exists() && !empty.exists());
        assert!(full.join("a").is_file());
    }
}

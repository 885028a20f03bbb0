//! [`Leftover`]: a lock or an empty folder that does not outlive the command that made it.

use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The paths of all values in the process.
static ALL: Mutex<Vec<(PathBuf, Kind)>> = Mutex::new(Vec::new());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

/// A file or a folder, which is removed when this value is dropped. What is at its path must be of its kind,
/// and a folder that is not empty stays.
#[derive(Debug)]
pub(crate) struct Leftover(PathBuf, Kind);

impl Leftover {
    pub(crate) fn file(path: PathBuf) -> Self {
        Self::new(path, Kind::File)
    }

    pub(crate) fn folder(path: PathBuf) -> Self {
        Self::new(path, Kind::Folder)
    }

    fn new(path: PathBuf, kind: Kind) -> Self {
        all().push((path.clone(), kind));
        Self(path, kind)
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        remove(&self.0, self.1);
        all().retain(|(path, _)| *path != self.0);
    }
}

/// Removes all of them. Only for a process that ends now, without dropping its values.
pub(crate) fn remove_all() {
    let paths = std::mem::take(&mut *all());
    remove_each(paths);
}

/// Removes files before the folders that they are in.
fn remove_each(mut paths: Vec<(PathBuf, Kind)>) {
    paths.sort_by_key(|(path, _)| Reverse(path.components().count()));
    for (path, kind) in paths {
        remove(&path, kind);
    }
}

fn remove(path: &Path, kind: Kind) {
    // Whatever cannot be removed stays: the next command takes the lock and the folder.
    let _ = match kind {
        Kind::File => fs::remove_file(path),
        // A link is no folder.
        Kind::Folder => fs::remove_dir(path),
    };
}

fn all() -> MutexGuard<'static, Vec<(PathBuf, Kind)>> {
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
        let leftovers = [
            Leftover::file(file.clone()),
            Leftover::folder(empty.clone()),
            Leftover::folder(full.clone()),
        ];
        let is_known = |path: &PathBuf| all().iter().any(|(known, _)| known == path);
        assert!([&file, &empty, &full].into_iter().all(is_known));
        drop(leftovers);
        assert!(![&file, &empty, &full].into_iter().any(is_known));
        assert!(!file.exists() && !empty.exists());
        assert!(full.join("a").is_file());
    }

    #[test]
    fn a_file_is_removed_before_its_folders() {
        let dir = tempfile::tempdir().unwrap();
        let (above, below) = (dir.path().join("a"), dir.path().join("a/b"));
        fs::create_dir_all(&below).unwrap();
        let file = below.join("lock");
        fs::write(&file, "").unwrap();
        remove_each(vec![
            (above.clone(), Kind::Folder),
            (file, Kind::File),
            (below, Kind::Folder),
        ]);
        assert!(!above.exists());
    }

    /// A file, or a link to a folder that is away, is not ours.
    #[cfg(unix)]
    #[test]
    fn what_is_no_folder_stays() {
        let dir = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| dir.path().join(name));
        fs::write(&file, "thesis").unwrap();
        std::os::unix::fs::symlink(dir.path().join("away"), &link).unwrap();
        drop([&file, &link].map(|path| Leftover::folder(path.clone())));
        assert!(file.is_file() && link.is_symlink());
        crate::output_folder::make(&link.join("run")).unwrap_err();
        assert!(link.is_symlink());
    }
}

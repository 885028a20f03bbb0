//! The folder that a command writes: whose it is, and whether it can be written.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::leftovers::Leftover;
use crate::lock::LOCK;
use crate::terminal::text::size;
use crate::user_error::{UserError, require};

/// Returns an error if the folder has files and `is_ours` is false, or if a file is in its place or
/// above it.
pub(crate) fn require_ours(out: &Path, is_ours: bool, whose: &str) -> Result<()> {
    let file = out.ancestors().find(|path| path.exists());
    let file = file.filter(|path| !path.is_dir());
    require!(
        file.is_none(),
        "give another folder with --out",
        "cannot make the folder `{}`: `{}` is a file",
        out.display(),
        file.unwrap_or(out).display()
    );
    let Ok(entries) = fs::read_dir(out) else {
        return Ok(());
    };
    let names = entries.flatten().map(|entry| entry.path());
    let mut names: Vec<PathBuf> = names.filter(|path| !path.ends_with(LOCK)).collect();
    names.sort();
    let Some(first) = names.first().filter(|_| !is_ours) else {
        return Ok(());
    };
    Err(UserError::new(format!(
        "`{}` has files that are not of {whose}, such as `{}`",
        out.display(),
        first.file_name().unwrap_or_default().display()
    ))
    .with_help("give a new or an empty folder with --out")
    .into())
}

/// Folders that a command has made. Those that are still empty when this is dropped are removed.
#[must_use]
#[derive(Debug)]
pub(crate) struct Made {
    _folders: Vec<Leftover>,
}

/// Makes the folder, and those above it, and checks that files can be written in it.
pub(crate) fn make(out: &Path) -> Result<Made> {
    let missing = out
        .ancestors()
        .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists());
    let missing = missing.map(|folder| Leftover::folder(folder.to_path_buf()));
    let made = Made {
        _folders: missing.collect(),
    };
    fs::create_dir_all(out)
        .with_context(|| format!("cannot make the folder `{}`", out.display()))?;
    let probe = out.join(".lisa-probe");
    fs::write(&probe, b"")
        .and_then(|()| fs::remove_file(&probe))
        .with_context(|| format!("cannot write to the folder `{}`", out.display()))?;
    Ok(made)
}

/// What to do about a full disk, if the folder can be another one.
pub(crate) const OTHER_DISK: &str = "give a folder on another disk with --out";

/// Returns an error if the disk of the folder has less room; `or` is what to do if no space can be
/// made. Where the free space is not known, nothing is checked.
pub(crate) fn require_room(out: &Path, needed: u64, or: &str) -> Result<()> {
    let Some(free) = free_bytes(out) else {
        return Ok(());
    };
    require!(
        free >= needed,
        format!("free some space, or {or}"),
        "there is no room in `{}`: about {} are needed, and {} are free",
        out.display(),
        size(needed),
        size(free)
    );
    Ok(())
}

/// The bytes of a file, or of all files below a folder; 0 if there is none. Links are not followed.
#[must_use]
pub(crate) fn size_of(path: &Path) -> u64 {
    let Ok(found) = path.symlink_metadata() else {
        return 0;
    };
    if !found.is_dir() {
        return found.len();
    }
    let inside = entries(path).unwrap_or_default();
    inside.iter().map(|path| size_of(path)).sum()
}

#[cfg(test)]
thread_local! {
    /// The free bytes that tests pretend to have.
    pub(crate) static FREE: std::cell::Cell<Option<u64>> = const { std::cell::Cell::new(None) };
}

/// The bytes that can be written to the disk of a folder.
#[cfg(unix)]
fn free_bytes(out: &Path) -> Option<u64> {
    #[cfg(test)]
    if let Some(bytes) = FREE.get() {
        return Some(bytes);
    }
    let disk = rustix::fs::statvfs(out).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_out: &Path) -> Option<u64> {
    None
}

/// Removes a file or a folder of the program. A folder is renamed first.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let failed = || format!("cannot remove `{}`", path.display());
    if !path.exists() && !path.is_symlink() {
        return Ok(());
    }
    if !path.is_dir() || path.is_symlink() {
        return fs::remove_file(path).with_context(failed);
    }
    let is_partial = path.extension().is_some_and(|end| end == "partial");
    let doomed = if is_partial {
        path.to_path_buf()
    } else {
        let doomed = path.with_extension("partial");
        if doomed.exists() {
            fs::remove_dir_all(&doomed).with_context(failed)?;
        }
        fs::rename(path, &doomed).with_context(failed)?;
        doomed
    };
    fs::remove_dir_all(&doomed).with_context(failed)
}

/// The entries of a folder; none if there is no folder.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let failed = || format!("cannot read `{}`", folder.display());
    let entries = fs::read_dir(folder).with_context(failed)?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        require_ours(dir.path(), false, "a run").unwrap();
        require_ours(&dir.path().join("missing"), false, "a run").unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let error = require_ours(dir.path(), false, "a run").unwrap_err();
        assert!(error.to_string().contains("`thesis.tex`"), "{error}");
        require_ours(dir.path(), true, "a run").unwrap();
        let file = dir.path().join("thesis.tex");
        for out in [file.clone(), file.join("a/b")] {
            let error = require_ours(&out, true, "a run").unwrap_err().to_string();
            let is_named = error.ends_with(&format!(": `{}` is a file", file.display()));
            assert!(is_named, "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_room_on_the_disk_is_compared() {
        let dir = tempfile::tempdir().unwrap();
        require_room(dir.path(), 1, OTHER_DISK).unwrap();
        let error = require_room(dir.path(), u64::MAX, OTHER_DISK).unwrap_err();
        assert!(error.to_string().contains("are free"), "{error}");
    }
}

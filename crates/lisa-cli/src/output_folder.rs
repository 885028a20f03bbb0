//! The folder that a command writes: whose it is, and whether it can be written.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::terminal::text::size;
use crate::user_error::{UserError, require};

/// Files and folders that a run writes, apart from `checkpoints` and event files. The first one says
/// that the run is finished.
const OF_A_RUN: [&str; 9] = [
    "summary.json",
    "model",
    "model-best",
    "adapter",
    "adapter-best",
    "metrics.jsonl",
    "metrics.csv",
    "losses.svg",
    "memory.svg",
];

/// The start of the names of TensorBoard's event files.
pub const EVENTS: &str = "events.out.tfevents.";
/// The end of the names of event files of this program.
pub const OUR_EVENTS: &str = ".lisa";

/// Whether a run has written to this folder.
#[must_use]
pub fn holds_a_run(out: &Path) -> bool {
    let has_metrics = out.join("metrics.jsonl").is_file() || out.join("summary.json").is_file();
    let steps = fs::read_dir(out.join("checkpoints")).into_iter().flatten();
    has_metrics || steps.flatten().any(|entry| is_checkpoint(&entry.path()))
}

/// Whether a path has the name of a checkpoint.
fn is_checkpoint(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    let digits = name.and_then(|name| name.strip_prefix("step-"));
    digits.is_some_and(|name| {
        let digits = name.strip_suffix(".partial").unwrap_or(name);
        !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// Returns an error if the folder has files and `is_ours` is false.
pub fn require_ours(out: &Path, is_ours: bool, whose: &str) -> Result<()> {
    let Ok(entries) = fs::read_dir(out) else {
        return Ok(());
    };
    let mut names: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
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

/// Makes the folder, and checks that files can be written in it.
pub fn make(out: &Path) -> Result<()> {
    fs::create_dir_all(out)
        .with_context(|| format!("cannot make the folder `{}`", out.display()))?;
    let probe = out.join(".lisa-probe");
    fs::write(&probe, b"")
        .and_then(|()| fs::remove_file(&probe))
        .with_context(|| format!("cannot write to the folder `{}`", out.display()))
}

/// Returns an error if the disk of the folder has less room. Where the free space is not known,
/// nothing is checked.
pub fn require_room(out: &Path, needed: u64) -> Result<()> {
    let Some(free) = free_bytes(out) else {
        return Ok(());
    };
    require!(
        free >= needed,
        "free some space, or give a folder on another disk with --out; --keep 1 keeps fewer \
         checkpoints",
        "there is no room in `{}`: about {} are needed, and {} are free",
        out.display(),
        size(needed),
        size(free)
    );
    Ok(())
}

/// The bytes that can be written to the disk of a folder.
#[cfg(unix)]
fn free_bytes(out: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(out).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_out: &Path) -> Option<u64> {
    None
}

/// Removes what a run has written, and nothing else. A kill at any point leaves no half of it: a
/// folder is renamed before its files are removed.
pub fn remove_run(out: &Path) -> Result<()> {
    for name in OF_A_RUN {
        remove(&out.join(name))?;
    }
    for entry in entries(out)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(EVENTS) && name.ends_with(OUR_EVENTS) {
            remove(&entry)?;
        }
    }
    for entry in entries(&out.join("checkpoints"))? {
        if is_checkpoint(&entry) {
            remove(&entry)?;
        }
    }
    Ok(())
}

/// Removes a file or a folder of the program. A folder is renamed first.
pub fn remove(path: &Path) -> Result<()> {
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

/// Removes the folders that an interrupted save or removal has left.
pub fn clean(out: &Path) -> Result<()> {
    for name in [
        "model.partial",
        "model-best.partial",
        "adapter.partial",
        "adapter-best.partial",
    ] {
        remove(&out.join(name))?;
    }
    for entry in entries(&out.join("checkpoints"))? {
        let is_partial = entry.extension().is_some_and(|end| end == "partial");
        if is_partial && is_checkpoint(&entry) {
            remove(&entry)?;
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
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
    fn only_what_a_run_wrote_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        for folder in [
            "model",
            "checkpoints/step-00000002",
            "checkpoints/step-00000004.partial",
            "checkpoints/of-mine",
            "checkpoints/step-by-step",
        ] {
            fs::create_dir_all(out.join(folder)).unwrap();
            fs::write(out.join(folder).join("file"), "").unwrap();
        }
        for file in [
            "metrics.jsonl",
            "summary.json",
            "events.out.tfevents.7.lisa",
            "events.out.tfevents.7.host",
            "notes.txt",
        ] {
            fs::write(out.join(file), "").unwrap();
        }
        assert!(holds_a_run(out));
        remove_run(out).unwrap();
        assert!(!holds_a_run(out));
        let names = |folder: &Path| {
            let mut names: Vec<String> = entries(folder)
                .unwrap()
                .iter()
                .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        assert_eq!(
            names(out),
            ["checkpoints", "events.out.tfevents.7.host", "notes.txt"]
        );
        assert_eq!(names(&out.join("checkpoints")), ["of-mine", "step-by-step"]);
    }

    #[test]
    fn a_folder_of_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        require_ours(dir.path(), false, "a run").unwrap();
        require_ours(&dir.path().join("missing"), false, "a run").unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        let error = require_ours(dir.path(), false, "a run").unwrap_err();
        assert!(error.to_string().contains("`thesis.tex`"), "{error}");
        require_ours(dir.path(), true, "a run").unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn the_room_on_the_disk_is_compared() {
        let dir = tempfile::tempdir().unwrap();
        require_room(dir.path(), 1).unwrap();
        let error = require_room(dir.path(), u64::MAX).unwrap_err();
        assert!(error.to_string().contains("are free"), "{error}");
    }
}

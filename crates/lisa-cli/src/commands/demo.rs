//! `lisa demo`: a run on the bundled model and data.

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn::tensor::Device;
use clap::Args;

use super::train;
use crate::lock::{LOCK, Lock};
use crate::output_folder::entries;
use crate::settings::{Flags, OutputFlags, TrainingFlags};
use crate::terminal::output::say;
use crate::train::run::Outcome;

/// Options of `lisa demo`.
#[derive(Args, Debug, Default)]
pub struct Options {
    /// Folder for all files of the run [default: runs/lisa, then runs/lisa-2, ..]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Optimizer steps [default: 12 epochs, 1800 steps]
    #[arg(long, value_name = "STEPS")]
    steps: Option<usize>,
    /// Continue from the newest checkpoint in --out, or in the last runs/lisa-N
    #[arg(long)]
    resume: bool,
    /// Replace the run in --out, or in runs/lisa
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,
}

/// Trains with the settings of `demo.toml`.
pub(crate) fn demo(options: Options, device: &Device) -> Result<Outcome> {
    let out = match options.out {
        Some(out) => Some(out),
        None if options.overwrite => None,
        None => {
            let first = Flags::default().out()?;
            Some(if options.resume {
                last(&first)
            } else {
                next(&first)?
            })
        }
    };
    let flags = Flags {
        training: TrainingFlags {
            steps: options.steps,
            ..TrainingFlags::default()
        },
        output: OutputFlags {
            out,
            ..OutputFlags::default()
        },
        ..Flags::default()
    };
    let options = train::Options {
        resume: options.resume.then_some(None),
        overwrite: options.overwrite,
        flags,
        ..train::Options::default()
    };
    train::train(options, device)
}

/// The folder with this number: 1 is the first folder, and the others have the number in their names.
fn numbered(first: &Path, number: u32) -> PathBuf {
    if number == 1 {
        return first.to_path_buf();
    }
    let name = first.file_name().unwrap_or_default().to_string_lossy();
    first.with_file_name(format!("{name}-{number}"))
}

/// The highest number of a folder, or a file in its place, that is not free.
fn highest(first: &Path) -> Option<u32> {
    let name = first.file_name()?.to_str()?;
    let beside = entries(first.parent()?).unwrap_or_default();
    let number = |path: &PathBuf| {
        let rest = path.file_name()?.to_str()?.strip_prefix(name)?;
        let number = match rest {
            "" => 1,
            rest => rest.strip_prefix('-')?.parse().ok()?,
        };
        (numbered(first, number) == *path && !is_free(path)).then_some(number)
    };
    beside.iter().filter_map(number).max()
}

/// Whether there is nothing at this path, or a folder that has nothing in it. The lock of a command that has
/// ended does not count.
fn is_free(path: &Path) -> bool {
    let Ok(mut inside) = std::fs::read_dir(path) else {
        return path.symlink_metadata().is_err();
    };
    inside.all(|entry| entry.is_ok_and(|entry| entry.file_name() == LOCK))
        && (!path.join(LOCK).exists() || Lock::of(path).is_ok())
}

/// The folder after the last one that is not free. If it is not the first one, the user is told.
fn next(first: &Path) -> Result<PathBuf> {
    let Some(number) = highest(first) else {
        return Ok(first.to_path_buf());
    };
    let (last, next) = (
        numbered(first, number),
        numbered(first, number.saturating_add(1)),
    );
    say(format_args!(
        "`{}` has files already: this run is written to `{}`",
        last.display(),
        next.display()
    ))?;
    Ok(next)
}

/// The last folder that is not free, or else the first one.
fn last(first: &Path) -> PathBuf {
    numbered(first, highest(first).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// `runs/lisa` in a new folder.
    fn first() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let first = dir.path().join("runs/lisa");
        (dir, first)
    }

    fn write(folder: &Path, name: &str) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join(name), "").unwrap();
    }

    #[test]
    fn each_demo_has_a_folder_of_its_own() {
        let (dir, first) = first();
        assert_eq!(last(&first), first);
        assert_eq!(next(&first).unwrap(), first);
        // An empty folder is free.
        fs::create_dir_all(&first).unwrap();
        assert_eq!(next(&first).unwrap(), first);
        for name in ["runs/lisa-2", "runs/lisa-3"] {
            write(&next(&first).unwrap(), "a");
            assert_eq!(next(&first).unwrap(), dir.path().join(name));
        }
        assert_eq!(last(&first), dir.path().join("runs/lisa-2"));
        // A file is in the way.
        fs::write(dir.path().join("runs/lisa-3"), "").unwrap();
        assert_eq!(next(&first).unwrap(), dir.path().join("runs/lisa-4"));
    }

    #[test]
    fn a_lock_that_a_stopped_demo_left_is_no_run() {
        let (dir, first) = first();
        write(&first, LOCK);
        assert_eq!(next(&first).unwrap(), first);
        write(&first, "a");
        write(&dir.path().join("runs/lisa-2"), LOCK);
        assert_eq!(next(&first).unwrap(), dir.path().join("runs/lisa-2"));
        assert_eq!(last(&first), first);
        // The lock of a demo that is running.
        let second = dir.path().join("runs/lisa-2");
        let _lock = Lock::of(&second).unwrap().unwrap();
        assert_eq!(next(&first).unwrap(), dir.path().join("runs/lisa-3"));
    }

    #[test]
    fn the_last_demo_is_that_with_the_highest_number() {
        let (dir, first) = first();
        write(&first, "a");
        for other in [
            "lisa-3", "lisa-10", "lisa-04", "lisa-+11", "lisa-x", "lisa2", "other-99",
        ] {
            write(&dir.path().join("runs").join(other), "a");
        }
        assert_eq!(last(&first), dir.path().join("runs/lisa-10"));
        assert_eq!(next(&first).unwrap(), dir.path().join("runs/lisa-11"));
    }
}

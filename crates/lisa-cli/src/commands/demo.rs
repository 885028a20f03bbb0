//! `lisa demo`: a run on the bundled model and data.

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn::tensor::Device;
use clap::Args;

use super::train;
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
pub fn demo(options: Options, device: &Device) -> Result<Outcome> {
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

/// The first folder, or the same with the next number from 2 on.
fn numbered(first: &Path) -> impl Iterator<Item = PathBuf> {
    let name = first.file_name().unwrap_or_default().to_string_lossy();
    let (name, first) = (name.into_owned(), first.to_path_buf());
    let others = (2_u64..).map({
        let first = first.clone();
        move |number| first.with_file_name(format!("{name}-{number}"))
    });
    std::iter::once(first).chain(others)
}

/// The first numbered folder that has nothing in it. If it is not the first one, the user is told.
fn next(first: &Path) -> Result<PathBuf> {
    let is_free = |path: &PathBuf| match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => path.symlink_metadata().is_err(),
    };
    let found = numbered(first).find(is_free);
    let found = found.unwrap_or_else(|| first.to_path_buf());
    if found != first {
        say(format_args!(
            "`{}` has files already: this run is written to `{}`",
            first.display(),
            found.display()
        ))?;
    }
    Ok(found)
}

/// The last numbered folder in a row that exists.
fn last(first: &Path) -> PathBuf {
    let there = numbered(first).take_while(|path| path.is_dir());
    there.last().unwrap_or_else(|| first.to_path_buf())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_demo_has_a_folder_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let first = dir.path().join("runs/lisa");
        assert_eq!(last(&first), first);
        assert_eq!(next(&first).unwrap(), first);
        // An empty folder is free.
        fs::create_dir_all(&first).unwrap();
        assert_eq!(next(&first).unwrap(), first);
        for name in ["runs/lisa-2", "runs/lisa-3"] {
            let there = last(&first);
            fs::create_dir_all(&there).unwrap();
            fs::write(there.join("a"), "").unwrap();
            let free = next(&first).unwrap();
            assert_eq!(free, dir.path().join(name));
            fs::create_dir(&free).unwrap();
            assert_eq!(last(&first), free);
        }
        // A file is in the way.
        fs::remove_dir(dir.path().join("runs/lisa-3")).unwrap();
        fs::write(dir.path().join("runs/lisa-3"), "").unwrap();
        assert_eq!(next(&first).unwrap(), dir.path().join("runs/lisa-4"));
    }
}

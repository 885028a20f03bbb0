//! How a new run takes the place of an earlier one in the same folder.
//!
//! It sets the earlier run aside, in `.lisa-earlier-run`, and removes it when its own first checkpoint is
//! complete. If it ends before that, the earlier run is put back; after a kill, the next command that
//! writes to the folder does it. Until then, files are only renamed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::output_folder::{entries, remove, size_of};
use crate::run_folder::{CHECKPOINTS, is_saved, own, remove_own};

/// The earlier run while a new one has no checkpoint.
const EARLIER: &str = ".lisa-earlier-run";
/// The same while its files are moved.
const MOVING: &str = ".lisa-earlier-run.moving";

/// The bytes of the files of a run, with those of an earlier one that is set aside.
#[must_use]
pub(crate) fn bytes(out: &Path) -> u64 {
    let own: u64 = own(out).iter().map(|name| size_of(&out.join(name))).sum();
    own + size_of(&out.join(EARLIER))
}

/// Sets the files of an earlier run aside.
pub(crate) fn set_aside(out: &Path) -> Result<()> {
    let own = own(out);
    if own.is_empty() {
        return Ok(());
    }
    let moving = out.join(MOVING);
    for name in own {
        rename(&out.join(&name), &moving.join(&name))?;
    }
    rename(&moving, &out.join(EARLIER))
}

/// Removes an earlier run that is set aside, since the new one has a checkpoint. Whether there was
/// one.
pub(crate) fn remove_earlier(out: &Path) -> Result<bool> {
    let earlier = out.join(EARLIER);
    let is_there = earlier.exists();
    remove(&earlier)?;
    Ok(is_there)
}

/// Brings the folder into order after a run that ended early, or was killed: removes the earlier run
/// if the new one has a checkpoint, and otherwise puts it back. Whether it was put back.
pub(crate) fn settle(out: &Path) -> Result<bool> {
    let (earlier, moving) = (out.join(EARLIER), out.join(MOVING));
    // What an interrupted removal has left.
    remove(&earlier.with_extension("partial"))?;
    if earlier.exists() {
        if is_saved(out) {
            remove_earlier(out)?;
            return Ok(false);
        }
        remove_own(out)?;
        rename(&earlier, &moving)?;
    }
    if !moving.exists() {
        return Ok(false);
    }
    let inside = entries(&moving.join(CHECKPOINTS))?;
    for path in entries(&moving)?.into_iter().chain(inside) {
        let name = path.strip_prefix(&moving)?;
        if name != Path::new(CHECKPOINTS) {
            rename(&path, &out.join(name))?;
        }
    }
    remove(&moving)?;
    Ok(true)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("cannot move `{}` to `{}`", from.display(), to.display());
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(failed)?;
    }
    fs::rename(from, to).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_folder::{STEP, holds_a_run};

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The files below a folder, with their texts.
    fn files(folder: &Path) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for path in entries(folder).unwrap() {
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.to_str().unwrap().to_owned(), text));
            }
        }
        found.sort();
        found
    }

    /// A finished run, with files of others.
    fn run(out: &Path) {
        for name in [
            "model/config.json",
            "checkpoints/step-00000004/state.json",
            "metrics.jsonl",
            "metrics.csv",
            "losses.svg",
            "events.out.tfevents.7.lisa",
        ]
        .iter()
        .chain(&OTHERS)
        {
            write(&out.join(name), name);
        }
        write(&out.join("model").join(STEP), r#"{"step": 4}"#);
        let summary = r#"{"settings": {}, "steps": 4, "seconds": 1.0, "before": null}"#;
        write(&out.join("summary.json"), summary);
    }

    /// What a new run writes before its first checkpoint.
    fn begin(out: &Path) {
        write(&out.join("metrics.jsonl"), "new");
        write(&out.join("events.out.tfevents.8.lisa"), "new");
        fs::create_dir_all(out.join("checkpoints/step-00000002.partial")).unwrap();
    }

    const OTHERS: [&str; 3] = [
        "checkpoints/of-mine/file",
        "notes.txt",
        // The name does not make it one of the program.
        "earlier-run/notes.txt",
    ];

    #[test]
    fn an_earlier_run_is_put_back_unless_the_new_one_has_a_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        run(out);
        let before = files(out);
        set_aside(out).unwrap();
        assert!(!is_saved(out) && !holds_a_run(out));
        begin(out);
        assert!(settle(out).unwrap());
        assert_eq!(files(out), before);
        assert!(!settle(out).unwrap());

        set_aside(out).unwrap();
        begin(out);
        write(&out.join("checkpoints/step-00000002/state.json"), "{}");
        assert!(!settle(out).unwrap());
        assert!(!out.join(EARLIER).exists() && !out.join("model").exists());
        assert!(out.join("checkpoints/step-00000002/state.json").is_file());
        for name in OTHERS {
            assert!(out.join(name).is_file(), "{name}");
        }
    }

    /// A kill at any point of moving the files there or back.
    #[test]
    fn half_of_an_earlier_run_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        run(out);
        let (before, own) = (files(out), own(out));
        assert_eq!(own.len(), 7, "{own:?}");
        for count in 0..=own.len() {
            fs::create_dir_all(out.join(MOVING)).unwrap();
            for name in &own[..count] {
                rename(&out.join(name), &out.join(MOVING).join(name)).unwrap();
            }
            assert!(settle(out).unwrap());
            assert_eq!(files(out), before, "{count} files");
        }
    }
}

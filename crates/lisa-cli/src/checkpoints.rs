//! Checkpoints of a run: everything to go on exactly, in a folder that is whole or not there.
//!
//! A checkpoint is written under a name that no reader looks at, and renamed when it is whole.
//! The two newest are kept.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::module::Module;
use lisa_lm::{CausalLm, Position, write_atomically};
use serde::{Deserialize, Serialize};

use crate::method::Trainer;
use crate::settings::Flags;

const KEPT: usize = 2;
const WEIGHTS: &str = "weights.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const STATE: &str = "state.json";

/// What a checkpoint holds beside weights and optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimizer steps taken.
    pub step: u64,
    /// The next batch.
    pub position: Position,
    /// The settings of the run.
    pub settings: Flags,
    /// What the evaluation before training found.
    pub before: crate::evaluate::Evaluation,
    /// Seconds trained so far.
    pub seconds: f64,
    /// Tokens trained on so far.
    pub tokens: u64,
}

/// The folder of all checkpoints of a run.
fn folder(out: &Path) -> PathBuf {
    out.join("checkpoints")
}

/// Writes a checkpoint and removes all but the newest two.
pub fn save(out: &Path, model: &CausalLm, trainer: &Trainer, state: &State) -> Result<PathBuf> {
    let all = folder(out);
    let name = format!("step-{:08}", state.step);
    let (partial, whole) = (all.join(format!("{name}.partial")), all.join(&name));
    let failed = || format!("cannot write the checkpoint `{}`", whole.display());
    for old in [&partial, &whole] {
        if old.is_dir() {
            fs::remove_dir_all(old).with_context(failed)?;
        }
    }
    fs::create_dir_all(&partial).with_context(failed)?;
    model
        .clone()
        .save_file(partial.join(WEIGHTS))
        .with_context(failed)?;
    trainer
        .save(&partial.join(OPTIMIZER))
        .with_context(failed)?;
    write_atomically(&partial.join(STATE), &serde_json::to_vec_pretty(state)?)?;
    fs::rename(&partial, &whole).with_context(failed)?;
    fs::File::open(&all)
        .and_then(|dir| dir.sync_all())
        .with_context(failed)?;
    for (_, old) in list(out)?.into_iter().rev().skip(KEPT) {
        fs::remove_dir_all(&old).with_context(|| format!("cannot remove `{}`", old.display()))?;
    }
    Ok(whole)
}

/// The checkpoints that are whole, by step, the newest last.
fn list(out: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let all = folder(out);
    let mut found = Vec::new();
    if !all.is_dir() {
        return Ok(found);
    }
    for entry in fs::read_dir(&all).with_context(|| format!("cannot read `{}`", all.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if let Some(step) = name
            .strip_prefix("step-")
            .and_then(|step| step.parse().ok())
        {
            found.push((step, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes all checkpoints of a run that is replaced.
pub fn remove(out: &Path) -> Result<()> {
    let all = folder(out);
    if all.is_dir() {
        fs::remove_dir_all(&all).with_context(|| format!("cannot remove `{}`", all.display()))?;
    }
    Ok(())
}

/// Removes what a run that was killed while it saved has left half-written.
pub fn clean(out: &Path) -> Result<()> {
    let all = folder(out);
    if !all.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(&all).with_context(|| format!("cannot read `{}`", all.display()))? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "partial")
        {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove `{}`", path.display()))?;
        }
    }
    Ok(())
}

/// The newest checkpoint's folder and state.
pub fn newest(out: &Path) -> Result<(PathBuf, State)> {
    let (_, path) = list(out)?.pop().with_context(|| {
        format!(
            "there is no checkpoint in `{}` to resume from",
            folder(out).display()
        )
    })?;
    let file = path.join(STATE);
    let text = lisa_lm::read_small_text(&file)
        .with_context(|| format!("cannot read the checkpoint's `{}`", file.display()))?;
    let state = serde_json::from_str(&text)
        .with_context(|| format!("the checkpoint's `{}` is damaged", file.display()))?;
    Ok((path, state))
}

/// Puts a checkpoint's weights and optimizer state in the place of these.
pub fn load(path: &Path, model: CausalLm, trainer: Trainer) -> Result<(CausalLm, Trainer)> {
    read(path, model, trainer).with_context(|| {
        format!(
            "the checkpoint `{}` cannot be used; remove that folder, and --resume goes on from \
             the one before it",
            path.display()
        )
    })
}

fn read(path: &Path, model: CausalLm, trainer: Trainer) -> Result<(CausalLm, Trainer)> {
    let weights = path.join(WEIGHTS);
    let model = trainer
        .exact(&model)
        .try_load_file(&weights)
        .with_context(|| format!("cannot read the checkpoint's `{}`", weights.display()))?;
    let (trainer, model) = trainer.load(&path.join(OPTIMIZER), model)?;
    Ok((model, trainer))
}

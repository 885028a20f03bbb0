//! Checkpoints of a run: everything that an exact resume needs.
//!
//! A checkpoint is written to `step-N.partial` and renamed to `step-N` when it is complete, so an
//! interrupted save leaves no checkpoint. The newest are kept, and the one with the lowest held-out
//! loss. A checkpoint of LoRA has the adapters alone, in PEFT's format, and the name and the fingerprint
//! of their base model.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::module::Module;
use lisa_lm::CausalLm;
use lisa_lm::files::write_atomically;
use lisa_lm::text::{Batches, Position};
use serde::{Deserialize, Serialize};

use super::adapter;
use super::fingerprint::Fingerprint;
use super::text::Text;
use crate::number;
use crate::output_folder;
use crate::run_folder::{ADAPTER, CHECKPOINT};
use crate::settings::{Flags, OutputSettings, names_of_data};
use crate::terminal::text::counted;
use crate::train::clock::Clock;
use crate::train::evaluation::result::Evaluation;
use crate::train::method::trainer::Trainer;
use crate::user_error::{UserError, require};

const WEIGHTS: &str = CHECKPOINT[0];
const OPTIMIZER: &str = CHECKPOINT[1];
const STATE: &str = CHECKPOINT[2];

/// The state that a checkpoint stores in addition to the weights and the optimizer state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Optimizer steps taken.
    pub(crate) step: u64,
    /// The position of the next batch.
    pub(crate) position: Position,
    /// Steps that were skipped because their loss or gradients were not finite.
    #[serde(default)]
    pub(crate) skipped: u64,
    /// The settings of the run.
    pub(crate) settings: Flags,
    /// The model and the data that the run was started with.
    pub(crate) fingerprint: Fingerprint,
    /// The training data before the present one, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) earlier_data: Vec<EarlierData>,
    /// The settings that resumed runs have changed, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) earlier_settings: Vec<EarlierSettings>,
    /// The chat template, the ends of sequences and the vocabulary.
    #[serde(default)]
    pub(crate) text: Text,
    /// The evaluation before training; `None` without held-out examples.
    pub(crate) before: Option<Evaluation>,
    /// The held-out loss at this step, if it was measured.
    #[serde(default, with = "number::option")]
    pub(crate) held_out_loss: Option<f64>,
    /// Where the time went.
    #[serde(default)]
    pub(crate) clock: Clock,
    /// Seconds trained so far, without evaluation and saving.
    pub(crate) seconds: f64,
    /// Tokens trained on so far.
    pub(crate) tokens: u64,
}

/// Training data that a resumed run has replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EarlierData {
    /// The names of its files.
    pub(crate) names: String,
    /// The last step that was taken in it.
    pub(crate) until: u64,
}

/// Settings that a resumed run has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EarlierSettings {
    /// Their values before, by name.
    pub(crate) values: BTreeMap<String, String>,
    /// The last step that was taken with them.
    pub(crate) until: u64,
}

impl State {
    /// Notes the settings that have these values in the checkpoint, and others from here on.
    pub(crate) fn change_settings(&mut self, values: BTreeMap<String, String>) {
        if values.is_empty() || self.step == 0 {
            return;
        }
        // An evaluation writes the checkpoint again before a step is taken with new settings.
        match self.earlier_settings.last_mut() {
            Some(last) if last.until == self.step => {
                for (name, value) in values {
                    last.values.entry(name).or_insert(value);
                }
            }
            _ => self.earlier_settings.push(EarlierSettings {
                values,
                until: self.step,
            }),
        }
    }

    /// Refuses a position at which the steps of this run do not arrive.
    pub(crate) fn check_position(
        &self,
        path: &Path,
        batches: &Batches,
        accumulation: usize,
    ) -> Result<()> {
        let steps = self.step.saturating_add(self.skipped);
        let Position { epoch, index } = self.position;
        require!(
            batches.steps_before(self.position, accumulation) == Some(steps),
            "start a new run with another --out; the checkpoint was changed after it was written",
            "cannot resume: the checkpoint `{}`, after {}, is at batch {} of epoch {}, where a step \
             with --gradient-accumulation-steps {accumulation} does not begin",
            path.display(),
            counted(steps as usize, "step"),
            index.saturating_add(1),
            epoch.saturating_add(1)
        );
        Ok(())
    }

    /// Leaves out the losses of held-out rows that the run has no more.
    pub(crate) fn without_held_out_losses(&mut self) {
        (self.before, self.held_out_loss) = (None, None);
    }

    /// The state in other data: after as many steps as before. The steps of an epoch of the new data that
    /// count as taken, and all of its steps, are returned with it.
    #[must_use]
    pub(crate) fn in_other_data(
        mut self,
        batches: &Batches,
        accumulation: usize,
    ) -> (Self, [u64; 2]) {
        // An evaluation writes the checkpoint again before a step is taken in new data.
        let is_used = self.earlier_data.last().map(|data| data.until) != Some(self.step);
        if is_used {
            let paths = self.settings.input.data.as_deref().unwrap_or_default();
            self.earlier_data.push(EarlierData {
                names: names_of_data(paths),
                until: self.step,
            });
        }
        let steps = self.step.saturating_add(self.skipped);
        let per_epoch = batches.steps_per_epoch(accumulation) as u64;
        self.position = Position {
            epoch: steps / per_epoch,
            index: (steps % per_epoch) as usize * accumulation,
        };
        (self, [steps % per_epoch, per_epoch])
    }
}

/// The folder of a run's checkpoints.
fn folder(out: &Path) -> PathBuf {
    out.join("checkpoints")
}

/// The folder of the checkpoint of a step.
#[must_use]
pub(crate) fn path(out: &Path, step: u64) -> PathBuf {
    folder(out).join(format!("step-{step:08}"))
}

/// Writes a checkpoint, and removes all except the newest ones (`--keep`) and the best one. The base model is
/// in the folder `base`.
pub(crate) fn save(
    output: &OutputSettings,
    base: &Path,
    model: &CausalLm,
    trainer: &Trainer,
    state: &State,
) -> Result<()> {
    let whole = path(&output.out, state.step);
    let partial = whole.with_extension("partial");
    let failed = || format!("cannot write the checkpoint `{}`", whole.display());
    for old in [&partial, &whole] {
        output_folder::remove(old)?;
    }
    fs::create_dir_all(&partial).with_context(failed)?;
    if model.lora().is_some() {
        let revision = state.settings.input.revision.as_deref().unwrap_or_default();
        adapter::write_alone(model, revision, base, &partial.join(ADAPTER)).with_context(failed)?;
    } else {
        let saved = trainer.save_weights(model, &partial.join(WEIGHTS));
        saved.with_context(failed)?;
    }
    trainer
        .save(&partial.join(OPTIMIZER))
        .with_context(failed)?;
    write_state(&partial, state)?;
    fs::rename(&partial, &whole).with_context(failed)?;
    // Other systems do not open folders.
    if cfg!(unix) {
        fs::File::open(folder(&output.out))
            .and_then(|dir| dir.sync_all())
            .with_context(failed)?;
    }
    prune(output, state)
}

/// Stores the held-out loss of a checkpoint that was saved before it was evaluated, and removes
/// checkpoints that are now neither new nor the best.
pub(crate) fn evaluated(output: &OutputSettings, state: &State) -> Result<()> {
    let path = path(&output.out, state.step);
    if path.is_dir() {
        write_state(&path, state)?;
    }
    prune(output, state)
}

fn write_state(path: &Path, state: &State) -> Result<()> {
    Ok(write_atomically(
        &path.join(STATE),
        &serde_json::to_vec_pretty(state)?,
    )?)
}

fn prune(output: &OutputSettings, newest: &State) -> Result<()> {
    let best = best(&output.out, &newest.fingerprint)?.map(|(step, _)| step);
    for (step, old) in list(&output.out)?.into_iter().rev().skip(output.keep) {
        if Some(step) != best {
            output_folder::remove(&old)?;
        }
    }
    Ok(())
}

/// The step and the held-out loss of the checkpoint with the lowest loss; `None` if none is known.
/// The first of several with the same loss. Losses of other held-out rows than those of `run` are not
/// compared.
pub(crate) fn best(out: &Path, run: &Fingerprint) -> Result<Option<(u64, f64)>> {
    let losses = list(out)?.into_iter().filter_map(|(step, path)| {
        // A damaged checkpoint is reported where it is read.
        let state = state(&path).ok()?;
        let same_rows = run.has_held_out_data_of(&state.fingerprint);
        let loss = state.held_out_loss.filter(|_| same_rows)?;
        loss.is_finite().then_some((step, loss))
    });
    Ok(losses.min_by(|a, b| a.1.total_cmp(&b.1)))
}

/// The complete checkpoints with their steps; the newest is the last.
pub(crate) fn list(out: &Path) -> Result<Vec<(u64, PathBuf)>> {
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

/// The folder and the state of the newest checkpoint.
pub(crate) fn newest(out: &Path) -> Result<(PathBuf, State)> {
    let Some((_, path)) = list(out)?.pop() else {
        let message = if out.is_dir() {
            format!("there is no checkpoint in `{}`", folder(out).display())
        } else {
            format!(
                "there is no folder `{}`, and so no checkpoint",
                out.display()
            )
        };
        let help = match run_above(out) {
            Some((run, step)) => format!(
                "give the folder of the run, `{}`: it continues from its newest checkpoint, of step {step}",
                run.display()
            ),
            None => "give the folder of a run with --out; without --resume a new run begins here"
                .to_owned(),
        };
        return Err(UserError::new(message).with_help(help).into());
    };
    let state = state(&path)?;
    Ok((path, state))
}

/// The run that a folder is a part of, such as one of its checkpoints or models, and the step of its
/// newest checkpoint.
pub(crate) fn run_above(folder: &Path) -> Option<(PathBuf, u64)> {
    let folder = std::path::absolute(folder).ok()?;
    let mut above = folder.ancestors().skip(1).take(2);
    above.find_map(|run| Some((run.to_path_buf(), list(run).ok()?.last()?.0)))
}

/// The state of a checkpoint.
pub(crate) fn state(path: &Path) -> Result<State> {
    let file = path.join(STATE);
    let read = || -> Result<State> {
        let text = lisa_lm::files::read_small_text(&file)
            .with_context(|| format!("cannot read `{}`", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("`{}` is damaged", file.display()))
    };
    read().map_err(|error| unusable(path, error))
}

/// Loads the optimizer state of a checkpoint, and its adapters if the model has some. Other models must
/// have the [weights] of the checkpoint.
pub(crate) fn load(path: &Path, model: CausalLm, trainer: Trainer) -> Result<(CausalLm, Trainer)> {
    let model = match model.lora() {
        Some(_) => weights(path, model)?,
        None => model,
    };
    let loaded = trainer.load(&path.join(OPTIMIZER), model);
    let (trainer, model) = loaded.map_err(|error| unusable(path, error))?;
    Ok((model, trainer))
}

/// Loads only the weights of a checkpoint. A LoRA model must already have its adapters.
pub(crate) fn weights(path: &Path, model: CausalLm) -> Result<CausalLm> {
    if model.lora().is_some() {
        let restored = adapter::restored(&path.join(ADAPTER), model);
        return restored.map_err(|error| unusable(path, error));
    }
    let file = path.join(WEIGHTS);
    let loaded = model
        .try_load_file(&file)
        .with_context(|| format!("cannot read `{}`", file.display()));
    loaded.map_err(|error| unusable(path, error))
}

/// The error of a checkpoint that cannot be read, and which other one there is.
fn unusable(path: &Path, error: anyhow::Error) -> anyhow::Error {
    let out = path.parent().and_then(Path::parent);
    let others = out.and_then(|out| list(out).ok()).unwrap_or_default();
    let other = others.into_iter().rev().find(|(_, other)| other != path);
    let help = match other {
        Some((step, _)) => format!(
            "remove that folder; --resume then continues from the checkpoint of step {step}, which \
             `lisa export --step {step}` exports"
        ),
        None => "there is no other checkpoint: begin again with --overwrite".to_owned(),
    };
    UserError::new(format!(
        "the checkpoint `{}` cannot be used",
        path.display()
    ))
    .with_help(help)
    .with_source(error)
    .into()
}

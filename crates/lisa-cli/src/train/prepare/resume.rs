//! What a resumed run must have in common with its checkpoint. Tests: `tests/run/resumed.rs`.

use std::path::Path;

use anyhow::Result;
use lisa_lm::text::Batches;
use lisa_lm::{Checkpoint, Tokenizer};

use super::start::{Saved, Start};
use crate::model_tokenizer::model_tokenizer;
use crate::run_folder;
use crate::settings::Settings;
use crate::terminal::output::say;
use crate::train::saved::checkpoints::State;
use crate::train::saved::fingerprint::Fingerprint;
use crate::user_error::{UserError, require};

/// The tokenizer as the run has it from its first step.
pub(super) fn tokenizer(
    settings: &Settings,
    model: &Path,
    saved: Option<&Saved>,
) -> Result<Tokenizer> {
    let input = &settings.input;
    match saved {
        Some((_, state)) => state.text.restore(Tokenizer::from_dir(model)?),
        None => model_tokenizer(model, &settings.method.adapter, &input.chat_template),
    }
}

/// Why the data of a resumed run cannot be used: that the model has changed, or else the error.
pub(super) fn cause(
    error: anyhow::Error,
    saved: Option<&Saved>,
    start: Start,
    checkpoint: &Checkpoint,
    tokenizer: &Tokenizer,
) -> anyhow::Error {
    let (Some((_, state)), Some(allowed)) = (saved, start.resumed()) else {
        return error;
    };
    let model = Fingerprint::of_model(checkpoint, tokenizer);
    let changed = model.and_then(|model| model.check_model(&state.fingerprint, allowed));
    changed.err().unwrap_or(error)
}

/// Returns an error if a setting must be that of the checkpoint and is not.
pub(super) fn require_same(settings: &Settings, state: &State) -> Result<()> {
    let made_with = state.settings.clone().resolve(None)?;
    if let Some(difference) = settings.differs(&made_with) {
        return Err(UserError::new(format!("cannot resume: {difference}"))
            .with_help("leave that flag out, or start a new run with another --out")
            .into());
    }
    Ok(())
}

/// Returns an error if the run would end before its newest checkpoint or its finished model.
pub(super) fn require_later(steps: u64, saved: u64, out: &Path) -> Result<()> {
    require!(
        steps >= saved,
        format!("give --steps {saved} or more, or start a new run with --out"),
        "the run would end at step {steps}, and its newest checkpoint is of step {saved}"
    );
    let written = run_folder::finished_step(out).unwrap_or(0);
    require!(
        steps >= written,
        format!("give --steps {written} or more, or start a new run with --out"),
        "the run would end at step {steps}, and its finished model is of step {written}"
    );
    Ok(())
}

/// The checkpoint as the run continues from it, and whether its held-out rows are other ones.
pub(super) fn continued(
    (path, mut state): Saved,
    fingerprint: &Fingerprint,
    batches: &Batches,
    accumulation: usize,
) -> Result<(Saved, bool)> {
    let other = !fingerprint.has_held_out_data_of(&state.fingerprint);
    if fingerprint.has_training_data_of(&state.fingerprint) {
        state.check_position(&path, batches, accumulation)?;
    } else {
        let (moved, [taken, all]) = state.in_other_data(batches, accumulation);
        state = moved;
        if taken > 0 {
            say(format_args!(
                "the first {taken} of {all} steps of the epoch are not taken in the new data: the run goes \
                 on after as many steps as before"
            ))?;
        }
    }
    if other {
        state.without_held_out_losses();
        say(
            "the losses of the earlier held-out rows are left out: before training, of the steps, and \
             of the best checkpoint",
        )?;
    }
    Ok(((path, state), other))
}

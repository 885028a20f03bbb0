//! Writes the models of a run.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lisa_lm::CausalLm;
use lisa_lm::checkpoint::SaveOptions;

use crate::output_folder;
use crate::run_folder;
use crate::settings::Method;
use crate::terminal::output::say;
use crate::terminal::progress::Slow;
use crate::terminal::text::shell_word;
use crate::train::method::layerwise_model::LayerwiseModel;
use crate::train::method::trainer::prepared;
use crate::train::prepare::job::Job;
use crate::train::saved::adapter;
use crate::train::saved::checkpoints;
use crate::train::training_loop::training::require_finite;

/// Writes the model of the best checkpoint, or removes an earlier one. `last` is the finished model.
pub(super) fn write_best(
    job: &Job<'_>,
    best: Option<u64>,
    folder: &Path,
    last: CausalLm,
) -> Result<()> {
    let Some(step) = best else {
        output_folder::remove(folder)?;
        return output_folder::remove(&adapter::folder_of(folder));
    };
    let checkpoint = checkpoints::path(&job.settings.output.out, step);
    let model = of_checkpoint(job, &checkpoint, last)?;
    write(job, (step, None), folder, model, |model| model)?;
    Ok(())
}

/// The model of a checkpoint in full precision. `last` is the finished model, which is freed first,
/// unless it is the base model of the adapters.
fn of_checkpoint(job: &Job<'_>, checkpoint: &Path, last: CausalLm) -> Result<CausalLm> {
    if last.lora().is_some() {
        return checkpoints::weights(checkpoint, last);
    }
    drop(last);
    match job.settings.method.method {
        // The base model has the last adapters merged into it.
        Method::Lora => checkpoints::weights(checkpoint, prepared(&job.settings, job.base()?)?),
        _ => job.weights(checkpoint),
    }
}

/// Writes the model of a step to the folder, and returns it. `exact` puts its weights in full
/// precision. The adapters of LoRA are written next to it, and then merged one by one. The folders say
/// which step it is, so that this changes together with the model. The newest checkpoint is of the step
/// `saved`.
pub(super) fn write(
    job: &Job<'_>,
    (step, saved): (u64, Option<u64>),
    folder: &Path,
    model: CausalLm,
    exact: impl FnOnce(CausalLm) -> CausalLm,
) -> Result<CausalLm> {
    let (settings, out) = (&job.settings, &job.settings.output.out);
    let mut files = job.tokenizer.changed_files()?;
    let rows = model.config().vocab_size();
    let about = run_folder::about(Some(step), settings.memory.dtype, rows);
    files.push((run_folder::STEP.to_owned(), about));
    let model = if model.lora().is_some() {
        require_finite(&LayerwiseModel::whole(&model), step, saved, out)?;
        let adapter = adapter::folder_of(folder);
        let revision = &settings.input.revision;
        adapter::write(&model, revision, &job.checkpoint, &files, &adapter)?;
        if settings.method.no_merge {
            say_of_earlier(folder, &adapter, step)?;
            return Ok(model);
        }
        model.merge_lora()
    } else {
        exact(model)
    };
    require_finite(&LayerwiseModel::whole(&model), step, saved, out)?;
    let options = SaveOptions {
        source: Some(&job.checkpoint),
        files: &files,
        ..SaveOptions::default()
    };
    let slow = Slow::bytes("writing the model");
    let progress = move |done, all| slow.set(done, all);
    lisa_lm::checkpoint::save_with(&model, folder, &options, progress)?;
    Ok(model)
}

/// Says that a merged model is of another step than the adapter, which was written without one.
fn say_of_earlier(folder: &Path, adapter: &Path, step: u64) -> Result<()> {
    let earlier = run_folder::step_of_model(folder).filter(|earlier| *earlier != step);
    let Some(earlier) = earlier else {
        return Ok(());
    };
    say(format_args!(
        "the merged model in {} is still that of step {earlier}, because of --no-merge; `lisa export {} --merge \
         --out DIR` merges the adapter of step {step}",
        folder.display(),
        shell_word(adapter)
    ))?;
    Ok(())
}

/// What the run has written, for the user.
pub(super) fn what(job: &Job<'_>) -> &'static str {
    if job.settings.method.no_merge {
        "adapter"
    } else {
        "model"
    }
}

/// The folder that the user is told: the model's, or the adapter's if there is no merged model.
pub(super) fn written(job: &Job<'_>, folder: &Path) -> PathBuf {
    if job.settings.method.no_merge {
        adapter::folder_of(folder)
    } else {
        folder.to_path_buf()
    }
}

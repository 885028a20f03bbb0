//! [`finish`]: writes the trained model, its evaluation, the plots and the summary.

use std::path::{Path, PathBuf};

use anyhow::Result;
use lisa_lm::CausalLm;
use lisa_lm::checkpoint::SaveOptions;
use lisa_lm::files::write_atomically;
use serde_json::json;

use super::adapter;
use super::card::{Card, card};
use super::checkpoints::{self, State};
use super::clock::{Clock, Part};
use super::evaluate::Extent;
use super::evaluation::Evaluation;
use super::exact::Exact;
use super::held_out::{evaluate, printed};
use super::method::prepared;
use super::metrics::peak_bytes;
use super::plot;
use super::prepare::Job;
use super::training::{Training, require_finite};
use crate::output_folder;
use crate::run_folder;
use crate::settings::Method;
use crate::terminal::interrupt::{Stop, Stopped};
use crate::terminal::output::say;
use crate::terminal::progress::Slow;
use crate::terminal::text::{counted, duration};

/// Writes `model/`, `model-best/` if an earlier checkpoint is better, the plots and `summary.json`.
/// Returns whether the run is finished; it is not if it was stopped in the evaluation.
pub(crate) fn finish(job: &Job<'_>, trained: Training, stop: Stop<'_>) -> Result<bool> {
    let Training {
        model: last,
        mut trainer,
        mut state,
        mut metrics,
        saved,
        ..
    } = trained;
    let output = &job.settings.output;
    let out = &output.out;
    let folder = out.join("model");
    let (layers, state_bytes) = (trainer.layers(), trainer.state_bytes());
    let mut clock = state.clock;
    // If the weights go to host memory, losses still need the model on the device.
    let on_device = (job.home() != job.training_device).then(|| last.clone());
    let model = clock.time(Part::Saving, || {
        write(job, (job.steps, saved), &folder, last, |last| {
            trainer.take_exact(last, &job.home())
        })
    })?;
    let exact = match &on_device {
        Some(last) => trainer.moved(last, &model),
        None => Exact::whole(&model),
    };
    let shown = written(job, &folder);
    let after = evaluate(Extent::Full, job, &exact, &mut clock, stop);
    let after = match after.and_then(|result| printed("after", result)) {
        Err(error) if error.is::<Stopped>() => return stopped(job, &shown),
        result => result?,
    };
    if let Some(after) = &after
        && state.held_out_loss.is_none()
    {
        metrics.push(job.evaluate.line(job.steps, after))?;
        state.held_out_loss = Some(after.loss);
        checkpoints::evaluated(out, output.keep, &state)?;
    }
    let mut after_all = None;
    if output.final_eval_all && after.is_some() {
        let all = evaluate(Extent::All, job, &exact, &mut clock, stop);
        after_all = match all.and_then(|result| printed("all rows", result)) {
            Err(error) if error.is::<Stopped>() => return stopped(job, &shown),
            result => result?,
        };
    }
    drop(exact);
    drop((trainer, on_device));
    let best = checkpoints::best(out, &job.fingerprint)?;
    let best = best.filter(|(step, _)| *step != job.steps);
    let described = |step, is_best| Card {
        job,
        state: &state,
        step,
        is_best,
        after: after.as_ref().filter(|_| !is_best),
        best,
    };
    cards(&described(job.steps, false), &folder)?;
    let best_folder = out.join("model-best");
    clock.time(Part::Saving, || write_best(job, best, &best_folder, model))?;
    if let Some((step, _)) = best {
        cards(&described(step, true), &best_folder)?;
    }

    plot::losses(&metrics.lines, layers, &out.join("losses.svg"))?;
    plot::memory(&metrics.lines, &out.join("memory.svg"))?;
    let summary = json!({
        "program": "lisa",
        "settings": job.settings.to_flags(),
        "steps": job.steps,
        "seconds": state.seconds,
        "seconds_by_part": seconds_by_part(&clock),
        "tokens": state.tokens,
        "tokens_per_second": state.tokens as f64 / state.seconds.max(1e-9),
        "peak_bytes": peak_bytes(job.device),
        "optimizer_state_bytes": state_bytes,
        "before": state.before,
        "after": after,
        "after_all_rows": after_all,
        "best": best.map(|(step, loss)| json!({"step": step, "held_out_loss": loss})),
    });
    let text = format!("{summary:#}\n");
    write_atomically(&out.join("summary.json"), text.as_bytes())?;
    say(format_args!("time: {clock}"))?;
    say(format_args!(
        "{}{} in {}; the {} of step {} is in {}",
        change(&state, after.as_ref()),
        counted(job.steps as usize, "step"),
        duration(state.seconds),
        what(job),
        job.steps,
        shown.display()
    ))?;
    say_adapter(job, &folder)?;
    if let Some((step, loss)) = best {
        say(format_args!(
            "the best checkpoint is that of step {step}, held-out loss {loss:.4}: its {} is in {}",
            what(job),
            written(job, &best_folder).display()
        ))?;
    }
    Ok(true)
}

/// Says where the adapter of LoRA is, if that is not said yet, and what opens it.
fn say_adapter(job: &Job<'_>, model: &Path) -> Result<()> {
    let method = &job.settings.method;
    if method.method != Method::Lora {
        return Ok(());
    }
    let adapter = adapter::folder_of(model);
    let adapter = adapter.display();
    let place = if method.no_merge {
        "the adapter is in PEFT's format".to_owned()
    } else {
        format!("the adapter alone, in PEFT's format, is in {adapter}")
    };
    say(format_args!(
        "{place}: PEFT opens it on the base model, `lisa train --adapter {adapter}` trains it further, and \
         `lisa export {adapter} --merge --out DIR` merges it"
    ))?;
    Ok(())
}

fn seconds_by_part(clock: &Clock) -> serde_json::Map<String, serde_json::Value> {
    let parts = clock.parts();
    parts
        .map(|(name, seconds)| (name.to_owned(), seconds.into()))
        .collect()
}

/// Says that the run was stopped in the evaluation of the finished model.
fn stopped(job: &Job<'_>, folder: &Path) -> Result<bool> {
    say(format_args!(
        "stopped after the last step, {}, in an evaluation: the {} is in {}, and there is no \
         summary of the run yet.\nContinue with: lisa train --resume --out {}",
        job.steps,
        what(job),
        folder.display(),
        job.settings.output.out.display()
    ))?;
    Ok(false)
}

/// The held-out loss before and after, of the same rows.
fn change(state: &State, after: Option<&Evaluation>) -> String {
    let (Some(before), Some(after)) = (&state.before, after) else {
        return String::new();
    };
    let (same, rows) = if before.rows == after.rows {
        (after.loss, String::new())
    } else {
        let rows = format!(" on the same {}", counted(before.rows, "row"));
        (after.first_rows_loss, rows)
    };
    format!("held-out loss {:.4} -> {same:.4}{rows}, ", before.loss)
}

/// Writes the model of the best checkpoint, or removes an earlier one. `last` is the finished model.
fn write_best(
    job: &Job<'_>,
    best: Option<(u64, f64)>,
    folder: &Path,
    last: CausalLm,
) -> Result<()> {
    let Some((step, _)) = best else {
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

/// Writes the model of a step to the folder, and returns it. `exact` makes its weights those of full
/// precision. The adapters of LoRA are written next to it, and then merged one by one. The folders say
/// which step it is, so that this changes together with the model. The newest checkpoint is of the step
/// `saved`.
fn write(
    job: &Job<'_>,
    (step, saved): (u64, Option<u64>),
    folder: &Path,
    model: CausalLm,
    exact: impl FnOnce(CausalLm) -> CausalLm,
) -> Result<CausalLm> {
    let (settings, out) = (&job.settings, &job.settings.output.out);
    let mut files = job.tokenizer.changed_files()?;
    // `lisa export` merges the adapter in the dtype of the run.
    let about = json!({ "step": step, "dtype": settings.memory.dtype });
    let text = format!("{about}\n");
    files.push((run_folder::STEP.to_owned(), text.into_bytes()));
    let model = if model.lora().is_some() {
        require_finite(&Exact::whole(&model), step, saved, out)?;
        let folder = adapter::folder_of(folder);
        let revision = &settings.input.revision;
        adapter::write(&model, revision, &job.checkpoint, &files, &folder)?;
        if settings.method.no_merge {
            return Ok(model);
        }
        model.merge_lora()
    } else {
        exact(model)
    };
    require_finite(&Exact::whole(&model), step, saved, out)?;
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

/// What the run has written, for the user.
fn what(job: &Job<'_>) -> &'static str {
    if job.settings.method.no_merge {
        "adapter"
    } else {
        "model"
    }
}

/// The folder that the user is told: that of the model, or without a merged model that of the adapter.
fn written(job: &Job<'_>, folder: &Path) -> PathBuf {
    if job.settings.method.no_merge {
        adapter::folder_of(folder)
    } else {
        folder.to_path_buf()
    }
}

/// Writes the card of the model, and that of its adapter.
fn cards(about: &Card<'_>, folder: &Path) -> Result<()> {
    let adapter = adapter::folder_of(folder);
    for (folder, is_adapter) in [(folder, false), (adapter.as_path(), true)] {
        // With --no-merge, a model of an earlier step may be there.
        if run_folder::step_of_model(folder) == Some(about.step) {
            card(about, folder, is_adapter)?;
        }
    }
    Ok(())
}

//! [`train`]: the training loop. Tests: `tests/run/`.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use lisa_lm::CausalLm;
use lisa_lm::text::Batches;

use super::checkpoints::{self, State};
use super::evaluate::{Evaluate, Evaluation, held_out_loss};
use super::method::Trainer;
use super::metrics::{Line, Metrics, memory_bytes};
use super::prepare::{Job, Start};
use super::step::{Work, accumulate, finite, forward, origin};
use super::text::Text;
use crate::terminal::output::say;
use crate::terminal::progress::bar;
use crate::terminal::text::size;
use crate::user_error::UserError;

/// After this many bad batches in a row the run stops, even with `--skip-bad-steps`.
const MOST_SKIPPED: usize = 10;

/// The state of a run between two steps.
pub(crate) struct Training {
    pub(crate) model: CausalLm,
    pub(crate) trainer: Trainer,
    pub(crate) batches: Batches,
    pub(crate) state: State,
    pub(crate) metrics: Metrics,
}

impl Training {
    /// Evaluates the model before training, or loads the checkpoint of a resumed run.
    pub(crate) fn begin(
        job: &Job<'_>,
        model: CausalLm,
        trainer: Trainer,
        mut batches: Batches,
    ) -> Result<Self> {
        let out = &job.settings.output.out;
        let (model, trainer, state) = if let Some((path, state)) = &job.saved {
            let (model, trainer) = checkpoints::load(path, model, trainer)?;
            batches.seek(state.position);
            say(format_args!(
                "resumed at step {} from {}",
                state.step,
                path.display()
            ))?;
            let state = State {
                fingerprint: job.fingerprint.clone(),
                ..state.clone()
            };
            (model, trainer, state)
        } else {
            let state = State {
                step: 0,
                position: batches.position(),
                skipped: 0,
                settings: job.settings.to_flags(),
                fingerprint: job.fingerprint.clone(),
                text: Text::of(&job.tokenizer, job.data.vocab_size),
                before: evaluation("before", job, &trainer.exact(&model))?,
                seconds: 0.0,
                tokens: 0,
            };
            (model, trainer, state)
        };
        if job.start == Start::Overwrite {
            // First, since it says that the folder has a finished model.
            let summary = out.join("summary.json");
            match std::fs::remove_file(&summary) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    let failed = format!("cannot remove `{}`", summary.display());
                    return Err(error).context(failed);
                }
                _ => {}
            }
            checkpoints::remove(out)?;
        }
        checkpoints::clean(out)?;
        let metrics = Metrics::open(out.join("metrics.jsonl"), state.step)?;
        Ok(Self {
            model,
            trainer,
            batches,
            state,
            metrics,
        })
    }
}

/// Trains until the last step. Returns `None` if the run was stopped earlier, with a checkpoint.
pub(crate) fn train(
    job: &Job<'_>,
    training: Training,
    stop: &AtomicBool,
) -> Result<Option<Training>> {
    let Training {
        mut model,
        mut trainer,
        mut batches,
        mut state,
        mut metrics,
    } = training;
    let settings = &job.settings;
    let bar = bar(job.steps, state.step);
    let (started, seconds_before) = (Instant::now(), state.seconds);
    let mut skipped = 0;
    while state.step < job.steps {
        let active = trainer.active_layers().to_vec();
        let lr = settings.training.learning_rate(state.step, job.steps);
        let first = batches.position();
        let (work, loss, tokens) = if settings.memory.update_in_backward {
            forward(&model, &mut batches, settings, &job.training_device)
        } else {
            accumulate(&model, &mut batches, settings, &job.training_device)
        };
        if let Err(error) = finite(state.step + 1, loss, &trainer, &model, &work) {
            let batch = origin(&mut batches, first, &job.tokenizer)?;
            skipped += 1;
            if !settings.training.skip_bad_steps || skipped > MOST_SKIPPED {
                return Err(bad_batch(&batch, lr, error));
            }
            bar.suspend(|| say(format_args!("skipped {batch}: {error:#}")))?;
            continue;
        }
        model = match work {
            Work::Gradients(grads) => trainer.step(lr, model, grads)?,
            Work::Pass(pass) => trainer.step_layered(lr, model, *pass)?,
        };
        state.step += 1;
        state.tokens += tokens as u64;
        state.position = batches.position();
        state.skipped += std::mem::take(&mut skipped) as u64;
        state.seconds = seconds_before + started.elapsed().as_secs_f64();

        let unfinished = state.step < job.steps;
        let every = |n: usize| n > 0 && state.step.is_multiple_of(n as u64) && unfinished;
        let is_held_out = !job.data.held_out.is_empty();
        let held_out = if is_held_out && every(settings.output.eval_every) {
            let (rows, pad) = (settings.training.batch_size, job.tokenizer.pad_id());
            // Of the weights that are saved, as before and after training.
            let model = trainer.exact(&model);
            let loss = held_out_loss(&model, &job.data.held_out, rows, pad, job.device)?;
            let text = format!("step {:>6}: held-out loss {loss:.4}", state.step);
            bar.suspend(|| say(text))?;
            Some(loss)
        } else {
            None
        };
        let rate = state.tokens as f64 / state.seconds.max(1e-9);
        let memory = memory_bytes(job.device);
        bar.set_message(format!(
            "loss {loss:.3}  {rate:.0} tokens/s  layers {active:?}  {}",
            memory.map_or(String::new(), size)
        ));
        bar.inc(1);
        metrics.push(Line {
            step: state.step,
            loss: Some(loss),
            held_out_loss: held_out,
            lr: Some(lr),
            tokens_per_second: Some(rate),
            active_layers: active,
            state_bytes: trainer.state_bytes(),
            memory_bytes: memory,
        })?;

        let stopping = stop.load(Ordering::SeqCst) && unfinished;
        if stopping || every(settings.output.save_every) {
            bar.set_message("saving a checkpoint");
            let out = &settings.output.out;
            let path = checkpoints::save(out, &trainer.exact(&model), &trainer, &state)?;
            if stopping {
                bar.abandon();
                say(format_args!(
                    "stopped after step {}; saved {}.\nContinue with: lisa train --resume --out {}",
                    state.step,
                    path.display(),
                    out.display()
                ))?;
                return Ok(None);
            }
        }
    }
    bar.finish();
    Ok(Some(Training {
        model,
        trainer,
        batches,
        state,
        metrics,
    }))
}

fn bad_batch(batch: &str, lr: f64, error: anyhow::Error) -> anyhow::Error {
    UserError::new(format!("training stopped at {batch}, at --lr {lr:.1e}"))
        .with_help(
            "give a lower --lr, or skip such batches with --skip-bad-steps; saved files are \
             unchanged",
        )
        .with_source(error)
        .into()
}

/// Evaluates the model with a progress bar and prints the result. `None` without held-out examples.
pub(crate) fn evaluation(
    when: &str,
    job: &Job<'_>,
    model: &CausalLm,
) -> Result<Option<Evaluation>> {
    if job.data.held_out.is_empty() {
        return Ok(None);
    }
    let output = &job.settings.output;
    let evaluate = Evaluate {
        tokenizer: &job.tokenizer,
        examples: &job.data.held_out_examples,
        encoded: &job.data.held_out,
        batch_size: job.settings.training.batch_size,
        answers: output.eval_examples,
        max_new_tokens: output.max_new_tokens,
    };
    let answers = evaluate.answers.min(evaluate.examples.len());
    let bar = bar(answers as u64, 0);
    bar.set_message(format!("evaluating {when} training"));
    let result = evaluate.run(model, job.device, || bar.inc(1))?;
    bar.finish_and_clear();
    say(format_args!("{when}: {result}"))?;
    Ok(Some(result))
}

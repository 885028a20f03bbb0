//! [`train`]: the training loop. Tests: `tests/run/`.

use anyhow::Result;

use super::checkpoints;
use super::clock::Part;
use super::evaluate::Extent;
use super::held_out::evaluate;
use super::line::{Line, memory_bytes, peak_bytes};
use super::method::dropping;
use super::prepare::Job;
use super::step::{Work, accumulate, finite, forward, origin};
use super::training::Training;
use super::watch::Watch;
use crate::terminal::interrupt::{Point, Stop, Stopped, check};
use crate::terminal::output::say;
use crate::user_error::UserError;

/// After this many bad batches in a row the run stops, even with `--skip-bad-steps`.
const MOST_SKIPPED: u64 = 10;

/// Trains until the last step, of which it writes a checkpoint. Returns `None` if the run is stopped
/// earlier; a checkpoint then has every step that was taken.
pub(crate) fn train(
    job: &Job<'_>,
    mut training: Training,
    stop: Stop<'_>,
) -> Result<Option<Training>> {
    let begun = training.state.step;
    let mut watch = Watch::new(job.steps, begun, job.settings.output.log_every);
    let mut skipped = 0;
    loop {
        match between(job, &mut training, &watch, stop) {
            Err(error) if error.is::<Stopped>() => return stopped(job, training, &watch),
            result => result?,
        }
        if training.state.step >= job.steps {
            watch.end();
            return Ok(Some(training));
        }
        if training.state.step > begun && stop(Point::Step) {
            return stopped(job, training, &watch);
        }
        let (next, taken) = one_step(job, training, &mut watch, stop)?;
        training = next;
        match taken {
            Taken::Step => training.state.skipped += std::mem::take(&mut skipped),
            Taken::Skipped(error) => {
                skipped += 1;
                if skipped > MOST_SKIPPED {
                    return Err(error);
                }
                watch.note(format_args!("skipped: {error:#}"))?;
            }
            Taken::None => return stopped(job, training, &watch),
        }
    }
}

/// Evaluates and saves between two steps, where it is due.
fn between(job: &Job<'_>, training: &mut Training, watch: &Watch, stop: Stop<'_>) -> Result<()> {
    let output = &job.settings.output;
    let now = training.state.step;
    let is_last = now >= job.steps;
    let every = |n: usize| n > 0 && now > 0 && now.is_multiple_of(n as u64);
    let mut is_best = false;
    if every(output.eval_every) && !is_last && training.state.held_out_loss.is_none() {
        let best = checkpoints::best(&output.out)?.map_or(f64::INFINITY, |best| best.1);
        let exact = training.trainer.exact(&training.model);
        watch.busy("evaluating");
        let clock = &mut training.state.clock;
        if let Some(result) = evaluate(Extent::Loss, job, &exact, clock, stop)? {
            watch.note(format_args!("step {now}: {result}"))?;
            training.state.held_out_loss = Some(result.loss);
            training.metrics.push(Line::held_out(now, result.loss))?;
            // Without regular checkpoints only the last one is written.
            is_best = output.save_every > 0 && result.loss < best;
        }
    }
    if is_last || is_best || every(output.save_every) {
        watch.busy("saving a checkpoint");
        training.save(job)?;
    }
    Ok(())
}

fn stopped(job: &Job<'_>, mut training: Training, watch: &Watch) -> Result<Option<Training>> {
    watch.end();
    let step = training.state.step;
    if step == 0 {
        say("stopped before the first step: there is nothing to save")?;
        return Ok(None);
    }
    let is_saved = training.saved == Some(step);
    training.save(job)?;
    let out = &job.settings.output.out;
    say(format_args!(
        "stopped after step {step}; {} {}.\nContinue with: lisa train --resume --out {}",
        if is_saved {
            "it is already in"
        } else {
            "saved"
        },
        checkpoints::path(out, step).display(),
        out.display()
    ))?;
    Ok(None)
}

/// What became of a step.
enum Taken {
    /// The model is updated.
    Step,
    /// The loss or a gradient is not finite, and the batches are skipped.
    Skipped(anyhow::Error),
    /// The run is stopped before the update.
    None,
}

fn one_step(
    job: &Job<'_>,
    training: Training,
    watch: &mut Watch,
    stop: Stop<'_>,
) -> Result<(Training, Taken)> {
    let (settings, device) = (&job.settings, &job.training_device);
    let Training {
        mut model,
        mut trainer,
        mut batches,
        mut state,
        mut metrics,
        saved,
    } = training;
    let active = trainer.active_layers().to_vec();
    let lr = settings.training.learning_rate(state.step, job.steps);
    let first = batches.position();
    let held = trainer.state_bytes();
    let mut clock = state.clock;
    let work = if settings.memory.update_in_backward {
        model = dropping(settings, &model, first, 0);
        check(stop, Point::Batch)
            .map(|()| forward(&model, &mut batches, settings, device, &mut clock))
    } else {
        accumulate(&model, &mut batches, settings, device, &mut clock, stop)
    };
    let taken = match work {
        Err(error) if error.is::<Stopped>() => {
            // The batches of this step come again.
            batches.seek(first);
            Taken::None
        }
        Err(error) => return Err(error),
        Ok((work, loss, tokens)) => {
            if let Err(error) = finite(state.step + 1, loss, &trainer, &model, &work) {
                let batch = origin(&mut batches, first, &job.tokenizer)?;
                let error = bad_batch(&batch, lr, error);
                if !settings.training.skip_bad_steps {
                    return Err(error);
                }
                Taken::Skipped(error)
            } else {
                model = clock.time(Part::Update, || match work {
                    Work::Gradients(grads) => trainer.step(lr, model, grads),
                    Work::Pass(pass) => trainer.step_layered(lr, model, *pass),
                })?;
                state.step += 1;
                state.tokens += tokens as u64;
                state.position = batches.position();
                state.held_out_loss = None;
                let seconds = clock.training() - state.clock.training();
                state.seconds = clock.training();
                let line = Line {
                    step: state.step,
                    loss: Some(loss),
                    lr: Some(lr),
                    tokens_per_second: Some(state.tokens as f64 / state.seconds.max(1e-9)),
                    active_layers: active,
                    // Of the step itself: what layers lose at the end of a period is included.
                    state_bytes: Some(held.max(trainer.state_bytes())),
                    memory_bytes: memory_bytes(job.device),
                    peak_bytes: peak_bytes(job.device),
                    ..Line::default()
                };
                metrics.push(line.clone())?;
                watch.step(&line, tokens as u64, seconds, || job.disk)?;
                Taken::Step
            }
        }
    };
    state.clock = clock;
    let training = Training {
        model: model.with_dropout(None),
        trainer,
        batches,
        state,
        metrics,
        saved,
    };
    Ok((training, taken))
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

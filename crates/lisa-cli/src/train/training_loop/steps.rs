//! [`train`]: the training loop. Tests: at the end, and `tests/run/`.

use anyhow::Result;
use lisa::{ErrorKind, LisaError};
use lisa_lm::CausalLm;

use super::bad_step::{Bad, ended, partly_updated};
use super::held_out::evaluate;
use super::training::Training;
use super::watch::Watch;
use crate::terminal::interrupt::{Point, Stop, Stopped};
use crate::terminal::output::say;
use crate::terminal::text::shell_word;
use crate::train::clock::Part;
use crate::train::evaluation::evaluate::Extent;
use crate::train::method::step::{Passed, Passes, Work, finite, origin};
use crate::train::method::trainer::{Trainer, dropping};
use crate::train::metrics::line::{Line, memory_bytes, peak_bytes};
use crate::train::prepare::job::Job;
use crate::train::saved::checkpoints;

/// After this many bad steps in a row the run ends, even with `--skip-bad-steps`.
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
            Taken::Bad(bad) => {
                skipped += 1;
                if !job.settings.training.skip_bad_steps || skipped > MOST_SKIPPED {
                    watch.end();
                    return Err(ended(job, training, &watch, skipped, bad));
                }
                watch.note(format_args!("skipped {}: {:#}", bad.batch, bad.error))?;
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
        let best = checkpoints::best(&output.out, &job.fingerprint)?;
        let best = best.map_or(f64::INFINITY, |best| best.1);
        watch.busy("evaluating");
        let exact = training.trainer.exact(&training.model);
        let result = evaluate(Extent::Loss, job, &exact, &mut training.state.clock, stop);
        drop(exact);
        let result = match result {
            // The steps before the evaluation are saved.
            Err(error) if !error.is::<Stopped>() => {
                training.save(job, watch)?;
                return Err(error);
            }
            result => result?,
        };
        if let Some(result) = result {
            watch.note(format_args!("step {now}: {result}"))?;
            training.state.held_out_loss = Some(result.loss);
            training
                .metrics
                .push(Line::evaluated(now, &job.evaluate, &result))?;
            if training.saved == Some(now) {
                // It was saved before it was evaluated.
                checkpoints::evaluated(output, &training.state)?;
            }
            // Without regular checkpoints only the last one is written.
            is_best = output.save_every > 0 && result.loss < best;
        }
    }
    if is_last || is_best || every(output.save_every) {
        watch.busy("saving a checkpoint");
        training.save(job, watch)?;
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
    training.save(job, watch)?;
    let out = &job.settings.output.out;
    say(format_args!(
        "stopped after step {step}; {} {}.\nContinue with: lisa train --resume --out {}",
        if is_saved {
            "it is already in"
        } else {
            "saved"
        },
        checkpoints::path(out, step).display(),
        shell_word(out)
    ))?;
    Ok(None)
}

/// What became of a step.
enum Taken {
    /// The model is updated.
    Step,
    /// The loss or a gradient is not finite, and the model is not updated.
    Bad(Bad),
    /// The run is stopped before the update.
    None,
}

fn one_step(
    job: &Job<'_>,
    training: Training,
    watch: &mut Watch,
    stop: Stop<'_>,
) -> Result<(Training, Taken)> {
    let settings = &job.settings;
    let Training {
        mut model,
        mut trainer,
        mut batches,
        mut state,
        mut metrics,
        saved,
    } = training;
    let (active, outer_active) = (trainer.active_layers().to_vec(), trainer.outer_active());
    let lr = settings.training.learning_rate(state.step, job.steps);
    let first = batches.position();
    let held = trainer.state_bytes();
    let mut clock = state.clock;
    let mut passes = Passes {
        settings,
        device: &job.training_device,
        clock: &mut clock,
        stop,
    };
    let result = if settings.memory.update_in_backward {
        model = dropping(settings, &model, first, 0);
        passes.forward(&model, &mut batches)
    } else {
        passes.gradients(&model, &mut batches)
    };
    let taken = match result {
        Err(error) if error.is::<Stopped>() => {
            // The batches of this step come again.
            batches.seek(first);
            Taken::None
        }
        Err(error) => return Err(error),
        Ok(Passed { work, loss, tokens }) => {
            let (updated, bad);
            (model, updated, bad) = match finite(state.step + 1, loss, &trainer, &model, &work) {
                Err(error) => (model, false, Some(error)),
                Ok(()) => clock.time(Part::Update, || update(&mut trainer, lr, model, work))?,
            };
            if let Some(error) = bad {
                let batch = origin(&mut batches, first, &job.tokenizer)?;
                let bad = Bad { batch, lr, error };
                if updated {
                    watch.end();
                    return Err(partly_updated(&settings.output.out, saved, bad));
                }
                Taken::Bad(bad)
            } else {
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
                    outer_active,
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

/// The update of a step: the model, whether it is changed, and the error if a gradient is not finite.
fn update(
    trainer: &mut Trainer,
    lr: f64,
    model: CausalLm,
    work: Work,
) -> Result<(CausalLm, bool, Option<anyhow::Error>)> {
    let pass = match work {
        Work::Gradients(grads) => return Ok((trainer.step(lr, model, grads)?, true, None)),
        Work::Pass(pass) => *pass,
    };
    match trainer.step_layered(lr, model, pass) {
        Ok(model) => Ok((model, true, None)),
        Err(failed) if failed.error().kind() == ErrorKind::Gradient => {
            let updated = failed.is_updated();
            let (model, error) = failed.into_parts();
            Ok((model, updated, Some(error.into())))
        }
        Err(failed) => Err(LisaError::from(failed).into()),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, Tensor};
    use lisa::recompute::Recompute;
    use lisa_lm::ModelConfig;
    use lisa_lm::model::config::LlamaConfig;
    use lisa_lm::model::{BatchTensors, Input};

    use super::*;
    use crate::settings::{Flags, Method};
    use crate::train::method::layerwise_model::LayerwiseModel;

    /// The embedding is so small that its gradient is 1e15 times that of a layer.
    fn model(device: &Device) -> CausalLm {
        let mut config = LlamaConfig::new(16, 8, 2, 2);
        config.rms_norm_eps = 1e-30;
        let mut model = ModelConfig::Llama(config).init(device).unwrap();
        let small = |weight: Tensor<2>| weight.mul_scalar(5e-14).detach().require_grad();
        let weight = &mut model.model.embed_tokens.weight;
        *weight = weight.clone().map(small);
        model
    }

    #[test]
    fn an_update_in_the_backward_pass_ends_before_a_gradient_that_is_not_finite() {
        let device = Device::flex().autodiff();
        device.seed(7);
        let mut flags = Flags::default();
        flags.method.method = Some(Method::Full);
        flags.memory.recompute = Some(1);
        flags.memory.update_in_backward = Some(true);
        flags.training.max_grad_norm = Some(0.0);
        let settings = flags.resolve(None).unwrap();
        let tokens = Tensor::<2, Int>::from_data([[1, 2, 3, 4]], &device);
        let batch = BatchTensors {
            targets: tokens.clone(),
            input: Input::new(tokens),
            weights: None,
        };
        for (factor, expected, bad) in [
            (1.0, true, None),
            (1e27, true, Some("model.embed_tokens.weight")),
            (f64::INFINITY, false, Some("model.norm.gamma")),
        ] {
            let (mut trainer, model) = Trainer::new(&settings, model(&device), &device).unwrap();
            let pass = Recompute::new().forward(&model, &batch);
            assert!(pass.loss().into_scalar::<f32>().is_finite());
            let work = Work::Pass(Box::new(pass.scale(factor)));
            let (model, updated, error) = update(&mut trainer, 1e-3, model, work).unwrap();
            assert_eq!(updated, expected, "{factor}: {error:?}");
            assert_eq!(
                crate::train::method::finite::weights(&LayerwiseModel::whole(&model)),
                [""; 0],
                "{factor}"
            );
            let error = error.map(|error| error.to_string());
            assert_eq!(error.is_some(), bad.is_some(), "{factor}: {error:?}");
            if let (Some(error), Some(bad)) = (error, bad) {
                assert!(error.contains(&format!("first of `{bad}`")), "{error}");
            }
        }
    }
}

//! One step before its update: the forward and backward passes of its batches. Tests: `tests/run/`.

use anyhow::{Result, ensure};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Device;
use lisa::recompute::Pass;
use lisa_lm::text::{Batch, Batches, Position};
use lisa_lm::{CausalLm, Tokenizer};

use super::trainer::{Trainer, dropping};
use crate::settings::Settings;
use crate::terminal::interrupt::{Point, Stop, check};
use crate::terminal::text::one_line;
use crate::train::clock::{Clock, Part};

/// A name for the first batch of a step: its number, and the start of its first row.
pub(crate) fn origin(batches: &mut Batches, at: Position, tokenizer: &Tokenizer) -> Result<String> {
    let now = Batches::position(batches);
    batches.seek(at);
    let batch = batches.try_next_batch()?;
    batches.seek(now);
    let row = batch.rows().first().map_or(&[][..], |row| &row.tokens);
    let text = tokenizer.decode(row, true)?;
    let (index, epoch) = (at.index + 1, at.epoch + 1);
    Ok(format!(
        "batch {index} of epoch {epoch}, whose first row begins `{}`",
        one_line(&text).chars().take(80).collect::<String>()
    ))
}

/// Returns an error if the loss or a gradient of a step is not finite.
pub(crate) fn finite(
    step: u64,
    loss: f64,
    trainer: &Trainer,
    model: &CausalLm,
    work: &Work,
) -> Result<()> {
    if let Work::Gradients(grads) = work {
        trainer.check(model, grads)?;
    }
    ensure!(loss.is_finite(), "the loss of step {step} is {loss}");
    Ok(())
}

/// The remaining work of a step after its forward pass.
pub(crate) enum Work {
    /// Only the update remains.
    Gradients(GradientsParams),
    /// The backward pass remains; it also updates each layer.
    Pass(Box<Pass<CausalLm>>),
}

/// The forward pass of one batch, its loss, and its number of tokens. Returns an error if the run
/// stops before or after it.
pub(crate) fn forward(
    model: &CausalLm,
    batches: &mut Batches,
    settings: &Settings,
    device: &Device,
    clock: &mut Clock,
    stop: Stop<'_>,
) -> Result<(Work, f64, usize)> {
    check(stop, Point::Batch)?;
    let (batch, tensors) = clock.time(Part::Data, || {
        let batch = batches.try_next_batch()?;
        let tensors = batch.to_tensors(device);
        Ok::<_, lisa_lm::Error>((batch, tensors))
    })?;
    let (pass, loss) = clock.time(Part::Forward, || {
        let pass = settings.memory.recomputation().forward(model, &tensors);
        let loss = f64::from(pass.loss().into_scalar::<f32>());
        (pass, loss)
    });
    check(stop, Point::Backward)?;
    Ok((Work::Pass(Box::new(pass)), loss, batch.tokens()))
}

/// Gradients of one optimizer step, its mean loss, and its number of tokens. The mean is over all
/// trained tokens of the step's batches, by their weights; the last step of an epoch may have fewer
/// batches. Returns an error if the run stops before one of the batches, or before its backward pass.
pub(crate) fn accumulate(
    model: &CausalLm,
    batches: &mut Batches,
    settings: &Settings,
    device: &Device,
    clock: &mut Clock,
    stop: Stop<'_>,
) -> Result<(Work, f64, usize)> {
    let times = settings.training.gradient_accumulation_steps;
    let first = Batches::position(batches);
    let group = clock.time(Part::Data, || batches.try_next_step(times))?;
    let weight: f64 = group.iter().map(Batch::weight).sum();
    let mut accumulator = GradientsAccumulator::new();
    let (mut mean, mut tokens) = (0.0, 0);
    for (index, batch) in group.iter().enumerate() {
        check(stop, Point::Batch)?;
        let model = &dropping(settings, model, first, index);
        let share = if weight > 0.0 {
            batch.weight() / weight
        } else {
            0.0
        };
        let tensors = clock.time(Part::Data, || batch.to_tensors(device));
        let (grads, value) = if settings.memory.recompute > 0 {
            let plan = settings.memory.recomputation();
            let (pass, value) = clock.time(Part::Forward, || {
                let pass = plan.forward(model, &tensors);
                let value = pass.loss().into_scalar::<f32>();
                (pass, value)
            });
            check(stop, Point::Backward)?;
            let grads = clock.time(Part::Backward, || pass.scale(share).backward(model));
            (grads, value)
        } else {
            let (loss, value) = clock.time(Part::Forward, || {
                let loss = model.batch_loss(tensors);
                let value = loss.clone().into_scalar::<f32>();
                (loss, value)
            });
            check(stop, Point::Backward)?;
            let grads = clock.time(Part::Backward, || {
                GradientsParams::from_grads((loss * share).backward(), model)
            });
            (grads, value)
        };
        mean += f64::from(value) * share;
        tokens += batch.tokens();
        if group.len() == 1 {
            return Ok((Work::Gradients(grads), mean, tokens));
        }
        accumulator.accumulate(model, grads);
    }
    Ok((Work::Gradients(accumulator.grads()), mean, tokens))
}

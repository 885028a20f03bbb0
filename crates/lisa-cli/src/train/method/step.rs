//! One step before its update: the forward and backward passes of its batches. Tests: `tests/run/`.

use anyhow::{Result, ensure};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Device;
use lisa::recompute::Pass;
use lisa_lm::model::BatchTensors;
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

/// A step before its update.
pub(crate) struct Passed {
    pub(crate) work: Work,
    /// The mean loss over all trained tokens, by their weights.
    pub(crate) loss: f64,
    pub(crate) tokens: usize,
}

/// Makes the passes of a step. They return an error if the run stops before a batch, or before its
/// backward pass.
pub(crate) struct Passes<'a> {
    pub(crate) settings: &'a Settings,
    /// The device of the model, with gradients.
    pub(crate) device: &'a Device,
    pub(crate) clock: &'a mut Clock,
    pub(crate) stop: Stop<'a>,
}

impl Passes<'_> {
    /// The forward pass of the next batch.
    pub(crate) fn forward(&mut self, model: &CausalLm, batches: &mut Batches) -> Result<Passed> {
        let batch = self.clock.time(Part::Data, || batches.try_next_batch())?;
        let (pass, loss) = self.forward_of(model, &batch)?;
        Ok(Passed {
            work: Work::Pass(Box::new(pass)),
            loss,
            tokens: batch.tokens(),
        })
    }

    /// The gradients of all batches of a step. The last step of an epoch may have fewer batches.
    pub(crate) fn gradients(&mut self, model: &CausalLm, batches: &mut Batches) -> Result<Passed> {
        let times = self.settings.training.gradient_accumulation_steps;
        let first = Batches::position(batches);
        let group = self
            .clock
            .time(Part::Data, || batches.try_next_step(times))?;
        let weight: f64 = group.iter().map(Batch::weight).sum();
        let mut accumulator = GradientsAccumulator::new();
        let (mut loss, mut tokens) = (0.0, 0);
        for (index, batch) in group.iter().enumerate() {
            let model = &dropping(self.settings, model, first, index);
            let share = if weight > 0.0 {
                batch.weight() / weight
            } else {
                0.0
            };
            let (grads, of_batch) = self.gradients_of(model, batch, share)?;
            loss += of_batch * share;
            tokens += batch.tokens();
            if group.len() == 1 {
                let work = Work::Gradients(grads);
                return Ok(Passed { work, loss, tokens });
            }
            accumulator.accumulate(model, grads);
        }
        let work = Work::Gradients(accumulator.grads());
        Ok(Passed { work, loss, tokens })
    }

    /// The gradients of a batch, times its share of the step, and its loss.
    fn gradients_of(
        &mut self,
        model: &CausalLm,
        batch: &Batch,
        share: f64,
    ) -> Result<(GradientsParams, f64)> {
        if self.settings.memory.recompute > 0 {
            let (pass, loss) = self.forward_of(model, batch)?;
            let backward = || pass.scale(share).backward(model);
            return Ok((self.clock.time(Part::Backward, backward), loss));
        }
        let tensors = self.tensors(batch)?;
        let (loss, value) = self.clock.time(Part::Forward, || {
            let loss = model.batch_loss(tensors);
            let value = f64::from(loss.clone().into_scalar::<f32>());
            (loss, value)
        });
        check(self.stop, Point::Backward)?;
        let backward = || GradientsParams::from_grads((loss * share).backward(), model);
        Ok((self.clock.time(Part::Backward, backward), value))
    }

    /// The forward pass of a batch with recomputation, and its loss.
    fn forward_of(&mut self, model: &CausalLm, batch: &Batch) -> Result<(Pass<CausalLm>, f64)> {
        let tensors = self.tensors(batch)?;
        let plan = self.settings.memory.recomputation();
        let passed = self.clock.time(Part::Forward, || {
            let pass = plan.forward(model, &tensors);
            let loss = f64::from(pass.loss().into_scalar::<f32>());
            (pass, loss)
        });
        check(self.stop, Point::Backward)?;
        Ok(passed)
    }

    fn tensors(&mut self, batch: &Batch) -> Result<BatchTensors> {
        check(self.stop, Point::Batch)?;
        let device = self.device;
        Ok(self.clock.time(Part::Data, || batch.to_tensors(device)))
    }
}

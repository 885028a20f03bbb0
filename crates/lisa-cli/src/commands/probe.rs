//! [`probe`]: a short run of `lisa importance`.

use anyhow::{Context, Result};
use burn::tensor::Device;
use lisa_lm::text::Batches;
use lisa_lm::{CausalLm, Checkpoint, Tokenizer};

use crate::settings::{Method, Settings};
use crate::terminal::progress::bar;
use crate::train::clock::Clock;
use crate::train::data::{self, Data};
use crate::train::method::Trainer;
use crate::train::step::{Work, accumulate};
use crate::user_error::require;

/// What the runs of the command have in common.
pub(super) struct Source<'a> {
    pub(super) settings: Settings,
    pub(super) checkpoint: Checkpoint,
    pub(super) data: Data,
    pub(super) tokenizer: Tokenizer,
    pub(super) device: &'a Device,
}

impl Source<'_> {
    /// The model on the device, with gradients.
    pub(super) fn model(&self) -> Result<CausalLm> {
        let device = self.device.clone().autodiff();
        let dtype = self.settings.memory.dtype.into();
        let model = self.checkpoint.load(&device, Some(dtype))?;
        Ok(model.resize_embeddings(self.data.vocab_size)?)
    }

    /// The training data in batches.
    pub(super) fn batches(&self, settings: &Settings) -> Result<Batches> {
        Ok(data::batches(settings, &self.tokenizer, &self.data)?)
    }
}

/// Makes one short run. After each step, `observe` gets the model with merged adapters, the base model,
/// and whether it was the last step.
pub(super) fn probe(
    source: &Source<'_>,
    settings: &Settings,
    mut observe: impl FnMut(&CausalLm, &CausalLm, bool) -> Result<()>,
) -> Result<()> {
    let context = || format!("the run with --method {} failed", settings.method.method);
    let training = source.device.clone().autodiff();
    let base = source.model()?;
    let mut batches = source.batches(settings)?;
    let (mut trainer, mut model) = Trainer::new(settings, base.clone())?;
    let steps = settings.training.steps as u64;
    let progress = bar(steps, 0);
    for step in 0..steps {
        let lr = settings.training.learning_rate(step, steps);
        let clock = &mut Clock::default();
        let (work, loss, _) =
            accumulate(&model, &mut batches, settings, &training, clock, &|_| false)
                .with_context(context)?;
        require!(
            loss.is_finite(),
            "give a lower --lr",
            "the loss of step {} is {loss} with --method {}",
            step + 1,
            settings.method.method
        );
        if let Work::Gradients(grads) = work {
            model = trainer.step(lr, model, grads).with_context(context)?;
        }
        let merged = match settings.method.method {
            Method::Lora => model.clone().merge_lora(),
            _ => trainer.exact(&model),
        };
        observe(&merged, &base, step + 1 == steps)?;
        progress.set_message(format!("loss {loss:.3}"));
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

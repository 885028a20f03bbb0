//! [`probe`]: a short run of `lisa importance`.

use anyhow::{Context, Result};
use burn::tensor::{DType, Device, FloatDType};
use lisa_lm::text::Batches;
use lisa_lm::{CausalLm, Checkpoint, Tokenizer};

use crate::settings::{Method, Settings};
use crate::terminal::progress::bar;
use crate::train::clock::Clock;
use crate::train::data::rows::{Data, batches};
use crate::train::method::layerwise_model::host;
use crate::train::method::step::{Passed, Passes, Work};
use crate::train::method::trainer::Trainer;
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
        Ok(batches(settings, &self.tokenizer, &self.data)?)
    }
}

/// The model with merged adapters, in f32: most of a small update is rounded away in half precision.
/// Cost: a copy of the model in f32.
fn merged(model: &CausalLm) -> CausalLm {
    match model.dtype() {
        DType::BF16 | DType::F16 => model.clone().cast(FloatDType::F32).merge_lora(),
        _ => model.clone().merge_lora(),
    }
}

/// After which steps the model of a run is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    EachStep,
    LastStep,
}

/// Makes one short run of a base model. `observe` gets the model with merged adapters: a copy of the
/// model in f32, which is made only for it.
pub(super) fn probe(
    source: &Source<'_>,
    settings: &Settings,
    base: CausalLm,
    after: After,
    mut observe: impl FnMut(&CausalLm) -> Result<()>,
) -> Result<()> {
    let context = || format!("the run with --method {} failed", settings.method.method);
    let training = source.device.clone().autodiff();
    let mut batches = source.batches(settings)?;
    let (mut trainer, mut model) = Trainer::new(settings, base, &training)?;
    let steps = settings.training.steps as u64;
    let progress = bar(steps, 0);
    for step in 0..steps {
        let lr = settings.training.learning_rate(step, steps);
        let mut passes = Passes {
            settings,
            device: &training,
            clock: &mut Clock::default(),
            stop: &|_| false,
        };
        let result = passes.gradients(&model, &mut batches);
        let Passed { work, loss, .. } = result.with_context(context)?;
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
        if after == After::EachStep || step + 1 == steps {
            observe(&match settings.method.method {
                Method::Lora => merged(&model),
                _ => trainer.copied(&model, &host(&training)),
            })?;
        }
        progress.set_message(format!("loss {loss:.3}"));
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::{Int, Tensor, TensorData};
    use lisa::importance::NormTracker;
    use lisa_lm::ModelConfig;
    use lisa_lm::model::config::LlamaConfig;
    use lisa_lm::model::{Input, LoraConfig};

    use super::*;

    #[test]
    fn the_norm_of_a_small_update_of_a_half_precision_model_is_that_of_the_product() {
        let device = Device::flex().autodiff();
        for dtype in [FloatDType::BF16, FloatDType::F16] {
            let model = ModelConfig::Llama(LlamaConfig::new(16, 8, 2, 2));
            let model = model.init(&device).unwrap().cast(dtype);
            let lora = LoraConfig::new(2).with_modules(["layers.0.mlp.up_proj"]);
            let mut changed = model.clone().with_lora(&lora).unwrap();
            let scale = lora.scale();
            let up = &mut changed.model.layers[0].mlp.up_proj;
            // Weights of 1, of which bf16 has steps of 1/128.
            let adapter = up.lora.as_mut().unwrap();
            let [from, rank] = adapter.a.dims();
            let [_, to] = adapter.b.dims();
            let values = |rows: usize, columns: usize, size: f32| {
                let values = (0..rows * columns).map(|i| size * (1.0 + (i % 3) as f32));
                let values = TensorData::new(values.collect::<Vec<_>>(), [rows, columns]);
                Tensor::<2>::from_data(values, (&device, DType::F32)).require_grad()
            };
            let (a, b) = (values(from, rank, 0.01), values(rank, to, 0.01));
            let product = (a.clone().inner().matmul(b.clone().inner())) * scale;
            let expected = product.square().sum().sqrt().into_scalar::<f32>();
            adapter.a = Param::initialized(adapter.a.id, a);
            adapter.b = Param::initialized(adapter.b.id, b);
            let mut base = model;
            for model in [&mut changed, &mut base] {
                let up = &mut model.model.layers[0].mlp.up_proj;
                let ones = |weight: Tensor<2>| weight.mul_scalar(0.0).add_scalar(1.0).detach();
                up.weight = up.weight.clone().map(ones);
            }
            let mut tracker = NormTracker::new(&base, &[]).unwrap();
            tracker.observe_update(&merged(&changed), &base).unwrap();
            let found = tracker.norms().unwrap().layers[0].1;
            let share = found / f64::from(expected);
            assert!((share - 1.0).abs() < 0.01, "{dtype:?}: {found} {expected}");
            // It is a copy: the model trains on.
            let tokens = Tensor::<2, Int>::from_data([[1, 2]], &device);
            assert_eq!(changed.forward(&Input::new(tokens)).dtype(), dtype.into());
        }
    }
}

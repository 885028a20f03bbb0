//! [`Trainer`]: one interface for LISA, full training and LoRA.

use std::path::Path;

use anyhow::Result;
use burn::module::{Module, ModuleVisitor, Param, ParamGroup};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor};
use lisa::importance::{Importance, Scores};
use lisa::optimizer::Decay;
use lisa::policy::{Budget, CyclicOrder, Gradient};
use lisa::recompute::Pass;
use lisa::{FrozenWeights, Lisa, LisaConfig, LisaError, OnFreeze, PolicyConfig, StepError};
use lisa_lm::CausalLm;
use lisa_lm::text::Position;

use super::layerwise_model::LayerwiseModel;
use crate::settings::{
    Method, MethodSettings, Moments, Order, Policy, Quantize, Settings, TrainingSettings,
};

/// The optimizer of a method. Full training is LISA with all layers active, and LoRA is full training
/// of a model that is frozen except for its adapters.
#[derive(Debug)]
pub(crate) struct Trainer(Box<Lisa>);

impl Trainer {
    /// Prepares the model for the method, makes its optimizer, and moves the model to the device if it
    /// is on another one.
    pub(crate) fn new(
        settings: &Settings,
        model: CausalLm,
        device: &Device,
    ) -> Result<(Self, CausalLm)> {
        let model = prepared(settings, model)?;
        let (config, adamw) = (lisa_config(settings, &model)?, adamw(&settings.training));
        let (lisa, model) = if model.device() == *device {
            config.init(adamw, model)?
        } else {
            config.init_on(adamw, model, device)?
        };
        Ok((Self(Box::new(lisa)), model))
    }

    /// One optimizer step.
    pub(crate) fn step(
        &mut self,
        lr: f64,
        model: CausalLm,
        grads: GradientsParams,
    ) -> Result<CausalLm> {
        let stepped = self.0.try_step(lr, model, grads);
        Ok(stepped.map_err(LisaError::from)?)
    }

    /// One optimizer step during the backward pass. The gradients of each part of the model are checked
    /// before it is updated. The error gives the model back, and says whether it is partly updated.
    pub(crate) fn step_layered(
        &mut self,
        lr: f64,
        model: CausalLm,
        pass: Pass<CausalLm>,
    ) -> Result<CausalLm, StepError<CausalLm>> {
        self.0.try_step_layered_checked(lr, model, pass)
    }

    /// The model with full-precision weights. Layers that the device does not have in full precision are
    /// read from host memory one at a time.
    pub(crate) fn exact<'a>(&'a self, model: &'a CausalLm) -> LayerwiseModel<'a> {
        if !self.keeps_exact_elsewhere() {
            return LayerwiseModel::whole(model);
        }
        let device = model.device();
        LayerwiseModel::by_layer(model, move |index| {
            self.0.exact(&model.model.layers[index], &device)
        })
    }

    /// A copy of the model with full-precision weights. It is on this device unless the model's own device
    /// has them all.
    pub(crate) fn copied(&self, model: &CausalLm, device: &Device) -> CausalLm {
        if self.keeps_exact_elsewhere() {
            self.0.exact(model, device)
        } else {
            model.clone()
        }
    }

    /// The model with full-precision weights, after the last step. It is on this device, and weights in host
    /// memory are moved there, unless the model's own device has them all.
    pub(crate) fn take_exact(&mut self, model: CausalLm, device: &Device) -> CausalLm {
        if self.keeps_exact_elsewhere() {
            self.0.take_exact(model, device)
        } else {
            model
        }
    }

    /// The model as it is on the device, with layers of a whole copy of it that is elsewhere.
    pub(crate) fn moved<'a>(&'a self, model: &CausalLm, whole: &'a CausalLm) -> LayerwiseModel<'a> {
        let device = model.device();
        LayerwiseModel::by_layer(model, move |index| {
            self.0.exact(&whole.model.layers[index], &device)
        })
    }

    /// Whether full-precision weights of frozen layers are in host memory and not on the device.
    fn keeps_exact_elsewhere(&self) -> bool {
        self.0.config().frozen_weights != FrozenWeights::Exact
    }

    /// Returns an error if gradients are not finite, and names their parameters.
    pub(crate) fn check(&self, model: &CausalLm, grads: &GradientsParams) -> Result<()> {
        Ok(self.0.check_finite(model, grads)?)
    }

    /// The active layers.
    #[must_use]
    pub(crate) fn active_layers(&self) -> &[usize] {
        self.0.active_layers()
    }

    /// Whether the parameters outside the layers train; `None` if they do in every period.
    #[must_use]
    pub(crate) fn outer_active(&self) -> Option<bool> {
        let every = self.0.config().outer_every;
        every.filter(|n| *n > 1).map(|_| self.0.outer_active())
    }

    /// How many layers are sampled from. With `--split` these are parts of layers.
    #[must_use]
    pub(crate) fn layers(&self) -> usize {
        self.0.layers().layers().len()
    }

    /// Bytes of optimizer state and master weights on the device.
    #[must_use]
    pub(crate) fn state_bytes(&self) -> u64 {
        self.0.memory().on_device()
    }

    /// Saves the full-precision weights of the model to a file.
    pub(crate) fn save_weights(&self, model: &CausalLm, path: &Path) -> Result<()> {
        Ok(self.0.save_weights(model, path)?)
    }

    /// Saves the optimizer's state to a file.
    pub(crate) fn save(&self, path: &Path) -> Result<()> {
        Ok(self.0.save(path)?)
    }

    /// Continues from a saved state. The model must have the weights of the same step.
    pub(crate) fn load(mut self, path: &Path, model: CausalLm) -> Result<(Self, CausalLm)> {
        let model = self.0.load(path, model)?;
        Ok((self, model))
    }
}

/// The model with its adapters if the method is LoRA. A model that has adapters already is
/// unchanged.
pub(crate) fn prepared(settings: &Settings, model: CausalLm) -> Result<CausalLm> {
    if settings.method.method != Method::Lora || model.lora().is_some() {
        return Ok(model);
    }
    Ok(model.with_lora(&settings.method.lora(settings.training.seed))?)
}

/// The model with the dropout of a batch, which depends on the seed and on the place of the batch: the
/// `index`-th from this position.
pub(crate) fn dropping(
    settings: &Settings,
    model: &CausalLm,
    at: Position,
    index: usize,
) -> CausalLm {
    if settings.method.method != Method::Lora || settings.method.lora_dropout == 0.0 {
        return model.clone();
    }
    let batch = (at.epoch << 32).wrapping_add((at.index + index) as u64);
    let seed = settings.training.seed.rotate_left(17) ^ batch;
    model.clone().with_dropout(Some(seed))
}

fn adamw(settings: &TrainingSettings) -> AdamWConfig {
    // PyTorch's epsilon. Burn's default of 1e-5 trains small models differently.
    AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(settings.weight_decay as f32)
}

/// The sampling policy.
fn policy(settings: &MethodSettings) -> Result<PolicyConfig> {
    let by_layer = || -> Result<Vec<f64>> {
        if settings.importance.as_os_str().is_empty() {
            return Ok(settings.probabilities.clone());
        }
        let is_bernoulli = settings.policy == Policy::Bernoulli;
        let active = settings.active_layers;
        // A file of `lisa importance --by` another signal than the ratio of norms.
        if let Ok(scores) = Scores::load(&settings.importance) {
            return Ok(if is_bernoulli {
                scores.scaled(active)?
            } else {
                scores.weights()?
            });
        }
        let importance = Importance::load(&settings.importance)?;
        Ok(if is_bernoulli {
            importance.scaled(active)?
        } else {
            importance.probabilities()?
        })
    };
    Ok(match settings.policy {
        Policy::Uniform => PolicyConfig::Uniform,
        Policy::Bernoulli => PolicyConfig::Bernoulli(by_layer()?),
        Policy::Weighted => PolicyConfig::Weighted(by_layer()?),
        Policy::Cyclic => PolicyConfig::Cyclic(match settings.order {
            Order::Ascending => CyclicOrder::Ascending,
            Order::Descending => CyclicOrder::Descending,
            Order::Shuffled => CyclicOrder::Reshuffled,
        }),
        Policy::Gradient => PolicyConfig::Gradient(Gradient::new()),
        Policy::Budget => PolicyConfig::Budget(Budget::new().with_share(settings.share)),
        Policy::Fixed => PolicyConfig::Fixed(settings.fixed_layers.clone()),
    })
}

/// The configuration of LISA. Full training is LISA with all layers active.
pub(crate) fn lisa_config(settings: &Settings, model: &CausalLm) -> Result<LisaConfig> {
    let method = &settings.method;
    let active = match method.method {
        Method::Lisa => method.active_layers,
        _ => model.num_layers(),
    };
    let split = match method.method {
        Method::Lisa => method.split.clone(),
        _ => Vec::new(),
    };
    let policy = match method.method {
        Method::Lisa => policy(method)?,
        _ => PolicyConfig::Uniform,
    };
    let frozen =
        (!method.freeze.is_empty()).then(|| ParamGroup::from_any_predicates(method.freeze.clone()));
    Ok(LisaConfig::new()
        // With adapters in some layers only, they are not a stack that can be found.
        .with_layers(vec![CausalLm::LAYERS.into()])
        .with_active_layers(active)
        .with_sampling_period(method.period)
        .with_seed(settings.training.seed)
        .with_policy(policy)
        .with_split(split)
        .with_unbiased(method.unbiased && method.method == Method::Lisa)
        .with_outer_every((method.method == Method::Lisa).then_some(method.outer_every))
        .with_layer_warmup((method.method == Method::Lisa).then_some(method.layer_warmup))
        .with_on_freeze(match method.moments {
            Moments::Drop => OnFreeze::Drop,
            Moments::Keep => OnFreeze::Keep,
            Moments::Offload => OnFreeze::Offload,
        })
        .with_master_weights(!settings.memory.no_master_weights)
        .with_decay(if settings.training.decay_all {
            Decay::All
        } else {
            Decay::Matrices
        })
        .with_frozen_weights(match settings.memory.quantize {
            Quantize::None => FrozenWeights::Exact,
            Quantize::Int8 => FrozenWeights::Int8,
            Quantize::Int4 => FrozenWeights::Int4,
        })
        .with_frozen(frozen)
        .with_max_grad_norm(Some(settings.training.max_grad_norm).filter(|norm| *norm > 0.0)))
}

/// Numbers of trainable and of all parameters.
pub(crate) fn count(model: &CausalLm) -> (usize, usize) {
    struct Count(usize, usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let n = param.lazy_shape().num_elements();
            self.1 += n;
            if param.is_require_grad() {
                self.0 += n;
            }
        }
    }
    let mut counted = Count(0, 0);
    model.visit(&mut counted);
    (counted.0, counted.1)
}

#[cfg(test)]
mod tests;

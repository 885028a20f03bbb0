//! [`Trainer`]: one interface for LISA, full training and LoRA.

use std::path::Path;

use anyhow::{Context, Result};
use burn::grad_clipping::GradientClipping;
use burn::module::{Lora, Module, ModuleVisitor, Param, ParamGroup};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use lisa::importance::Importance;
use lisa::optimizer::{Decay, exact};
use lisa::policy::{Budget, CyclicOrder, Gradient};
use lisa::recompute::Pass;
use lisa::{FrozenWeights, LayerMap, Lisa, LisaConfig, LisaError, OnFreeze, PolicyConfig};
use lisa_lm::CausalLm;

use super::lora_record;
use super::seeded::seeded;
use crate::settings::{
    Method, MethodSettings, Moments, Order, Policy, Quantize, Settings, TrainingSettings,
};

/// The optimizer of a method.
pub enum Trainer {
    /// LISA. Full training is LISA with all layers active.
    Lisa(Box<Lisa>),
    /// LoRA: only adapters are trainable.
    Lora(ModuleOptimizer),
}

impl std::fmt::Debug for Trainer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lisa(lisa) => f.debug_tuple("Lisa").field(lisa).finish(),
            Self::Lora(_) => f.write_str("Lora"),
        }
    }
}

impl Trainer {
    /// Prepares the model for the method and makes its optimizer.
    pub fn new(settings: &Settings, model: CausalLm) -> Result<(Self, CausalLm)> {
        if settings.method.method == Method::Lora {
            let device = model.device().inner();
            let model = seeded(&device, settings.training.seed, || {
                with_adapters(&settings.method, model)
            })?;
            let mut optimizer = ModuleOptimizer::from(exact(adamw(&settings.training).build()));
            if settings.training.max_grad_norm > 0.0 {
                // Burn clips each tensor separately.
                let norm = settings.training.max_grad_norm as f32;
                optimizer = optimizer.with_grad_clipping(GradientClipping::Norm(norm));
            }
            return Ok((Self::Lora(optimizer), model));
        }
        let (lisa, model) =
            lisa_config(settings, &model)?.init(adamw(&settings.training), model)?;
        Ok((Self::Lisa(Box::new(lisa)), model))
    }

    /// One optimizer step.
    pub fn step(&mut self, lr: f64, model: CausalLm, grads: GradientsParams) -> Result<CausalLm> {
        Ok(match self {
            Self::Lisa(lisa) => lisa.try_step(lr, model, grads).map_err(LisaError::from)?,
            Self::Lora(optimizer) => optimizer.step(lr, model, grads),
        })
    }

    /// One optimizer step during the backward pass.
    pub fn step_layered(
        &mut self,
        lr: f64,
        model: CausalLm,
        pass: Pass<CausalLm>,
    ) -> Result<CausalLm> {
        Ok(match self {
            Self::Lisa(lisa) => lisa
                .try_step_layered(lr, model, pass)
                .map_err(LisaError::from)?,
            Self::Lora(optimizer) => {
                pass.backward_with(model, |model, grads| optimizer.step(lr, model, grads))?
            }
        })
    }

    /// The model with full-precision weights: if layers are quantized, a copy with restored
    /// weights.
    #[must_use]
    pub fn exact(&self, model: &CausalLm) -> CausalLm {
        match self {
            Self::Lisa(lisa) if lisa.config().frozen_weights != FrozenWeights::Exact => {
                lisa.exact(model, &model.device())
            }
            _ => model.clone(),
        }
    }

    /// Returns an error if gradients are not finite, and names their parameters. LoRA is not
    /// checked.
    pub fn check(&self, model: &CausalLm, grads: &GradientsParams) -> Result<()> {
        if let Self::Lisa(lisa) = self {
            lisa.check_finite(model, grads)?;
        }
        Ok(())
    }

    /// The active layers; empty for LoRA.
    #[must_use]
    pub fn active_layers(&self) -> &[usize] {
        match self {
            Self::Lisa(lisa) => lisa.active_layers(),
            Self::Lora(_) => &[],
        }
    }

    /// Bytes of optimizer state and master weights on the device; `None` for LoRA.
    #[must_use]
    pub fn state_bytes(&self) -> Option<u64> {
        match self {
            Self::Lisa(lisa) => Some(lisa.memory().on_device()),
            Self::Lora(_) => None,
        }
    }

    /// The numbers of trainable and frozen parameters, as text.
    #[must_use]
    pub fn describe(&self, model: &CausalLm) -> String {
        match self {
            Self::Lisa(lisa) => lisa.to_string(),
            Self::Lora(_) => {
                let (trained, all) = count(model);
                format!(
                    "  adapters   {trained:>14} parameters  {:>5.1} %\n  frozen     {:>14} parameters",
                    100.0 * trained as f64 / all as f64,
                    all - trained
                )
            }
        }
    }

    /// Saves the optimizer's state to a file.
    pub fn save(&self, path: &Path) -> Result<()> {
        match self {
            Self::Lisa(lisa) => lisa.save(path)?,
            Self::Lora(optimizer) => optimizer
                .save(path)
                .with_context(|| format!("cannot save `{}`", path.display()))?,
        }
        Ok(())
    }

    /// Continues from a saved state. The model must have the weights of the same step.
    pub fn load(self, path: &Path, model: CausalLm) -> Result<(Self, CausalLm)> {
        Ok(match self {
            Self::Lisa(mut lisa) => {
                let model = lisa.load(path, model)?;
                (Self::Lisa(lisa), model)
            }
            Self::Lora(optimizer) => {
                let optimizer = lora_record::load(optimizer, path, &model)
                    .with_context(|| format!("cannot read `{}`", path.display()))?;
                (Self::Lora(optimizer), model)
            }
        })
    }
}

/// The model with LoRA adapters on the weight matrices of its layers.
pub(crate) fn with_adapters(settings: &MethodSettings, model: CausalLm) -> Result<CausalLm> {
    let matrices = ParamGroup::from_regex(r"\.layers\.\d+\..*weight$")
        .map_err(|e| anyhow::anyhow!("{e:?}"))?;
    let lora = Lora::new(settings.lora_rank, settings.lora_alpha);
    Ok(model.apply_lora(lora.set_param_group(matrices)))
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
        let importance = Importance::load(&settings.importance)?;
        Ok(match settings.policy {
            Policy::Bernoulli => importance.scaled(settings.active_layers)?,
            _ => importance.probabilities()?,
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
        Method::Full => LayerMap::find(model)?.layers().len(),
        _ => method.active_layers,
    };
    let split = match method.method {
        Method::Full => Vec::new(),
        _ => method.split.clone(),
    };
    let policy = match method.method {
        Method::Lisa => policy(method)?,
        _ => PolicyConfig::Uniform,
    };
    let frozen =
        (!method.freeze.is_empty()).then(|| ParamGroup::from_any_predicates(method.freeze.clone()));
    Ok(LisaConfig::new()
        .with_active_layers(active)
        .with_sampling_period(method.period)
        .with_seed(settings.training.seed)
        .with_policy(policy)
        .with_split(split)
        .with_unbiased(method.unbiased && method.method == Method::Lisa)
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

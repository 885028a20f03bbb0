//! [`Trainer`]: the three ways to train behind one `step`: LISA, everything, LoRA.

use std::path::Path;

use anyhow::{Context, Result};
use burn::module::{Lora, Module, ModuleVisitor, Param, ParamGroup};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Tensor;
use lisa::importance::Importance;
use lisa::policy::CyclicOrder;
use lisa::policy::{Budget, Gradient};
use lisa::recompute::Pass;
use lisa::{FrozenWeights, LayerMap, Lisa, LisaConfig, OnFreeze, PolicyConfig};
use lisa_lm::CausalLm;

use crate::settings::{Method, Moments, Order, Policy, Quantize, Settings};

/// An optimizer with what it takes to train a model its way.
pub enum Trainer {
    /// A few layers at a time. With every layer active all the time, this is `Method::Full` too.
    Lisa(Box<Lisa>),
    /// Adapters.
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
        if settings.method == Method::Lora {
            let matrices = ParamGroup::from_regex(r"\.(layers|h)\.\d+\..*weight$")
                .map_err(|e| anyhow::anyhow!("{e:?}"))?;
            let lora = Lora::new(settings.lora_rank, settings.lora_alpha);
            let model = model.apply_lora(lora.set_param_group(matrices));
            let mut adamw = adamw(settings);
            if settings.max_grad_norm > 0.0 {
                // Burn's own clipping, tensor by tensor.
                let norm = settings.max_grad_norm as f32;
                adamw = adamw.with_grad_clipping(Some(
                    burn::grad_clipping::GradientClippingConfig::Norm(norm),
                ));
            }
            return Ok((Self::Lora(adamw.init()), model));
        }
        let (lisa, model) = lisa_config(settings, &model)?.init(adamw(settings), model)?;
        Ok((Self::Lisa(Box::new(lisa)), model))
    }

    /// One optimizer step.
    pub fn step(&mut self, lr: f64, model: CausalLm, grads: GradientsParams) -> CausalLm {
        match self {
            Self::Lisa(lisa) => lisa.step(lr, model, grads),
            Self::Lora(optimizer) => optimizer.step(lr, model, grads),
        }
    }

    /// One optimizer step during the backward pass.
    pub fn step_layered(
        &mut self,
        lr: f64,
        model: CausalLm,
        pass: Pass<CausalLm>,
    ) -> Result<CausalLm> {
        Ok(match self {
            Self::Lisa(lisa) => lisa.try_step_layered(lr, model, pass)?,
            Self::Lora(optimizer) => {
                pass.backward_with(model, |model, grads| optimizer.step(lr, model, grads))?
            }
        })
    }

    /// The model with exact weights, which is the model itself where nothing is quantized.
    #[must_use]
    pub fn exact(&self, model: &CausalLm) -> CausalLm {
        match self {
            Self::Lisa(lisa) if lisa.config().frozen_weights != FrozenWeights::Exact => {
                lisa.exact(model, &model.device())
            }
            _ => model.clone(),
        }
    }

    /// Refuses gradients that are not finite, and names the parameters; LISA and full alone.
    pub fn check(&self, model: &CausalLm, grads: &GradientsParams) -> Result<()> {
        if let Self::Lisa(lisa) = self {
            lisa.check_finite(model, grads)?;
        }
        Ok(())
    }

    /// The layers that train, and of how many; none where that does not change.
    #[must_use]
    pub fn active_layers(&self) -> &[usize] {
        match self {
            Self::Lisa(lisa) => lisa.active_layers(),
            Self::Lora(_) => &[],
        }
    }

    /// Bytes of the optimizer's state on the device; none where it is not known cheaply.
    #[must_use]
    pub fn state_bytes(&self) -> Option<u64> {
        match self {
            Self::Lisa(lisa) => Some(lisa.memory().on_device()),
            Self::Lora(_) => None,
        }
    }

    /// How many parameters train, and of how many, in words.
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

    /// Goes on from a saved state; the model must hold the weights of that moment.
    pub fn load(self, path: &Path, model: CausalLm) -> Result<(Self, CausalLm)> {
        Ok(match self {
            Self::Lisa(mut lisa) => {
                let model = lisa.load(path, model)?;
                (Self::Lisa(lisa), model)
            }
            Self::Lora(optimizer) => {
                let optimizer = optimizer
                    .load(path)
                    .with_context(|| format!("cannot read `{}`", path.display()))?;
                (Self::Lora(optimizer), model)
            }
        })
    }
}

fn adamw(settings: &Settings) -> AdamWConfig {
    // PyTorch's epsilon: Burn's default of 1e-5 trains small models differently.
    AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(settings.weight_decay as f32)
}

/// What draws the layers.
fn policy(settings: &Settings) -> Result<PolicyConfig> {
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

/// What LISA is asked to do, and with every layer active, full training.
pub(crate) fn lisa_config(settings: &Settings, model: &CausalLm) -> Result<LisaConfig> {
    let active = match settings.method {
        Method::Full => LayerMap::find(model)?.layers().len(),
        _ => settings.active_layers,
    };
    let split = match settings.method {
        Method::Full => Vec::new(),
        _ => settings.split.clone(),
    };
    let policy = match settings.method {
        Method::Lisa => policy(settings)?,
        _ => PolicyConfig::Uniform,
    };
    let frozen = (!settings.freeze.is_empty())
        .then(|| ParamGroup::from_any_predicates(settings.freeze.clone()));
    Ok(LisaConfig::new()
        .with_active_layers(active)
        .with_sampling_period(settings.period)
        .with_seed(settings.seed)
        .with_policy(policy)
        .with_split(split)
        .with_unbiased(settings.unbiased && settings.method == Method::Lisa)
        .with_on_freeze(match settings.moments {
            Moments::Drop => OnFreeze::Drop,
            Moments::Keep => OnFreeze::Keep,
            Moments::Offload => OnFreeze::Offload,
        })
        .with_master_weights(!settings.no_master_weights)
        .with_frozen_weights(match settings.quantize {
            Quantize::None => FrozenWeights::Exact,
            Quantize::Int8 => FrozenWeights::Int8,
            Quantize::Int4 => FrozenWeights::Int4,
        })
        .with_frozen(frozen)
        .with_max_grad_norm((settings.max_grad_norm > 0.0).then_some(settings.max_grad_norm)))
}

/// Numbers that train, and all.
fn count(model: &CausalLm) -> (usize, usize) {
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

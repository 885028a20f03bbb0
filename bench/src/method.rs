//! The methods, and one step of each.

use std::time::Instant;

use anyhow::{Result, bail};
use burn::module::{Lora, Module, ParamGroup};
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::Device;
use clap::ValueEnum;
use lisa::recompute::Recompute;
use lisa::{FrozenWeights, Lisa, LisaConfig, OnFreeze};
use lisa_lm::{BatchTensors, CausalLm, Input};

use crate::settings::{Settings, display_as_value};

/// A way to train.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// AdamW on everything
    Full,
    /// Burn's own LoRA, on all matrices
    LoraBurn,
    /// LoRA as a side path, on all matrices
    Lora,
    /// LISA
    Lisa,
    /// LISA with moments of frozen layers kept, as LMFlow has it
    LisaKeep,
    /// LISA with moments of frozen layers on the host
    LisaOffload,
    /// LISA with layer-wise recomputation and steps during the backward pass
    LisaRecompute,
    /// LISA with embeddings and head frozen
    LisaFrozenEmbeddings,
    /// The two together
    LisaRecomputeFrozenEmbeddings,
    /// LISA with recomputation and frozen layers in int8
    LisaInt8,
    /// LISA with recomputation and frozen layers in int4
    LisaInt4,
    /// PyTorch: AdamW on everything
    TorchFull,
    /// PyTorch: peft's LoRA, on all matrices
    TorchLora,
    /// PyTorch: LISA with moments of frozen layers dropped
    TorchLisa,
}

display_as_value!(Method);

impl Method {
    pub(crate) fn is_torch(self) -> bool {
        matches!(self, Self::TorchFull | Self::TorchLora | Self::TorchLisa)
    }

    /// Whether it runs where no methods are named.
    pub(crate) fn is_default(self) -> bool {
        !matches!(self, Self::LisaKeep | Self::LisaOffload)
    }

    pub(crate) fn recomputes(self) -> bool {
        matches!(
            self,
            Self::LisaRecompute
                | Self::LisaRecomputeFrozenEmbeddings
                | Self::LisaInt8
                | Self::LisaInt4
        )
    }

    /// How it recomputes: where the embeddings are frozen, what a layer holds on its way back is the most,
    /// and pieces are worth their time.
    pub(crate) fn recompute(self, layers: usize) -> Recompute {
        match self {
            Self::LisaRecomputeFrozenEmbeddings => {
                Recompute::new().with_every(layers.isqrt()).with_sublayers()
            }
            _ => Recompute::new(),
        }
    }

    /// Whether frozen layers are quantized: the model then starts in the host's memory.
    pub(crate) fn quantizes(self) -> bool {
        matches!(self, Self::LisaInt8 | Self::LisaInt4)
    }

    fn freezes_embeddings(self) -> bool {
        matches!(
            self,
            Self::LisaFrozenEmbeddings | Self::LisaRecomputeFrozenEmbeddings
        )
    }
}

/// Seconds of the parts of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) forward: f64,
    pub(crate) backward: f64,
    pub(crate) update: f64,
}

/// An optimizer, and how it is used.
pub(crate) enum Trainer {
    Plain(ModuleOptimizer),
    Lisa(Box<Lisa>),
    Layered(Box<Lisa>, Recompute),
}

/// The optimizer of all methods, in PyTorch's settings.
pub(crate) fn adamw() -> AdamWConfig {
    AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(0.01)
}

/// The run that is asked for, as LISA's configuration.
pub(crate) fn lisa_config(settings: &Settings, method: Method) -> LisaConfig {
    let frozen =
        || ParamGroup::from_any_predicates(vec!["embed_tokens", "embed_positions", "lm_head"]);
    LisaConfig::new()
        .with_active_layers(settings.active_layers)
        .with_sampling_period(settings.period)
        .with_seed(settings.seed)
        .with_master_weights(!settings.no_master_weights)
        .with_on_freeze(match method {
            Method::LisaKeep => OnFreeze::Keep,
            Method::LisaOffload => OnFreeze::Offload,
            _ => OnFreeze::Drop,
        })
        .with_frozen_weights(match method {
            Method::LisaInt8 => FrozenWeights::Int8,
            Method::LisaInt4 => FrozenWeights::Int4,
            _ => FrozenWeights::Exact,
        })
        .with_frozen(method.freezes_embeddings().then(frozen))
}

impl Trainer {
    pub(crate) fn new(
        settings: &Settings,
        method: Method,
        model: CausalLm,
        device: &Device,
    ) -> Result<(Self, CausalLm)> {
        // Twice the rank, as is usual.
        let alpha = 2.0 * settings.lora_rank as f64;
        Ok(match method {
            Method::Full => (Self::Plain(adamw().init()), model),
            Method::LoraBurn => {
                let matrices = ParamGroup::from_regex(r"\.layers\.\d+\..*proj.*weight$")
                    .map_err(|e| anyhow::anyhow!("{e:?}"))?;
                let lora = Lora::new(settings.lora_rank, alpha).set_param_group(matrices);
                (Self::Plain(adamw().init()), model.apply_lora(lora))
            }
            Method::Lora => {
                let model = model.with_lora(settings.lora_rank, alpha)?;
                (Self::Plain(adamw().init()), model)
            }
            _ if method.is_torch() => bail!("`{method}` is PyTorch's"),
            _ => {
                let config = lisa_config(settings, method);
                let (lisa, model) = if method.quantizes() {
                    config.init_on(adamw(), model, device)?
                } else {
                    config.init(adamw(), model)?
                };
                let lisa = Box::new(lisa);
                if method.recomputes() {
                    let plan = method.recompute(model.num_layers());
                    (Self::Layered(lisa, plan), model)
                } else {
                    (Self::Lisa(lisa), model)
                }
            }
        })
    }

    /// One step: the model, the loss and the times of the parts.
    ///
    /// Where gradients are stepped as they come, the update is in the time of the backward pass.
    pub(crate) fn step(
        &mut self,
        lr: f64,
        model: CausalLm,
        batch: &BatchTensors,
        device: &Device,
    ) -> Result<(CausalLm, f64, Times)> {
        let mut clock = Clock::start(device);
        if let Self::Layered(lisa, recompute) = self {
            let pass = recompute.forward(&model, batch);
            let loss = pass.loss();
            let forward = clock.lap()?;
            let model = lisa.try_step_layered(lr, model, pass)?;
            let times = Times {
                forward,
                backward: clock.lap()?,
                update: 0.0,
            };
            return Ok((model, f64::from(loss.into_scalar::<f32>()), times));
        }
        let loss = model.next_token_loss(&Input::from(batch.clone()), batch.targets.clone());
        let forward = clock.lap()?;
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let loss = loss.detach();
        let backward = clock.lap()?;
        let model = match self {
            Self::Plain(optimizer) => optimizer.step(lr, model, grads),
            Self::Lisa(lisa) | Self::Layered(lisa, _) => lisa.step(lr, model, grads),
        };
        let times = Times {
            forward,
            backward,
            update: clock.lap()?,
        };
        Ok((model, f64::from(loss.into_scalar::<f32>()), times))
    }

    pub(crate) fn lisa(&self) -> Option<&Lisa> {
        match self {
            Self::Plain(_) => None,
            Self::Lisa(lisa) | Self::Layered(lisa, _) => Some(lisa),
        }
    }
}

/// Time between two points at which the device has finished.
struct Clock<'a> {
    device: &'a Device,
    last: Instant,
}

impl<'a> Clock<'a> {
    fn start(device: &'a Device) -> Self {
        Self {
            device,
            last: Instant::now(),
        }
    }

    fn lap(&mut self) -> Result<f64> {
        self.device
            .sync()
            .map_err(|e| anyhow::anyhow!("the device failed: {e:?}"))?;
        let seconds = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        Ok(seconds)
    }
}

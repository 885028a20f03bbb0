//! [`LisaConfig::init`]: reads the model, samples the first layers and freezes the others. Tests:
//! `lisa/tests.rs`.

use burn::module::Module;
use burn::tensor::Device;

use super::Lisa;
use crate::optimizer::{LayerOptimizer, OptimizerConfig, Wrapping};
use crate::period::PeriodSums;
use crate::quantize::FullWeights;
use crate::sampler::{self, Sampler, Sampling};
use crate::trainable::Trainable;
use crate::{ErrorKind, FreezeMask, LayerMap, LisaConfig, LisaError};

impl LisaConfig {
    /// Makes the optimizer of a run, and freezes the layers of `model` that are not active in the
    /// first period.
    ///
    /// `optimizer` is one of Burn's optimizer configs, such as `AdamWConfig::new()`; gradient
    /// clipping that is set on it is applied. Wrap an optimizer that is already built in
    /// [`Built`](crate::optimizer::Built). Lazy parameters are initialized. A layer without a
    /// parameter that requires gradients is not sampled: it counts as frozen by the caller. If an
    /// earlier run has frozen it, call [`Lisa::unfreeze`] of that run first. Cost: three visits of
    /// the module; no tensor is copied, unless frozen layers are [quantized](Self::frozen_weights).
    ///
    /// Freezing a layer only removes its gradients: its dropout stays on, and the running
    /// statistics of its norms change in each forward pass, as in a layer that trains.
    ///
    /// # Errors
    ///
    /// A setting is out of range; the stack of layers is not found or is ambiguous; parameters are
    /// tied; a group of frozen parameters matches no parameter; the model has no trainable
    /// parameters; the policy [refuses](crate::policy::SamplingPolicy::validate) the layers or
    /// samples invalid ones; the device cannot quantize; the optimizer cannot be made without
    /// weight decay, which [`decay`](Self::decay) needs. The error does not give the model back:
    /// clone it first if you need it after an error.
    pub fn init<C: OptimizerConfig, M: Module>(
        &self,
        optimizer: C,
        model: M,
    ) -> Result<(Lisa, M), LisaError> {
        Lisa::init(self, &optimizer, model, None)
    }

    /// Like [`init`](Self::init), for a model that is on another device, such as the host
    /// (`Device::flex().autodiff()`).
    ///
    /// The model moves to `device`, float parameters one at a time, and they take the gradient
    /// checkpointing of `device`. Burn cannot change it for tensors that are no parameters: a model
    /// with such tensors must be made on a device with the same gradient checkpointing. Of the
    /// layers that are quantized, at most one weight at a time is on `device` in full precision.
    /// Clones of the model share its running statistics, and must not be used afterwards. Burn
    /// applies the running statistics of a forward pass later, and those that are not applied yet
    /// do not move: give a model from [`Module::train`](burn::module::Module::train), which applies
    /// them.
    ///
    /// # Errors
    ///
    /// As [`init`](Self::init), and if `device` has no autodiff.
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::module::Module;
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::optim::AdamWConfig;
    /// # use burn::tensor::Device;
    /// # #[derive(Module, Debug)]
    /// # struct Model { layers: Vec<Linear> }
    /// use lisa::{FrozenWeights, LisaConfig};
    ///
    /// // Made in host memory. Six of its eight layers go to the device as int8.
    /// let host = Device::flex().autodiff();
    /// let linear = |_| LinearConfig::new(64, 64).with_bias(false).init(&host);
    /// let model = Model { layers: (0..8).map(linear).collect() };
    /// let config = LisaConfig::new().with_frozen_weights(FrozenWeights::Int8);
    /// let device = Device::default().autodiff();
    /// let (lisa, model) = config.init_on(AdamWConfig::new(), model, &device)?;
    /// assert_eq!(lisa.memory().full_precision, 6 * 64 * 64 * 4);
    /// # Ok::<(), lisa::LisaError>(())
    /// ```
    pub fn init_on<C: OptimizerConfig, M: Module>(
        &self,
        optimizer: C,
        model: M,
        device: &Device,
    ) -> Result<(Lisa, M), LisaError> {
        Lisa::init(self, &optimizer, model, Some(device))
    }
}

impl Lisa {
    fn init<C: OptimizerConfig, M: Module>(
        config: &LisaConfig,
        optimizer: &C,
        model: M,
        device: Option<&Device>,
    ) -> Result<(Self, M), LisaError> {
        config.validate()?;
        let trainable = Trainable::new(config, &model)?;
        for warning in trainable.warnings(config) {
            log::warn!("{warning}");
        }
        let is_plain = device.is_some_and(|device| !device.is_autodiff());
        if is_plain {
            let message = "the device to which the model moves has no gradients";
            return Err(
                LisaError::new(ErrorKind::Config, message).with_help("give `device.autodiff()`")
            );
        }
        if let Some(device) = device.or(model.devices().first()) {
            config.frozen_weights.check(device)?;
        }
        let wrapping = Wrapping {
            on_freeze: config.on_freeze,
            master_weights: config.master_weights,
            decay: config.decay,
        };
        let mut lisa = Self {
            sampler: Sampler::new(sampling(config, &trainable))?,
            sums: PeriodSums::default(),
            mask: FreezeMask::new(Trainable::requiring(trainable.map())),
            optimizer: LayerOptimizer::new(optimizer, wrapping)?,
            full: FullWeights::default(),
            config: config.clone(),
            trainable,
        };
        let active = lisa.trainable.ids(|layer| lisa.sampler.is_active(layer));
        let map = lisa.trainable.map();
        let kind = config.frozen_weights;
        let model = lisa.full.quantize(model, kind, (map, &active), device);
        let model = lisa.apply(model);
        lisa.log();
        Ok((lisa, model))
    }
}

fn sampling(config: &LisaConfig, trainable: &Trainable) -> Sampling {
    Sampling {
        policy: config.policy.build(),
        seed: config.seed,
        active_layers: config.active_layers,
        period: config.sampling_period,
        unbiased: config.unbiased,
        outer_every: if trainable.with(|layer| layer.is_none()).next().is_some() {
            config.outer_every_nth() as u64
        } else {
            0
        },
        warmup: config.layer_warmup.unwrap_or(0) as u64,
        layers: trainable.layers(),
    }
}

/// Which parameters of a map may train, or the errors of [`LisaConfig::init`] that depend only on
/// shapes and settings.
pub(crate) fn check(map: &LayerMap, config: &LisaConfig) -> Result<Vec<bool>, LisaError> {
    config.validate()?;
    let trainable = Trainable::of(map.clone(), config)?;
    sampler::check(sampling(config, &trainable))?;
    Ok(trainable.may_train().to_vec())
}

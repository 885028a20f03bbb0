//! [`Lisa`]: sampler, mask and optimizer of a run in one type. Tests: `lisa/tests.rs`.

use std::fmt;

use burn::grad_clipping::GradientClipping;
use burn::module::{Module, ParamGroup};
use burn::optim::{GradientsParams, ModuleOptimizer};

use crate::clip;
use crate::optimizer::usage::Usage;
use crate::optimizer::{LayerOptimizer, OptimizerConfig};
use crate::period::PeriodSums;
use crate::policy::Scores;
use crate::quantize::FullWeights;
use crate::sampler::Sampler;
use crate::trainable::Trainable;
use crate::{ErrorKind, FreezeMask, LayerMap, LisaConfig, LisaError};

mod step;
mod layered;
mod init;
mod exact;
mod record;
#[cfg(feature = "train")]
mod learner;
#[cfg(test)]
mod tests;

pub(crate) use init::check;

/// Layer-sampling fine-tuning: a module optimizer that trains a few layers at a time.
///
/// It is made by [`LisaConfig::init`]. As in Burn's `ModuleOptimizer`, `step(lr, model, grads)`
/// returns the updated model. It keeps the step, the active layers, the scores of a policy that
/// observes gradients, the optimizer state of trainable parameters and, with quantized frozen
/// layers, their full-precision weights. With [`OnFreeze::Keep`](crate::OnFreeze::Keep) and
/// [`OnFreeze::Offload`](crate::OnFreeze::Offload), it also keeps the optimizer state of every
/// parameter that was ever active.
///
/// # Example
///
/// ```
/// use burn::module::Module;
/// use burn::nn::{Linear, LinearConfig};
/// use burn::optim::{AdamWConfig, GradientsParams};
/// use burn::tensor::{Device, Tensor};
/// use lisa::LisaConfig;
///
/// #[derive(Module, Debug)]
/// struct Model {
///     layers: Vec<Linear>,
///     head: Linear,
/// }
///
/// let device = Device::flex().autodiff();
/// let linear = || LinearConfig::new(4, 4).init(&device);
/// let model = Model { layers: (0..6).map(|_| linear()).collect(), head: linear() };
///
/// // let mut optimizer = AdamWConfig::new().init();
/// let (mut optimizer, mut model) = LisaConfig::new().init(AdamWConfig::new(), model)?;
///
/// let mut x = Tensor::<2>::ones([1, 4], &device);
/// for layer in &model.layers {
///     x = layer.forward(x);
/// }
/// let grads = GradientsParams::from_grads(model.head.forward(x).mean().backward(), &model);
/// model = optimizer.step(1e-3, model, grads);
///
/// assert_eq!(optimizer.active_layers().len(), 2);
/// // AdamW has two moments of 20 f32 elements for each of two layers and the head.
/// assert_eq!(optimizer.memory().optimizer_state, 2 * 20 * 4 * 3);
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone)]
pub struct Lisa {
    config: LisaConfig,
    sampler: Sampler,
    /// The gradient statistics of this period, if the policy observes gradients.
    sums: PeriodSums,
    trainable: Trainable,
    mask: FreezeMask,
    optimizer: LayerOptimizer,
    /// The full-precision weights of the layers that are quantized.
    full: FullWeights,
}

impl fmt::Debug for Lisa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lisa")
            .field("config", &self.config)
            .field("step", &self.steps())
            .field("active", &self.active_layers())
            .finish_non_exhaustive()
    }
}

impl Lisa {
    /// Uses another optimizer for the parameters of `group`; the last group that matches wins.
    ///
    /// It works like Burn's `ModuleOptimizer::with_group`, and also applies the gradient clipping
    /// of the config and drops or offloads the state of frozen parameters. A group by predicate matches
    /// parts of paths: `layers.1` also matches `layers.10`. [`LisaConfig::decay`] applies to the
    /// group as well. Groups are not in a record: add them again before [`load`](Self::load).
    ///
    /// In the middle of a run, the optimizer state and the master weights of the group's parameters are
    /// dropped.
    ///
    /// # Panics
    ///
    /// With the message of the error that [`try_with_group`](Self::try_with_group) returns.
    #[must_use]
    pub fn with_group<C: OptimizerConfig>(self, group: ParamGroup, optimizer: C) -> Self {
        must(self.try_with_group(group, optimizer))
    }

    /// [`with_group`](Self::with_group) that returns errors.
    ///
    /// # Errors
    ///
    /// `group` matches no parameter of the model. Or the config has
    /// [`Decay::Matrices`](crate::optimizer::Decay::Matrices), and `optimizer` cannot be made without
    /// weight decay, as [`Built`](crate::optimizer::Built).
    pub fn try_with_group<C: OptimizerConfig>(
        mut self,
        group: ParamGroup,
        optimizer: C,
    ) -> Result<Self, LisaError> {
        let map = self.trainable.map();
        self.optimizer = self.optimizer.with_group(group, &optimizer, map)?;
        Ok(self)
    }

    /// Clips each gradient tensor separately, as Burn does, except those of a
    /// [group](Self::with_group), which has the clipping of its own config. To clip by the global norm,
    /// use [`LisaConfig::max_grad_norm`].
    ///
    /// Cost: a copy of the optimizer state in host memory, if there is any; it replaces the state on the
    /// device. Burn loads it on `Device::default()`, and the next step of a parameter moves its state to
    /// the device of the model. State that was offloaded stays in host memory.
    #[must_use]
    pub fn with_grad_clipping(mut self, clipping: GradientClipping) -> Self {
        self.optimizer = self.optimizer.with_grad_clipping(clipping);
        self
    }

    /// Returns an error if the gradient of a trainable parameter has a NaN or an infinity.
    ///
    /// Call it before [`step`](Self::step) if a bad batch must not change the model. As in a step, a
    /// model with other `ParamId`s is matched by its paths. Cost: a visit of the module, one pass over the
    /// gradients, and a wait for the device.
    ///
    /// # Errors
    ///
    /// There are such gradients: the message has the step, the number of parameters, and the paths
    /// of the first three. Or the model is not the model of this run, as in
    /// [`try_step`](Self::try_step).
    pub fn check_finite<M: Module>(
        &self,
        model: &M,
        grads: &GradientsParams,
    ) -> Result<(), LisaError> {
        let is_active = |layer| self.sampler.is_active(layer);
        let found = self.trainable.follow(&self.config, model, is_active)?;
        let map = found.renamed.as_ref().map(|renamed| &renamed.map);
        self.check_gradients(model, grads, map.unwrap_or(self.trainable.map()))
    }

    /// [`check_finite`](Self::check_finite) for a model with the ids of this map.
    fn check_gradients<M: Module>(
        &self,
        model: &M,
        grads: &GradientsParams,
        map: &LayerMap,
    ) -> Result<(), LisaError> {
        let trains = |id| {
            let index = map.index_of(id);
            index.is_some_and(|i| {
                self.trainable
                    .trains(i, |layer| self.sampler.is_active(layer))
            })
        };
        let paths = clip::not_finite(model, grads, trains);
        if paths.is_empty() {
            return Ok(());
        }
        let (count, first) = (paths.len(), paths[..paths.len().min(3)].join("`, `"));
        let step = self.steps() + 1;
        Err(LisaError::new(
            ErrorKind::Gradient,
            format!(
                "the gradient of step {step} is not finite in {count} parameters, first of `{first}`"
            ),
        )
        .with_help("lower the learning rate, clip by max_grad_norm, or look at the batch"))
    }

    /// The layers that are active in this period, counted from 0 in the order of their stacks,
    /// ascending.
    #[must_use]
    pub fn active_layers(&self) -> &[usize] {
        self.sampler.active()
    }

    /// The scores of the layers, and their sizes. There are scores only for a policy that
    /// [observes](crate::policy::SamplingPolicy::observes) gradients; they are updated at the end
    /// of each period.
    #[must_use]
    pub fn scores(&self) -> &Scores {
        self.sampler.scores()
    }

    /// Which parameters of the map may train.
    #[cfg(feature = "train")]
    pub(crate) fn may_train(&self) -> &[bool] {
        self.trainable.may_train()
    }

    /// The name of the sampling policy.
    #[must_use]
    pub fn policy_name(&self) -> String {
        self.sampler.policy().name()
    }

    /// The period of the next step, counted from 0.
    #[must_use]
    pub fn period(&self) -> u64 {
        self.sampler.period()
    }

    /// Optimizer steps taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.sampler.steps()
    }

    /// The memory that this run uses now in addition to the model, in bytes.
    ///
    /// This call does not copy the state. The size of the state is measured twice for each shape,
    /// by a copy of the state in host memory: when a parameter of that shape is updated for the
    /// first time, and when one is updated for the second time.
    #[must_use]
    pub fn memory(&self) -> Usage {
        Usage {
            full_precision: self.full.bytes(),
            ..self.optimizer.usage()
        }
    }

    /// The model with the gradient requirements that it had before [`init`](LisaConfig::init), for
    /// another run, with LISA or without it.
    ///
    /// During a run, most layers require no gradients. `init` treats such layers as frozen by the
    /// caller. If frozen layers are quantized, give the model of [`take_exact`](Self::take_exact).
    /// Cost: four visits of the module; no tensor is copied, except to compare float weights of the
    /// model with full-precision weights that this run keeps.
    ///
    /// # Errors
    ///
    /// The model is not the one of this run, or has layers that this run has quantized, even if
    /// Burn has dequantized them since: another run would begin with their rounded weights. The
    /// error does not give the model back: clone it first if you need it after an error.
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
    /// # let device = Device::flex().autodiff();
    /// # let linear = |_| LinearConfig::new(4, 4).init(&device);
    /// # let model = Model { layers: (0..6).map(linear).collect() };
    /// use lisa::LisaConfig;
    ///
    /// let (lisa, model) = LisaConfig::new().init(AdamWConfig::new(), model)?;
    /// // ... the first run; then one that trains four layers at a time.
    /// let model = lisa.unfreeze(model)?;
    /// let config = LisaConfig::new().with_active_layers(4);
    /// let (lisa, model) = config.init(AdamWConfig::new(), model)?;
    /// assert_eq!(lisa.describe().active, 4 * 20);
    /// # Ok::<(), lisa::LisaError>(())
    /// ```
    pub fn unfreeze<M: Module>(&self, model: M) -> Result<M, LisaError> {
        let (own, map) = (
            self.trainable.map(),
            self.trainable.same(&self.config, &model)?,
        );
        let why = "another run would begin with the rounded weights";
        let help = "give the model that `Lisa::take_exact` returns";
        self.full.check_exact(&model, own, (why, help))?;
        let mut mask = FreezeMask::new(Trainable::requiring(&map));
        Ok(mask.change(model, self.trainable.required(&map)))
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &LisaConfig {
        &self.config
    }

    /// The layers and their parameters.
    #[must_use]
    pub fn layers(&self) -> &LayerMap {
        self.trainable.map()
    }

    /// Which parameters train now.
    #[must_use]
    pub fn mask(&self) -> &FreezeMask {
        &self.mask
    }

    /// Burn's optimizer, which `Lisa` wraps.
    #[must_use]
    pub fn get_ref(&self) -> &ModuleOptimizer {
        self.optimizer.get_ref()
    }

    /// Whether the parameters outside the layers (embeddings, final norm, head) train in this period;
    /// false if all of them are frozen. [`LisaConfig::outer_every`] says in which periods they train.
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::module::Module;
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::optim::{AdamWConfig, GradientsParams};
    /// # use burn::tensor::{Device, Tensor};
    /// use lisa::LisaConfig;
    ///
    /// # #[derive(Module, Debug)]
    /// # struct Model { layers: Vec<Linear>, head: Linear }
    /// # let device = Device::flex().autodiff();
    /// # let linear = || LinearConfig::new(4, 4).init(&device);
    /// # let model = Model { layers: (0..6).map(|_| linear()).collect(), head: linear() };
    /// // One step in a period. The head trains in the first period of three.
    /// let config = LisaConfig::new().with_sampling_period(1).with_outer_every(Some(3));
    /// let (mut optimizer, mut model) = config.init(AdamWConfig::new(), model)?;
    /// let mut trains = Vec::new();
    /// for _ in 0..6 {
    ///     trains.push(optimizer.outer_active());
    /// #   let mut x = Tensor::<2>::ones([1, 4], &device);
    /// #   for layer in &model.layers {
    /// #       x = layer.forward(x);
    /// #   }
    /// #   let loss = model.head.forward(x).mean();
    ///     let grads = GradientsParams::from_grads(loss.backward(), &model);
    ///     model = optimizer.step(1e-3, model, grads);
    /// }
    /// assert_eq!(trains, [true, false, false, true, false, false]);
    /// # Ok::<(), lisa::LisaError>(())
    /// ```
    #[must_use]
    pub fn outer_active(&self) -> bool {
        self.trainable_elements().0 > 0
    }

    /// How many elements train outside the layers, and how many in the active layers.
    pub(crate) fn trainable_elements(&self) -> (usize, usize) {
        let train = |outer: bool| {
            let is_active = move |layer: Option<usize>| {
                layer.is_none() == outer && self.sampler.is_active(layer)
            };
            self.trainable.elements(self.trainable.with(is_active))
        };
        (train(true), train(false))
    }

    fn log(&self) {
        let outer = match (self.config.outer_every_nth(), self.outer_active()) {
            (1, _) => "",
            (_, true) => " and the parameters outside the layers",
            (_, false) => " only",
        };
        log::info!(
            "step {}, period {}: active layers {}{outer}",
            self.steps(),
            self.period(),
            self.sampler.active_paths(),
        );
    }
}

/// Panics with the message of an error.
fn must<T>(result: Result<T, LisaError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

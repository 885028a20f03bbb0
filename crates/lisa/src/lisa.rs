//! [`Lisa`]: mask, policy and schedule round a `ModuleOptimizer`.
//!
//! One step: gradients of frozen parameters are dropped, the rest is clipped (`prepare`), the
//! optimizer steps, the schedule advances; at the end of a period the policy draws (`draw`), the
//! mask is applied and the moments of the layers that left are released (`release`). Tests:
//! `lisa/tests.rs`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use burn::grad_clipping::GradientClipping;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ParamGroup, ParamId};
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::tensor::Device;

use crate::clip;
use crate::layers::Parameter;
use crate::memory::Usage;
use crate::optimizer::{Ledger, LisaOptimizer, OptimizerConfig, StateBytes, StateShapes};
use crate::policy::{SamplingPolicy, Scores};
use crate::quantize::{self, ExactWeights};
use crate::schedule::Schedule;
use crate::{
    Description, ErrorKind, FreezeMask, FrozenWeights, LayerMap, LisaConfig, LisaError, StepError,
};

mod draw;
mod layered;
mod prepare;
mod rebind;
mod release;
mod scores;
mod setup;
#[cfg(test)]
mod tests;

use prepare::Ready;
#[cfg(feature = "train")]
pub(crate) use scores::SavedUnit;
pub(crate) use scores::{Observed, SavedScores};
pub(crate) use setup::check;
use setup::{map_of, requiring, trainable, unobserved};

/// Layer-sampling fine-tuning: an optimizer for a module that trains a few layers at a time.
///
/// Made by [`LisaConfig::init`]. It has the shape of Burn's `ModuleOptimizer`, so adopting it
/// changes one line. State kept: the step, the drawn layers, the scores of a policy that wants
/// some, and the optimizer's state of the parameters that train (with
/// [`OnFreeze::Keep`](crate::OnFreeze::Keep) and [`OnFreeze::Offload`](crate::OnFreeze::Offload),
/// of all that ever did).
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
/// // AdamW holds two moments of 20 f32 values for each of two layers and the head.
/// assert_eq!(optimizer.memory().optimizer_state, 2 * 20 * 4 * 3);
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone)]
pub struct Lisa {
    pub(crate) config: LisaConfig,
    pub(crate) policy: Arc<dyn SamplingPolicy>,
    pub(crate) schedule: Schedule,
    pub(crate) map: LayerMap,
    /// By parameter of the map: whether it may ever train.
    pub(crate) may_train: Vec<bool>,
    /// The drawn layers, ascending.
    pub(crate) active: Vec<usize>,
    /// By layer: the probability that it was drawn with; empty where no gradient is divided by it.
    pub(crate) inclusion: Vec<f64>,
    /// Scores and what the period has shown so far.
    pub(crate) observed: Observed,
    pub(crate) mask: FreezeMask,
    pub(crate) optimizer: ModuleOptimizer,
    groups: Vec<Group>,
    /// Parameters that hold state, with its size.
    pub(crate) held: BTreeMap<ParamId, Held>,
    /// On the host: the weights of what is quantized.
    pub(crate) exact: ExactWeights,
}

/// The optimizer of a parameter group.
#[derive(Clone)]
struct Group {
    members: ParamGroup,
    ledger: Ledger,
    shapes: StateShapes,
}

/// State that the optimizer holds of one parameter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) bytes: StateBytes,
    pub(crate) on_host: bool,
}

impl std::fmt::Debug for Lisa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lisa")
            .field("config", &self.config)
            .field("policy", &self.policy)
            .field("schedule", &self.schedule)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

impl Lisa {
    fn init<C: OptimizerConfig, M: Module>(
        config: LisaConfig,
        optimizer: C,
        model: M,
        device: Option<&Device>,
    ) -> Result<(Self, M), LisaError> {
        config.validate()?;
        let policy = config.policy.build();
        let map = map_of(&config, &model)?;
        let may_train = trainable(&map, &config)?;
        if let Some(device) = device.or(model.devices().first()) {
            quantize::check(config.frozen_weights, device)?;
        }
        let clipping = optimizer.grad_clipping();
        let optimizer =
            LisaOptimizer::new(optimizer.build(), config.on_freeze, config.master_weights);
        let groups = vec![Group {
            members: ParamGroup::all(),
            ledger: optimizer.ledger(),
            shapes: LisaOptimizer::<C::Optimizer>::shapes(),
        }];
        let mut optimizer = ModuleOptimizer::from(optimizer);
        if let Some(clipping) = clipping {
            optimizer = optimizer.with_grad_clipping(clipping);
        }
        let mut lisa = Self {
            schedule: Schedule::new(config.sampling_period),
            mask: FreezeMask::new(requiring(&map)),
            optimizer,
            active: Vec::new(),
            inclusion: Vec::new(),
            observed: Observed::new(policy.observes(), unobserved(&map, &may_train)),
            held: BTreeMap::new(),
            exact: ExactWeights::default(),
            config,
            policy,
            map,
            may_train,
            groups,
        };
        lisa.begin()?;
        let model = lisa.settle(model, device);
        let model = lisa.apply(model);
        lisa.log();
        Ok((lisa, model))
    }

    /// Uses another optimizer for the parameters of `group`; the last group that matches wins.
    ///
    /// As Burn's `ModuleOptimizer::with_group`, with the same life of moments. A group by path
    /// matches parts of paths: `layers.1` is also in `layers.10`.
    #[must_use]
    pub fn with_group<C: OptimizerConfig>(mut self, group: ParamGroup, optimizer: C) -> Self {
        let config = &self.config;
        let clipping = optimizer.grad_clipping();
        let optimizer =
            LisaOptimizer::new(optimizer.build(), config.on_freeze, config.master_weights);
        self.groups.push(Group {
            members: group.clone(),
            ledger: optimizer.ledger(),
            shapes: LisaOptimizer::<C::Optimizer>::shapes(),
        });
        for parameter in self.map.parameters() {
            if group.matches(&parameter.id, Some(&parameter.path)) {
                self.held.remove(&parameter.id);
            }
        }
        self.optimizer = self.optimizer.with_group(group, optimizer, clipping);
        self
    }

    /// Clips each gradient tensor by itself, as Burn does. For one norm over all of them see
    /// [`LisaConfig::max_grad_norm`].
    #[must_use]
    pub fn with_grad_clipping(mut self, clipping: GradientClipping) -> Self {
        self.optimizer = self.optimizer.with_grad_clipping(clipping);
        self
    }

    /// Updates the trainable parameters and, at the end of a sampling period, samples the next
    /// layers.
    ///
    /// `lr` is a number or Burn's learning rates by group. Gradients of frozen parameters are
    /// ignored, so gradients may be accumulated over several batches. Extract gradients from the
    /// backward pass before the step: a step changes which parameters require gradients.
    ///
    /// A model whose parameters have other `ParamId`s, as one that was loaded anew has, is matched
    /// by the paths of its parameters.
    ///
    /// Cost: the inner optimizer's step, two visits of the module, and two more at the end of a
    /// period. It does not wait for the device, except for a policy that
    /// [observes](SamplingPolicy::observes) gradients: that one reads a value for each layer at the
    /// end of a period.
    ///
    /// # Errors
    ///
    /// - A model that is not the one of this run: another structure, or only some `ParamId`s that
    ///   are known. It is found before anything changes.
    /// - A policy that returns an invalid draw at the end of a period. The update was applied by
    ///   then: the error holds the updated model, and the layers of the previous period stay active.
    pub fn try_step<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        mut grads: GradientsParams,
    ) -> Result<M, StepError<M>> {
        let rebound = match self.follow(&model) {
            Ok(rebound) => rebound,
            Err(error) => return Err(StepError::new(model, error, false)),
        };
        let ready = self.prepare(&model, &mut grads);
        let model = self.optimizer.step(lr, model, grads);
        self.finish(model, ready, rebound)
    }

    /// [`try_step`](Self::try_step) in the shape of Burn's `ModuleOptimizer::step`.
    ///
    /// # Panics
    ///
    /// With the message of the error that `try_step` returns.
    #[must_use]
    pub fn step<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        grads: GradientsParams,
    ) -> M {
        unwrap(self.try_step(lr, model, grads))
    }

    /// [`try_step`](Self::try_step) with gradients from several devices.
    ///
    /// # Errors
    ///
    /// As [`try_step`](Self::try_step).
    pub fn try_step_multi<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        mut grads: MultiGradientsParams,
    ) -> Result<M, StepError<M>> {
        let rebound = match self.follow(&model) {
            Ok(rebound) => rebound,
            Err(error) => return Err(StepError::new(model, error, false)),
        };
        let ready = self.prepare(&model, &mut grads);
        let model = self.optimizer.step_multi(lr, model, grads);
        self.finish(model, ready, rebound)
    }

    /// [`step`](Self::step) with gradients from several devices.
    ///
    /// # Panics
    ///
    /// With the message of the error that [`try_step_multi`](Self::try_step_multi) returns.
    #[must_use]
    pub fn step_multi<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        grads: MultiGradientsParams,
    ) -> M {
        unwrap(self.try_step_multi(lr, model, grads))
    }

    /// Refuses gradients that hold a NaN or an infinity, and names the parameters and the step.
    ///
    /// Call it before [`step`](Self::step) where a bad batch must not spoil the run: leave the step
    /// out, or stop. Cost: one pass over the gradients, and it waits for the device.
    ///
    /// # Errors
    ///
    /// The paths of the first few parameters with such gradients.
    pub fn check_finite<M: Module>(
        &self,
        model: &M,
        grads: &GradientsParams,
    ) -> Result<(), LisaError> {
        let paths = clip::not_finite(model, grads);
        if paths.is_empty() {
            return Ok(());
        }
        let (count, first) = (paths.len(), paths[..paths.len().min(3)].join("`, `"));
        Err(LisaError::new(
            ErrorKind::Gradient,
            format!(
                "the gradient of step {} is not finite in {count} parameters, first of `{first}`; \
                 lower the learning rate, clip by max_grad_norm, or look at the batch",
                self.steps() + 1
            ),
        ))
    }

    /// The layers that train now, counted from 0 in the order of their stacks, ascending.
    #[must_use]
    pub fn active_layers(&self) -> &[usize] {
        &self.active
    }

    /// What is known of each layer; scores for a policy that
    /// [observes](SamplingPolicy::observes) gradients alone. They change with the draws.
    #[must_use]
    pub fn scores(&self) -> &Scores {
        self.observed.scores()
    }

    /// The period of the next step, counted from 0.
    #[must_use]
    pub fn period(&self) -> u64 {
        self.schedule.period()
    }

    /// Optimizer steps taken.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.schedule.step()
    }

    /// What this run holds now, beside the model.
    ///
    /// It does not copy the state: the size of a parameter's state is measured when the first two
    /// parameters of its shape are stepped.
    #[must_use]
    pub fn memory(&self) -> Usage {
        Usage {
            optimizer_state: self.sum(|held| (!held.on_host).then_some(held.bytes.moments)),
            master_weights: self.sum(|held| (!held.on_host).then_some(held.bytes.master)),
            offloaded: self.sum(|held| {
                held.on_host
                    .then_some(held.bytes.moments + held.bytes.master)
            }),
            full_precision: self.exact.bytes(),
        }
    }

    /// The model with the exact weights of all layers, on `device`: what to export or save where
    /// frozen layers are quantized. Otherwise it is a copy on that device.
    ///
    /// `model` may go on training. Cost: the whole model's memory on `device`; give the host's,
    /// `Device::flex()`, where that of the model is too small.
    #[must_use]
    pub fn exact<M: Module>(&self, model: &M, device: &Device) -> M {
        self.exact.clone().restore(model.clone(), Some(device))
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &LisaConfig {
        &self.config
    }

    /// The layers and their parameters.
    #[must_use]
    pub fn layers(&self) -> &LayerMap {
        &self.map
    }

    /// Which parameters train now.
    #[must_use]
    pub fn mask(&self) -> &FreezeMask {
        &self.mask
    }

    /// The wrapped optimizer.
    #[must_use]
    pub fn get_ref(&self) -> &ModuleOptimizer {
        &self.optimizer
    }

    /// What trains, what does not, and what the moments weigh; `Display` prints a table.
    #[must_use]
    pub fn describe(&self) -> Description {
        Description::new(self)
    }

    /// After the optimizer's step: notes what holds state, advances, draws.
    fn finish<M: Module>(
        &mut self,
        model: M,
        ready: Ready,
        rebound: bool,
    ) -> Result<M, StepError<M>> {
        self.note(&ready.trained);
        self.observed.add(ready.squares);
        if self.schedule.advance() {
            self.redraw(model)
        } else if rebound {
            let model = self.apply(model);
            Ok(self.settle(model, None))
        } else {
            Ok(model)
        }
    }

    pub(crate) fn note(&mut self, trained: &[usize]) {
        for &i in trained {
            let parameter = &self.map.parameters()[i];
            let bytes = (self.group(parameter))
                .map(|group| group.ledger.bytes(&parameter.shape, parameter.dtype))
                .unwrap_or_default();
            let held = Held {
                bytes,
                on_host: false,
            };
            self.held.insert(parameter.id, held);
        }
    }

    /// The optimizer of a parameter.
    fn group(&self, parameter: &Parameter) -> Option<&Group> {
        let (id, path) = (&parameter.id, Some(parameter.path.as_str()));
        self.groups
            .iter()
            .rfind(|group| group.members.matches(id, path))
    }

    /// Which shapes the optimizer's state of a parameter has.
    pub(crate) fn shapes(&self, parameter: &Parameter) -> StateShapes {
        let group = self.group(parameter);
        group.map_or(StateShapes::Free, |group| group.shapes)
    }

    /// Whether the parameter at this index of the map trains with the drawn layers.
    fn trains(&self, i: usize) -> bool {
        let drawn = |layer| self.active.binary_search(&layer).is_ok();
        self.may_train[i] && self.map.layer_of(i).is_none_or(drawn)
    }

    /// Makes the module require gradients of exactly what trains with the drawn layers.
    pub(crate) fn apply<M: Module>(&mut self, model: M) -> M {
        let trains = self.awake();
        let model = self.exact.wake(model, &trains);
        self.mask.change(model, trains)
    }

    /// Quantizes the frozen layers that are not, where the configuration asks for it.
    pub(crate) fn settle<M: Module>(&mut self, model: M, device: Option<&Device>) -> M {
        if self.config.frozen_weights == FrozenWeights::Exact && device.is_none() {
            return model;
        }
        let awake = self.awake();
        let kind = self.config.frozen_weights;
        let mut exact = std::mem::take(&mut self.exact);
        let model = exact.settle(model, kind, (&self.map, &awake), device);
        self.exact = exact;
        if let Some(device) = device {
            // What the weights passed through on their way is given back.
            device.memory_cleanup();
        }
        model
    }

    /// The parameters that train with the drawn layers.
    fn awake(&self) -> HashSet<ParamId> {
        self.training()
            .map(|i| self.map.parameters()[i].id)
            .collect()
    }

    /// Indices of the parameters that train with the drawn layers.
    pub(crate) fn training(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.may_train.len()).filter(|&i| self.trains(i))
    }

    /// Indices of the parameters that are in no layer and train.
    pub(crate) fn always_on(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.may_train.len()).filter(|&i| self.may_train[i] && self.map.layer_of(i).is_none())
    }

    fn sum(&self, bytes: impl Fn(&Held) -> Option<u64>) -> u64 {
        self.held.values().filter_map(bytes).sum()
    }
}

/// The model of a step, or a panic with the error's message.
fn unwrap<M>(stepped: Result<M, StepError<M>>) -> M {
    match stepped {
        Ok(model) => model,
        Err(error) => panic!("{error}"),
    }
}

impl LisaConfig {
    /// Makes the optimizer of a run and freezes the layers of `model` that the first period does
    /// not train.
    ///
    /// `optimizer` is one of Burn's optimizer configs, such as `AdamWConfig::new()`; gradient
    /// clipping that is set on it is kept. An optimizer that is already built goes in as
    /// [`Built`](crate::optimizer::Built). Lazy parameters are initialised here. Cost: one visit of
    /// the module; no tensor is copied, except where frozen layers are
    /// [quantized](Self::frozen_weights).
    ///
    /// # Errors
    ///
    /// A setting out of range; a stack of layers that is not found or ambiguous; tied parameters; a
    /// group of frozen parameters that matches none; a model in which nothing can train; a policy
    /// that [refuses](SamplingPolicy::validate) these layers. Each says what was found.
    pub fn init<C: OptimizerConfig, M: Module>(
        &self,
        optimizer: C,
        model: M,
    ) -> Result<(Lisa, M), LisaError> {
        Lisa::init(self.clone(), optimizer, model, None)
    }

    /// Like [`init`](Self::init), for a model that is on another device, such as the host
    /// (`Device::flex().autodiff()`).
    ///
    /// The model moves to `device` one parameter at a time. Layers that are to be quantized are
    /// never there in full precision.
    ///
    /// # Errors
    ///
    /// As [`init`](Self::init).
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
        Lisa::init(self.clone(), optimizer, model, Some(device))
    }
}

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
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams, Optimizer};
use burn::tensor::Device;

use crate::clip;
use crate::optimizer::{Ledger, StateBytes, StateShapes};
use crate::quantize::{self, ExactWeights};
use crate::{
    Description, ErrorKind, FreezeMask, FrozenWeights, LayerMap, LisaConfig, LisaError,
    LisaOptimizer, Parameter, SamplingPolicy, Schedule, Scores,
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
/// let (mut optimizer, mut model) = LisaConfig::new().init(AdamWConfig::new().build(), model)?;
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
/// assert_eq!(optimizer.moments_bytes(), 2 * 20 * 4 * 3);
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
    pub(crate) fn init<O: Optimizer, M: Module>(
        config: LisaConfig,
        policy: Arc<dyn SamplingPolicy>,
        optimizer: O,
        model: M,
        device: Option<&Device>,
    ) -> Result<(Self, M), LisaError> {
        let map = map_of(&config, &model)?;
        let may_train = trainable(&map, &config)?;
        if let Some(device) = device.or(model.devices().first()) {
            quantize::check(config.frozen_weights, device)?;
        }
        let optimizer = LisaOptimizer::new(optimizer, config.on_freeze, config.master_weights);
        let groups = vec![Group {
            members: ParamGroup::all(),
            ledger: optimizer.ledger(),
            shapes: LisaOptimizer::<O>::shapes(),
        }];
        let mut lisa = Self {
            schedule: Schedule::new(config.sampling_period),
            mask: FreezeMask::new(requiring(&map)),
            optimizer: ModuleOptimizer::from(optimizer),
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
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::module::{Module, ParamGroup};
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::optim::{AdamWConfig, GradientsParams};
    /// # use burn::tensor::{Device, Tensor};
    /// # use lisa::LisaConfig;
    /// # #[derive(Module, Debug)]
    /// # struct Model { layers: Vec<Linear>, head: Linear }
    /// # impl Model {
    /// #     fn loss(&self) -> Tensor<1> {
    /// #         let x = Tensor::<2>::ones([1, 4], &self.head.weight.val().device());
    /// #         self.head.forward(self.layers.iter().fold(x, |x, l| l.forward(x))).mean()
    /// #     }
    /// # }
    /// # let device = Device::flex().autodiff();
    /// # let linear = || LinearConfig::new(4, 4).init(&device);
    /// # let model = Model { layers: (0..6).map(|_| linear()).collect(), head: linear() };
    /// # let (lisa, model) = LisaConfig::new().init(AdamWConfig::new().build(), model)?;
    /// use burn::optim::SgdConfig;
    ///
    /// let head = ParamGroup::from_predicate("head");
    /// let mut lisa = lisa.with_group(head, SgdConfig::new().build(), None);
    /// let grads = GradientsParams::from_grads(model.loss().backward(), &model);
    /// let model = lisa.step(1e-3, model, grads);
    /// // AdamW holds two moments of 20 f32 values for each of two layers, plain SGD none.
    /// assert_eq!(lisa.moments_bytes(), 2 * 20 * 4 * 2);
    /// # let _ = model;
    /// # Ok::<(), lisa::LisaError>(())
    /// ```
    #[must_use]
    pub fn with_group<O: Optimizer>(
        mut self,
        group: ParamGroup,
        optimizer: O,
        clipping: Option<GradientClipping>,
    ) -> Self {
        let config = &self.config;
        let optimizer = LisaOptimizer::new(optimizer, config.on_freeze, config.master_weights);
        self.groups.push(Group {
            members: group.clone(),
            ledger: optimizer.ledger(),
            shapes: LisaOptimizer::<O>::shapes(),
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
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::module::{Module, ParamGroup};
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::optim::{AdamWConfig, GradientsParams};
    /// # use burn::tensor::{Device, Tensor};
    /// # use lisa::LisaConfig;
    /// # #[derive(Module, Debug)]
    /// # struct Model { layers: Vec<Linear>, head: Linear }
    /// # impl Model {
    /// #     fn loss(&self) -> Tensor<1> {
    /// #         let x = Tensor::<2>::ones([1, 4], &self.head.weight.val().device());
    /// #         self.head.forward(self.layers.iter().fold(x, |x, l| l.forward(x))).mean()
    /// #     }
    /// # }
    /// # let device = Device::flex().autodiff();
    /// # let linear = || LinearConfig::new(4, 4).init(&device);
    /// # let model = Model { layers: (0..6).map(|_| linear()).collect(), head: linear() };
    /// use burn::grad_clipping::GradientClipping;
    /// use burn::optim::SgdConfig;
    ///
    /// let (lisa, model) = LisaConfig::new().init(SgdConfig::new().build(), model)?;
    /// let mut lisa = lisa.with_grad_clipping(GradientClipping::Norm(0.1));
    /// let before = model.head.weight.val();
    /// let grads = GradientsParams::from_grads((model.loss() * 1e6).backward(), &model);
    /// let model = lisa.step(1.0, model, grads);
    /// let moved = (model.head.weight.val() - before).square().sum().sqrt();
    /// assert!((moved.into_scalar::<f32>() - 0.1).abs() < 1e-3);
    /// # Ok::<(), lisa::LisaError>(())
    /// ```
    #[must_use]
    pub fn with_grad_clipping(mut self, clipping: GradientClipping) -> Self {
        self.optimizer = self.optimizer.with_grad_clipping(clipping);
        self
    }

    /// Updates the parameters that train and, at the end of a period, draws the next layers.
    ///
    /// The shape of `ModuleOptimizer::step`; `lr` may be a number or Burn's learning rates by
    /// group. Gradients of frozen parameters are ignored, so gradients may be accumulated over a
    /// draw. Extract gradients before the step whose mask the forward pass had: those that are
    /// extracted after it are missing. A model that was loaded anew and has other `ParamId`s is
    /// followed by its paths; one of another structure is an error in the log, and nothing of it
    /// is stepped. Cost: the inner optimizer's step, two walks of the module
    /// tree, and two more at the end of a period. Nothing waits for the device, but for a policy that
    /// [observes](SamplingPolicy::observes) gradients: that measures them in each step and reads a
    /// number of each layer at the end of a period.
    #[must_use]
    pub fn step<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        mut grads: GradientsParams,
    ) -> M {
        let ready = self.prepare(&model, &mut grads);
        let model = self.optimizer.step(lr, model, grads);
        self.finish(model, ready)
    }

    /// Like [`step`](Self::step), with gradients from several devices.
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::module::{Module, ParamGroup};
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::optim::{AdamWConfig, GradientsParams};
    /// # use burn::tensor::{Device, Tensor};
    /// # use lisa::LisaConfig;
    /// # #[derive(Module, Debug)]
    /// # struct Model { layers: Vec<Linear>, head: Linear }
    /// # impl Model {
    /// #     fn loss(&self) -> Tensor<1> {
    /// #         let x = Tensor::<2>::ones([1, 4], &self.head.weight.val().device());
    /// #         self.head.forward(self.layers.iter().fold(x, |x, l| l.forward(x))).mean()
    /// #     }
    /// # }
    /// # let device = Device::flex().autodiff();
    /// # let linear = || LinearConfig::new(4, 4).init(&device);
    /// # let model = Model { layers: (0..6).map(|_| linear()).collect(), head: linear() };
    /// # let (lisa, model) = LisaConfig::new().init(AdamWConfig::new().build(), model)?;
    /// use burn::optim::MultiGradientsParams;
    ///
    /// # let mut lisa = lisa;
    /// // In place of the workers: the gradients of two batches, each with the device it is on.
    /// let grads = [1.0, 3.0].map(|scale| {
    ///     let grads = GradientsParams::from_grads((model.loss() * scale).backward(), &model);
    ///     (grads, device.clone().inner())
    /// });
    /// let model = lisa.step_multi(1e-3, model, MultiGradientsParams { grads: grads.into() });
    /// assert_eq!((lisa.steps(), lisa.moments_bytes()), (1, 2 * 20 * 4 * 3));
    /// # let _ = model;
    /// # Ok::<(), lisa::LisaError>(())
    /// ```
    #[must_use]
    pub fn step_multi<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        mut grads: MultiGradientsParams,
    ) -> M {
        let ready = self.prepare(&model, &mut grads);
        let model = self.optimizer.step_multi(lr, model, grads);
        self.finish(model, ready)
    }

    /// Refuses gradients that hold a NaN or an infinity, and names the parameters and the step.
    ///
    /// Call it before [`step`](Self::step) where a bad batch must not spoil the run: leave the step
    /// out, or stop. Cost: one pass over the gradients, and it waits for the device.
    ///
    /// # Errors
    ///
    /// The paths of the first few parameters with such gradients.
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::module::{Module, ParamGroup};
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::optim::{AdamWConfig, GradientsParams};
    /// # use burn::tensor::{Device, Tensor};
    /// # use lisa::LisaConfig;
    /// # #[derive(Module, Debug)]
    /// # struct Model { layers: Vec<Linear>, head: Linear }
    /// # impl Model {
    /// #     fn loss(&self) -> Tensor<1> {
    /// #         let x = Tensor::<2>::ones([1, 4], &self.head.weight.val().device());
    /// #         self.head.forward(self.layers.iter().fold(x, |x, l| l.forward(x))).mean()
    /// #     }
    /// # }
    /// # let device = Device::flex().autodiff();
    /// # let linear = || LinearConfig::new(4, 4).init(&device);
    /// # let model = Model { layers: (0..6).map(|_| linear()).collect(), head: linear() };
    /// # let (lisa, model) = LisaConfig::new().init(AdamWConfig::new().build(), model)?;
    /// let of = |loss: Tensor<1>| GradientsParams::from_grads(loss.backward(), &model);
    /// assert!(lisa.check_finite(&model, &of(model.loss())).is_ok());
    /// let error = lisa.check_finite(&model, &of(model.loss() * f32::NAN)).unwrap_err();
    /// // The weight and bias of two layers and of the head.
    /// let found = "the gradient of step 1 is not finite in 6 parameters";
    /// assert!(error.message().starts_with(found));
    /// # Ok::<(), lisa::LisaError>(())
    /// ```
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

    /// Bytes of the optimizer's moments on the device. Master weights are not among them.
    ///
    /// Known without a copy: what a parameter's state weighs is measured when the first two of
    /// its shape are stepped.
    #[must_use]
    pub fn moments_bytes(&self) -> u64 {
        self.sum(|held| (!held.on_host).then_some(held.bytes.moments))
    }

    /// Bytes of f32 master weights on the device.
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::module::Module;
    /// # use burn::nn::Linear;
    /// # use burn::optim::{AdamWConfig, GradientsParams};
    /// # use burn::tensor::{DType, Device, Tensor};
    /// # use lisa::LisaConfig;
    /// # #[derive(Module, Debug)]
    /// # struct Model { layers: Vec<Linear> }
    /// use burn::module::Param;
    ///
    /// // Six layers of 16 numbers in bf16, of which two train.
    /// let device = Device::flex().autodiff();
    /// let weight = || Tensor::<2>::ones([4, 4], (&device, DType::BF16));
    /// let linear = |_| Linear { weight: Param::from_tensor(weight()), bias: None };
    /// let model = Model { layers: (0..6).map(linear).collect() };
    /// let (mut lisa, model) = LisaConfig::new().init(AdamWConfig::new().build(), model)?;
    /// let x = Tensor::<2>::ones([1, 4], (&device, DType::BF16));
    /// let loss = model.layers.iter().fold(x, |x, layer| layer.forward(x)).mean();
    /// let grads = GradientsParams::from_grads(loss.backward(), &model);
    /// let model = lisa.step(1e-3, model, grads);
    /// assert_eq!((lisa.master_bytes(), lisa.moments_bytes()), (2 * 16 * 4, 2 * 2 * 16 * 4));
    /// # let _ = model;
    /// # Ok::<(), lisa::LisaError>(())
    /// ```
    #[must_use]
    pub fn master_bytes(&self) -> u64 {
        self.sum(|held| (!held.on_host).then_some(held.bytes.master))
    }

    /// Bytes of moments and master weights that wait in the host's memory
    /// ([`OnFreeze::Offload`](crate::OnFreeze::Offload)).
    #[must_use]
    pub fn offloaded_bytes(&self) -> u64 {
        self.sum(|held| {
            held.on_host
                .then_some(held.bytes.moments + held.bytes.master)
        })
    }

    /// Bytes of exact weights that wait in the host's memory for quantized ones on the device
    /// ([`LisaConfig::frozen_weights`]).
    #[must_use]
    pub fn exact_bytes(&self) -> u64 {
        self.exact.bytes()
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
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::module::{Module, ParamGroup};
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::optim::{AdamWConfig, GradientsParams};
    /// # use burn::tensor::{Device, Tensor};
    /// # use lisa::LisaConfig;
    /// # #[derive(Module, Debug)]
    /// # struct Model { layers: Vec<Linear>, head: Linear }
    /// # impl Model {
    /// #     fn loss(&self) -> Tensor<1> {
    /// #         let x = Tensor::<2>::ones([1, 4], &self.head.weight.val().device());
    /// #         self.head.forward(self.layers.iter().fold(x, |x, l| l.forward(x))).mean()
    /// #     }
    /// # }
    /// # let device = Device::flex().autodiff();
    /// # let linear = || LinearConfig::new(4, 4).init(&device);
    /// # let model = Model { layers: (0..6).map(|_| linear()).collect(), head: linear() };
    /// # let (lisa, model) = LisaConfig::new().init(AdamWConfig::new().build(), model)?;
    /// // Two layers and the head, each with a weight and a bias.
    /// assert_eq!(lisa.mask().len(), 6);
    /// for (index, layer) in model.layers.iter().enumerate() {
    ///     let trains = lisa.active_layers().contains(&index);
    ///     assert_eq!(lisa.mask().contains(layer.weight.id), trains);
    ///     assert_eq!(layer.weight.is_require_grad(), trains);
    /// }
    /// # Ok::<(), lisa::LisaError>(())
    /// ```
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
    fn finish<M: Module>(&mut self, model: M, ready: Ready) -> M {
        self.note(&ready.trained);
        self.observed.add(ready.squares);
        if self.schedule.advance() {
            self.redraw(model)
        } else if ready.rebound {
            let model = self.apply(model);
            self.settle(model, None)
        } else {
            model
        }
    }

    fn note(&mut self, trained: &[usize]) {
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

//! [`Lisa`]: sampler, mask and optimizer of a run, put together. Tests: `lisa/tests.rs`.

use std::fmt;

use burn::grad_clipping::GradientClipping;
use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::{Module, ParamGroup};
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams};
use burn::tensor::Device;

use crate::clip;
use crate::gradients::{self, Gradients, LayerSquares};
use crate::memory::Usage;
use crate::optimizer::{LayerOptimizer, OptimizerConfig};
use crate::period::PeriodSums;
use crate::policy::Scores;
use crate::quantize::FullWeights;
use crate::sampler::Sampler;
use crate::trainable::Trainable;
use crate::{ErrorKind, FreezeMask, LayerMap, LisaConfig, LisaError, StepError};

mod init;
mod layered;
#[cfg(feature = "train")]
mod learner;
mod record;
#[cfg(test)]
mod tests;

pub(crate) use init::check;

/// Layer-sampling fine-tuning: an optimizer for a module that trains a few layers at a time.
///
/// Made by [`LisaConfig::init`]. It has the shape of Burn's `ModuleOptimizer`: `step(lr, model, grads)`
/// returns the updated model. State kept: the step, the active layers, the scores of a policy that
/// observes gradients, and the optimizer state of trainable parameters. With
/// [`OnFreeze::Keep`](crate::OnFreeze::Keep) and [`OnFreeze::Offload`](crate::OnFreeze::Offload) also
/// that of every parameter that was ever active.
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
    /// What the gradients of this period have shown, where the policy observes them.
    sums: PeriodSums,
    trainable: Trainable,
    mask: FreezeMask,
    optimizer: LayerOptimizer,
    /// Of the layers that are quantized.
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
    /// Updates the trainable parameters and, at the end of a sampling period, samples the next layers.
    ///
    /// `lr` is a number or Burn's learning rates by group. Gradients of frozen parameters are ignored,
    /// so gradients may be accumulated over several batches. Extract gradients from a backward pass
    /// before the step: a step changes which parameters require gradients. A model whose parameters
    /// have other `ParamId`s, as one that was loaded anew, is matched by the paths of its parameters.
    ///
    /// Cost: the inner optimizer's step, two visits of the module, and two more at the end of a
    /// period. It does not wait for the device, except for a policy that
    /// [observes](crate::policy::SamplingPolicy::observes) gradients: at the end of a period one value
    /// for each active layer is read.
    ///
    /// # Errors
    ///
    /// - A model that is not the one of this run: another structure, or only some of its `ParamId`s
    ///   are known. It is found before anything changes.
    /// - An invalid draw of the policy at the end of a period. The update was applied by then: the
    ///   error has the updated model, and the layers of the previous period stay active.
    pub fn try_step<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        grads: GradientsParams,
    ) -> Result<M, StepError<M>> {
        self.step_with(lr.into(), model, grads)
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
        model_of(self.try_step(lr, model, grads))
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
        grads: MultiGradientsParams,
    ) -> Result<M, StepError<M>> {
        self.step_with(lr.into(), model, grads)
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
        model_of(self.try_step_multi(lr, model, grads))
    }

    fn step_with<M: Module, G: Gradients>(
        &mut self,
        lr: ModuleLearningRate,
        model: M,
        mut grads: G,
    ) -> Result<M, StepError<M>> {
        let renamed = match self.follow(&model) {
            Ok(renamed) => renamed,
            Err(error) => return Err(StepError::new(model, error, false)),
        };
        let stepped = self.prepare(&model, &mut grads);
        let model = self.update(lr, model, grads, stepped);
        self.end_step(model, renamed)
    }

    /// Checks that the model is the one of this run, before anything changes. True where its
    /// parameters have other ids, which are then known.
    fn follow<M: Module>(&mut self, model: &M) -> Result<bool, LisaError> {
        let Some(renamed) = self.trainable.follow(&self.config, model)? else {
            return Ok(false);
        };
        let (ids, map) = (renamed.ids(), renamed.map());
        self.optimizer.rename(ids, map)?;
        self.full.rename(ids);
        self.bind(map.clone());
        log::info!("step {}: the model has new parameter ids", self.steps() + 1);
        Ok(true)
    }

    /// Keeps the gradients of trainable parameters, measures them for the policy, scales and clips
    /// them.
    fn prepare<M: Module, G: Gradients>(&self, model: &M, grads: &mut G) -> Stepped {
        let (map, sampler) = (self.trainable.map(), &self.sampler);
        let parameters = gradients::retain(model, grads, |id| {
            let index = map.index_of(id)?;
            let trains = self
                .trainable
                .trains(index, |layer| sampler.is_active(layer));
            trains.then_some(index)
        });
        let squares = match sampler.observation() {
            Some(_) => gradients::measure(model, grads, map),
            None => LayerSquares::default(),
        };
        if let Some(inclusion) = sampler.inclusion() {
            gradients::divide(model, grads, map, inclusion);
        }
        if let Some(max_norm) = self.config.max_grad_norm {
            clip::clip(model, grads, max_norm);
        }
        Stepped {
            parameters,
            squares,
        }
    }

    /// Steps the optimizer, and notes what was stepped and measured.
    fn update<M: Module, G: Gradients>(
        &mut self,
        lr: ModuleLearningRate,
        model: M,
        grads: G,
        stepped: Stepped,
    ) -> M {
        let parameters = self.trainable.map().parameters();
        let stepped_parameters = stepped.parameters.into_iter().map(|i| &parameters[i]);
        let model = self.optimizer.step(lr, model, grads, stepped_parameters);
        self.note(stepped.squares);
        model
    }

    /// Notes what was measured of the gradients of a step.
    fn note(&mut self, squares: LayerSquares) {
        if let Some(observation) = self.sampler.observation() {
            let scores = self.sampler.scores();
            self.sums.add(squares, observation.statistic, scores);
        }
    }

    /// Counts the step; at the end of a period samples the layers of the next.
    fn end_step<M: Module>(&mut self, model: M, renamed: bool) -> Result<M, StepError<M>> {
        if !self.sampler.advance() {
            return Ok(if renamed { self.apply(model) } else { model });
        }
        let observed = self.sums.take_means();
        let drawn = self.sampler.next(&observed);
        let model = self.apply(model);
        match drawn {
            Ok(()) => {
                self.log();
                Ok(model)
            }
            Err(error) => {
                let context = format!(
                    "the update of step {} was applied, and the layers of the previous period stay \
                     active",
                    self.steps()
                );
                Err(StepError::new(model, error.within(&context), true))
            }
        }
    }

    /// Makes the module, the optimizer and the device hold what the active layers need: mask, release,
    /// quantize.
    fn apply<M: Module>(&mut self, model: M) -> M {
        let trainable = self.trainable.ids(|layer| self.sampler.is_active(layer));
        let model = self.full.restore(model, &trainable);
        let model = self.mask.change(model, trainable.iter().copied());
        let model = self.optimizer.release(model, &self.mask);
        let (kind, map) = (self.config.frozen_weights, self.trainable.map());
        self.full.quantize(model, kind, (map, &trainable), None)
    }

    /// Takes the ids and the gradient requirements of this map's parameters.
    fn bind(&mut self, map: LayerMap) {
        self.mask = FreezeMask::new(Trainable::requiring(&map));
        self.trainable.rebind(map);
    }

    /// Uses another optimizer for the parameters of `group`; the last group that matches wins.
    ///
    /// As Burn's `ModuleOptimizer::with_group`, with the gradient clipping of the config and the same
    /// treatment of frozen parameters. A group by path matches parts of paths: `layers.1` also matches
    /// `layers.10`.
    #[must_use]
    pub fn with_group<C: OptimizerConfig>(mut self, group: ParamGroup, optimizer: C) -> Self {
        let map = self.trainable.map();
        self.optimizer = self.optimizer.with_group(group, &optimizer, map);
        self
    }

    /// Clips each gradient tensor by itself, as Burn does. For one norm over all of them see
    /// [`LisaConfig::max_grad_norm`].
    #[must_use]
    pub fn with_grad_clipping(mut self, clipping: GradientClipping) -> Self {
        self.optimizer = self.optimizer.with_grad_clipping(clipping);
        self
    }

    /// Refuses gradients with a NaN or an infinity, and names the parameters and the step.
    ///
    /// Call it before [`step`](Self::step) where a bad batch must not spoil the run. Cost: one pass over
    /// the gradients, and it waits for the device.
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

    /// What is known of each layer. Scores are there only for a policy that
    /// [observes](crate::policy::SamplingPolicy::observes) gradients; they change with the draws.
    #[must_use]
    pub fn scores(&self) -> &Scores {
        self.sampler.scores()
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

    /// What this run holds now besides the model.
    ///
    /// It does not copy the state: the size of a parameter's state is measured when the first two
    /// parameters of its shape are stepped.
    #[must_use]
    pub fn memory(&self) -> Usage {
        Usage {
            full_precision: self.full.bytes(),
            ..self.optimizer.usage()
        }
    }

    /// The model with the full-precision weights of all layers, on `device`: what to save or export
    /// where frozen layers are quantized. Otherwise a copy of the model on that device.
    ///
    /// `model` may go on training. Cost: the memory of the whole model on `device`. Give the host,
    /// `Device::flex()`, where the model's own device has too little.
    #[must_use]
    pub fn exact<M: Module>(&self, model: &M, device: &Device) -> M {
        self.full.whole(model.clone(), device)
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

    /// Burn's optimizer, which this one wraps.
    #[must_use]
    pub fn get_ref(&self) -> &ModuleOptimizer {
        self.optimizer.get_ref()
    }

    /// How many elements train outside the layers, and how many in the active layers.
    pub(crate) fn trainable_elements(&self) -> (usize, usize) {
        let always_on = self.trainable.elements(self.trainable.always_on());
        let active = self.trainable.with(|layer| self.sampler.is_active(layer));
        (always_on, self.trainable.elements(active) - always_on)
    }

    fn log(&self) {
        log::info!(
            "step {}, period {}: active layers {}",
            self.steps(),
            self.period(),
            self.sampler.active_paths()
        );
    }
}

/// What a step steps, and what it measured before.
#[derive(Default)]
struct Stepped {
    /// Indices of the parameters that have a gradient.
    parameters: Vec<usize>,
    /// Of the active layers, where the policy observes gradients.
    squares: LayerSquares,
}

/// The model of a step, or a panic with the error's message.
fn model_of<M>(stepped: Result<M, StepError<M>>) -> M {
    match stepped {
        Ok(model) => model,
        Err(error) => panic!("{error}"),
    }
}

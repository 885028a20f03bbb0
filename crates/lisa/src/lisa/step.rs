//! The steps of [`Lisa`]: check the model, prepare the gradients, update, and at the end of a
//! period sample, freeze and release. Tests: `lisa/tests.rs`, and for errors
//! `lisa/tests/refused.rs`.

use std::collections::BTreeMap;

use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::module::{Module, ParamGroup, ParamId};
use burn::optim::{GradientsParams, MultiGradientsParams};

use super::Lisa;
use crate::clip;
use crate::gradients::{self, Gradients, LayerSquares};
use crate::layers::Parameter;
use crate::trainable::{Renamed, Trainable};
use crate::{FreezeMask, LayerMap, LisaError, StepError};

impl Lisa {
    /// Updates the trainable parameters and, at the end of a sampling period, samples the next
    /// layers.
    ///
    /// `lr` is a number or Burn's learning rates by group. Gradients of frozen parameters are
    /// ignored, so gradients may be accumulated over several batches. Extract gradients from a
    /// backward pass before the step: a step changes which parameters require gradients. If the
    /// parameters of the model have other `ParamId`s, for example after loading, they are matched
    /// by their paths; the optimizer state is then copied to host memory and, as in
    /// [`load`](Self::load), loaded again.
    ///
    /// Weights that the caller changes between two steps are kept, except those of half-precision
    /// parameters that have [master weights](crate::LisaConfig::master_weights): the next step computes
    /// them from the master weights. To go back to earlier weights, also [load](Self::load) the record
    /// of that step.
    ///
    /// Cost: the inner optimizer's step and at least two visits of the module; at the end of a
    /// period, three more visits and, to drop or offload state, an empty step of the optimizer. A
    /// step waits for the device in the first two updates of a parameter shape, because it copies
    /// their optimizer state to host memory to measure it. At the end of a period, it waits if the
    /// policy [observes](crate::policy::SamplingPolicy::observes) gradients (it reads one value for
    /// each active layer), if state is offloaded, and if layers are quantized.
    ///
    /// # Errors
    ///
    /// - The model is not the model of this run: it has another structure, only some of its `ParamId`s
    ///   are known, or it was cast to another dtype. Or parameters that train in this period
    ///   require no gradients in it, as in a clone from a period in which they were frozen; other
    ///   earlier clones are not noticed. Or it has other `ParamId`s, and layers that another run
    ///   has quantized. This is checked before anything changes.
    /// - The policy returns invalid layers at the end of a period. The update is already applied:
    ///   the error contains the updated model, and the layers of the previous period stay active.
    pub fn try_step<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        grads: GradientsParams,
    ) -> Result<M, StepError<M>> {
        self.step_with(lr.into(), model, grads)
    }

    /// [`try_step`](Self::try_step) with the signature of Burn's `ModuleOptimizer::step`.
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
        let masks = match self.follow(&model) {
            Ok(masks) => masks,
            Err(error) => return Err(StepError::new(model, error, false)),
        };
        let stepped = self.prepare(&model, &mut grads);
        let model = self.update(lr, model, grads, stepped);
        self.end_step(model, masks)
    }

    /// Checks that the model is the model of this run, before anything changes. Returns true if the
    /// freeze mask must be applied to it: it was loaded, and its parameters have new ids, which the run
    /// then uses, or frozen parameters require gradients.
    pub(super) fn follow<M: Module>(&mut self, model: &M) -> Result<bool, LisaError> {
        let is_active = |layer| self.sampler.is_active(layer);
        let found = self.trainable.follow(&self.config, model, is_active)?;
        let step = self.steps() + 1;
        if let Some(Renamed { map, ids }) = found.renamed {
            self.full.check_quantized(self.trainable.map(), &map)?;
            self.optimizer.rename(&ids, &map)?;
            self.full.retain(&map);
            self.bind(map);
            log::info!("step {step}: the model has new parameter ids");
            return Ok(true);
        }
        let mask = FreezeMask::new(found.requiring);
        let differs = mask != self.mask;
        if differs {
            log::info!("step {step}: frozen parameters of the model require gradients");
            self.mask = mask;
        }
        Ok(differs)
    }

    /// Keeps the gradients of trainable parameters, measures them for the policy, scales and clips
    /// them.
    pub(super) fn prepare<M: Module, G: Gradients>(&self, model: &M, grads: &mut G) -> Stepped {
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

    /// Runs the optimizer's step, and stores which parameters were updated and what was measured.
    pub(super) fn update<M: Module, G: Gradients>(
        &mut self,
        lr: ModuleLearningRate,
        model: M,
        grads: G,
        stepped: Stepped,
    ) -> M {
        let parameters = self.trainable.map().parameters();
        let lr = self.warmed(lr, &stepped.parameters);
        let stepped_parameters = stepped.parameters.into_iter().map(|i| &parameters[i]);
        let model = self.optimizer.step(lr, model, grads, stepped_parameters);
        self.note(stepped.squares);
        model
    }

    /// The learning rates of these parameters with the [warm-up](crate::LisaConfig::layer_warmup) of
    /// their layers.
    fn warmed(&self, lr: ModuleLearningRate, stepped: &[usize]) -> ModuleLearningRate {
        let map = self.trainable.map();
        let factor = |i: usize| self.sampler.warmup(map.layer_of(i));
        if stepped.iter().all(|&i| factor(i) >= 1.0) {
            return lr;
        }
        let mut by_rate: BTreeMap<u64, Vec<ParamId>> = BTreeMap::new();
        for &i in stepped {
            let Parameter { id, path, .. } = &map.parameters()[i];
            let rate = lr.lr_from_param(*id, Some(path)) * factor(i);
            by_rate.entry(rate.to_bits()).or_default().push(*id);
        }
        let rates = by_rate.into_iter();
        let base = ModuleLrScheduler::new(lr.base());
        let groups = rates.fold(base, |groups, (rate, ids)| {
            groups.with_group(ParamGroup::from_ids(ids), f64::from_bits(rate))
        });
        { groups }.step()
    }

    /// Adds what was measured of the gradients of a step to the sums of the period.
    pub(super) fn note(&mut self, squares: LayerSquares) {
        if let Some(observation) = self.sampler.observation() {
            let scores = self.sampler.scores();
            self.sums.add(squares, observation.statistic, scores);
        }
    }

    /// Counts the step; at the end of a period, samples the layers of the next period. Applies the
    /// freeze mask then, or if `masks` is true.
    pub(super) fn end_step<M: Module>(&mut self, model: M, masks: bool) -> Result<M, StepError<M>> {
        if !self.sampler.advance() {
            return Ok(if masks { self.apply(model) } else { model });
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

    /// Applies the active layers to the module, the optimizer and the device: sets the freeze mask,
    /// releases optimizer state, and quantizes.
    pub(super) fn apply<M: Module>(&mut self, model: M) -> M {
        let trainable = self.trainable.ids(|layer| self.sampler.is_active(layer));
        // A release pass steps parameters, which quantized ones cannot be.
        let mut needed = trainable.clone();
        needed.extend(self.optimizer.to_release(&trainable));
        let model = self.full.restore(model, &needed);
        let model = self.mask.change(model, trainable.iter().copied());
        let model = self.optimizer.release(model, &self.mask);
        let (kind, map) = (self.config.frozen_weights, self.trainable.map());
        self.full.quantize(model, kind, (map, &trainable), None)
    }

    /// Uses the ids and the gradient requirements of this map's parameters from now on.
    pub(super) fn bind(&mut self, map: LayerMap) {
        self.mask = FreezeMask::new(Trainable::requiring(&map));
        self.trainable.rebind(map);
    }
}

/// The parameters that a step updates, and what was measured of their gradients.
pub(super) struct Stepped {
    /// Indices of the parameters that have a gradient.
    parameters: Vec<usize>,
    /// The squares of the active layers' gradients, if the policy observes gradients.
    pub(super) squares: LayerSquares,
}

/// Returns the model of a step, or panics with the error's message.
pub(super) fn model_of<M>(stepped: Result<M, StepError<M>>) -> M {
    match stepped {
        Ok(model) => model,
        Err(error) => panic!("{error}"),
    }
}

//! [`ModuleStep`]: one step of any optimizer of a module.

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer};

use crate::Lisa;

/// Updates a module from its gradients: a plain `ModuleOptimizer`, or [`Lisa`].
///
/// A trainer that is generic over this trait works with both.
///
/// # Example
///
/// ```
/// use burn::module::Module;
/// use burn::optim::GradientsParams;
/// use lisa::ModuleStep;
///
/// /// One step of a trainer that does not depend on LISA.
/// fn update<M: Module, S: ModuleStep>(optimizer: &mut S, model: M, grads: GradientsParams) -> M {
///     optimizer.step_module(1e-3.into(), model, grads)
/// }
/// ```
pub trait ModuleStep {
    /// One optimizer step. A [`Lisa`] panics as in [`Lisa::step`].
    #[must_use]
    fn step_module<M: Module>(
        &mut self,
        lr: ModuleLearningRate,
        model: M,
        grads: GradientsParams,
    ) -> M;
}

impl ModuleStep for ModuleOptimizer {
    fn step_module<M: Module>(
        &mut self,
        lr: ModuleLearningRate,
        model: M,
        grads: GradientsParams,
    ) -> M {
        self.step(lr, model, grads)
    }
}

impl ModuleStep for Lisa {
    fn step_module<M: Module>(
        &mut self,
        lr: ModuleLearningRate,
        model: M,
        grads: GradientsParams,
    ) -> M {
        self.step(lr, model, grads)
    }
}

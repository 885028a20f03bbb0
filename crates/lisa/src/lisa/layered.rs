//! Steps of [`Lisa`] during the backward pass of a [`LayeredModel`]. Tests: `lisa/tests/layered.rs`.

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;

use super::prepare::Ready;
use super::{Lisa, unwrap};
use crate::recompute::{LayeredModel, Pass};
use crate::{ErrorKind, LisaError, StepError};

impl Lisa {
    /// Updates each part of a model as soon as its gradients are there, so that the gradients of
    /// one part live at a time; at the end of a period, draws the next layers.
    ///
    /// What it does to the weights is bit for bit what [`step`](Self::step) does with the gradients
    /// of [`Pass::backward`]. `pass` must come from this model. Cost: as `step`, with one walk more
    /// of the module tree for each part that trains.
    ///
    /// # Errors
    ///
    /// A configuration with [`max_grad_norm`](crate::LisaConfig::max_grad_norm), which needs all
    /// gradients at once; a model that is not the one of this run. Both are found before anything
    /// changes. Those of [`Pass::backward_with`]: some parameters may have been updated by then, as
    /// the message says. An invalid draw, as in [`try_step`](Self::try_step).
    pub fn try_step_layered<M: LayeredModel>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        pass: Pass<M>,
    ) -> Result<M, StepError<M>> {
        if self.config.max_grad_norm.is_some() {
            let error = LisaError::new(
                ErrorKind::Config,
                "max_grad_norm needs the gradients of all parameters at once, and a layered step \
                 has those of one layer at a time",
            )
            .with_help("use Pass::backward and Lisa::step, or leave max_grad_norm out");
            return Err(StepError::new(model, error, false));
        }
        let rebound = match self.follow(&model) {
            Ok(rebound) => rebound,
            Err(error) => return Err(StepError::new(model, error, false)),
        };
        let lr = lr.into();
        let mut whole = Ready::default();
        let stepped = pass.backward_with(model, |model, mut grads| {
            let ready = self.prepare(&model, &mut grads);
            whole.extend(ready);
            self.optimizer.step(lr.clone(), model, grads)
        });
        match stepped {
            Ok(model) => self.finish(model, whole, rebound),
            Err(error) => {
                self.note(&whole.trained);
                Err(error)
            }
        }
    }

    /// [`try_step_layered`](Self::try_step_layered) in the shape of [`step`](Self::step).
    ///
    /// # Panics
    ///
    /// With the message of the error that `try_step_layered` returns.
    #[must_use]
    pub fn step_layered<M: LayeredModel>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        pass: Pass<M>,
    ) -> M {
        unwrap(self.try_step_layered(lr, model, pass))
    }
}

//! Steps of [`Lisa`] during the backward pass of a [`LayeredModel`]. Tests:
//! `lisa/tests/layered.rs`.

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;

use super::Lisa;
use super::step::model_of;
use crate::gradients::LayerSquares;
use crate::recompute::{LayeredModel, Pass};
use crate::{ErrorKind, LisaError, StepError};

impl Lisa {
    /// Updates each layer as soon as its gradients are computed, so that only the gradients of one
    /// layer are in memory at a time. At the end of a period, samples the next layers.
    ///
    /// The weights are bit-identical to those of [`step`](Self::step) with the gradients of
    /// [`Pass::backward`]. `pass` must come from this model. Cost: that of `step`, and one more
    /// visit of the module for each active layer.
    ///
    /// # Errors
    ///
    /// - The configuration has [`max_grad_norm`](crate::LisaConfig::max_grad_norm), which needs all
    ///   gradients at once; or the model is not the model of this run. Both are checked before
    ///   anything changes.
    /// - The errors of [`Pass::backward_with`]. Some parameters may already be updated, as the
    ///   message says; the step is not counted.
    /// - The policy makes an invalid draw, as in [`try_step`](Self::try_step).
    ///
    /// # Example
    ///
    /// ```
    /// use lisa::recompute::{LayeredModel, Recompute};
    /// use lisa::{Lisa, LisaError};
    ///
    /// fn train<M: LayeredModel>(lisa: &mut Lisa, model: M, batch: &M::Batch) -> Result<M, LisaError> {
    ///     let pass = Recompute::new().forward(&model, batch);
    ///     println!("loss {}", pass.loss());
    ///     Ok(lisa.try_step_layered(1e-3, model, pass)?)
    /// }
    /// ```
    pub fn try_step_layered<M: LayeredModel>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        pass: Pass<M>,
    ) -> Result<M, StepError<M>> {
        if self.config.max_grad_norm.is_some() {
            let error = LisaError::new(
                ErrorKind::Config,
                "max_grad_norm needs the gradients of all parameters at once, but a layered step has \
                 the gradients of only one layer at a time",
            )
            .with_help("use Pass::backward and Lisa::step, or do not set max_grad_norm");
            return Err(StepError::new(model, error, false));
        }
        let renamed = match self.follow(&model) {
            Ok(renamed) => renamed,
            Err(error) => return Err(StepError::new(model, error, false)),
        };
        let lr = lr.into();
        let mut squares = LayerSquares::default();
        let stepped = pass.backward_with(model, |model, mut grads| {
            let mut stepped = self.prepare(&model, &mut grads);
            squares.merge(std::mem::take(&mut stepped.squares));
            self.update(lr.clone(), model, grads, stepped)
        });
        let model = match stepped {
            Ok(model) => model,
            Err(error) => {
                let (model, error) = error.into_parts();
                let model = if renamed { self.apply(model) } else { model };
                return Err(StepError::new(model, error, true));
            }
        };
        self.note(squares);
        self.end_step(model, renamed)
    }

    /// [`try_step_layered`](Self::try_step_layered) with the return type of [`step`](Self::step).
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
        model_of(self.try_step_layered(lr, model, pass))
    }
}

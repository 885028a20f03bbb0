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
    /// [`Pass::backward`]. `pass` must come from this model. Cost: that of `step`, and at
    /// least two more visits of the module for each part of the model that is updated: the head, a
    /// segment of layers, the embedding.
    ///
    /// # Errors
    ///
    /// - The configuration has [`max_grad_norm`](crate::LisaConfig::max_grad_norm), which needs all
    ///   gradients at once; or the model is not the model of this run. Both are checked before
    ///   anything changes.
    /// - The errors of [`Pass::backward_with`]. Some parameters may already be updated, as the
    ///   message says; the step is not counted.
    /// - The policy returns invalid layers, as in [`try_step`](Self::try_step).
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
        self.step_in_backward(lr.into(), model, pass, false)
    }

    /// [`try_step_layered`](Self::try_step_layered) that refuses gradients with a NaN or an infinity.
    ///
    /// The gradients of a layer are [checked](Self::check_finite) before the layer is updated. Cost: in
    /// addition, one pass over the gradients, and a wait for the device for each part of the model that
    /// is updated.
    ///
    /// # Errors
    ///
    /// As `try_step_layered`, and if a gradient is not finite: an error of the kind
    /// [`Gradient`](ErrorKind::Gradient). The part of the model with this gradient, and all parts
    /// whose gradients are computed later, are not updated. If earlier parts are updated,
    /// [`is_updated`](StepError::is_updated) is true: discard the model, and continue from a
    /// checkpoint.
    pub fn try_step_layered_checked<M: LayeredModel>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        pass: Pass<M>,
    ) -> Result<M, StepError<M>> {
        self.step_in_backward(lr.into(), model, pass, true)
    }

    fn step_in_backward<M: LayeredModel>(
        &mut self,
        lr: ModuleLearningRate,
        model: M,
        pass: Pass<M>,
        is_checked: bool,
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
        let masks = match self.follow(&model) {
            Ok(masks) => masks,
            Err(error) => return Err(StepError::new(model, error, false)),
        };
        let mut squares = LayerSquares::default();
        let (mut bad, mut updated) = (None, false);
        let stepped = pass.backward_with(model, |model, mut grads| {
            if bad.is_some() {
                return model;
            }
            let mut stepped = self.prepare(&model, &mut grads);
            if is_checked
                && let Err(error) = self.check_gradients(&model, &grads, self.trainable.map())
            {
                bad = Some(error);
                return model;
            }
            updated = true;
            squares.merge(std::mem::take(&mut stepped.squares));
            self.update(lr.clone(), model, grads, stepped)
        });
        let (model, failed) = match stepped {
            Ok(model) => (model, bad),
            Err(error) => {
                let (model, error) = error.into_parts();
                (model, Some(bad.unwrap_or(error)))
            }
        };
        if let Some(error) = failed {
            let model = if masks { self.apply(model) } else { model };
            let error = if updated {
                error.within("other parts of the model are already updated")
            } else {
                error
            };
            return Err(StepError::new(model, error, updated));
        }
        self.note(squares);
        self.end_step(model, masks)
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

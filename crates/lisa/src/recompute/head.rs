//! [`HeadPass`]: the loss of a model's head, and its backward pass.
//!
//! Tests: `tests`, and the models of `lisa-lm`, whose heads have custom backward passes.

use std::fmt;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Tensor};

use super::gradients::add_graph;

/// Returns Burn's gradients of a graph, and additional gradients of parameters.
type Backward = dyn FnOnce(f64) -> (Option<Gradients>, GradientsParams);

/// The loss of a model's head, whose backward pass has not run yet.
///
/// `From` converts a loss on an autodiff graph. If a head can compute its gradients with less
/// memory than Burn's graph needs, use [`custom`](Self::custom).
///
/// # Example
///
/// This model has no head parameters: the loss is the sum of `h²`, so its gradient is `2 h`.
///
/// ```
/// use burn::optim::GradientsParams;
/// use burn::tensor::Tensor;
/// use lisa::recompute::HeadPass;
///
/// fn head_pass(h: Tensor<3>) -> HeadPass {
///     let values = h.clone().detach();
///     let loss = values.clone().square().sum();
///     HeadPass::custom(loss, move |factor| {
///         let gradient = values * (2.0 * factor);
///         let grads = h.is_tracked().then(|| (h * gradient).sum().backward());
///         (grads, GradientsParams::new())
///     })
/// }
/// ```
pub struct HeadPass {
    loss: Tensor<1>,
    factor: f64,
    custom: Option<Box<Backward>>,
}

impl fmt::Debug for HeadPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadPass")
            .field("custom", &self.custom.is_some())
            .finish_non_exhaustive()
    }
}

impl From<Tensor<1>> for HeadPass {
    fn from(loss: Tensor<1>) -> Self {
        Self {
            loss,
            factor: 1.0,
            custom: None,
        }
    }
}

impl HeadPass {
    /// A loss, of shape `[1]`, with a custom backward pass.
    ///
    /// `backward` is called at most once, with the factor that the loss is multiplied by. It
    /// returns two kinds of gradients. The first are those of a graph that starts at the hidden
    /// state which was given to [`head_pass`](super::LayeredModel::head_pass); `None` if that
    /// hidden state is on no graph. The second are gradients of parameters that this graph does not
    /// contain.
    #[must_use]
    pub fn custom(
        loss: Tensor<1>,
        backward: impl FnOnce(f64) -> (Option<Gradients>, GradientsParams) + 'static,
    ) -> Self {
        Self {
            loss,
            factor: 1.0,
            custom: Some(Box::new(backward)),
        }
    }

    pub(super) fn loss(&self) -> Tensor<1> {
        let loss = self.loss.clone().detach();
        if self.factor == 1.0 {
            loss
        } else {
            loss * self.factor
        }
    }

    pub(super) fn scale(&mut self, factor: f64) {
        self.factor *= factor;
    }

    /// The gradient of `top`, and those of the head's parameters; `None` if nothing is trainable.
    pub(super) fn backward<M: Module>(
        self,
        top: &Tensor<3>,
        model: &M,
    ) -> Option<(Option<Tensor<3>>, GradientsParams)> {
        let (grads, mut found) = match self.custom {
            Some(backward) => backward(self.factor),
            None if !self.loss.is_tracked() => return None,
            None if self.factor == 1.0 => (Some(self.loss.backward()), GradientsParams::new()),
            None => {
                let grads = (self.loss * self.factor).backward();
                (Some(grads), GradientsParams::new())
            }
        };
        let Some(mut grads) = grads else {
            return Some((None, found));
        };
        let upstream = top.grad_remove(&mut grads);
        add_graph(model, &mut found, &mut grads);
        Some((upstream, found))
    }
}

//! [`HeadPass`]: the loss of a head, and its backward pass: on Burn's tape, or by hand.
//!
//! Tests: `recompute/tests.rs`, and `lisa-lm`'s models, whose heads go back by hand.

use std::fmt;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::{Gradients, Tensor};

use super::add_all;

/// Burn's gradients of what is on the tape, and those that were computed by hand.
type Backward = dyn FnOnce(f64) -> (Option<Gradients>, GradientsParams);

/// A head's loss that waits for its backward pass.
///
/// Made of a loss on the tape by `From`. A head that knows its gradients better than the tape does,
/// and can do with less memory, makes one [`by_hand`](Self::by_hand).
pub struct HeadPass {
    loss: Tensor<1>,
    factor: f64,
    by_hand: Option<Box<Backward>>,
}

impl fmt::Debug for HeadPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadPass")
            .field("by_hand", &self.by_hand.is_some())
            .finish_non_exhaustive()
    }
}

impl From<Tensor<1>> for HeadPass {
    fn from(loss: Tensor<1>) -> Self {
        Self {
            loss,
            factor: 1.0,
            by_hand: None,
        }
    }
}

impl HeadPass {
    /// A loss, of shape `[1]`, whose backward pass is this function.
    ///
    /// It is called at most once, with the factor that the loss is scaled by, and returns the
    /// gradients of a backward pass on the tape that ends at the hidden state which
    /// [`head_pass`](super::LayeredModel::head_pass) was given (none where that is on no tape), and
    /// beside them those of parameters that are not on that tape.
    #[must_use]
    pub fn by_hand(
        loss: Tensor<1>,
        backward: impl FnOnce(f64) -> (Option<Gradients>, GradientsParams) + 'static,
    ) -> Self {
        Self {
            loss,
            factor: 1.0,
            by_hand: Some(Box::new(backward)),
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

    /// The gradient of `top`, and those of the parameters; none where nothing trains.
    pub(super) fn backward<M: Module>(
        self,
        top: &Tensor<3>,
        model: &M,
    ) -> Option<(Option<Tensor<3>>, GradientsParams)> {
        let (grads, mut found) = match self.by_hand {
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
        add_all(model, &mut found, &mut grads);
        Some((upstream, found))
    }
}

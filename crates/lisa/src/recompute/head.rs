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
///
/// # Example
///
/// ```
/// # use burn::module::{Module, ModuleVisitor, Param};
/// # use burn::nn::Linear;
/// # use burn::optim::GradientsParams;
/// # use burn::tensor::{Device, Tensor};
/// # use lisa::recompute::{HeadPass, LayeredModel, Recompute};
/// # #[derive(Module, Debug)]
/// # struct Model { layers: Vec<Linear> }
/// # impl LayeredModel for Model {
/// #     type Batch = Tensor<3>;
/// #     type Context = ();
/// #     fn context(&self, _: &Tensor<3>) {}
/// #     fn num_layers(&self) -> usize { self.layers.len() }
/// #     fn embed(&self, batch: &Tensor<3>, (): &()) -> Tensor<3> { batch.clone() }
/// #     fn layer(&self, index: usize, h: Tensor<3>, (): &()) -> Tensor<3> {
/// #         self.layers[index].forward(h)
/// #     }
/// #     fn visit_layer<V: ModuleVisitor>(&self, index: usize, visitor: &mut V) {
/// #         self.layers[index].visit(visitor);
/// #     }
/// #     fn head_loss(&self, h: Tensor<3>, _: &Tensor<3>, (): &()) -> Tensor<1> {
/// #         h.square().sum()
/// #     }
/// // The loss is the sum of h^2, so its gradient is 2 h.
/// fn head_pass(&self, h: Tensor<3>, _: &Tensor<3>, (): &()) -> HeadPass {
///     let known = h.clone().detach();
///     HeadPass::by_hand(known.clone().square().sum(), move |factor| {
///         let on_tape = h.is_tracked().then(|| (h * known * (2.0 * factor)).sum().backward());
///         (on_tape, GradientsParams::new())
///     })
/// }
/// # }
/// # let device = Device::flex().autodiff();
/// # let weight = Tensor::<2>::from_data([[1.0, 2.0], [3.0, 4.0]], &device);
/// # let linear = Linear { weight: Param::from_tensor(weight), bias: None };
/// # let model = Model { layers: vec![linear] };
/// # let x = Tensor::<3>::ones([1, 1, 2], &device);
/// // A layer with the weight [[1, 2], [3, 4]], given ones: h is [4, 6].
/// let pass = Recompute::new().forward(&model, &x);
/// assert_eq!(pass.loss().into_scalar::<f32>(), 52.0);
/// let gradient = pass.backward(&model).get::<2>(model.layers[0].weight.id);
/// assert_eq!(gradient.map(|g| g.into_data()), Some([[8.0f32, 12.0], [8.0, 12.0]].into()));
/// ```
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

//! [`EmbedPass`]: the input of a model's stack, and the backward pass of its embedding.
//!
//! Tests: `tests`, and the models of `lisa-lm`, whose embeddings have custom backward passes.

use std::fmt;

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

use super::gradients::add_graph;

/// Adds the gradients of the embedding's parameters, given the gradient of its output.
type Backward = dyn FnOnce(Tensor<3>, &mut GradientsParams);

/// The input of the first layer, and the backward pass of the embedding that computed it.
///
/// `From` converts an embedding on an autodiff graph. With [`custom`](Self::custom), the gradient
/// of an embedding can be added to one that is there already, such as that of a tied head, without
/// a second tensor of this size.
///
/// # Example
///
/// ```
/// use burn::module::Param;
/// use burn::tensor::{IndexingUpdateOp, Int, Tensor};
/// use lisa::recompute::EmbedPass;
///
/// /// The rows of a trainable weight, `[vocab, width]`, for tokens, `[batch, seq]`.
/// fn embed_pass(weight: &Param<Tensor<2>>, tokens: Tensor<2, Int>) -> EmbedPass {
///     let ([batch, seq], [_, width]) = (tokens.dims(), weight.dims());
///     let (id, weight) = (weight.id, weight.val().detach());
///     let tokens = tokens.reshape([batch * seq]);
///     let output = weight.clone().select(0, tokens.clone());
///     let (shape, device, dtype) = (weight.dims(), weight.device().inner(), weight.dtype());
///     EmbedPass::custom(output.reshape([batch, seq, width]), move |gradient, grads| {
///         let before = grads.remove(id);
///         let sum = before.unwrap_or_else(|| Tensor::<2>::zeros(shape, (&device, dtype)));
///         let rows = gradient.inner().reshape([batch * seq, width]);
///         grads.register(id, sum.select_assign(0, tokens.inner(), rows, IndexingUpdateOp::Add));
///     })
/// }
/// ```
pub struct EmbedPass {
    output: Tensor<3>,
    custom: Option<Box<Backward>>,
}

impl fmt::Debug for EmbedPass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbedPass")
            .field("custom", &self.custom.is_some())
            .finish_non_exhaustive()
    }
}

impl From<Tensor<3>> for EmbedPass {
    fn from(output: Tensor<3>) -> Self {
        Self {
            output,
            custom: None,
        }
    }
}

impl EmbedPass {
    /// The output of a trainable embedding, `[batch, sequence, width]`, on the model's device with
    /// autodiff but on no graph, and its backward pass.
    ///
    /// `backward` is called at most once, with the gradient of the output. It adds the gradients of
    /// the embedding's parameters to those that it is given.
    #[must_use]
    pub fn custom(
        output: Tensor<3>,
        backward: impl FnOnce(Tensor<3>, &mut GradientsParams) + 'static,
    ) -> Self {
        Self {
            output,
            custom: Some(Box::new(backward)),
        }
    }

    pub(super) fn output(&self) -> Tensor<3> {
        self.output.clone().detach()
    }

    pub(super) fn is_trainable(&self) -> bool {
        self.custom.is_some() || self.output.is_tracked()
    }

    /// Adds the gradients of the embedding's parameters to `sum`.
    pub(super) fn backward<M: Module>(
        self,
        model: &M,
        gradient: Tensor<3>,
        sum: &mut GradientsParams,
    ) {
        match self.custom {
            Some(backward) => backward(gradient, sum),
            None => {
                let mut grads = (self.output * gradient).sum().backward();
                add_graph(model, sum, &mut grads);
            }
        }
    }
}

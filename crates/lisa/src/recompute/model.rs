//! [`LayeredModel`]: what a model must offer to be recomputed layer by layer. The model is divided
//! as in `module::parallel` of Burn 0.23: an input layer, hidden layers in order, an output layer.

use burn::module::{Module, ModuleVisitor, ParamId};
use burn::tensor::Tensor;

use super::cuts::Cuts;
use super::embed::EmbedPass;
use super::head::HeadPass;

/// A model that runs layer by layer: an embedding, a stack of layers, a head with a loss.
///
/// [`embed`](Self::embed), every [`layer`](Self::layer) in order and [`head_loss`](Self::head_loss)
/// together must be the whole forward pass. Only the hidden state, of shape
/// `[batch, sequence, width]`, may pass from one to the next. Values that all layers share, such as
/// attention masks and rotary tables, belong in the context.
///
/// The [module page](super) shows an implementation.
pub trait LayeredModel: Module {
    /// The input of a training step: tokens, labels.
    type Batch;
    /// What every layer needs to know about a batch.
    type Context;

    /// Computes the context of a batch. It is called once for each batch.
    fn context(&self, batch: &Self::Batch) -> Self::Context;

    /// The number of layers in the stack.
    fn num_layers(&self) -> usize;

    /// Computes the input of the first layer.
    fn embed(&self, batch: &Self::Batch, context: &Self::Context) -> Tensor<3>;

    /// Computes the input of the first layer together with the backward pass of the embedding.
    ///
    /// By default the backward pass is that of [`embed`](Self::embed) on Burn's autodiff graph. A
    /// tied embedding needs less memory with a [custom backward pass](EmbedPass::custom).
    fn embed_pass(&self, batch: &Self::Batch, context: &Self::Context) -> EmbedPass {
        EmbedPass::from(self.embed(batch, context))
    }

    /// Computes the output of layer `index` from its input.
    fn layer(&self, index: usize, h: Tensor<3>, context: &Self::Context) -> Tensor<3>;

    /// The number of sublayers in each layer, such as 2 for attention and MLP; at least 1.
    ///
    /// Used by [`Recompute::with_sublayers`](super::Recompute::with_sublayers).
    fn sublayers(&self) -> usize {
        1
    }

    /// Computes the output of one sublayer of layer `index` from its input.
    ///
    /// All sublayers, in order, must compute the same function as [`layer`](Self::layer), and each
    /// parameter must belong to one sublayer. The implementation may [cut](Cuts::cut) the autodiff
    /// graph, so that gradients can be used and freed before the whole sublayer has run backward.
    fn sublayer(
        &self,
        index: usize,
        sublayer: usize,
        h: Tensor<3>,
        context: &Self::Context,
        cuts: &mut Cuts,
    ) -> Tensor<3> {
        let _ = (sublayer, cuts);
        self.layer(index, h, context)
    }

    /// Visits the parameters of layer `index`, usually by `self.layers[index].visit(visitor)`.
    ///
    /// The forward pass uses it to find out which layers are trainable before it runs them.
    fn visit_layer<V: ModuleVisitor>(&self, index: usize, visitor: &mut V);

    /// Computes the loss, of shape `[1]`, from the output of the last layer.
    fn head_loss(&self, h: Tensor<3>, batch: &Self::Batch, context: &Self::Context) -> Tensor<1>;

    /// Computes the loss together with its backward pass.
    ///
    /// By default the backward pass is that of [`head_loss`](Self::head_loss) on Burn's autodiff
    /// graph. A head over a large vocabulary may need less memory with a
    /// [custom backward pass](HeadPass::custom).
    fn head_pass(&self, h: Tensor<3>, batch: &Self::Batch, context: &Self::Context) -> HeadPass {
        HeadPass::from(self.head_loss(h, batch, context))
    }

    /// The parameters that both [`embed`](Self::embed) and [`head_loss`](Self::head_loss) use, such
    /// as a tied embedding.
    ///
    /// [`Pass::backward_with`](super::Pass::backward_with) adds up their gradients, and passes the
    /// sum to `update` at the end.
    fn tied(&self) -> Vec<ParamId> {
        Vec::new()
    }
}

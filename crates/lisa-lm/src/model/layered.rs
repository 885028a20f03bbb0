//! [`CausalLm`] layer by layer, for LISA's recomputation of activations.

use burn::module::{Module, ModuleVisitor, ParamId};
use burn::tensor::Tensor;
use lisa::recompute::{Cuts, EmbedPass, HeadPass, LayeredModel};

use crate::model::causal_lm::CausalLm;
use crate::model::context::Context;
use crate::model::head::Head;
use crate::model::input::BatchTensors;

/// The loss is [`CausalLm::batch_loss`]. A layer has two sublayers, attention and
/// feed-forward.
impl LayeredModel for CausalLm {
    type Batch = BatchTensors;
    type Context = Context;

    fn context(&self, batch: &BatchTensors) -> Context {
        Self::context(self, &batch.input)
    }

    fn num_layers(&self) -> usize {
        Self::num_layers(self)
    }

    fn embed(&self, batch: &BatchTensors, context: &Context) -> Tensor<3> {
        Self::embed(self, &batch.input, context)
    }

    fn embed_pass(&self, batch: &BatchTensors, context: &Context) -> EmbedPass {
        self.model.embed_pass(&batch.input, context)
    }

    fn layer(&self, index: usize, h: Tensor<3>, context: &Context) -> Tensor<3> {
        Self::layer(self, index, h, context)
    }

    fn sublayers(&self) -> usize {
        2
    }

    fn sublayer(
        &self,
        index: usize,
        sublayer: usize,
        h: Tensor<3>,
        context: &Context,
        cuts: &mut Cuts,
    ) -> Tensor<3> {
        let block = &self.model.layers[index];
        match sublayer {
            0 => block.attend(h, context, None),
            _ => block.feed(h, cuts),
        }
    }

    fn visit_layer<V: ModuleVisitor>(&self, index: usize, visitor: &mut V) {
        self.model.layers[index].visit(visitor);
    }

    fn head_loss(&self, h: Tensor<3>, batch: &BatchTensors, _: &Context) -> Tensor<1> {
        self.loss_of(h, batch.targets.clone(), batch.weights.clone())
    }

    fn head_pass(&self, h: Tensor<3>, batch: &BatchTensors, _: &Context) -> HeadPass {
        let normed = self.model.norm.forward(h);
        let (targets, weights) = (batch.targets.clone(), batch.weights.clone());
        self.logits().pass(normed, targets, weights)
    }

    fn tied(&self) -> Vec<ParamId> {
        match self.logits() {
            Head::Own(_) => Vec::new(),
            Head::Tied(embedding) => vec![embedding.weight.id],
        }
    }
}

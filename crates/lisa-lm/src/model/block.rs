//! [`Block`]: one layer of the stack, and its modules.
//!
//! Fields have the names of Llama's tensors on Hugging Face, where Llama has such a tensor. So a
//! parameter's path is its name in the checkpoints of most families. `FileNames` maps the names of
//! the other families.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use lisa::recompute::Cuts;

mod adapter;
mod attention;
mod feed_forward;
mod norm;
mod projection;

pub use adapter::LoraAdapter;
pub(crate) use adapter::{has_adapter, in_dtype, trainable};
pub use attention::Attention;
pub use feed_forward::FeedForward;
pub use norm::Norm;
pub use projection::Projection;

use crate::model::cache::LayerCache;
use crate::model::context::Context;
use crate::model::spec::{BlockSpec, InitSpec, LayerSpec};
use norm::normed;

/// A layer: attention and a feed-forward network, each added to the hidden state.
#[derive(Module, Debug)]
pub struct Block {
    /// The norm before attention.
    pub input_layernorm: Option<Norm>,
    /// Attention.
    pub self_attn: Attention,
    /// The norm of attention's output.
    pub attention_output_norm: Option<Norm>,
    /// The norm before the feed-forward network.
    pub post_attention_layernorm: Option<Norm>,
    /// The feed-forward network.
    pub mlp: FeedForward,
    /// The norm of the feed-forward network's output.
    pub feed_forward_output_norm: Option<Norm>,
}

impl Block {
    pub(crate) fn new(
        spec: &BlockSpec,
        layer: LayerSpec,
        hidden: usize,
        init: InitSpec,
        device: &Device,
    ) -> Self {
        let norm = |wanted: bool| wanted.then(|| Norm::new(spec.norm, hidden, device));
        let (before, after) = (spec.placement.before(), spec.placement.after());
        Self {
            input_layernorm: norm(before),
            self_attn: Attention::new(spec.attention, layer, hidden, init, device),
            attention_output_norm: norm(after),
            post_attention_layernorm: norm(before),
            mlp: FeedForward::new(spec.feed_forward, hidden, init, device),
            feed_forward_output_norm: norm(after),
        }
    }

    /// The first half of the layer, attention.
    pub(crate) fn attend(
        &self,
        h: Tensor<3>,
        context: &Context,
        cache: Option<&mut LayerCache>,
    ) -> Tensor<3> {
        let x = normed(self.input_layernorm.as_ref(), h.clone());
        let out = self.self_attn.forward(x, context, cache);
        h + normed(self.attention_output_norm.as_ref(), out)
    }

    /// The second half, the feed-forward network. The autodiff graph may be cut before its last
    /// projection.
    pub(crate) fn feed(&self, h: Tensor<3>, cuts: &mut Cuts) -> Tensor<3> {
        let x = normed(self.post_attention_layernorm.as_ref(), h.clone());
        let inner = self.mlp.inner(x);
        let [inner, h] = cuts.cut([inner, h]);
        let out = self.mlp.down_proj.forward(inner);
        h + normed(self.feed_forward_output_norm.as_ref(), out)
    }

    /// The projections in the order of the forward pass, with their paths in the layer.
    pub(crate) fn projections(&self) -> impl Iterator<Item = (&'static str, &Projection)> {
        let attention = self.self_attn.projections();
        attention.chain(self.mlp.projections())
    }

    /// The same, mutable.
    pub(crate) fn projections_mut(
        &mut self,
    ) -> impl Iterator<Item = (&'static str, &mut Projection)> {
        let attention = self.self_attn.projections_mut();
        attention.chain(self.mlp.projections_mut())
    }
}

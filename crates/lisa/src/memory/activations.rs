//! [`Footprint`]: the size of a model's activations.

use burn::module::{Module, ParamId};

use super::workload::Workload;

/// The sizes of a model's activations for one batch, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activations {
    /// What the backward pass keeps of a layer whose weights are frozen.
    pub frozen_layer: u64,
    /// What the backward pass keeps of a layer whose weights are trainable.
    pub active_layer: u64,
    /// The part of [`frozen_layer`](Self::frozen_layer), and also of
    /// [`active_layer`](Self::active_layer), that is the input of the layer; 0 if they do not
    /// include it. Recomputation has the input in memory anyway.
    pub input: u64,
    /// The part of [`active_layer`](Self::active_layer) that the backward pass of the layer frees before
    /// it needs [`layer_backward`](Self::layer_backward), such as the input of its last matmul.
    pub freed: u64,
    /// The part of [`active_layer`](Self::active_layer) that is kept only for the weights of norms.
    /// LoRA does not train them.
    pub norms: u64,
    /// The most memory that the backward pass of a layer needs in addition to what it keeps, without
    /// the gradients of its weights.
    pub layer_backward: u64,
    /// Other memory that is in use during the whole step: masks, tables of positions, the buffers
    /// of a matmul.
    pub workspace: u64,
    /// The hidden state between two layers.
    pub hidden: u64,
    /// The logits, in the dtype of the model, if all of them exist at the same time: the backward
    /// pass of the loss then needs two more tensors of this size. 0 if the loss is computed slice
    /// by slice; then [`head`](Self::head) counts.
    pub logits: u64,
    /// The most memory that the loss needs at a time, without the gradient of the head's weight, if
    /// the loss is computed slice by slice. Such a model also computes the gradient of its embedding
    /// in one tensor, and with recomputation adds it to that of a tied head in place, as
    /// [`EmbedPass::custom`](crate::recompute::EmbedPass::custom) can.
    pub head: u64,
    /// What a loss that is computed slice by slice needs in addition if the head's weight is
    /// trainable, without the gradient of that weight.
    pub head_weight: u64,
    /// Temporary tensors of the backward pass of a loss that is computed slice by slice, without
    /// recomputation, if the head is trainable.
    pub head_backward: u64,
    /// Whether a backward pass without recomputation computes the gradient of an embedding in a
    /// tensor of its own, and then adds it to that of the head with the same weight.
    pub tied_head: bool,
    /// Whether embedding and head share a weight. With recomputation, its gradient is then kept until
    /// that of the embedding is added.
    pub tied: bool,
    /// The largest memory that a [sublayer](crate::recompute::LayeredModel::sublayers) of an active
    /// layer needs in its backward pass: its activations without its input, and the gradients between
    /// two [cuts](crate::recompute::Cuts). If it is unknown, it is 0, and the whole layer counts.
    pub sublayer: u64,
}

impl Activations {
    /// Hidden states while a loss is computed in slices: the last one, its norm, the rows of it that
    /// have a target, and the gradients of both.
    pub(super) fn loss_states(&self) -> u64 {
        5 * self.hidden
    }
}

/// A model that can report the size of its activations.
///
/// The [module page](super) shows an implementation.
pub trait Footprint: Module {
    /// The sizes for a batch of this workload: its rows, the tokens of a row, the dtype of the weights,
    /// and whether it runs on flex.
    fn activations(&self, workload: &Workload) -> Activations;

    /// The id of the head's weight. If that weight is frozen, a plan leaves [`Activations::head_weight`] and
    /// [`Activations::head_backward`] out. By default it is unknown, and every trainable matrix outside
    /// the layers may be that of the head.
    fn head_id(&self) -> Option<ParamId> {
        None
    }
}

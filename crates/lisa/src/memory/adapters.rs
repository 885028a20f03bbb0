//! [`Adapters`]: the LoRA adapters of a planned run.

/// LoRA adapters whose memory is planned, for [`MemoryPlan::lora`](super::MemoryPlan::lora).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adapters {
    /// The rank.
    pub rank: usize,
    /// Whether each projection computes `W + A B` before its matmul, as Burn's own LoRA does,
    /// instead of adding the result of a second matmul.
    pub merged: bool,
    /// The weights of layers with an adapter; `None`: all matrices of the layers.
    pub of_layers: Option<Vec<LayerAdapters>>,
    /// The shape of the head, `[hidden, vocab]`, if it has an adapter.
    pub head: Option<[usize; 2]>,
    /// The most memory that the loss of a head with an adapter needs at a time, in bytes, if it is more
    /// than [`Activations::head`](super::Activations::head).
    pub head_loss: u64,
}

/// The adapters of one layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerAdapters {
    /// The shapes of the weights with an adapter, `[in, out]`.
    pub weights: Vec<[usize; 2]>,
    /// Bytes of the inputs of these weights that the backward pass keeps in addition to
    /// [`Activations::frozen_layer`](super::Activations::frozen_layer).
    pub inputs: u64,
}

impl Adapters {
    /// Adapters of this rank on all matrices of the layers.
    #[must_use]
    pub fn all(rank: usize, merged: bool) -> Self {
        Self {
            rank,
            merged,
            ..Self::default()
        }
    }
}

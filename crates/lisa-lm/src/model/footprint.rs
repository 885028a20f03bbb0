//! The size of the activations of a [`CausalLm`], for LISA's memory estimates.
//!
//! It counts the tensors that the operations keep for the backward pass. `bench` prints the
//! estimates next to measured sizes.

use burn::tensor::{DType, FloatDType};
use lisa::memory::{Activations, Footprint};

use crate::model::causal_lm::CausalLm;
use crate::model::ops::{self, FUSED, KEPT, WRITTEN_OUT};
use crate::model::spec::{DecoderSpec, NormKind};

/// Elements for each token.
struct PerToken {
    /// Elements that a frozen layer keeps.
    frozen: usize,
    /// Elements that a trainable layer keeps in addition.
    trainable: usize,
    /// The part of `trainable` that is kept for the weights of norms.
    norms: usize,
    /// Elements that the backward pass of the feed-forward network needs in addition.
    backward: usize,
    /// The largest number of elements during the backward pass of attention, and during that of the
    /// feed-forward network up to its last projection.
    attention: usize,
    feed_forward: usize,
}

fn per_token(spec: &DecoderSpec, fused: bool) -> PerToken {
    let hidden = spec.hidden_size;
    let (q, kv) = spec.block.attention.widths();
    let inner = spec.block.feed_forward.width;
    // For each of the two norms: kept while frozen, in addition while trainable, and during its backward
    // pass. A fused norm keeps its input whether it is trainable or not.
    let (norm, norm_weight, norm_backward) = match spec.block.norm.kind {
        _ if fused => (hidden, 0, 0),
        NormKind::Rms => (hidden, hidden, hidden),
        NormKind::Layer => (5 * hidden, hidden, 3 * hidden),
    };
    // Rotary positions: kept, and during the backward pass.
    let (rope, rope_backward) = match &spec.rope {
        Some(_) if fused => (0, q),
        Some(_) => (q, q),
        None => (0, 0),
    };
    // Activation and gate: kept, and during the backward pass.
    let (activation, activation_backward) = match (spec.block.feed_forward.gated, fused) {
        (false, true) => (inner, 2 * inner),
        (false, false) => (6 * inner, 7 * inner),
        (true, true) => (2 * inner, 3 * inner),
        (true, false) => (4 * inner, 5 * inner),
    };
    PerToken {
        frozen: 2 * norm + q + 2 * kv + rope + activation,
        trainable: 2 * norm_weight + 2 * hidden + q + inner,
        norms: 2 * norm_weight,
        backward: 2 * inner + 2 * hidden,
        attention: norm_backward + 2 * hidden + 2 * q + rope_backward + 2 * kv,
        feed_forward: norm_backward + 2 * hidden + activation_backward,
    }
}

impl Footprint for CausalLm {
    fn activations(&self, batch: usize, sequence: usize, dtype: FloatDType) -> Activations {
        let spec = self.model.spec();
        let device = self.model.embed_tokens.weight.lazy_device();
        let fused = ops::are_fused(&device, dtype.into());
        let size = DType::from(dtype).size();
        let bytes = |elements: usize| (batch * sequence * elements * size) as u64;
        let tokens = per_token(spec, fused);

        let (extent, per_score) = if fused {
            (FUSED, 4)
        } else {
            // Exponentials in f32, a copy in half precision, and the mask.
            let cast = if size < 4 { size } else { 0 };
            (WRITTEN_OUT, 4 + 1 + cast)
        };
        let heads = spec.block.attention.heads;
        let kept = if fused && sequence > KEPT {
            0
        } else {
            extent.scores(sequence)
        };
        let scores = (batch * heads * kept * per_score) as u64;

        // The gradients of weights between two cuts of the autodiff graph: all of attention, and all of the
        // feed-forward network but the last projection.
        let (q, kv) = spec.block.attention.widths();
        let (hidden, feed) = (spec.hidden_size, &spec.block.feed_forward);
        let attention = 2 * hidden * (q + kv) * size;
        let inward = 1 + usize::from(feed.gated);
        let feed_forward = inward * hidden * feed.width * size;
        let attention = bytes(tokens.attention) + scores + attention as u64;
        let feed_forward = bytes(tokens.feed_forward) + feed_forward as u64;

        // A mask of each kind, and cosines and sines.
        let attends = &spec.block.attention;
        let kinds = 1 + usize::from(spec.sliding_window.is_some());
        let masks = kinds * attends.groups() * sequence * sequence;
        let tables = match &spec.rope {
            Some(_) => 2 * sequence * attends.head_dim * size,
            None => 0,
        };

        Activations {
            sublayer: attention.max(feed_forward),
            frozen_layer: bytes(tokens.frozen) + scores,
            active_layer: bytes(tokens.frozen + tokens.trainable) + scores,
            norms: bytes(tokens.norms),
            layer_backward: bytes(tokens.backward),
            workspace: ops::workspace_bytes(&device) + (masks + tables) as u64,
            hidden: bytes(hidden),
            logits: 0,
            head: ops::head_bytes(
                batch * sequence,
                spec.vocab_size,
                hidden,
                (&device, dtype.into()),
            ),
            tied_head: spec.tied_head && !fused,
        }
    }
}

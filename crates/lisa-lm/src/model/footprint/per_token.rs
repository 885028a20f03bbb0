//! What a layer keeps for each token, and what its backward pass needs.

use crate::model::ops::{Activation, Form};
use crate::model::spec::{
    AttentionSpec, BlockSpec, DecoderSpec, FeedForwardSpec, NormKind, NormPlacement,
};

/// Elements for each token.
pub(super) struct PerToken {
    /// Elements that a frozen layer keeps.
    pub(super) frozen: usize,
    /// Elements that a trainable layer keeps in addition.
    pub(super) trainable: usize,
    /// The part of `trainable` that is kept for the weights of norms.
    pub(super) norms: usize,
    /// Elements that the backward pass of the feed-forward network needs in addition.
    pub(super) backward: usize,
    /// The largest number of elements during the backward pass of attention, and during that of the
    /// feed-forward network up to its last projection.
    pub(super) attention: usize,
    pub(super) feed_forward: usize,
}

pub(super) fn per_token(spec: &DecoderSpec, form: Form, size: usize, flex: bool) -> PerToken {
    let fused = form == Form::Fused;
    let hidden = spec.hidden_size;
    // Without `..`: a new option of a block must be counted here.
    let BlockSpec {
        attention,
        feed_forward,
        norm,
        placement,
    } = spec.block;
    let AttentionSpec {
        heads: _,
        kv_heads: _,
        head_dim: _,
        fused_qkv,
        qkv_bias: _,
        output_bias: _,
        qk_norm,
        score_scale: _,
    } = attention;
    let FeedForwardSpec {
        width: inner,
        gated,
        activation,
        bias: _,
    } = feed_forward;
    let (q, kv) = attention.widths();
    // The norms of attention, and as many of the feed-forward network.
    let norms = match placement {
        NormPlacement::Before | NormPlacement::After => 1,
        NormPlacement::Both => 2,
    };
    // For a norm over `width` elements: kept while frozen, in addition while trainable, and during its
    // backward pass. A fused norm keeps its input whether it is trainable or not.
    let in_f32 = |elements: usize| elements * size_of::<f32>() / size;
    let of_norm = |kind, width: usize| match kind {
        _ if fused => (width, 0, 0),
        NormKind::Rms if form == Form::Recomputed => (width, 0, in_f32(3 * width)),
        // In half precision, also a copy in f32.
        NormKind::Rms if size < 4 => (width + in_f32(width), width, width),
        NormKind::Rms => (width, width, width),
        // In half precision, computed in f32, on flex by the fused operation.
        NormKind::Layer if size < 4 && form == Form::Recomputed && flex => {
            (in_f32(width), 0, in_f32(width))
        }
        NormKind::Layer if size < 4 => (in_f32(5 * width), in_f32(width), in_f32(3 * width)),
        NormKind::Layer => (5 * width, width, 3 * width),
    };
    let (norm, norm_weight, norm_backward) = of_norm(norm.kind, hidden);
    let (norm, norm_weight) = (norms * norm, norms * norm_weight);
    // With two of them, what the backward pass makes for the first is there during that of the second.
    let norm_backward = norms * norm_backward;
    // The norms of queries and keys.
    let (of_heads, of_heads_weight, of_heads_backward) = match qk_norm {
        Some(norm) => of_norm(norm.kind, q + kv),
        None => (0, 0, 0),
    };
    // Rotary positions: kept, and during the backward pass.
    let (rope, rope_backward) = match &spec.rope {
        Some(_) if fused => (0, q),
        Some(_) => (q, q),
        None => (0, 0),
    };
    let OfActivation {
        kept: activation,
        backward: activation_backward,
        form: form_of_activation,
        wide: wide_backward,
    } = of_activation(gated, activation, form, [inner, in_f32(inner)]);
    // Queries that are a part of one projection's output are copied, and so are divided ones. If queries and
    // keys are changed, the output is kept next to them for its part with the values.
    let is_copied = !fused || spec.layers.iter().any(|layer| layer.score_divisor != 1);
    let is_changed = spec.rope.is_some() || qk_norm.is_some();
    let joint = match (fused_qkv, is_changed) {
        (true, true) => q + kv,
        (true, false) if is_copied => q,
        _ => 0,
    };
    // The gradients of keys and values are summed up in f32 over the blocks.
    let sums = if form == Form::Recomputed {
        in_f32(2 * kv)
    } else {
        0
    };
    PerToken {
        frozen: 2 * norm + of_heads + q + 2 * kv + joint + rope + activation,
        trainable: 2 * norm_weight + of_heads_weight + 2 * hidden + q + inner,
        norms: 2 * norm_weight + of_heads_weight,
        backward: match form_of_activation {
            // The gradient of the last projection's input, twice.
            Form::Fused => 2 * inner,
            Form::Recomputed => 2 * hidden + wide_backward,
            Form::WrittenOut => 2 * hidden + 2 * inner,
        },
        attention: norm_backward
            + of_heads_backward
            + 2 * hidden
            + 2 * q
            + rope_backward
            + 2 * kv
            + sums,
        feed_forward: norm_backward + 2 * hidden + activation_backward,
    }
}

/// Elements for each token of the feed-forward network's activation and its gate.
struct OfActivation {
    kept: usize,
    backward: usize,
    form: Form,
    /// The tensors in f32 of a recomputed activation.
    wide: usize,
}

/// `width`: elements of the activation's input, and the same in f32.
fn of_activation(
    gated: bool,
    activation: Activation,
    form: Form,
    [width, wide]: [usize; 2],
) -> OfActivation {
    // Its input, share, slope, gradient, and a temporary one of GELU; whether it is fused with a gate.
    let (tensors, fused_with_gate) = match activation {
        Activation::Silu => (4, true),
        Activation::Gelu | Activation::GeluTanh => (5, false),
    };
    let wide = tensors * wide;
    // An activation that is not fused is recomputed.
    let form = match form {
        Form::Fused if gated != fused_with_gate => Form::Recomputed,
        form => form,
    };
    let (kept, backward) = match (gated, form) {
        (false, Form::Fused) => (width, 2 * width),
        (false, Form::Recomputed) => (width, width + wide),
        (false, Form::WrittenOut) => (6 * width, 7 * width),
        (true, Form::Fused) => (2 * width, 3 * width),
        (true, Form::Recomputed) => (2 * width, 2 * width + wide),
        (true, Form::WrittenOut) => (4 * width, 5 * width),
    };
    OfActivation {
        kept,
        backward,
        form,
        wide,
    }
}

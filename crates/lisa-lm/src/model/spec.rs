//! The description of a decoder: dimensions and options, without weights.
//!
//! What the decoder of a family computes is a value here, so a family of known parts is a new description
//! (`families/`) and not a new model. A new part is an option here and code in `block/` or `ops/`.

use crate::model::config::RopeConfig;
use crate::model::ops::Activation;

/// A decoder: embeddings, a stack of layers, a final norm, a head.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct DecoderSpec {
    pub(crate) vocab_size: usize,
    /// Width of the hidden state.
    pub(crate) hidden_size: usize,
    /// The number of learned position embeddings; `None` if there are none.
    pub(crate) learned_positions: Option<usize>,
    /// The rotary positions of queries and keys; `None` if there are none.
    pub(crate) rope: Option<RopeConfig>,
    /// The number of positions that a sliding layer attends to.
    pub(crate) sliding_window: Option<usize>,
    /// For each layer, what differs from the others.
    pub(crate) layers: Vec<LayerSpec>,
    /// What all layers have in common.
    pub(crate) block: BlockSpec,
    /// Whether the head uses the weight of the embedding.
    pub(crate) tied_head: bool,
    pub(crate) init: InitSpec,
}

impl DecoderSpec {
    /// Whether a layer attends to fewer than `positions` positions. A window that covers them all needs no mask
    /// of its own.
    pub(crate) fn has_window(&self, positions: usize) -> bool {
        let is_shorter = self.sliding_window.is_some_and(|window| window < positions);
        is_shorter && self.layers.iter().any(|layer| layer.slides)
    }

    /// Whether a layer attends to all of `positions` positions.
    pub(crate) fn has_full_mask(&self, positions: usize) -> bool {
        !self.has_window(positions) || self.layers.iter().any(|layer| !layer.slides)
    }
}

/// What may differ between the layers of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LayerSpec {
    /// Whether it has the sliding window.
    pub(crate) slides: bool,
    /// Divides the queries, and so the scores.
    pub(crate) score_divisor: usize,
}

impl LayerSpec {
    /// A layer that attends to all earlier positions.
    pub(crate) const FULL: Self = Self {
        slides: false,
        score_divisor: 1,
    };
}

/// A layer: attention and a feed-forward network, each added to the hidden state.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct BlockSpec {
    pub(crate) attention: AttentionSpec,
    pub(crate) feed_forward: FeedForwardSpec,
    /// The norms of the layer, and the final norm.
    pub(crate) norm: NormSpec,
    pub(crate) placement: NormPlacement,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct AttentionSpec {
    pub(crate) heads: usize,
    /// The number of key and value heads; it divides `heads`.
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Whether queries, keys and values come from one projection.
    pub(crate) fused_qkv: bool,
    /// Whether the projections of queries, keys and values have biases.
    pub(crate) qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub(crate) output_bias: bool,
    /// The norm of each head of the queries and keys; `None` if there is none.
    pub(crate) qk_norm: Option<NormSpec>,
    /// Multiplies the scores.
    pub(crate) score_scale: f64,
}

impl AttentionSpec {
    /// The widths of queries and of keys.
    pub(crate) fn widths(&self) -> (usize, usize) {
        (self.heads * self.head_dim, self.kv_heads * self.head_dim)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FeedForwardSpec {
    /// The width between the projections.
    pub(crate) width: usize,
    /// Whether a second projection is multiplied by the activation of the first.
    pub(crate) gated: bool,
    pub(crate) activation: Activation,
    pub(crate) bias: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct NormSpec {
    pub(crate) kind: NormKind,
    /// Added to the mean square, or to the variance.
    pub(crate) epsilon: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// Divides by the root of the mean square; has a scale.
    Rms,
    /// Subtracts the mean and divides by the standard deviation; has a scale and a bias.
    Layer,
}

/// Where the norms of a layer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "the supported families have their norms before; tests try all three"
    )
)]
pub(crate) enum NormPlacement {
    /// Before attention and feed-forward: `h + f(norm(h))`.
    Before,
    /// After attention and feed-forward: `h + norm(f(h))`.
    After,
    /// Before and after attention and feed-forward: `h + norm(f(norm(h)))`.
    Both,
}

impl NormPlacement {
    pub(crate) fn before(self) -> bool {
        self != Self::After
    }

    pub(crate) fn after(self) -> bool {
        self != Self::Before
    }
}

/// Standard deviations of the initial weights. Biases start at 0, norms at 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct InitSpec {
    pub(crate) deviation: f64,
    /// The standard deviation for the projections whose output is added to the hidden state.
    pub(crate) residual: f64,
}

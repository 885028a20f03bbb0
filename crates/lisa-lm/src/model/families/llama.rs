//! [`LlamaConfig`]: Llama, Mistral, Ministral, Qwen2 and Qwen3.

use serde_json::Value;

use super::family::{Family, Shared, SharedMut};
use super::file_names::FileNames;
use crate::error::Error;
use crate::model::config::keys::Keys;
use crate::model::config::limits::{
    self, at_most, in_range, refuse, require_deviation, require_epsilon,
};
use crate::model::config::{CommonConfig, RopeConfig};
use crate::model::ops::{self, Activation};
use crate::model::spec::{
    AttentionSpec, BlockSpec, DecoderSpec, FeedForwardSpec, InitSpec, LayerSpec, NormKind,
    NormPlacement, NormSpec,
};

mod json;
mod kinds;

use kinds::AttentionBias;
pub use kinds::LlamaKind;

/// The configuration of a model of the Llama family. Start from [`LlamaConfig::new`] and change
/// fields.
///
/// # Example
///
/// ```
/// use burn::tensor::Device;
/// use lisa_lm::ModelConfig;
/// use lisa_lm::model::config::LlamaConfig;
///
/// let mut config = LlamaConfig::new(64, 32, 2, 4);
/// assert_eq!((config.head_dim, config.intermediate_size), (8, 128));
/// config.num_key_value_heads = 2;
/// config.tie_word_embeddings = true;
/// let model = ModelConfig::Llama(config.clone()).init(&Device::default())?;
/// assert_eq!(model.num_parameters(), 32_928);
/// // 4 query heads cannot share 3 key heads.
/// config.num_key_value_heads = 3;
/// let error = ModelConfig::Llama(config).validate().unwrap_err();
/// assert!(error.message().contains("not a multiple of num_key_value_heads, 3"));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// The architecture.
    pub kind: LlamaKind,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden state.
    pub hidden_size: usize,
    /// Width inside the feed-forward network.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// The longest sequence that the model was trained for.
    pub max_position_embeddings: usize,
    /// Added to the mean square in every RMS norm.
    pub rms_norm_eps: f64,
    /// The rotary positions.
    pub rope: RopeConfig,
    /// Biases on all four attention projections (Llama and Qwen3). Qwen2 always has biases on
    /// queries, keys and values.
    pub attention_bias: bool,
    /// Biases in the feed-forward network (Llama).
    pub mlp_bias: bool,
    /// Whether the head and the embedding share one weight.
    pub tie_word_embeddings: bool,
    /// The number of tokens that a position of a sliding-window layer attends to, including itself.
    pub sliding_window: Option<usize>,
    /// For each layer, whether it has the sliding window.
    pub sliding_layers: Vec<bool>,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// Special tokens and dtype.
    pub common: CommonConfig,
}

impl LlamaConfig {
    /// A Llama of these sizes, with an untied head, no biases, a rotary base of 10000, as many key
    /// heads as query heads, and a feed-forward width of `4 * hidden_size`.
    #[must_use]
    pub fn new(vocab_size: usize, hidden_size: usize, layers: usize, heads: usize) -> Self {
        Self {
            kind: LlamaKind::Llama,
            vocab_size,
            hidden_size,
            intermediate_size: 4 * hidden_size,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: heads,
            head_dim: hidden_size / heads.max(1),
            max_position_embeddings: 2048,
            rms_norm_eps: 1e-6,
            rope: RopeConfig::new(10_000.0),
            attention_bias: false,
            mlp_bias: false,
            tie_word_embeddings: false,
            sliding_window: None,
            sliding_layers: vec![false; layers],
            initializer_range: 0.02,
            common: CommonConfig::default(),
        }
    }

    /// Whether the projections of queries, keys and values have biases.
    #[must_use]
    pub fn qkv_bias(&self) -> bool {
        self.kind.row().attention_bias == AttentionBias::Qkv || self.o_bias()
    }

    /// Whether the projection after attention has a bias.
    #[must_use]
    pub fn o_bias(&self) -> bool {
        self.kind.row().attention_bias == AttentionBias::Optional && self.attention_bias
    }

    /// Whether each head of the queries and keys has a norm.
    #[must_use]
    pub fn qk_norm(&self) -> bool {
        self.kind.row().qk_norm
    }
}

const NAMES: FileNames = FileNames {
    renamed: &[],
    prefix: "model.",
    bare: &["embed_tokens.", "layers.", "norm."],
    buffers: &[
        "rotary_emb.inv_freq",
        "rotary_emb.cos_cached",
        "rotary_emb.sin_cached",
        "position_ids",
    ],
    transposed: true,
};

impl Family for LlamaConfig {
    fn model_types() -> Vec<&'static str> {
        kinds::ROWS.iter().map(|row| row.model_type).collect()
    }

    fn read(model_type: &str, keys: Keys) -> Option<Result<Self, Error>> {
        let mut rows = kinds::ROWS.iter();
        let row = rows.find(|row| row.model_type == model_type)?;
        Some(json::read(row, keys))
    }

    fn validate(&self) -> Result<(), Error> {
        let sizes = [
            ("vocab_size", self.vocab_size, limits::VOCABULARY),
            ("hidden_size", self.hidden_size, limits::WIDTH),
            (
                "intermediate_size",
                self.intermediate_size,
                limits::INNER_WIDTH,
            ),
            ("num_hidden_layers", self.num_hidden_layers, limits::LAYERS),
            (
                "num_attention_heads",
                self.num_attention_heads,
                limits::HEADS,
            ),
            (
                "num_key_value_heads",
                self.num_key_value_heads,
                limits::HEADS,
            ),
            ("head_dim", self.head_dim, limits::HEAD_DIM),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                limits::LENGTH,
            ),
        ];
        in_range(&sizes)?;
        require_epsilon("rms_norm_eps", self.rms_norm_eps)?;
        let (heads, kv) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(kv) {
            return Err(refuse(format!(
                "num_attention_heads is {heads}, not a multiple of num_key_value_heads, {kv}"
            )));
        }
        if !self.head_dim.is_multiple_of(2) {
            let head_dim = self.head_dim;
            return Err(refuse(format!(
                "head_dim is {head_dim}, but rotary positions need an even size"
            )));
        }
        if self.sliding_layers.len() != self.num_hidden_layers {
            return Err(refuse(format!(
                "sliding_layers (layer_types) has {} entries for {} layers",
                self.sliding_layers.len(),
                self.num_hidden_layers
            )));
        }
        let slides = self.sliding_layers.contains(&true);
        match self.sliding_window {
            None if slides => Err(refuse(
                "layer_types names sliding_attention, but there is no sliding_window".into(),
            )),
            Some(0) => {
                Err(refuse("sliding_window is 0".into()).with_help("give at least 1, or null"))
            }
            window => {
                at_most("sliding_window", window.unwrap_or(1), limits::LENGTH)?;
                require_deviation(self.initializer_range)?;
                self.rope.validate()
            }
        }
    }

    fn json(&self) -> Value {
        json::written(self)
    }

    fn spec(&self) -> DecoderSpec {
        let norm = NormSpec {
            kind: NormKind::Rms,
            epsilon: self.rms_norm_eps,
        };
        let layers = self.sliding_layers.iter().map(|&slides| LayerSpec {
            slides,
            ..LayerSpec::FULL
        });
        DecoderSpec {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            learned_positions: None,
            rope: Some(self.rope.clone()),
            sliding_window: self.sliding_window,
            layers: layers.collect(),
            block: BlockSpec {
                attention: AttentionSpec {
                    heads: self.num_attention_heads,
                    kv_heads: self.num_key_value_heads,
                    head_dim: self.head_dim,
                    fused_qkv: false,
                    qkv_bias: self.qkv_bias(),
                    output_bias: self.o_bias(),
                    qk_norm: self.qk_norm().then_some(norm),
                    score_scale: ops::usual_scale(self.head_dim),
                },
                feed_forward: FeedForwardSpec {
                    width: self.intermediate_size,
                    gated: true,
                    activation: Activation::Silu,
                    bias: self.mlp_bias,
                },
                norm,
                placement: NormPlacement::Before,
            },
            tied_head: self.tie_word_embeddings,
            init: InitSpec {
                deviation: self.initializer_range,
                residual: self.initializer_range,
            },
        }
    }

    fn file_names(&self) -> &'static FileNames {
        &NAMES
    }

    fn shared(&self) -> Shared<'_> {
        Shared {
            model_type: self.kind.model_type(),
            vocab_size: self.vocab_size,
            max_positions: self.max_position_embeddings,
            num_layers: self.num_hidden_layers,
            is_tied: self.tie_word_embeddings,
            common: &self.common,
        }
    }

    fn shared_mut(&mut self) -> SharedMut<'_> {
        SharedMut {
            vocab_size: &mut self.vocab_size,
            is_tied: &mut self.tie_word_embeddings,
            common: &mut self.common,
        }
    }
}

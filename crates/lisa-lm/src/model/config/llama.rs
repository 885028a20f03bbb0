//! [`LlamaConfig`]: the configuration of Llama, Mistral, Ministral, Qwen2 and Qwen3.

use super::common::CommonConfig;
use super::limits::{self, at_most, in_range, refuse, require_deviation, require_epsilon};
use super::rope::RopeConfig;
use crate::error::Error;

/// An architecture of the Llama family. They differ in biases, norms and sliding windows only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LlamaKind {
    /// Llama 1 to 3.2, TinyLlama, SmolLM: biases if the configuration has them.
    Llama,
    /// Mistral: no biases, optionally a sliding window.
    Mistral,
    /// Ministral: a Mistral in which only some layers have the sliding window.
    Ministral,
    /// Qwen2 and Qwen2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen3: a norm on each head of the queries and keys.
    Qwen3,
}

impl LlamaKind {
    /// The `model_type` of `config.json`.
    #[must_use]
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Ministral => "ministral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

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
        match self.kind {
            LlamaKind::Llama | LlamaKind::Qwen3 => self.attention_bias,
            LlamaKind::Mistral | LlamaKind::Ministral => false,
            LlamaKind::Qwen2 => true,
        }
    }

    /// Whether the projection after attention has a bias.
    #[must_use]
    pub fn o_bias(&self) -> bool {
        matches!(self.kind, LlamaKind::Llama | LlamaKind::Qwen3) && self.attention_bias
    }

    /// Whether each head of the queries and keys has a norm.
    #[must_use]
    pub fn qk_norm(&self) -> bool {
        self.kind == LlamaKind::Qwen3
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
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
}

//! [`ModelConfig`]: the configuration of a model of any family.

use super::common::CommonConfig;
use super::gpt2::Gpt2Config;
use super::llama::LlamaConfig;
use crate::error::Error;

/// The configuration of a model of any supported family.
///
/// # Example
///
/// ```
/// use lisa_lm::ModelConfig;
///
/// let config = ModelConfig::from_json(r#"{"model_type": "llama", "vocab_size": 64,
///     "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
///     "num_attention_heads": 2, "dtype": "float32"}"#)?;
/// assert_eq!((config.num_layers(), config.vocab_size()), (2, 64));
/// assert_eq!((config.model_type(), config.is_tied()), ("llama", false));
/// assert_eq!(ModelConfig::from_json(&config.to_json())?, config);
///
/// let error = ModelConfig::from_json(r#"{"model_type": "bert"}"#).unwrap_err();
/// assert!(error.message().contains("bert"));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub enum ModelConfig {
    /// `llama`, `mistral`, `ministral`, `qwen2`, `qwen3`.
    Llama(LlamaConfig),
    /// `gpt2`.
    Gpt2(Gpt2Config),
}

impl ModelConfig {
    /// Checks that the values are in range and consistent.
    ///
    /// # Errors
    ///
    /// The first invalid value; the message names it.
    pub fn validate(&self) -> Result<(), Error> {
        match self {
            Self::Llama(config) => config.validate(),
            Self::Gpt2(config) => config.validate(),
        }
    }

    /// The `model_type` of `config.json`.
    #[must_use]
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Llama(config) => config.kind.model_type(),
            Self::Gpt2(_) => "gpt2",
        }
    }

    /// The vocabulary size. Every token id must be below it.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Llama(config) => config.vocab_size,
            Self::Gpt2(config) => config.vocab_size,
        }
    }

    /// The same with another vocabulary size.
    #[must_use]
    pub fn with_vocab_size(mut self, vocab_size: usize) -> Self {
        match &mut self {
            Self::Llama(config) => config.vocab_size = vocab_size,
            Self::Gpt2(config) => config.vocab_size = vocab_size,
        }
        self
    }

    /// The longest sequence that the model was trained for. GPT-2 cannot run longer sequences.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        match self {
            Self::Llama(config) => config.max_position_embeddings,
            Self::Gpt2(config) => config.n_positions,
        }
    }

    /// Number of layers.
    #[must_use]
    pub fn num_layers(&self) -> usize {
        match self {
            Self::Llama(config) => config.num_hidden_layers,
            Self::Gpt2(config) => config.n_layer,
        }
    }

    /// Whether the head and the embedding share one weight.
    #[must_use]
    pub fn is_tied(&self) -> bool {
        match self {
            Self::Llama(config) => config.tie_word_embeddings,
            Self::Gpt2(config) => config.tie_word_embeddings,
        }
    }

    /// Gives the head a weight of its own, or that of the embedding.
    pub(crate) fn set_tied(&mut self, tied: bool) {
        match self {
            Self::Llama(config) => config.tie_word_embeddings = tied,
            Self::Gpt2(config) => config.tie_word_embeddings = tied,
        }
    }

    /// Special tokens and dtype.
    #[must_use]
    pub fn common(&self) -> &CommonConfig {
        match self {
            Self::Llama(config) => &config.common,
            Self::Gpt2(config) => &config.common,
        }
    }

    /// Special tokens and dtype, mutable.
    pub fn common_mut(&mut self) -> &mut CommonConfig {
        match self {
            Self::Llama(config) => &mut config.common,
            Self::Gpt2(config) => &mut config.common,
        }
    }
}

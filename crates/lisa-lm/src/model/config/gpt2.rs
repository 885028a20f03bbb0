//! [`Gpt2Config`]: the configuration of GPT-2.

use super::common::CommonConfig;
use super::limits::{self, in_range, refuse, require_deviation, require_epsilon};
use crate::error::Error;

/// The configuration of a GPT-2 model. Start from [`Gpt2Config::new`] and change fields.
///
/// # Example
///
/// ```
/// use burn::tensor::Device;
/// use lisa_lm::ModelConfig;
/// use lisa_lm::model::config::Gpt2Config;
///
/// let mut config = Gpt2Config::new(64, 16, 2, 2);
/// assert_eq!((config.n_inner, config.n_positions), (64, 1024));
/// config.n_positions = 32;
/// let model = ModelConfig::Gpt2(config.clone()).init(&Device::default())?;
/// assert_eq!(model.config().max_positions(), 32);
/// assert_eq!(model.num_parameters(), 8128);
///
/// config.n_head = 3;
/// let error = ModelConfig::Gpt2(config).validate().unwrap_err();
/// assert!(error.message().contains("not a multiple of n_head, 3"));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Config {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Number of position embeddings: no sequence can be longer.
    pub n_positions: usize,
    /// Width of the hidden state.
    pub n_embd: usize,
    /// Number of layers.
    pub n_layer: usize,
    /// Number of attention heads; divides `n_embd`.
    pub n_head: usize,
    /// Width inside the feed-forward network.
    pub n_inner: usize,
    /// Whether the activation is the tanh approximation of GELU (`gelu_new`) or the exact one
    /// (`gelu`).
    pub gelu_tanh: bool,
    /// Whether layer `i` divides the scores of attention by `i + 1`.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Added to the variance in every layer norm.
    pub layer_norm_epsilon: f64,
    /// Whether the head and the embedding share one weight.
    pub tie_word_embeddings: bool,
    /// Standard deviation of the initial weights.
    pub initializer_range: f64,
    /// Special tokens and dtype.
    pub common: CommonConfig,
}

impl Gpt2Config {
    /// A GPT-2 of these sizes, with a tied head, the tanh GELU and a feed-forward width of `4 *
    /// width`.
    #[must_use]
    pub fn new(vocab_size: usize, width: usize, layers: usize, heads: usize) -> Self {
        Self {
            vocab_size,
            n_positions: 1024,
            n_embd: width,
            n_layer: layers,
            n_head: heads,
            n_inner: 4 * width,
            gelu_tanh: true,
            scale_attn_by_inverse_layer_idx: false,
            layer_norm_epsilon: 1e-5,
            tie_word_embeddings: true,
            initializer_range: 0.02,
            common: CommonConfig::default(),
        }
    }

    pub(super) fn validate(&self) -> Result<(), Error> {
        let sizes = [
            ("vocab_size", self.vocab_size, limits::VOCABULARY),
            ("n_positions", self.n_positions, limits::POSITIONS),
            ("n_embd", self.n_embd, limits::WIDTH),
            ("n_layer", self.n_layer, limits::LAYERS),
            ("n_head", self.n_head, limits::HEADS),
            ("n_inner", self.n_inner, limits::INNER_WIDTH),
        ];
        in_range(&sizes)?;
        require_epsilon("layer_norm_epsilon", self.layer_norm_epsilon)?;
        require_deviation(self.initializer_range)?;
        if self.n_embd.is_multiple_of(self.n_head) {
            return Ok(());
        }
        let (n_embd, n_head) = (self.n_embd, self.n_head);
        Err(refuse(format!(
            "n_embd is {n_embd}, not a multiple of n_head, {n_head}"
        )))
    }
}

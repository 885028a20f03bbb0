//! [`ModelConfig`]: what a `config.json` says about a model, with types.
//!
//! Reads the files of transformers 4 and 5 (`config/read.rs`) and writes those of 5
//! (`config/write.rs`). What a model cannot do is refused here, by name, so that a model that was
//! built is one that computes what transformers would. Dropout is the exception: it is read by
//! nobody, and a checkpoint that asks for it trains without. Tests: `config/tests.rs`.

use crate::error::{Error, ErrorKind};
use burn::tensor::{Device, FloatDType};

use crate::model::causal_lm::CausalLm;
use crate::model::gpt2::Gpt2ForCausalLm;
use crate::model::llama::LlamaForCausalLm;
use crate::model::rope::RopeConfig;

mod read;
mod write;

pub(crate) use write::with_dtype;

/// Which architecture of the Llama family a model is: they differ in biases and norms only.
///
/// # Example
///
/// ```
/// use lisa_lm::{LlamaConfig, LlamaKind};
///
/// let of = |kind| LlamaConfig { kind, ..LlamaConfig::new(64, 16, 2, 2) };
/// assert_eq!(LlamaKind::Qwen2.model_type(), "qwen2");
/// let qwen2 = of(LlamaKind::Qwen2);
/// assert!(qwen2.qkv_bias() && !qwen2.o_bias() && !qwen2.qk_norm());
/// let qwen3 = of(LlamaKind::Qwen3);
/// assert!(!qwen3.qkv_bias() && qwen3.qk_norm());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LlamaKind {
    /// Llama 1 to 3.2, TinyLlama, SmolLM: biases where the configuration asks for them.
    Llama,
    /// Mistral: no biases, an optional sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on q, k and v.
    Qwen2,
    /// Qwen3: a norm on each head of q and k.
    Qwen3,
}

impl LlamaKind {
    /// The `model_type` of `config.json`.
    #[must_use]
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
        }
    }
}

/// A model of the Llama family. Start a new one from [`LlamaConfig::new`] and change its fields.
///
/// # Example
///
/// ```
/// use burn::tensor::Device;
/// use lisa_lm::{LlamaConfig, ModelConfig};
///
/// let mut config = LlamaConfig::new(64, 32, 2, 4);
/// assert_eq!((config.head_dim, config.intermediate_size), (8, 128));
/// config.num_key_value_heads = 2;
/// config.tie_word_embeddings = true;
/// let model = ModelConfig::Llama(config.clone()).init(&Device::default())?;
/// assert_eq!(model.num_parameters(), 32_928);
///
/// config.num_key_value_heads = 3;
/// let error = ModelConfig::Llama(config).validate().unwrap_err();
/// assert!(error.message().contains("num_key_value_heads, 3, does not divide"));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LlamaConfig {
    /// Which architecture.
    pub kind: LlamaKind,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Heads of q.
    pub num_attention_heads: usize,
    /// Heads of k and v; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// The longest sequence the model was made for.
    pub max_position_embeddings: usize,
    /// Added to the mean square in every norm.
    pub rms_norm_eps: f64,
    /// How positions turn into angles.
    pub rope: RopeConfig,
    /// Biases on q, k, v and o (Llama and Qwen3; Qwen2 always has those on q, k and v).
    pub attention_bias: bool,
    /// Biases in the MLP (Llama).
    pub mlp_bias: bool,
    /// Whether the head uses the weight of the embedding.
    pub tie_word_embeddings: bool,
    /// How many tokens a sliding layer sees, itself included.
    pub sliding_window: Option<usize>,
    /// For each layer, whether it has the sliding window.
    pub sliding_layers: Vec<bool>,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// What the tokenizer's special tokens are, and the dtype.
    pub common: CommonConfig,
}

/// A GPT-2 model. Start a new one from [`Gpt2Config::new`] and change its fields.
///
/// # Example
///
/// ```
/// use burn::tensor::Device;
/// use lisa_lm::{Gpt2Config, ModelConfig};
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
/// assert!(error.message().contains("n_head, 3, does not divide"));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Gpt2Config {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Positions that have an embedding: no sequence can be longer.
    pub n_positions: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Layers.
    pub n_layer: usize,
    /// Heads; divides `n_embd`.
    pub n_head: usize,
    /// Width inside the MLP.
    pub n_inner: usize,
    /// Whether the GELU is the one with tanh (`gelu_new`) or the exact one (`gelu`).
    pub gelu_tanh: bool,
    /// Added to the variance in every norm.
    pub layer_norm_epsilon: f64,
    /// Whether the head uses the weight of the embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of new weights.
    pub initializer_range: f64,
    /// What the tokenizer's special tokens are, and the dtype.
    pub common: CommonConfig,
}

/// What every `config.json` has.
///
/// # Example
///
/// ```
/// use burn::tensor::FloatDType;
/// use lisa_lm::ModelConfig;
///
/// let mut config = ModelConfig::from_json(r#"{"model_type": "gpt2", "vocab_size": 64,
///     "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32,
///     "bos_token_id": 1, "eos_token_id": [2, 3], "dtype": "bfloat16"}"#)?;
/// let common = config.common();
/// assert_eq!((common.bos_token_id, common.pad_token_id), (Some(1), None));
/// assert_eq!(common.eos_token_ids, [2, 3]);
/// assert_eq!(common.dtype, Some(FloatDType::BF16));
/// config.common_mut().pad_token_id = Some(0);
/// assert!(config.to_json().contains("\"pad_token_id\": 0"));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommonConfig {
    /// The token that starts a text.
    pub bos_token_id: Option<u32>,
    /// The tokens that end one.
    pub eos_token_ids: Vec<u32>,
    /// The token that fills rows up.
    pub pad_token_id: Option<u32>,
    /// The dtype that the checkpoint says it has.
    pub dtype: Option<FloatDType>,
}

/// What a `config.json` describes.
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
    /// `llama`, `mistral`, `qwen2`, `qwen3`.
    Llama(LlamaConfig),
    /// `gpt2`.
    Gpt2(Gpt2Config),
}

impl LlamaConfig {
    /// A small Llama of these sizes: untied, no biases, angles from 10000, heads of
    /// `hidden_size / heads`, as many for k and v, an MLP of 4 times the width.
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

    /// Whether q, k and v have biases.
    #[must_use]
    pub fn qkv_bias(&self) -> bool {
        match self.kind {
            LlamaKind::Llama | LlamaKind::Qwen3 => self.attention_bias,
            LlamaKind::Mistral => false,
            LlamaKind::Qwen2 => true,
        }
    }

    /// Whether the projection behind attention has a bias.
    #[must_use]
    pub fn o_bias(&self) -> bool {
        matches!(self.kind, LlamaKind::Llama | LlamaKind::Qwen3) && self.attention_bias
    }

    /// Whether q and k are normed, head by head.
    #[must_use]
    pub fn qk_norm(&self) -> bool {
        self.kind == LlamaKind::Qwen3
    }

    fn validate(&self) -> Result<(), Error> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ];
        in_range(&sizes)?;
        require_epsilon("rms_norm_eps", self.rms_norm_eps)?;
        let (heads, kv) = (self.num_attention_heads, self.num_key_value_heads);
        if !heads.is_multiple_of(kv) {
            return Err(refuse(format!(
                "num_attention_heads is {heads}, which num_key_value_heads, {kv}, does not divide"
            )));
        }
        if !self.head_dim.is_multiple_of(2) {
            let head_dim = self.head_dim;
            return Err(refuse(format!(
                "head_dim is {head_dim}, but rotary positions need an even one"
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
                at_most("sliding_window", window.unwrap_or(1))?;
                require_deviation(self.initializer_range)?;
                self.rope.validate()
            }
        }
    }
}

impl Gpt2Config {
    /// A small GPT-2 of these sizes: tied, an MLP of 4 times the width, tanh GELU.
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
            layer_norm_epsilon: 1e-5,
            tie_word_embeddings: true,
            initializer_range: 0.02,
            common: CommonConfig::default(),
        }
    }

    fn validate(&self) -> Result<(), Error> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_inner", self.n_inner),
        ];
        in_range(&sizes)?;
        require_epsilon("layer_norm_epsilon", self.layer_norm_epsilon)?;
        require_deviation(self.initializer_range)?;
        if self.n_embd.is_multiple_of(self.n_head) {
            return Ok(());
        }
        let (n_embd, n_head) = (self.n_embd, self.n_head);
        Err(refuse(format!(
            "n_embd is {n_embd}, which n_head, {n_head}, does not divide"
        )))
    }
}

impl ModelConfig {
    /// Reads the text of a `config.json` of transformers 4 or 5.
    ///
    /// # Errors
    ///
    /// Text that is not JSON; a missing or mistyped key; a `model_type` or an option that is not
    /// supported; a size that no model has (more than 4096 layers or heads, 2^18 of width, 2^20 inside
    /// the MLP, 2^24 tokens): each by name, with what is. Costs some times the text's size in memory,
    /// whatever sizes it asks for.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let config = read::model(text)?;
        config.validate()?;
        Ok(config)
    }

    /// The text of a `config.json` of transformers 5 that describes this model.
    #[must_use]
    pub fn to_json(&self) -> String {
        write::model(self)
    }

    /// Checks that the sizes fit together.
    ///
    /// # Errors
    ///
    /// The first thing that does not fit, with what was found.
    pub fn validate(&self) -> Result<(), Error> {
        match self {
            Self::Llama(config) => config.validate(),
            Self::Gpt2(config) => config.validate(),
        }
    }

    /// A new model with random weights, in the device's default dtype. Seed the device first for a
    /// reproducible one.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate).
    pub fn init(&self, device: &Device) -> Result<CausalLm, Error> {
        use burn::module::Module;
        self.validate()?;
        Ok(self.skeleton(device).materialize())
    }

    /// The model with every parameter still to be filled.
    pub(crate) fn skeleton(&self, device: &Device) -> CausalLm {
        match self {
            Self::Llama(config) => CausalLm::Llama(LlamaForCausalLm::new(config, device)),
            Self::Gpt2(config) => CausalLm::Gpt2(Gpt2ForCausalLm::new(config, device)),
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

    /// Tokens in the vocabulary; every id must be below.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Llama(config) => config.vocab_size,
            Self::Gpt2(config) => config.vocab_size,
        }
    }

    /// The longest sequence the model was made for; a hard limit for GPT-2.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        match self {
            Self::Llama(config) => config.max_position_embeddings,
            Self::Gpt2(config) => config.n_positions,
        }
    }

    /// Layers.
    #[must_use]
    pub fn num_layers(&self) -> usize {
        match self {
            Self::Llama(config) => config.num_hidden_layers,
            Self::Gpt2(config) => config.n_layer,
        }
    }

    /// Whether the head uses the weight of the embedding.
    #[must_use]
    pub fn is_tied(&self) -> bool {
        match self {
            Self::Llama(config) => config.tie_word_embeddings,
            Self::Gpt2(config) => config.tie_word_embeddings,
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

    /// The same, to change.
    pub fn common_mut(&mut self) -> &mut CommonConfig {
        match self {
            Self::Llama(config) => &mut config.common,
            Self::Gpt2(config) => &mut config.common,
        }
    }
}

/// The largest size of each kind; ten times and more what there is. All sizes below, their products fit
/// into 64 bits, and a configuration alone cannot make a large list.
const LARGEST: [(&str, usize); 14] = [
    ("num_hidden_layers", 1 << 12),
    ("n_layer", 1 << 12),
    ("num_attention_heads", 1 << 12),
    ("num_key_value_heads", 1 << 12),
    ("n_head", 1 << 12),
    ("head_dim", 1 << 14),
    ("hidden_size", 1 << 18),
    ("n_embd", 1 << 18),
    ("intermediate_size", 1 << 20),
    ("n_inner", 1 << 20),
    ("vocab_size", 1 << 24),
    ("n_positions", 1 << 24),
    ("max_position_embeddings", 1 << 40),
    ("sliding_window", 1 << 40),
];

fn in_range(sizes: &[(&str, usize)]) -> Result<(), Error> {
    for &(name, size) in sizes {
        if size == 0 {
            return Err(refuse(format!("{name} is 0")).with_help("give at least 1"));
        }
        at_most(name, size)?;
    }
    Ok(())
}

/// Refuses a size that no model has.
fn at_most(name: &str, size: usize) -> Result<(), Error> {
    match LARGEST.iter().find(|(other, _)| *other == name) {
        Some(&(_, largest)) if size > largest => Err(refuse(format!(
            "{name} is {size}, but at most {largest} is supported"
        ))),
        _ => Ok(()),
    }
}

fn require_epsilon(name: &str, value: f64) -> Result<(), Error> {
    if value > 0.0 && value.is_finite() {
        return Ok(());
    }
    Err(refuse(format!("{name} is {value}")).with_help("give a positive number"))
}

fn require_deviation(value: f64) -> Result<(), Error> {
    if (0.0..=1e3).contains(&value) {
        return Ok(());
    }
    Err(refuse(format!("initializer_range is {value}")).with_help("give a number from 0 to 1000"))
}

/// A configuration that no model can be made of.
pub(crate) fn refuse(message: String) -> Error {
    Error::new(
        ErrorKind::Model,
        format!("the model's configuration: {message}"),
    )
}

#[cfg(test)]
mod tests;

//! [`Gpt2Config`]: GPT-2.

use serde_json::{Value, json};

use super::family::{Family, Shared, SharedMut};
use super::file_names::FileNames;
use crate::error::Error;
use crate::files::shown;
use crate::model::config::CommonConfig;
use crate::model::config::keys::Keys;
use crate::model::config::limits::{
    self, in_range, refuse, require_deviation, require_epsilon, unsupported,
};
use crate::model::ops::{self, Activation};
use crate::model::spec::{
    AttentionSpec, BlockSpec, DecoderSpec, FeedForwardSpec, InitSpec, LayerSpec, NormKind,
    NormPlacement, NormSpec,
};

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
}

const MODEL_TYPE: &str = "gpt2";

const NAMES: FileNames = FileNames {
    renamed: &[
        ("transformer.wte.", "model.embed_tokens."),
        ("transformer.wpe.", "model.embed_positions."),
        ("transformer.h.", "model.layers."),
        ("transformer.ln_f.", "model.norm."),
        (".ln_1.", ".input_layernorm."),
        (".attn.c_attn.", ".self_attn.qkv_proj."),
        (".attn.c_proj.", ".self_attn.o_proj."),
        (".ln_2.", ".post_attention_layernorm."),
        (".mlp.c_fc.", ".mlp.up_proj."),
        (".mlp.c_proj.", ".mlp.down_proj."),
    ],
    prefix: "transformer.",
    bare: &["wte.", "wpe.", "h.", "ln_f."],
    buffers: &[".attn.bias", ".attn.masked_bias"],
    transposed: false,
};

impl Family for Gpt2Config {
    fn model_types() -> Vec<&'static str> {
        vec![MODEL_TYPE]
    }

    fn read(model_type: &str, keys: Keys) -> Option<Result<Self, Error>> {
        (model_type == MODEL_TYPE).then(|| read(keys))
    }

    fn validate(&self) -> Result<(), Error> {
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

    fn json(&self) -> Value {
        json!({
            "architectures": ["GPT2LMHeadModel"],
            "model_type": MODEL_TYPE,
            "vocab_size": self.vocab_size,
            "n_positions": self.n_positions,
            "n_embd": self.n_embd,
            "n_layer": self.n_layer,
            "n_head": self.n_head,
            "n_inner": self.n_inner,
            "activation_function": if self.gelu_tanh { "gelu_new" } else { "gelu" },
            "scale_attn_by_inverse_layer_idx": self.scale_attn_by_inverse_layer_idx,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "tie_word_embeddings": self.tie_word_embeddings,
            "initializer_range": self.initializer_range,
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
        })
    }

    fn spec(&self) -> DecoderSpec {
        let head_dim = self.n_embd / self.n_head;
        let by_layer = self.scale_attn_by_inverse_layer_idx;
        let layers = (1..=self.n_layer).map(|number| LayerSpec {
            score_divisor: if by_layer { number } else { 1 },
            ..LayerSpec::FULL
        });
        DecoderSpec {
            vocab_size: self.vocab_size,
            hidden_size: self.n_embd,
            learned_positions: Some(self.n_positions),
            rope: None,
            sliding_window: None,
            layers: layers.collect(),
            block: BlockSpec {
                attention: AttentionSpec {
                    heads: self.n_head,
                    kv_heads: self.n_head,
                    head_dim,
                    fused_qkv: true,
                    qkv_bias: true,
                    output_bias: true,
                    qk_norm: None,
                    score_scale: ops::usual_scale(head_dim),
                },
                feed_forward: FeedForwardSpec {
                    width: self.n_inner,
                    gated: false,
                    activation: if self.gelu_tanh {
                        Activation::GeluTanh
                    } else {
                        Activation::Gelu
                    },
                    bias: true,
                },
                norm: NormSpec {
                    kind: NormKind::Layer,
                    epsilon: self.layer_norm_epsilon,
                },
                placement: NormPlacement::Before,
            },
            tied_head: self.tie_word_embeddings,
            // The residual projections start smaller, by the root of the number of additions to the hidden state.
            init: InitSpec {
                deviation: self.initializer_range,
                residual: self.initializer_range / (2.0 * self.n_layer as f64).sqrt(),
            },
        }
    }

    fn file_names(&self) -> &'static FileNames {
        &NAMES
    }

    fn shared(&self) -> Shared<'_> {
        Shared {
            model_type: MODEL_TYPE,
            vocab_size: self.vocab_size,
            max_positions: self.n_positions,
            num_layers: self.n_layer,
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

fn read(keys: Keys) -> Result<Gpt2Config, Error> {
    for (key, supported) in [("add_cross_attention", false), ("scale_attn_weights", true)] {
        if keys.flag(key)?.is_some_and(|found| found != supported) {
            let message = format!("{key} is supported only as {supported}");
            return Err(unsupported(message));
        }
    }
    let gelu_tanh = match keys.string("activation_function")?.unwrap_or("gelu_new") {
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => true,
        "gelu" => false,
        other => {
            return Err(unsupported(format!(
                "activation_function {:?} is not supported, only \"gelu_new\", \"gelu_fast\", \
                 \"gelu_pytorch_tanh\" and \"gelu\" are",
                shown(&other)
            )));
        }
    };
    let n_embd = keys.require("n_embd")?;
    Ok(Gpt2Config {
        vocab_size: keys.require("vocab_size")?,
        n_positions: keys.size("n_positions")?.unwrap_or(1024),
        n_embd,
        n_layer: keys.require("n_layer")?,
        n_head: keys.require("n_head")?,
        n_inner: keys.size("n_inner")?.unwrap_or(n_embd.saturating_mul(4)),
        gelu_tanh,
        scale_attn_by_inverse_layer_idx: keys
            .flag("scale_attn_by_inverse_layer_idx")?
            .unwrap_or(false),
        layer_norm_epsilon: keys.number("layer_norm_epsilon")?.unwrap_or(1e-5),
        tie_word_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(true),
        initializer_range: keys.number("initializer_range")?.unwrap_or(0.02),
        common: CommonConfig::read(keys)?,
    })
}

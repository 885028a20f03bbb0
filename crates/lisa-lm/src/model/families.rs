//! The supported families: for each, the description of its decoder and the names in its files.

use crate::model::config::{Gpt2Config, LlamaConfig, ModelConfig};
use crate::model::ops::Activation;
use crate::model::spec::{
    AttentionSpec, BlockSpec, DecoderSpec, FeedForwardSpec, InitSpec, NormKind, NormPlacement,
    NormSpec,
};

/// How the files of a family differ from the parameters of a [`CausalLm`](crate::CausalLm).
#[derive(Clone, Copy, Debug)]
pub(crate) struct FileNames {
    /// Parts of names in a file, each with the part of a parameter path that replaces it, in this order.
    pub(crate) renamed: &'static [(&'static str, &'static str)],
    /// The prefix of the decoder's names in a file.
    pub(crate) prefix: &'static str,
    /// The beginnings of the decoder's names without the prefix. The files of a model without its
    /// head leave the prefix out.
    pub(crate) bare: &'static [&'static str],
    /// Suffixes of the names of stored buffers. These buffers are computed here and not read.
    pub(crate) buffers: &'static [&'static str],
    /// Whether projections are stored as `[out, in]`; here they are `[in, out]`.
    pub(crate) transposed: bool,
}

impl FileNames {
    /// The name in a file of the parameter at this path. Undoes the replacements of `renamed` in reverse, so
    /// that one may give what an earlier one replaces.
    pub(crate) fn stored(&self, path: &str) -> String {
        let renamed = self.renamed.iter().rev();
        renamed.fold(path.to_owned(), |path, (theirs, ours)| {
            path.replacen(ours, theirs, 1)
        })
    }

    /// The name in transformers of the linear module at this path.
    pub(crate) fn module(&self, path: &str) -> String {
        // Whole names are renamed, with the dot that follows them.
        let weight = self.stored(&format!("{path}.weight"));
        weight.strip_suffix(".weight").unwrap_or(&weight).to_owned()
    }
}

const LLAMA: FileNames = FileNames {
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

const GPT2: FileNames = FileNames {
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

impl ModelConfig {
    /// The names of the parameters in the files of this model's family.
    pub(crate) fn file_names(&self) -> &'static FileNames {
        match self {
            Self::Llama(_) => &LLAMA,
            Self::Gpt2(_) => &GPT2,
        }
    }

    /// The description of this model's decoder.
    pub(crate) fn spec(&self) -> DecoderSpec {
        match self {
            Self::Llama(config) => llama(config),
            Self::Gpt2(config) => gpt2(config),
        }
    }
}

fn llama(config: &LlamaConfig) -> DecoderSpec {
    let norm = NormSpec {
        kind: NormKind::Rms,
        epsilon: config.rms_norm_eps,
    };
    DecoderSpec {
        vocab_size: config.vocab_size,
        hidden_size: config.hidden_size,
        learned_positions: None,
        rope: Some(config.rope),
        sliding_window: config.sliding_window,
        sliding_layers: config.sliding_layers.clone(),
        block: BlockSpec {
            attention: AttentionSpec {
                heads: config.num_attention_heads,
                kv_heads: config.num_key_value_heads,
                head_dim: config.head_dim,
                fused_qkv: false,
                qkv_bias: config.qkv_bias(),
                output_bias: config.o_bias(),
                qk_norm: config.qk_norm().then_some(norm),
                score_divisor: 1,
            },
            feed_forward: FeedForwardSpec {
                width: config.intermediate_size,
                gated: true,
                activation: Activation::Silu,
                bias: config.mlp_bias,
            },
            norm,
            placement: NormPlacement::Before,
        },
        scores_by_layer: false,
        tied_head: config.tie_word_embeddings,
        init: InitSpec {
            deviation: config.initializer_range,
            residual: config.initializer_range,
        },
    }
}

fn gpt2(config: &Gpt2Config) -> DecoderSpec {
    DecoderSpec {
        vocab_size: config.vocab_size,
        hidden_size: config.n_embd,
        learned_positions: Some(config.n_positions),
        rope: None,
        sliding_window: None,
        sliding_layers: vec![false; config.n_layer],
        block: BlockSpec {
            attention: AttentionSpec {
                heads: config.n_head,
                kv_heads: config.n_head,
                head_dim: config.n_embd / config.n_head,
                fused_qkv: true,
                qkv_bias: true,
                output_bias: true,
                qk_norm: None,
                score_divisor: 1,
            },
            feed_forward: FeedForwardSpec {
                width: config.n_inner,
                gated: false,
                activation: if config.gelu_tanh {
                    Activation::GeluTanh
                } else {
                    Activation::Gelu
                },
                bias: true,
            },
            norm: NormSpec {
                kind: NormKind::Layer,
                epsilon: config.layer_norm_epsilon,
            },
            placement: NormPlacement::Before,
        },
        scores_by_layer: config.scale_attn_by_inverse_layer_idx,
        tied_head: config.tie_word_embeddings,
        // The residual projections start smaller, by the root of the number of additions to the hidden state.
        init: InitSpec {
            deviation: config.initializer_range,
            residual: config.initializer_range / (2.0 * config.n_layer as f64).sqrt(),
        },
    }
}

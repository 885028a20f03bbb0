//! [`LlamaKind`]: the architectures of the Llama family, and the table of how they differ.

/// An architecture of the Llama family. They differ in biases, norms and sliding windows only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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

/// What differs between the architectures. The defaults are those of transformers.
pub(super) struct Row {
    pub(super) kind: LlamaKind,
    /// The `model_type` of `config.json`.
    pub(super) model_type: &'static str,
    /// The class in transformers.
    pub(super) architecture: &'static str,
    /// `num_key_value_heads` if it is absent; `None`: as many as query heads.
    pub(super) kv_heads: Option<usize>,
    /// `head_dim` if it is absent; `None`: the width of the hidden state divided by the query heads.
    pub(super) head_dim: Option<usize>,
    /// `max_position_embeddings` if it is absent.
    pub(super) positions: usize,
    /// `None` if no layer has a sliding window.
    pub(super) window: Option<WindowKeys>,
    pub(super) attention_bias: AttentionBias,
    /// Whether `mlp_bias` is a key.
    pub(super) mlp_bias: bool,
    /// Whether each head of the queries and keys has a norm.
    pub(super) qk_norm: bool,
}

/// The keys of a sliding window, besides `sliding_window`.
pub(super) struct WindowKeys {
    /// Whether `use_sliding_window` enables the window, from layer `max_window_layers` on.
    pub(super) is_optional: bool,
    /// Whether a `config.json` always has `layer_types`. transformers reads a Mistral with this key as a
    /// Ministral, so a Mistral has it only if its layers differ.
    pub(super) layer_types: bool,
}

/// Which attention projections have biases.
#[derive(PartialEq, Eq)]
pub(super) enum AttentionBias {
    None,
    /// Queries, keys and values.
    Qkv,
    /// All four or none, as `attention_bias` says.
    Optional,
}

const LLAMA: Row = Row {
    kind: LlamaKind::Llama,
    model_type: "llama",
    architecture: "LlamaForCausalLM",
    kv_heads: None,
    head_dim: None,
    positions: 2048,
    window: None,
    attention_bias: AttentionBias::Optional,
    mlp_bias: true,
    qk_norm: false,
};

const MISTRAL: Row = Row {
    kind: LlamaKind::Mistral,
    model_type: "mistral",
    architecture: "MistralForCausalLM",
    kv_heads: Some(8),
    positions: 131_072,
    window: Some(WindowKeys {
        is_optional: false,
        layer_types: false,
    }),
    attention_bias: AttentionBias::None,
    mlp_bias: false,
    ..LLAMA
};

const QWEN2: Row = Row {
    kind: LlamaKind::Qwen2,
    model_type: "qwen2",
    architecture: "Qwen2ForCausalLM",
    kv_heads: Some(32),
    positions: 32_768,
    window: Some(WindowKeys {
        is_optional: true,
        layer_types: true,
    }),
    attention_bias: AttentionBias::Qkv,
    mlp_bias: false,
    ..LLAMA
};

/// The table, in the order of [`LlamaKind`].
pub(super) static ROWS: [Row; 5] = [
    LLAMA,
    MISTRAL,
    Row {
        kind: LlamaKind::Ministral,
        model_type: "ministral",
        architecture: "MinistralForCausalLM",
        window: Some(WindowKeys {
            is_optional: false,
            layer_types: true,
        }),
        ..MISTRAL
    },
    QWEN2,
    Row {
        kind: LlamaKind::Qwen3,
        model_type: "qwen3",
        architecture: "Qwen3ForCausalLM",
        head_dim: Some(128),
        attention_bias: AttentionBias::Optional,
        qk_norm: true,
        ..QWEN2
    },
];

impl LlamaKind {
    /// The `model_type` of `config.json`.
    #[must_use]
    pub fn model_type(self) -> &'static str {
        self.row().model_type
    }

    pub(super) fn row(self) -> &'static Row {
        &ROWS[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_finds_its_row() {
        for row in &ROWS {
            assert_eq!(row.kind.row().model_type, row.model_type);
        }
        assert_eq!(LlamaKind::Qwen3.model_type(), "qwen3");
    }
}

//! Writes a `config.json` of transformers 5, for models that were not loaded from a folder.

use burn::tensor::FloatDType;
use serde_json::{Map, Value, json};

use super::common::CommonConfig;
use super::family::ModelConfig;
use super::gpt2::Gpt2Config;
use super::llama::{LlamaConfig, LlamaKind};
use super::rope::{RopeConfig, RopeScaling};

impl ModelConfig {
    /// The text of a `config.json` of transformers 5 for this model.
    #[must_use]
    pub fn to_json(&self) -> String {
        let (mut value, common) = match self {
            Self::Llama(config) => (llama(config), &config.common),
            Self::Gpt2(config) => (gpt2(config), &config.common),
        };
        if let Value::Object(map) = &mut value {
            write_common(map, common);
        }
        format!("{value:#}\n")
    }
}

/// A `config.json` that describes `config`: this text, with the keys changed that describe another
/// model, and with all other keys. The text is unchanged if it describes the model and its dtype.
///
/// `None` if the text is not of the same family.
pub(crate) fn rewritten(text: &str, config: &ModelConfig) -> Option<String> {
    let Ok(Value::Object(mut map)) = serde_json::from_str(text) else {
        return None;
    };
    let mut stored = ModelConfig::from_json(text).ok()?;
    if stored.model_type() != config.model_type() {
        return None;
    }
    let dtype = config.common().dtype.unwrap_or(FloatDType::F32);
    let key = if map.contains_key("dtype") || !map.contains_key("torch_dtype") {
        "dtype"
    } else {
        "torch_dtype"
    };
    let mut changed = map.remove("transformers_weights").is_some();
    if stored.common().dtype != Some(dtype) {
        map.insert(key.to_owned(), dtype_name(dtype).into());
        changed = true;
    }
    stored.common_mut().dtype = Some(dtype);
    let object = |config: &ModelConfig| match serde_json::from_str(&config.to_json()) {
        Ok(Value::Object(map)) => Some(map),
        _ => None,
    };
    let (old, new) = (object(&stored)?, object(config)?);
    for key in old.keys() {
        if !new.contains_key(key) {
            changed |= map.remove(key).is_some();
        }
    }
    for (key, value) in new {
        if key != "dtype" && old.get(&key) != Some(&value) {
            if key == "rope_parameters" {
                // transformers would prefer these.
                map.remove("rope_scaling");
                map.remove("original_max_position_embeddings");
            }
            map.insert(key, value);
            changed = true;
        }
    }
    Some(if changed {
        format!("{:#}\n", Value::Object(map))
    } else {
        text.to_owned()
    })
}

fn dtype_name(dtype: FloatDType) -> &'static str {
    match dtype {
        FloatDType::F16 => "float16",
        FloatDType::BF16 => "bfloat16",
        FloatDType::F64 => "float64",
        _ => "float32",
    }
}

fn llama(config: &LlamaConfig) -> Value {
    let architecture = match config.kind {
        LlamaKind::Llama => "LlamaForCausalLM",
        LlamaKind::Mistral => "MistralForCausalLM",
        LlamaKind::Ministral => "MinistralForCausalLM",
        LlamaKind::Qwen2 => "Qwen2ForCausalLM",
        LlamaKind::Qwen3 => "Qwen3ForCausalLM",
    };
    let mut value = json!({
        "architectures": [architecture],
        "model_type": config.kind.model_type(),
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": rope(&config.rope),
        "tie_word_embeddings": config.tie_word_embeddings,
        "initializer_range": config.initializer_range,
        "attention_dropout": 0.0,
    });
    let extra = match config.kind {
        LlamaKind::Llama => json!({
            "attention_bias": config.attention_bias,
            "mlp_bias": config.mlp_bias,
        }),
        LlamaKind::Mistral | LlamaKind::Ministral => {
            let mut extra = json!({"sliding_window": config.sliding_window});
            let window = config.sliding_window.is_some();
            // transformers reads a Mistral with this key as a Ministral, so it has it only if needed.
            if config.kind == LlamaKind::Ministral || config.sliding_layers.contains(&!window) {
                extra["layer_types"] = layer_types(config).into();
            }
            extra
        }
        LlamaKind::Qwen2 | LlamaKind::Qwen3 => {
            let mut extra = json!({
                "use_sliding_window": config.sliding_window.is_some(),
                "sliding_window": config.sliding_window,
                "layer_types": layer_types(config),
            });
            if config.kind == LlamaKind::Qwen3 {
                extra["attention_bias"] = config.attention_bias.into();
            }
            extra
        }
    };
    if let (Value::Object(value), Value::Object(extra)) = (&mut value, extra) {
        value.extend(extra);
    }
    value
}

fn layer_types(config: &LlamaConfig) -> Vec<&'static str> {
    let name = |slides: &bool| {
        if *slides {
            "sliding_attention"
        } else {
            "full_attention"
        }
    };
    config.sliding_layers.iter().map(name).collect()
}

fn rope(config: &RopeConfig) -> Value {
    match config.scaling {
        RopeScaling::Default => json!({"rope_type": "default", "rope_theta": config.theta}),
        RopeScaling::Linear { factor } => {
            json!({"rope_type": "linear", "rope_theta": config.theta, "factor": factor})
        }
        RopeScaling::Dynamic { factor } => {
            json!({"rope_type": "dynamic", "rope_theta": config.theta, "factor": factor})
        }
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_positions,
        } => json!({
            "rope_type": "llama3",
            "rope_theta": config.theta,
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_positions,
        }),
        RopeScaling::Yarn {
            factor,
            original_max_positions,
            beta_fast,
            beta_slow,
            truncate,
            attention_factor,
        } => json!({
            "rope_type": "yarn",
            "rope_theta": config.theta,
            "factor": factor,
            "original_max_position_embeddings": original_max_positions,
            "beta_fast": beta_fast,
            "beta_slow": beta_slow,
            "truncate": truncate,
            "attention_factor": attention_factor,
        }),
    }
}

fn gpt2(config: &Gpt2Config) -> Value {
    json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.n_positions,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": config.n_inner,
        "activation_function": if config.gelu_tanh { "gelu_new" } else { "gelu" },
        "scale_attn_by_inverse_layer_idx": config.scale_attn_by_inverse_layer_idx,
        "layer_norm_epsilon": config.layer_norm_epsilon,
        "tie_word_embeddings": config.tie_word_embeddings,
        "initializer_range": config.initializer_range,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
    })
}

fn write_common(map: &mut Map<String, Value>, common: &CommonConfig) {
    let eos = match common.eos_token_ids.as_slice() {
        [] => Value::Null,
        [one] => (*one).into(),
        many => many.into(),
    };
    map.insert("bos_token_id".into(), common.bos_token_id.into());
    map.insert("eos_token_id".into(), eos);
    map.insert("pad_token_id".into(), common.pad_token_id.into());
    let dtype = common.dtype.unwrap_or(FloatDType::F32);
    map.insert("dtype".into(), dtype_name(dtype).into());
}

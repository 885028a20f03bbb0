//! Reads a `config.json`.
//!
//! An absent key has the default value of transformers, with two exceptions. The sizes of the model
//! must be given. An absent id of a token means that there is no such token: transformers' defaults
//! (1 and 2 for Llama and Mistral, 50256 for GPT-2) are ids of one vocabulary. With another one,
//! training would end texts with some other token.

use burn::tensor::FloatDType;
use serde_json::Value;

use super::common::CommonConfig;
use super::family::ModelConfig;
use super::gpt2::Gpt2Config;
use super::keys::Keys;
use super::limits::{self, at_most, refuse, unsupported};
use super::llama::{LlamaConfig, LlamaKind};
use crate::error::Error;
use crate::files::shown;

mod rope;

/// The supported model types, for messages.
const MODEL_TYPES: &str = "llama, mistral, ministral, qwen2, qwen3, gpt2";

impl ModelConfig {
    /// Reads the text of a `config.json` of transformers 4 or 5.
    ///
    /// # Errors
    ///
    /// The text is not JSON; a key is missing or has a wrong type; a `model_type` or an option is
    /// not supported; a size is out of range (at most 4096 layers or heads, a width of 2^18, a
    /// feed-forward width of 2^20, a vocabulary of 2^24). The message names the key and its value.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let config = model(text)?;
        config.validate()?;
        Ok(config)
    }
}

fn model(text: &str) -> Result<ModelConfig, Error> {
    let value: Value = serde_json::from_str(text).map_err(|e| {
        refuse(format!("config.json is not JSON: {e}"))
            .with_place("config.json", Some(e.line()))
            .with_source(e)
    })?;
    let Value::Object(map) = value else {
        return Err(refuse("config.json is not a JSON object".into()));
    };
    let keys = Keys { map: &map };
    if let Some(found) = keys.present("quantization_config") {
        let method = found
            .get("quant_method")
            .and_then(Value::as_str)
            .unwrap_or("unknown");
        return Err(refuse(format!(
            "quantization_config ({}) is not supported",
            shown(&method)
        ))
        .with_help("use the unquantized checkpoint"));
    }
    let kind = match keys.string("model_type")? {
        Some("llama") => LlamaKind::Llama,
        Some("mistral") => LlamaKind::Mistral,
        Some("ministral") => LlamaKind::Ministral,
        Some("qwen2") => LlamaKind::Qwen2,
        Some("qwen3") => LlamaKind::Qwen3,
        Some("gpt2") => return gpt2(keys).map(ModelConfig::Gpt2),
        Some(other) => {
            return Err(
                refuse(format!("model_type {:?} is not supported", shown(&other)))
                    .with_help(format!("use one of {MODEL_TYPES}")),
            );
        }
        None => {
            return Err(refuse("there is no model_type".into())
                .with_help(format!("give one of {MODEL_TYPES}")));
        }
    };
    llama(keys, kind).map(ModelConfig::Llama)
}

fn llama(keys: Keys, kind: LlamaKind) -> Result<LlamaConfig, Error> {
    match keys.string("hidden_act")?.unwrap_or("silu") {
        "silu" | "swish" => {}
        other => {
            return Err(unsupported(format!(
                "hidden_act {:?} is not supported, only \"silu\" is",
                shown(&other)
            )));
        }
    }
    let layers = keys.require("num_hidden_layers")?;
    // Checked before the list of layers is allocated.
    at_most("num_hidden_layers", layers, limits::LAYERS)?;
    let heads = keys.require("num_attention_heads")?;
    let hidden_size = keys.require("hidden_size")?;
    let kv_heads = match (keys.size("num_key_value_heads")?, kind) {
        (Some(found), _) => found,
        (None, LlamaKind::Llama) => heads,
        (None, _) if keys.is_null("num_key_value_heads") => heads,
        (None, LlamaKind::Mistral | LlamaKind::Ministral) => 8,
        (None, LlamaKind::Qwen2 | LlamaKind::Qwen3) => 32,
    };
    let head_dim = match (keys.size("head_dim")?, kind) {
        (Some(found), _) => found,
        (None, LlamaKind::Qwen3) if !keys.is_null("head_dim") => 128,
        (None, _) => hidden_size / heads.max(1),
    };
    let max_positions = match kind {
        LlamaKind::Llama => 2048,
        LlamaKind::Mistral | LlamaKind::Ministral => 131_072,
        LlamaKind::Qwen2 | LlamaKind::Qwen3 => 32_768,
    };
    let max_position_embeddings = keys
        .size("max_position_embeddings")?
        .unwrap_or(max_positions);
    let (sliding_window, sliding_layers) = sliding(keys, kind, layers)?;
    Ok(LlamaConfig {
        kind,
        vocab_size: keys.require("vocab_size")?,
        hidden_size,
        intermediate_size: keys.require("intermediate_size")?,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim,
        max_position_embeddings,
        rms_norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
        rope: rope::read(keys, max_position_embeddings)?,
        attention_bias: keys.flag("attention_bias")?.unwrap_or(false),
        mlp_bias: kind == LlamaKind::Llama && keys.flag("mlp_bias")?.unwrap_or(false),
        tie_word_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        sliding_window,
        sliding_layers,
        initializer_range: keys.number("initializer_range")?.unwrap_or(0.02),
        common: common(keys)?,
    })
}

/// The sliding window, and which layers have it.
fn sliding(
    keys: Keys,
    kind: LlamaKind,
    layers: usize,
) -> Result<(Option<usize>, Vec<bool>), Error> {
    let window = match kind {
        LlamaKind::Llama => None,
        LlamaKind::Mistral | LlamaKind::Ministral => {
            let absent = !keys.map.contains_key("sliding_window");
            keys.size("sliding_window")?.or(absent.then_some(4096))
        }
        LlamaKind::Qwen2 | LlamaKind::Qwen3 => {
            let is_used = keys.flag("use_sliding_window")?.unwrap_or(false);
            let found = keys.size("sliding_window")?;
            let absent = (!keys.map.contains_key("sliding_window")).then_some(4096);
            found.or(absent).filter(|_| is_used)
        }
    };
    if let (Some(types), false) = (keys.present("layer_types"), kind == LlamaKind::Llama) {
        let types = types
            .as_array()
            .ok_or_else(|| refuse(format!("layer_types is {}, not a list", shown(types))))?;
        let sliding: Result<Vec<bool>, Error> = (types.iter())
            .map(|found| match found.as_str() {
                Some("full_attention") => Ok(false),
                Some("sliding_attention") => Ok(true),
                _ => Err(unsupported(format!(
                    "layer type {} is not supported, only full_attention and sliding_attention are",
                    shown(found)
                ))),
            })
            .collect();
        return Ok((window, sliding?));
    }
    let first = match kind {
        LlamaKind::Llama | LlamaKind::Mistral | LlamaKind::Ministral => 0,
        LlamaKind::Qwen2 | LlamaKind::Qwen3 => keys.size("max_window_layers")?.unwrap_or(28),
    };
    let sliding = (0..layers)
        .map(|layer| window.is_some() && layer >= first)
        .collect();
    Ok((window, sliding))
}

fn gpt2(keys: Keys) -> Result<Gpt2Config, Error> {
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
        common: common(keys)?,
    })
}

fn common(keys: Keys) -> Result<CommonConfig, Error> {
    let eos_token_ids = match keys.present("eos_token_id") {
        None => Vec::new(),
        Some(Value::Array(ids)) => {
            let ids = ids.iter().map(|id| token("eos_token_id", id));
            ids.filter_map(Result::transpose)
                .collect::<Result<_, _>>()?
        }
        Some(one) => token("eos_token_id", one)?.into_iter().collect(),
    };
    let id = |key| match keys.present(key) {
        None => Ok(None),
        Some(id) => token(key, id),
    };
    let dtype = match keys.string("dtype")? {
        Some(name) => Some(name),
        None => keys.string("torch_dtype")?,
    };
    let dtype = match dtype.map(|name| name.trim_start_matches("torch.")) {
        None => None,
        Some("float32" | "float") => Some(FloatDType::F32),
        Some("bfloat16") => Some(FloatDType::BF16),
        Some("float16" | "half") => Some(FloatDType::F16),
        Some("float64" | "double") => Some(FloatDType::F64),
        Some(other) => {
            return Err(unsupported(format!(
                "dtype {:?} is not supported, only \"float32\", \"bfloat16\", \"float16\" and \"float64\" are",
                shown(&other)
            )));
        }
    };
    Ok(CommonConfig {
        bos_token_id: id("bos_token_id")?,
        eos_token_ids,
        pad_token_id: id("pad_token_id")?,
        dtype,
    })
}

/// The id of a token. A negative one, such as -1, means that there is none.
fn token(key: &str, value: &Value) -> Result<Option<u32>, Error> {
    match value.as_i64() {
        Some(id) if id < 0 => Ok(None),
        Some(id) if u32::try_from(id).is_ok() => Ok(u32::try_from(id).ok()),
        _ => Err(refuse(format!(
            "{key} is {}, not the id of a token",
            shown(value)
        ))),
    }
}

//! The `config.json` of the Llama family.

use serde_json::{Value, json};

use super::LlamaConfig;
use super::kinds::{AttentionBias, Row};
use crate::error::Error;
use crate::files::shown;
use crate::model::config::keys::Keys;
use crate::model::config::limits::{self, at_most, refuse, unsupported};
use crate::model::config::{CommonConfig, RopeConfig};

pub(super) fn read(row: &Row, keys: Keys) -> Result<LlamaConfig, Error> {
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
    // To transformers, null is not the default of the architecture.
    let size = |key, absent: Option<usize>, null: usize| -> Result<usize, Error> {
        let absent = absent.filter(|_| !keys.is_null(key));
        Ok(keys.size(key)?.or(absent).unwrap_or(null))
    };
    let num_key_value_heads = size("num_key_value_heads", row.kv_heads, heads)?;
    let head_dim = size("head_dim", row.head_dim, hidden_size / heads.max(1))?;
    let max_position_embeddings = keys
        .size("max_position_embeddings")?
        .unwrap_or(row.positions);
    let (sliding_window, sliding_layers) = sliding(row, keys, layers)?;
    Ok(LlamaConfig {
        kind: row.kind,
        vocab_size: keys.require("vocab_size")?,
        hidden_size,
        intermediate_size: keys.require("intermediate_size")?,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads,
        head_dim,
        max_position_embeddings,
        rms_norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
        rope: RopeConfig::read(keys, max_position_embeddings)?,
        attention_bias: keys.flag("attention_bias")?.unwrap_or(false),
        mlp_bias: row.mlp_bias && keys.flag("mlp_bias")?.unwrap_or(false),
        tie_word_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        sliding_window,
        sliding_layers,
        initializer_range: keys.number("initializer_range")?.unwrap_or(0.02),
        common: CommonConfig::read(keys)?,
    })
}

/// The sliding window, and which layers have it.
fn sliding(row: &Row, keys: Keys, layers: usize) -> Result<(Option<usize>, Vec<bool>), Error> {
    let Some(window_keys) = &row.window else {
        return Ok((None, vec![false; layers]));
    };
    let is_used = !window_keys.is_optional || keys.flag("use_sliding_window")?.unwrap_or(false);
    let absent = (!keys.map.contains_key("sliding_window")).then_some(4096);
    let window = keys.size("sliding_window")?.or(absent);
    let window = window.filter(|_| is_used);
    if let Some(types) = keys.present("layer_types") {
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
    let first = if window_keys.is_optional {
        keys.size("max_window_layers")?.unwrap_or(28)
    } else {
        0
    };
    let sliding = (0..layers)
        .map(|layer| window.is_some() && layer >= first)
        .collect();
    Ok((window, sliding))
}

pub(super) fn written(config: &LlamaConfig) -> Value {
    let row = config.kind.row();
    let mut value = json!({
        "architectures": [row.architecture],
        "model_type": row.model_type,
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
        "rope_parameters": config.rope.json(),
        "tie_word_embeddings": config.tie_word_embeddings,
        "initializer_range": config.initializer_range,
        "attention_dropout": 0.0,
    });
    if let Some(keys) = &row.window {
        let has_window = config.sliding_window.is_some();
        if keys.is_optional {
            value["use_sliding_window"] = has_window.into();
        }
        value["sliding_window"] = config.sliding_window.into();
        if keys.layer_types || config.sliding_layers.contains(&!has_window) {
            value["layer_types"] = layer_types(config).into();
        }
    }
    if row.attention_bias == AttentionBias::Optional {
        value["attention_bias"] = config.attention_bias.into();
    }
    if row.mlp_bias {
        value["mlp_bias"] = config.mlp_bias.into();
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

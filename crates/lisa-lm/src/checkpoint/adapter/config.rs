//! [`Stored`]: the content of `adapter_config.json`.

use serde_json::{Map, Value, json};

use crate::error::{Error, ErrorKind};
use crate::files::shown;
use crate::model::LoraConfig;

/// Keys that do not change what an adapter computes, or that are read. Every other key must say that
/// its part is not used.
const READ: [&str; 24] = [
    "alora_invocation_string",
    "auto_mapping",
    "base_model_name_or_path",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "revision",
    "target_modules",
    "task_type",
];

/// The initializations that do not change the base model.
const INITS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// What `adapter_config.json` says.
pub(super) struct Stored {
    /// The configuration, without its modules.
    pub(super) config: LoraConfig,
    /// The modules, if they are known without the tensors.
    pub(super) modules: Option<Vec<String>>,
    pub(super) base: Option<String>,
    pub(super) revision: Option<String>,
}

impl Stored {
    /// Reads the text. Refuses an adapter that this crate does not compute as PEFT does.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let map: Map<String, Value> = serde_json::from_str(text)
            .map_err(|e| refuse(format!("it is not a JSON object: {e}")).with_source(e))?;
        let kind = map.get("peft_type").and_then(Value::as_str);
        if kind != Some("LORA") {
            let kind = kind.map_or("not given".to_owned(), |kind| shown(&kind.escape_debug()));
            return Err(
                refuse(format!("peft_type is {kind}, and only LORA is supported")).with_help(MERGE),
            );
        }
        for (key, value) in &map {
            if key != "use_rslora" && !READ.contains(&&**key) && is_used(value) {
                let (key, value) = (shown(&key.escape_debug()), shown(value));
                return Err(
                    refuse(format!("{key} is {value}, which is not supported")).with_help(MERGE)
                );
            }
        }
        if let Some(Value::String(init)) = map.get("init_lora_weights")
            && !INITS.contains(&&**init)
        {
            let init = shown(&init.escape_debug());
            return Err(refuse(format!(
                "init_lora_weights is {init}, which changes the weights of the base model"
            ))
            .with_help(MERGE));
        }
        let number = |key: &str, default: f64| match map.get(key) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_f64()
                .ok_or_else(|| refuse(format!("{key} is {}, and not a number", shown(value)))),
        };
        let rank = match map.get("r") {
            None => 8,
            Some(value) => value.as_u64().ok_or_else(|| {
                refuse(format!(
                    "r is {}, and not a whole number above 0",
                    shown(value)
                ))
            })?,
        };
        let config = LoraConfig::new(rank as usize)
            .with_alpha(number("lora_alpha", 8.0)?)
            .with_dropout(number("lora_dropout", 0.0)?)
            .with_rslora(map.get("use_rslora") == Some(&Value::Bool(true)));
        let text = |key: &str| map.get(key).and_then(Value::as_str).map(str::to_owned);
        let narrows = ["layers_to_transform", "exclude_modules"];
        let is_narrowed = narrows.iter().any(|key| map.get(*key).is_some_and(is_used));
        Ok(Self {
            config,
            modules: modules(map.get("target_modules")).filter(|_| !is_narrowed),
            base: text("base_model_name_or_path").filter(|base| !base.is_empty()),
            revision: text("revision").filter(|revision| !revision.is_empty()),
        })
    }
}

const MERGE: &str = "merge the adapter with `merge_and_unload()` of PEFT, and use the merged model";

/// The modules of `target_modules`: names, or all linear modules. A regular expression is not read.
fn modules(value: Option<&Value>) -> Option<Vec<String>> {
    match value? {
        Value::String(all) if all == "all-linear" => Some(Vec::new()),
        Value::Array(names) if !names.is_empty() => {
            let names = names.iter().map(|name| Some(name.as_str()?.to_owned()));
            names.collect()
        }
        _ => None,
    }
}

/// Whether the value of a key asks for something.
fn is_used(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => text != "none" && !text.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
        _ => true,
    }
}

/// The text of `adapter_config.json`, with the keys that PEFT writes. `is_transposed`: the base
/// model stores its linear weights as `[in, out]`.
pub(super) fn text(
    config: &LoraConfig,
    modules: &[String],
    (base, revision): (&str, Option<&str>),
    is_transposed: bool,
) -> String {
    // PEFT writes a whole number as one.
    let alpha = if config.alpha.fract() == 0.0 && config.alpha.abs() < 1e15 {
        json!(config.alpha as i64)
    } else {
        json!(config.alpha)
    };
    let value = json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": is_transposed,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": alpha,
        "lora_dropout": config.dropout,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": config.rank,
        "rank_pattern": {},
        "revision": revision,
        "target_modules": modules,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": config.rslora,
    });
    format!("{value:#}\n")
}

fn refuse(message: String) -> Error {
    Error::new(ErrorKind::Checkpoint, message)
}

//! [`rewritten`]: the `config.json` of a model that was loaded from a folder.

use burn::tensor::FloatDType;
use serde_json::Value;

use super::model_config::ModelConfig;
use crate::model::config::dtype_name;

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
    let mut changed = map.remove("transformers_weights").is_some();
    if stored.common().dtype != Some(dtype) {
        // Older versions of transformers know the second one only.
        let mut keys = vec!["dtype", "torch_dtype"];
        keys.retain(|key| map.contains_key(*key));
        if keys.is_empty() {
            keys.push("dtype");
        }
        for key in keys {
            map.insert(key.to_owned(), dtype_name(dtype).into());
        }
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

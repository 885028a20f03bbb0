//! The rotary positions in a `config.json`.

use serde_json::{Map, Value, json};

use super::{RopeConfig, RopeScaling};
use crate::error::Error;
use crate::files::shown;
use crate::model::config::keys::Keys;
use crate::model::config::limits::{refuse, unsupported};

impl RopeConfig {
    /// The rotary positions of a model with `max_positions` positions.
    pub(crate) fn read(keys: Keys, max_positions: usize) -> Result<Self, Error> {
        let empty = Map::new();
        let inner = parameters(keys)?.unwrap_or(Keys { map: &empty });
        // transformers 5 has an object for each kind of layer if they differ.
        let entries = inner.map.iter().filter(|(_, value)| value.is_object());
        let kinds: Vec<&str> = entries.map(|(kind, _)| kind.as_str()).collect();
        if !kinds.is_empty() {
            return Err(unsupported(format!(
                "rotary positions for each kind of layer are not supported, but rope_parameters has {}",
                shown(&kinds.join(", "))
            )));
        }
        let theta = match inner.number("rope_theta")? {
            Some(theta) => theta,
            None => keys.number("rope_theta")?.unwrap_or(10_000.0),
        };
        let partial = inner.number("partial_rotary_factor")?;
        let partial = partial.or(keys.number("partial_rotary_factor")?);
        if partial.is_some_and(|factor| factor != 1.0) {
            return Err(unsupported(
                "partial_rotary_factor is supported only as 1".into(),
            ));
        }
        let name = match inner.string("rope_type")? {
            Some(name) => name,
            None => inner.string("type")?.unwrap_or("default"),
        };
        let factor = |key| needed(inner, name, key);
        let scaling = match name {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear {
                factor: factor("factor")?,
            },
            "dynamic" => RopeScaling::Dynamic {
                factor: factor("factor")?,
            },
            "llama3" => RopeScaling::Llama3 {
                factor: factor("factor")?,
                low_freq_factor: factor("low_freq_factor")?,
                high_freq_factor: factor("high_freq_factor")?,
                original_max_positions: original(keys, inner)?.unwrap_or(max_positions),
            },
            "yarn" => yarn(keys, inner, max_positions)?,
            other => {
                return Err(unsupported(format!(
                    "rope type {:?} is not supported, only \"default\", \"linear\", \"dynamic\", \
                     \"llama3\" and \"yarn\" are",
                    shown(&other)
                )));
            }
        };
        Ok(Self { theta, scaling })
    }

    /// The `rope_parameters` of transformers 5.
    pub(crate) fn json(&self) -> Value {
        match self.scaling {
            RopeScaling::Default => json!({"rope_type": "default", "rope_theta": self.theta}),
            RopeScaling::Linear { factor } => {
                json!({"rope_type": "linear", "rope_theta": self.theta, "factor": factor})
            }
            RopeScaling::Dynamic { factor } => {
                json!({"rope_type": "dynamic", "rope_theta": self.theta, "factor": factor})
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_positions,
            } => json!({
                "rope_type": "llama3",
                "rope_theta": self.theta,
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
                "rope_theta": self.theta,
                "factor": factor,
                "original_max_position_embeddings": original_max_positions,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "truncate": truncate,
                "attention_factor": attention_factor,
            }),
        }
    }
}

/// The object of `rope_scaling` (transformers 4) or `rope_parameters` (5).
fn parameters(keys: Keys<'_>) -> Result<Option<Keys<'_>>, Error> {
    let found = [
        keys.object("rope_scaling")?,
        keys.object("rope_parameters")?,
    ];
    match found {
        [Some(four), Some(five)] if four.map != five.map => Err(refuse(
            "rope_scaling and rope_parameters have different values".into(),
        )
        .with_help("remove one of them; transformers uses rope_scaling")),
        [four, five] => Ok(four.or(five)),
    }
}

fn yarn(keys: Keys, inner: Keys, max_positions: usize) -> Result<RopeScaling, Error> {
    let original_max_positions = original(keys, inner)?.unwrap_or(max_positions);
    let factor = if inner.is_null("factor") {
        max_positions as f64 / original_max_positions as f64
    } else {
        needed(inner, "yarn", "factor")?
    };
    let attention_factor = match inner.number("attention_factor")? {
        Some(found) => found,
        None => match [nonzero(inner, "mscale")?, nonzero(inner, "mscale_all_dim")?] {
            [Some(mscale), Some(all)] => grown(factor, mscale) / grown(factor, all),
            _ => grown(factor, 1.0),
        },
    };
    Ok(RopeScaling::Yarn {
        factor,
        original_max_positions,
        beta_fast: nonzero(inner, "beta_fast")?.unwrap_or(32.0),
        beta_slow: nonzero(inner, "beta_slow")?.unwrap_or(1.0),
        // To transformers, null is false.
        truncate: inner
            .flag("truncate")?
            .unwrap_or(!inner.is_null("truncate")),
        attention_factor,
    })
}

/// The attention factor of YaRN for this factor of the frequencies.
fn grown(factor: f64, mscale: f64) -> f64 {
    if factor > 1.0 {
        0.1 * mscale * factor.ln() + 1.0
    } else {
        1.0
    }
}

/// The longest sequence of the training before the scaling. transformers prefers the key that is
/// outside of the object.
fn original(keys: Keys, inner: Keys) -> Result<Option<usize>, Error> {
    let key = "original_max_position_embeddings";
    let outside = keys.size(key)?;
    Ok(outside.or(inner.size(key)?))
}

fn needed(inner: Keys, name: &str, key: &str) -> Result<f64, Error> {
    let missing = || refuse(format!("rope type {name:?} needs {key}, which is missing"));
    inner.number(key)?.ok_or_else(missing)
}

/// A number. As in transformers, 0 counts as absent.
fn nonzero(inner: Keys, key: &str) -> Result<Option<f64>, Error> {
    Ok(inner.number(key)?.filter(|found| *found != 0.0))
}

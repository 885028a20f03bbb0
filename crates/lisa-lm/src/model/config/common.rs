//! [`CommonConfig`]: the keys of `config.json` that every family has.

use burn::tensor::FloatDType;
use serde_json::{Map, Value};

use super::keys::Keys;
use super::limits::{refuse, unsupported};
use crate::error::Error;
use crate::files::shown;

/// Special tokens and dtype, which the `config.json` of every family has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommonConfig {
    /// The token that starts a text.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// The token that pads rows.
    pub pad_token_id: Option<u32>,
    /// The dtype of the stored weights.
    pub dtype: Option<FloatDType>,
}

impl CommonConfig {
    /// An absent id of a token means that there is no such token: transformers' defaults (1 and 2 for
    /// Llama and Mistral, 50256 for GPT-2) are ids of one vocabulary. With another one, training would
    /// end texts with some other token.
    pub(crate) fn read(keys: Keys) -> Result<Self, Error> {
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
        Ok(Self {
            bos_token_id: id("bos_token_id")?,
            eos_token_ids,
            pad_token_id: id("pad_token_id")?,
            dtype,
        })
    }

    /// Adds the keys to a `config.json`.
    pub(crate) fn write(&self, map: &mut Map<String, Value>) {
        let eos = match self.eos_token_ids.as_slice() {
            [] => Value::Null,
            [one] => (*one).into(),
            many => many.into(),
        };
        map.insert("bos_token_id".into(), self.bos_token_id.into());
        map.insert("eos_token_id".into(), eos);
        map.insert("pad_token_id".into(), self.pad_token_id.into());
        let dtype = self.dtype.unwrap_or(FloatDType::F32);
        map.insert("dtype".into(), dtype_name(dtype).into());
    }
}

/// The name of a dtype in a `config.json`.
pub(crate) fn dtype_name(dtype: FloatDType) -> &'static str {
    match dtype {
        FloatDType::F16 => "float16",
        FloatDType::BF16 => "bfloat16",
        FloatDType::F64 => "float64",
        _ => "float32",
    }
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

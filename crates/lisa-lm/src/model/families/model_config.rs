//! [`ModelConfig`]: the configuration of a model of any family.

use serde_json::Value;

use super::family::Family;
use super::file_names::FileNames;
use super::gpt2::Gpt2Config;
use super::llama::LlamaConfig;
use crate::error::Error;
use crate::files::shown;
use crate::model::config::CommonConfig;
use crate::model::config::keys::Keys;
use crate::model::config::limits::refuse;
use crate::model::spec::DecoderSpec;

/// The configuration of a model of any supported family.
///
/// # Example
///
/// ```
/// use lisa_lm::ModelConfig;
///
/// let config = ModelConfig::from_json(r#"{"model_type": "llama", "vocab_size": 64,
///     "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
///     "num_attention_heads": 2, "dtype": "float32"}"#)?;
/// assert_eq!((config.num_layers(), config.vocab_size()), (2, 64));
/// assert_eq!((config.model_type(), config.is_tied()), ("llama", false));
/// assert_eq!(ModelConfig::from_json(&config.to_json())?, config);
///
/// let error = ModelConfig::from_json(r#"{"model_type": "bert"}"#).unwrap_err();
/// assert!(error.message().contains("bert"));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ModelConfig {
    /// `llama`, `mistral`, `ministral`, `qwen2`, `qwen3`.
    Llama(LlamaConfig),
    /// `gpt2`.
    Gpt2(Gpt2Config),
}

/// The supported values of `model_type`.
type Types = fn() -> Vec<&'static str>;

/// Reads a `config.json`. `None` if its `model_type` is not of the family.
type Read = fn(&str, Keys) -> Option<Result<ModelConfig, Error>>;

/// A row for each family.
const FAMILIES: [(Types, Read); 2] = [
    (LlamaConfig::model_types, |name, keys| {
        Some(LlamaConfig::read(name, keys)?.map(ModelConfig::Llama))
    }),
    (Gpt2Config::model_types, |name, keys| {
        Some(Gpt2Config::read(name, keys)?.map(ModelConfig::Gpt2))
    }),
];

/// All supported model types, for messages.
fn model_types() -> String {
    let all: Vec<&str> = FAMILIES.iter().flat_map(|(types, _)| types()).collect();
    all.join(", ")
}

impl ModelConfig {
    fn family(&self) -> &dyn Family {
        match self {
            Self::Llama(config) => config,
            Self::Gpt2(config) => config,
        }
    }

    fn family_mut(&mut self) -> &mut dyn Family {
        match self {
            Self::Llama(config) => config,
            Self::Gpt2(config) => config,
        }
    }

    /// Reads the text of a `config.json` of transformers 4 or 5. An absent key has the default
    /// value of transformers, with two exceptions: the sizes of the model must be given, and if the
    /// id of a special token is absent, the model has no such token.
    ///
    /// # Errors
    ///
    /// The text is not JSON; a key is missing or has a wrong type; a `model_type` or an option is
    /// not supported; a size is out of range (at most 4096 layers or heads, a width of 2^18, a
    /// feed-forward width of 2^20, a vocabulary of 2^24). The message names the key and its value.
    pub fn from_json(text: &str) -> Result<Self, Error> {
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
        let Some(name) = keys.string("model_type")? else {
            return Err(refuse("there is no model_type".into())
                .with_help(format!("give one of {}", model_types())));
        };
        let Some(config) = FAMILIES.iter().find_map(|(_, read)| read(name, keys)) else {
            return Err(
                refuse(format!("model_type {:?} is not supported", shown(&name)))
                    .with_help(format!("use one of {}", model_types())),
            );
        };
        let config = config?;
        config.validate()?;
        Ok(config)
    }

    /// The text of a `config.json` of transformers 5 for this model.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut value = self.family().json();
        if let Value::Object(map) = &mut value {
            self.common().write(map);
        }
        format!("{value:#}\n")
    }

    /// Checks that the values are in range and consistent.
    ///
    /// # Errors
    ///
    /// The first invalid value; the message names it.
    pub fn validate(&self) -> Result<(), Error> {
        self.family().validate()
    }

    /// The `model_type` of `config.json`.
    #[must_use]
    pub fn model_type(&self) -> &'static str {
        self.family().shared().model_type
    }

    /// The vocabulary size. Every token id must be below it.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.family().shared().vocab_size
    }

    /// The same with another vocabulary size.
    #[must_use]
    pub fn with_vocab_size(mut self, vocab_size: usize) -> Self {
        *self.family_mut().shared_mut().vocab_size = vocab_size;
        self
    }

    /// The longest sequence that the model was trained for. GPT-2 cannot run longer sequences.
    #[must_use]
    pub fn max_positions(&self) -> usize {
        self.family().shared().max_positions
    }

    /// Number of layers.
    #[must_use]
    pub fn num_layers(&self) -> usize {
        self.family().shared().num_layers
    }

    /// Whether the head and the embedding share one weight.
    #[must_use]
    pub fn is_tied(&self) -> bool {
        self.family().shared().is_tied
    }

    /// Gives the head a weight of its own, or that of the embedding.
    pub(crate) fn set_tied(&mut self, tied: bool) {
        *self.family_mut().shared_mut().is_tied = tied;
    }

    /// Special tokens and dtype.
    #[must_use]
    pub fn common(&self) -> &CommonConfig {
        self.family().shared().common
    }

    /// Special tokens and dtype, mutable.
    pub fn common_mut(&mut self) -> &mut CommonConfig {
        self.family_mut().shared_mut().common
    }

    /// The names of the parameters in the files of this model's family.
    pub(crate) fn file_names(&self) -> &'static FileNames {
        self.family().file_names()
    }

    /// The description of this model's decoder.
    pub(crate) fn spec(&self) -> DecoderSpec {
        self.family().spec()
    }
}

//! Settings whose value is one of a few words. Tests: `settings/tests.rs`.

use anyhow::Result;
use burn::tensor::FloatDType;
use clap::ValueEnum;
use lisa_lm::text::{EmptyAnswers, OnBadLine};
use lisa_lm::{Checkpoint, ModelConfig};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// Implements `Display` for an enum with `clap::ValueEnum`: as its values are on the command line.
#[macro_export]
macro_rules! display_as_value {
    ($type:ty) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match clap::ValueEnum::to_possible_value(self) {
                    Some(value) => f.write_str(value.get_name()),
                    None => write!(f, "{self:?}"),
                }
            }
        }
    };
}

/// Which parameters train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A few layers, sampled in each period
    Lisa,
    /// All parameters
    Full,
    /// Low-rank adapters of linear modules, written as an adapter and merged
    Lora,
}

display_as_value!(Method);

/// How layers are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Exactly --active-layers layers, all equally probable
    Uniform,
    /// Each layer independently, with its own probability
    Bernoulli,
    /// Exactly --active-layers layers, weighted by --importance or --probabilities
    Weighted,
    /// The next --active-layers layers in --order
    Cyclic,
    /// Exactly --active-layers layers, weighted by the size of their gradients
    Gradient,
    /// As many layers as --share of the parameters allows, weighted by the size of their gradients
    Budget,
    /// Always the layers of --fixed-layers
    Fixed,
}

display_as_value!(Policy);

/// The order of `--policy cyclic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// From the first layer to the last
    Ascending,
    /// From the last layer to the first
    Descending,
    /// In a new random order for each cycle
    Shuffled,
}

/// What happens to the optimizer state of a layer that freezes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moments {
    /// It is dropped
    Drop,
    /// It stays on the device
    Keep,
    /// It is offloaded to host memory
    Offload,
}

/// How the device stores frozen layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantize {
    /// Not quantized
    None,
    /// As 8-bit integers; the full-precision weights are in host memory
    Int8,
    /// As 4-bit integers; the full-precision weights are in host memory
    Int4,
}

/// What happens at a line of the data that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBad {
    /// The run stops with an error that names it
    Stop,
    /// It is left out and counted
    Skip,
}

impl From<OnBad> for OnBadLine {
    fn from(on_bad: OnBad) -> Self {
        match on_bad {
            OnBad::Stop => Self::Stop,
            OnBad::Skip => Self::Skip,
        }
    }
}

/// Which answers of a chat are in the loss, and in how many rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Turns {
    /// Every answer; in one row if each then follows the text that it follows at inference, else
    /// each in a row of its own
    Auto,
    /// Every answer, in one row
    All,
    /// The last answer
    Last,
    /// Every answer, each in a row of its own
    Split,
}

impl From<Turns> for lisa_lm::text::Turns {
    fn from(turns: Turns) -> Self {
        match turns {
            Turns::Auto => Self::Auto,
            Turns::All => Self::All,
            Turns::Last => Self::Last,
            Turns::Split => Self::Split,
        }
    }
}

/// What happens at an answer without text, reasoning and tool calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Empty {
    /// It is trained on, counted, and warned about
    Warn,
    /// Its example cannot be used, as a bad line
    Refuse,
}

impl From<Empty> for EmptyAnswers {
    fn from(empty: Empty) -> Self {
        match empty {
            Empty::Warn => Self::Warn,
            Empty::Refuse => Self::Refuse,
        }
    }
}

/// How pairs of prompt and completion become text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pairs {
    /// As text; with a warning if the model has a chat template
    Auto,
    /// As text: the prompt and then the completion
    Text,
    /// As a chat of one turn, which the chat template renders
    Chat,
}

/// Which generated answers are right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// The answer equals that of the data, without leading and trailing whitespace
    #[default]
    Exact,
    /// The last number of the answer equals the last number of the data's answer
    LastNumber,
    /// The first choice in the answer, such as B or yes, equals the first word of the data's answer
    Choice,
    /// The answer contains that of the data; case and whitespace do not count
    Contains,
}

display_as_value!(Metric);

/// How the learning rate changes after its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// It falls along half a cosine
    Cosine,
    /// It falls by the same amount in each step
    Linear,
    /// It stays at --lr
    Constant,
}

display_as_value!(Schedule);

/// The dtype of the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// 32 bits
    #[default]
    #[value(aliases = ["float32", "fp32"])]
    F32,
    /// 16 bits with the range of f32
    #[value(alias = "bfloat16")]
    Bf16,
    /// 16 bits
    #[value(aliases = ["float16", "fp16"])]
    F16,
}

/// Reads the same words as the command line.
impl<'de> Deserialize<'de> for Dtype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        Self::from_str(&word, false)
            .map_err(|_| D::Error::unknown_variant(&word, &["f32", "bf16", "f16"]))
    }
}

impl Dtype {
    /// The dtype that `config.json` names, or in which the files are; f32 if that is not half precision.
    pub(crate) fn stored(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        Ok(checkpoint.stored_dtype()?.map(Self::from))
    }

    /// The dtype that `config.json` names; f32 if that is not half precision.
    #[must_use]
    pub(crate) fn of(config: &ModelConfig) -> Option<Self> {
        config.common().dtype.map(Self::from)
    }
}

impl From<FloatDType> for Dtype {
    fn from(dtype: FloatDType) -> Self {
        match dtype {
            FloatDType::BF16 => Self::Bf16,
            FloatDType::F16 => Self::F16,
            _ => Self::F32,
        }
    }
}

display_as_value!(Dtype);

impl From<Dtype> for FloatDType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::BF16,
            Dtype::F16 => Self::F16,
        }
    }
}

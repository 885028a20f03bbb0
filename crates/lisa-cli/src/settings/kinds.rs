//! What an option of `finetune` can be, where it is one of a few words. Tests: `settings/tests.rs`.

use burn::tensor::FloatDType;
use clap::ValueEnum;
use lisa_lm::Checkpoint;
use serde::{Deserialize, Serialize};

/// Which parameters train.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A few layers at a time, drawn anew each period; embeddings, final norm and head always.
    Lisa,
    /// Everything.
    Full,
    /// Low-rank adapters on the layers' matrices, merged into the weights at the end.
    Lora,
}

/// What draws the layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Exactly the wanted number of layers
    Uniform,
    /// Each layer by its own coin
    Bernoulli,
    /// Exactly the wanted number, by --importance or --probabilities
    Weighted,
    /// One after the other, in --order
    Cyclic,
    /// Exactly the wanted number, by the size of their gradients
    Gradient,
    /// As many as --share of the parameters allows, by the size of their gradients
    Budget,
    /// The layers of --fixed-layers, always
    Fixed,
}

/// The order of `--policy cyclic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// From the first to the last
    Ascending,
    /// From the last to the first
    Descending,
    /// Anew each time all were drawn
    Shuffled,
}

/// What happens to the moments of a layer that freezes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moments {
    /// They are dropped.
    Drop,
    /// They stay on the device.
    Keep,
    /// They wait in the host's memory.
    Offload,
}

/// What the device holds of frozen layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantize {
    /// The weights themselves.
    None,
    /// 8-bit integers; the exact weights wait in the host's memory.
    Int8,
    /// 4-bit integers.
    Int4,
}

/// The type of the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dtype {
    /// 32 bits.
    F32,
    /// 16 bits with the range of 32.
    Bf16,
    /// 16 bits.
    F16,
}

impl Dtype {
    /// What a checkpoint says it is stored in; anything but half precision trains in f32.
    #[must_use]
    pub fn stored(checkpoint: &Checkpoint) -> Option<Self> {
        match checkpoint.config().common().dtype? {
            FloatDType::BF16 => Some(Self::Bf16),
            FloatDType::F16 => Some(Self::F16),
            _ => Some(Self::F32),
        }
    }
}

impl From<Dtype> for FloatDType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::F32,
            Dtype::Bf16 => Self::BF16,
            Dtype::F16 => Self::F16,
        }
    }
}

//! [`CommonConfig`]: the keys of `config.json` that every family has.

use burn::tensor::FloatDType;

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

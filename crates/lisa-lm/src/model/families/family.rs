//! [`Family`]: what a family defines.

use serde_json::Value;

use super::file_names::FileNames;
use crate::error::Error;
use crate::model::config::CommonConfig;
use crate::model::config::keys::Keys;
use crate::model::spec::DecoderSpec;

/// The configuration of a model of one family.
pub(super) trait Family {
    /// The supported values of `model_type`.
    fn model_types() -> Vec<&'static str>
    where
        Self: Sized;

    /// Reads a `config.json`. `None` if its `model_type` is not of this family.
    fn read(model_type: &str, keys: Keys) -> Option<Result<Self, Error>>
    where
        Self: Sized;

    /// Returns an error for the first value that is out of range or inconsistent.
    fn validate(&self) -> Result<(), Error>;

    /// A `config.json` of transformers 5 without the keys of [`CommonConfig`]. An option that another
    /// model of the family has must be a key here, with its default if it is not used.
    fn json(&self) -> Value;

    /// The description of the decoder. The configuration must be valid.
    fn spec(&self) -> DecoderSpec;

    fn file_names(&self) -> &'static FileNames;

    fn shared(&self) -> Shared<'_>;

    fn shared_mut(&mut self) -> SharedMut<'_>;
}

/// The values that every family has, under names of its own.
pub(super) struct Shared<'a> {
    pub(super) model_type: &'static str,
    pub(super) vocab_size: usize,
    /// The longest sequence of the training.
    pub(super) max_positions: usize,
    pub(super) num_layers: usize,
    pub(super) is_tied: bool,
    pub(super) common: &'a CommonConfig,
}

/// Those that change.
pub(super) struct SharedMut<'a> {
    pub(super) vocab_size: &'a mut usize,
    pub(super) is_tied: &'a mut bool,
    pub(super) common: &'a mut CommonConfig,
}

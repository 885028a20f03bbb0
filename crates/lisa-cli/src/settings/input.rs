//! The model and the data.

use std::path::PathBuf;

use anyhow::Result;

use super::group::{differing, group};
use crate::user_error::require;

group! { "Model and data", InputFlags, InputSettings {
    /// Folder of a Hugging Face model, or a hub id [default: bundled model]
    #[arg(long, value_name = "DIR")]
    model: PathBuf = PathBuf::new();
    /// JSONL file, or a folder of them [default: bundled instructions]
    #[arg(long, value_name = "FILE")]
    data: PathBuf = PathBuf::new();
    /// Held-out JSONL file; without one, a share of the data is held out
    #[arg(long, value_name = "FILE")]
    validation: PathBuf = PathBuf::new();
    /// Share of the data that is held out [default: 0.1]
    #[arg(long, value_name = "SHARE", hide_short_help = true)]
    validation_split: f64 = 0.1;
    /// Longest row in tokens; longer rows are truncated [default: 256]
    #[arg(long, value_name = "TOKENS")]
    max_length: usize = 256;
    /// Pack several examples into one row
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pack: bool = false;
    /// Train on all tokens, not only on the answers
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    loss_on_all: bool = false;
    /// Skip lines that cannot be read instead of stopping
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    skip_bad_lines: bool = false;
}}

impl InputSettings {
    /// Whether both the model and the data are the bundled ones.
    #[must_use]
    pub fn is_demo(&self) -> bool {
        self.model.as_os_str().is_empty() && self.data.as_os_str().is_empty()
    }

    pub(super) fn check(&self) -> Result<()> {
        require!(self.max_length > 0, "give at least 1", "--max-length is 0");
        Ok(())
    }

    pub(super) fn differs(&self, saved: &Self) -> Option<String> {
        differing!(self, saved;
            max_length, pack, loss_on_all, validation_split);
        None
    }
}

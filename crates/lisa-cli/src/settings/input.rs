//! The model and the data.

use std::path::PathBuf;

use anyhow::Result;

use super::group::{differing, group};
use super::kinds::{OnBad, Pairs};
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
    eval: PathBuf = PathBuf::new();
    /// Share of the data that is held out [default: 0.1]
    #[arg(long, value_name = "SHARE", hide_short_help = true)]
    eval_fraction: f64 = 0.1;
    /// Longest row in tokens; longer rows are truncated [default: 256]
    #[arg(long, value_name = "TOKENS")]
    max_seq_length: usize = 256;
    /// Pack several examples into one row
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pack: bool = false;
    /// Train on all tokens, not only on the answers
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    loss_on_all: bool = false;
    /// Lines that cannot be used: stop at the first one, or skip them [default: stop]
    #[arg(long, value_enum, hide_short_help = true)]
    on_bad_line: OnBad = OnBad::Stop;
    /// Chat template: chatml, llama3, plain, or a Jinja file [default: the model's own, else plain]
    #[arg(long, value_name = "NAME|FILE")]
    chat_template: String = String::new();
    /// Pairs of prompt and completion: as plain text, or as chats; auto: as text, with a warning if the model has a chat template [default: auto]
    #[arg(long, value_enum, hide_short_help = true)]
    pairs: Pairs = Pairs::Auto;
    /// Add rows to the embeddings for tokens that the model does not have, each the mean of the others
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    resize_embeddings: bool = false;
}}

impl InputSettings {
    /// Whether both the model and the data are the bundled ones.
    #[must_use]
    pub fn is_demo(&self) -> bool {
        self.model.as_os_str().is_empty() && self.data.as_os_str().is_empty()
    }

    pub(super) fn check(&self) -> Result<()> {
        require!(
            self.max_seq_length > 0,
            "give at least 1",
            "--max-seq-length is 0"
        );
        Ok(())
    }

    pub(super) fn differs(&self, saved: &Self) -> Option<String> {
        differing!(self, saved;
            max_seq_length, pack, loss_on_all, eval_fraction, chat_template, pairs, resize_embeddings);
        None
    }
}

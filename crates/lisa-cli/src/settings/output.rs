//! What a run writes, and how often it is evaluated.

use std::path::PathBuf;

use anyhow::Result;

use super::group::{differing, group};
use super::kinds::Metric;
use crate::user_error::require;

group! { "Output and evaluation", OutputFlags, OutputSettings {
    /// Folder for all files of the run [default: runs/lisa]
    #[arg(long, value_name = "DIR")]
    out: PathBuf = PathBuf::from("runs/lisa");
    /// Steps between checkpoints; 0: only the last one [default: 200]
    #[arg(long, value_name = "STEPS")]
    save_every: usize = 200;
    /// How many of the newest checkpoints to keep, besides the best one [default: 2]
    #[arg(long, value_name = "N", hide_short_help = true)]
    keep: usize = 2;
    /// Steps between lines of progress if the output is not a terminal [default: 10]
    #[arg(long, value_name = "STEPS", hide_short_help = true)]
    log_every: usize = 10;
    /// Steps between held-out losses; 0: first and last [default: 200]
    #[arg(long, value_name = "STEPS")]
    eval_every: usize = 200;
    /// Held-out rows of an evaluation, sampled with --seed; 0: all [default: 100]
    #[arg(long, value_name = "ROWS", hide_short_help = true)]
    eval_rows: usize = 100;
    /// Evaluate in full before training; without it, only the loss of 16 rows
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    eval_first: bool = false;
    /// At the end, also measure the loss of all held-out rows
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    final_eval_all: bool = false;
    /// Train without any evaluation, on all rows
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    no_eval: bool = false;
    /// Held-out examples to generate answers for [default: 4]
    #[arg(long, value_name = "N", hide_short_help = true)]
    eval_examples: usize = 4;
    /// Which generated answers are right [default: exact]
    #[arg(long, value_enum, hide_short_help = true)]
    metric: Metric = Metric::Exact;
    /// Longest generated answer in tokens; 0: from the data's answers [default: 0]
    #[arg(long, value_name = "TOKENS", hide_short_help = true)]
    max_new_tokens: usize = 0;
}}

impl OutputSettings {
    /// Losses of other rows could not be compared with those of the run.
    pub(super) fn differs(&self, saved: &Self) -> Option<String> {
        differing!(self, saved; eval_rows, eval_first);
        None
    }

    pub(super) fn check(&self) -> Result<()> {
        require!(self.keep > 0, "give at least 1", "--keep is 0");
        require!(self.log_every > 0, "give at least 1", "--log-every is 0");
        Ok(())
    }
}

//! What a run writes, and how often it is evaluated.

use std::path::PathBuf;

use super::group::group;

group! { "Output and evaluation", OutputFlags, OutputSettings {
    /// Folder for all files of the run [default: runs/lisa]
    #[arg(long, value_name = "DIR")]
    out: PathBuf = PathBuf::from("runs/lisa");
    /// Steps between checkpoints; 0: only on Ctrl-C [default: 200]
    #[arg(long, value_name = "STEPS")]
    save_every: usize = 200;
    /// Steps between held-out losses; 0: first and last [default: 200]
    #[arg(long, value_name = "STEPS")]
    eval_every: usize = 200;
    /// Held-out examples to generate answers for [default: 150]
    #[arg(long, value_name = "N")]
    eval_examples: usize = 150;
    /// Longest generated answer in tokens [default: 32]
    #[arg(long, value_name = "TOKENS", hide_short_help = true)]
    max_new_tokens: usize = 32;
}}

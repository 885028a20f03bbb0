//! Which parameters train: LISA with its sampling policy, full training, or LoRA.

use std::path::PathBuf;

use anyhow::Result;

use super::group::{differing, group};
use super::kinds::{Method, Moments, Order, Policy};
use crate::user_error::require;

group! { "Method", MethodFlags, MethodSettings {
    /// Which parameters are trained [default: lisa]
    #[arg(long, value_enum)]
    method: Method = Method::Lisa;
    /// Layers that train in a period (gamma) [default: 2, of 48 or more 4]
    #[arg(long, value_name = "N")]
    active_layers: usize = 2;
    /// Steps between two samples of layers (K) [default: 20, short runs less]
    #[arg(long, value_name = "STEPS")]
    period: usize = 20;
    /// How layers are sampled [default: uniform]
    #[arg(long, value_enum)]
    policy: Policy = Policy::Uniform;
    /// Freeze parameters with one of these in their path, such as embed_tokens,lm_head
    #[arg(long, value_delimiter = ',', value_name = "PATH,..", hide_short_help = true)]
    freeze: Vec<String> = Vec::new();
    /// Optimizer state of a layer that freezes [default: drop]
    #[arg(long, value_enum, hide_short_help = true)]
    moments: Moments = Moments::Drop;
    /// Rank of the adapters of --method lora [default: 8]
    #[arg(long, value_name = "R", hide_short_help = true)]
    lora_rank: usize = 8;
    /// Adapters are scaled by this value divided by the rank [default: 16]
    #[arg(long, value_name = "ALPHA", hide_short_help = true)]
    lora_alpha: f64 = 16.0;
    /// File of `lisa importance`, for --policy weighted or bernoulli
    #[arg(long, value_name = "FILE", help_heading = "Sampling policy", hide_short_help = true)]
    importance: PathBuf = PathBuf::new();
    /// One weight or probability per layer [default of bernoulli: gamma / layers]
    #[arg(long, value_delimiter = ',', value_name = "P,..", help_heading = "Sampling policy", hide_short_help = true)]
    probabilities: Vec<f64> = Vec::new();
    /// Order of --policy cyclic [default: shuffled]
    #[arg(long, value_enum, help_heading = "Sampling policy", hide_short_help = true)]
    order: Order = Order::Shuffled;
    /// Layers of --policy fixed, counted from 0, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "LAYER,..", help_heading = "Sampling policy", hide_short_help = true)]
    fixed_layers: Vec<usize> = Vec::new();
    /// Share of the layers' parameters that --policy budget activates [default: 0.25]
    #[arg(long, value_name = "SHARE", help_heading = "Sampling policy", hide_short_help = true)]
    share: f64 = 0.25;
    /// Sample parts of layers: parameters with one of these in their path, and the rest
    #[arg(long, value_delimiter = ',', value_name = "PATH,..", help_heading = "Sampling policy", hide_short_help = true)]
    split: Vec<String> = Vec::new();
    /// Divide the gradients of a layer by its sampling probability
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = "Sampling policy", hide_short_help = true)]
    unbiased: bool = false;
}}

impl MethodSettings {
    /// Refuses a policy without its options, and options of one policy that are given with another.
    pub(super) fn check(&self) -> Result<()> {
        use Policy::{Fixed, Weighted};
        for (name, count) in [
            ("lora-rank", self.lora_rank),
            ("active-layers", self.active_layers),
            ("period", self.period),
        ] {
            require!(count > 0, "give at least 1", "--{name} is 0");
        }
        require!(
            self.lora_alpha > 0.0 && self.lora_alpha.is_finite(),
            "give a number above 0",
            "--lora-alpha is {}",
            self.lora_alpha
        );
        require!(
            self.share > 0.0 && self.share <= 1.0,
            "give a share above 0 and at most 1",
            "--share is {}",
            self.share
        );
        let file = !self.importance.as_os_str().is_empty();
        let given = !self.probabilities.is_empty();
        require!(
            !(file && given),
            "leave one out",
            "--importance and --probabilities are both given"
        );
        require!(
            self.policy != Weighted || file || given,
            "run `lisa importance` and give its file by --importance, or give --probabilities P,..",
            "--policy weighted needs one weight per layer"
        );
        require!(
            self.policy != Fixed || !self.fixed_layers.is_empty(),
            "add --fixed-layers LAYER,..",
            "--policy fixed needs its layers"
        );
        Ok(())
    }

    pub(super) fn differs(&self, saved: &Self) -> Option<String> {
        differing!(self, saved;
            method, active_layers, period, policy, importance, probabilities, order, fixed_layers,
            share, split, unbiased, moments, freeze, lora_rank, lora_alpha);
        None
    }
}

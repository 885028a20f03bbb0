//! Which parameters train: LISA with its sampling policy, full training, or LoRA.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use lisa_lm::checkpoint::Adapter;
use lisa_lm::model::LoraConfig;
use serde::Serialize;

use super::as_given;
use super::group::{MOST, differing, group};
use super::kinds::{Method, Moments, Order, Policy};
use crate::user_error::{UserError, require};

/// All linear modules of the layers.
const ALL_LINEAR: &str = "all-linear";

group! { "Method", MethodFlags, MethodSettings {
    /// Which parameters are trained [default: lisa]
    #[arg(long, value_enum)]
    method: Method = Method::Lisa;
    /// Layers that train in a period (gamma) [default: by model and memory]
    #[arg(long, value_name = "N")]
    active_layers: usize = 2;
    /// Steps until layers are resampled (K) [default: 20; fewer in short runs]
    #[arg(long, value_name = "STEPS")]
    period: usize = 20;
    /// How layers are sampled [default: uniform]
    #[arg(long, value_enum)]
    policy: Policy = Policy::Uniform;
    /// Freeze parameters whose path contains one of these, such as lm_head [default: by model]
    #[arg(long, value_delimiter = ',', value_name = "PATH,..", hide_short_help = true)]
    freeze: Vec<String> = Vec::new();
    /// Train the parameters outside the layers in every N-th period only [default: 1]
    #[arg(long, value_name = "N", hide_short_help = true)]
    outer_every: usize = 1;
    /// Warm-up steps of a layer that becomes active [default: 0]
    #[arg(long, value_name = "STEPS", hide_short_help = true)]
    layer_warmup: usize = 0;
    /// Optimizer state of a layer that freezes [default: drop]
    #[arg(long, value_enum, hide_short_help = true)]
    moments: Moments = Moments::Drop;
    /// Rank r of the adapters [default: 8]
    #[arg(long, value_name = "R", help_heading = "LoRA", hide_short_help = true)]
    lora_rank: usize = 8;
    /// Adapters are scaled by alpha / r [default: twice the rank]
    #[arg(long, value_name = "ALPHA", help_heading = "LoRA", hide_short_help = true)]
    lora_alpha: f64 = 16.0;
    /// Probability with which inputs of the adapters are dropped [default: 0]
    #[arg(long, value_name = "P", help_heading = "LoRA", hide_short_help = true)]
    lora_dropout: f64 = 0.0;
    /// Scale the adapters by alpha / sqrt(r) (rank-stabilized LoRA)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = "LoRA", hide_short_help = true)]
    rslora: bool = false;
    /// Modules with an adapter, such as q_proj,v_proj [default: all-linear]
    #[arg(long, value_delimiter = ',', value_name = "NAME,..", help_heading = "LoRA", hide_short_help = true)]
    lora_target_modules: Vec<String> = vec![ALL_LINEAR.to_owned()];
    /// Continue training the adapter in this folder (PEFT's format)
    #[arg(long, value_name = "DIR", help_heading = "LoRA", hide_short_help = true)]
    adapter: PathBuf = PathBuf::new();
    /// Write only the adapter, and no merged model
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = "LoRA", hide_short_help = true)]
    no_merge: bool = false;
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
    /// Sample parts of layers: parameters whose path contains one of these, and the rest
    #[arg(long, value_delimiter = ',', value_name = "PATH,..", help_heading = "Sampling policy", hide_short_help = true)]
    split: Vec<String> = Vec::new();
    /// Divide the gradients of a layer by its sampling probability
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, help_heading = "Sampling policy", hide_short_help = true)]
    unbiased: bool = false;
}}

impl MethodFlags {
    /// Takes what describes an adapter from its folder, which training goes on with. Returns the names
    /// of what was taken.
    ///
    /// # Errors
    ///
    /// The adapter cannot be opened, or a flag says something else.
    pub(super) fn take_adapter(&mut self) -> Result<Vec<&'static str>> {
        let folder = self.adapter.clone().unwrap_or_default();
        if folder.as_os_str().is_empty() {
            return Ok(Vec::new());
        }
        if !folder.exists() {
            return Err(no_adapter(&folder).into());
        }
        let of_run = folder.join("adapter");
        let has_config = |folder: &Path| folder.join("adapter_config.json").is_file();
        require!(
            has_config(&folder) || !has_config(&of_run),
            format!("give the folder of its adapter, `{}`", of_run.display()),
            "--adapter is `{}`, which is the folder of a run",
            folder.display()
        );
        let adapter = Adapter::open(&folder)?;
        let config = adapter.config();
        let modules = if config.modules.is_empty() {
            vec![ALL_LINEAR.to_owned()]
        } else {
            config.modules.clone()
        };
        let mut taken = Vec::new();
        if self.method.is_none() {
            self.method = Some(Method::Lora);
            taken.push("method");
        }
        if self.lora_dropout.is_none() {
            self.lora_dropout = Some(config.dropout);
            taken.push("lora-dropout");
        }
        let mut take = |name, is_same: bool, given: String, found: String| {
            require!(
                is_same,
                "leave it out: training goes on with the adapter as it is",
                "--{name} is {given}, and the adapter in `{}` has {found}",
                folder.display()
            );
            taken.push(name);
            Ok(())
        };
        take_one(&mut self.lora_rank, config.rank, "lora-rank", &mut take)?;
        take_one(&mut self.lora_alpha, config.alpha, "lora-alpha", &mut take)?;
        take_one(&mut self.rslora, config.rslora, "rslora", &mut take)?;
        let modules_flag = &mut self.lora_target_modules;
        take_one(modules_flag, modules, "lora-target-modules", &mut take)?;
        Ok(taken)
    }
}

/// The error of a folder that does not exist. Axolotl's `adapter` is the kind of a new adapter.
fn no_adapter(folder: &Path) -> UserError {
    let message = format!(
        "--adapter is `{0}`, and there is no folder `{0}`",
        folder.display()
    );
    let is_kind = ["lora", "qlora"]
        .iter()
        .any(|kind| Path::new(kind) == folder);
    UserError::new(message).with_help(if is_kind {
        "for a new adapter, give --method lora, or in a file `method = \"lora\"`; --adapter is the folder of \
         one that training goes on with"
    } else {
        "give the folder of an adapter in PEFT's format, such as RUN/adapter; --method lora makes a new one"
    })
}

/// Sets a flag to what the adapter has; `take` gets its name, whether it may have this value, and both
/// values as text.
fn take_one<T: PartialEq + Serialize>(
    flag: &mut Option<T>,
    found: T,
    name: &'static str,
    take: &mut impl FnMut(&'static str, bool, String, String) -> Result<()>,
) -> Result<()> {
    let asked = flag.as_ref().unwrap_or(&found);
    let shown = |value: &T| as_given(value).unwrap_or_else(|| "empty".to_owned());
    take(name, *asked == found, shown(asked), shown(&found))?;
    *flag = Some(found);
    Ok(())
}

impl MethodSettings {
    /// Refuses a policy without its options, and options of one policy that are given with another.
    pub(super) fn check(&self) -> Result<()> {
        use Policy::{Fixed, Weighted};
        require!(
            (1..=MOST).contains(&self.lora_rank),
            format!("give 1 to {MOST}"),
            "--lora-rank is {}",
            self.lora_rank
        );
        for (name, count) in [
            ("active-layers", self.active_layers),
            ("period", self.period),
            ("outer-every", self.outer_every),
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
            (0.0..1.0).contains(&self.lora_dropout),
            "give a probability from 0 to below 1",
            "--lora-dropout is {}",
            self.lora_dropout
        );
        require!(
            !self.lora_target_modules.is_empty()
                && (self.lora_target_modules.len() == 1 || self.all_linear().is_none()),
            "give names of modules, or all-linear alone",
            "--lora-target-modules is `{}`",
            self.lora_target_modules.join(",")
        );
        require!(
            self.share > 0.0 && self.share <= 1.0,
            "give a share above 0 and at most 1",
            "--share is {}",
            self.share
        );
        require!(
            self.layer_warmup <= self.period,
            format!("give at most {}, or a longer --period", self.period),
            "--layer-warmup is {}, and --period is {}",
            self.layer_warmup,
            self.period
        );
        require!(
            !self.unbiased || self.outer_every == 1,
            "leave one out",
            "--unbiased and --outer-every {} are both given: in periods in which they are frozen, the \
             parameters outside the layers have probability 0",
            self.outer_every
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
        let mut seen = HashSet::new();
        let twice = self.fixed_layers.iter().find(|layer| !seen.insert(**layer));
        require!(
            twice.is_none(),
            "name each layer once, counted from 0",
            "--fixed-layers has {} twice",
            twice.copied().unwrap_or_default()
        );
        Ok(())
    }

    /// The configuration of the adapters of LoRA, with this seed for their initial values.
    #[must_use]
    pub(crate) fn lora(&self, seed: u64) -> LoraConfig {
        let modules = match self.all_linear() {
            Some(_) => Vec::new(),
            None => self.lora_target_modules.clone(),
        };
        LoraConfig::new(self.lora_rank)
            .with_alpha(self.lora_alpha)
            .with_dropout(self.lora_dropout)
            .with_rslora(self.rslora)
            .with_modules(modules)
            .with_seed(seed)
    }

    /// The name for all linear modules among the target modules. Other trainers say `all`.
    fn all_linear(&self) -> Option<&String> {
        let mut names = self.lora_target_modules.iter();
        names.find(|name| [ALL_LINEAR, "all"].contains(&&***name))
    }

    pub(super) fn differs(&self, saved: &Self) -> Option<String> {
        differing!(self, saved;
            method, active_layers, period, policy, importance, probabilities, order, fixed_layers,
            share, split, unbiased, outer_every, layer_warmup, moments, freeze, lora_rank, lora_alpha, lora_dropout, rslora,
            lora_target_modules, adapter);
        None
    }
}

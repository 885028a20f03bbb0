//! What a run is asked to do: flags over the file of `--config` over defaults. Tests: `settings/tests.rs`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use lisa::recompute::Recompute;
use lisa::{ErrorKind, LisaError};
use serde::{Deserialize, Serialize};

mod kinds;

pub use kinds::{Dtype, Method, Moments, Order, Policy, Quantize};

/// Fine-tunes a Hugging Face checkpoint on JSONL data and writes a Hugging Face checkpoint.
///
/// Without arguments it fine-tunes the bundled base model on the bundled instruction set.
#[derive(Debug, Parser)]
#[command(version, args_override_self = true)]
#[allow(clippy::struct_excessive_bools)] // Each is a flag.
pub struct Command {
    /// What to do instead.
    #[command(subcommand)]
    pub task: Option<Task>,
    /// Settings from a TOML file; keys are the long names of the flags, and flags win
    #[arg(long, value_name = "FILE.toml", help_heading = "Run")]
    pub config: Option<PathBuf>,
    /// Go on from the newest checkpoint in the output folder, with the settings it was made with
    #[arg(long, help_heading = "Run")]
    pub resume: bool,
    /// Replace the run that the output folder holds
    #[arg(long, conflicts_with = "resume", help_heading = "Run")]
    pub overwrite: bool,
    /// Load everything, print what trains and what it will need, and write nothing
    #[arg(long, conflicts_with = "plan", help_heading = "Run")]
    pub dry_run: bool,
    /// Print what each method would need, from `config.json` alone, and run nothing
    #[arg(long, help_heading = "Run")]
    pub plan: bool,
    /// With --plan: the memory there is, in GB
    #[arg(long, value_name = "GB", requires = "plan", help_heading = "Run")]
    pub budget: Option<f64>,
    /// The settings that flags give.
    #[command(flatten)]
    pub flags: Flags,
}

/// What else the program does.
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Measure weight norms under LoRA and under full training, for --policy weighted
    Importance(Box<crate::importance::Options>),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

impl Command {
    /// A completion script for a shell, of the program's name.
    #[must_use]
    pub fn completions(shell: Shell) -> Vec<u8> {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Self::command(), "finetune", &mut script);
        script
    }
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])* $(#[arg($($arg:tt)*)])* $name:ident: $type:ty = $default:expr;)*) => {
        /// Settings that may be absent: the flags, or a file.
        #[derive(Clone, Debug, Default, PartialEq, Args, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub struct Flags {
            $(
                $(#[doc = $doc])*
                $(#[arg($($arg)*)])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<$type>,
            )*
        }

        /// Settings that are all there.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Settings {
            $($(#[doc = $doc])* pub $name: $type,)*
        }

        impl Flags {
            /// These, and where one is absent the other's.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name),)* }
            }

            fn or_defaults(self) -> Settings {
                Settings { $($name: self.$name.unwrap_or_else(|| $default),)* }
            }
        }

        impl Settings {
            /// Every setting, given.
            #[must_use]
            pub fn to_flags(&self) -> Flags {
                Flags { $($name: Some(self.$name.clone()),)* }
            }
        }
    };
}

settings! {
    /// Folder of a Hugging Face checkpoint, or a hub id (feature `hub`) [default: the bundled one]
    #[arg(long, value_name = "DIR", help_heading = "Input")]
    model: PathBuf = bundled("base");
    /// JSONL file, or a folder of them: messages, instruction/input/output, prompt/completion or
    /// text [default: the bundled instruction set]
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    data: PathBuf = bundled("data/train.jsonl");
    /// Held-out JSONL file; without one, --validation-split of the data is held out
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    validation: PathBuf = PathBuf::new();
    /// Share of the data that is held out [default: 0.1]
    #[arg(long, value_name = "SHARE", help_heading = "Input")]
    validation_split: f64 = 0.1;
    /// Longest example in tokens; what follows is cut [default: 256]
    #[arg(long, value_name = "TOKENS", help_heading = "Input")]
    max_length: usize = 256;
    /// Pack several examples into one row
    #[arg(long, num_args = 0..=1, default_missing_value = "true", help_heading = "Input")]
    pack: bool = false;
    /// Take the loss over all tokens, not over the answers alone
    #[arg(long, num_args = 0..=1, default_missing_value = "true", help_heading = "Input")]
    loss_on_all: bool = false;
    /// Leave out lines that cannot be read, instead of stopping
    #[arg(long, num_args = 0..=1, default_missing_value = "true", help_heading = "Input")]
    skip_bad_lines: bool = false;

    /// Which parameters train [default: lisa]
    #[arg(long, value_enum, help_heading = "Method")]
    method: Method = Method::Lisa;
    /// Layers that train in a period (gamma) [default: 2]
    #[arg(long, value_name = "N", help_heading = "Method")]
    active_layers: usize = 2;
    /// Optimizer steps between two draws (K) [default: 10]
    #[arg(long, value_name = "STEPS", help_heading = "Method")]
    period: usize = 10;
    /// What draws the layers [default: uniform]
    #[arg(long, value_enum, help_heading = "Method")]
    policy: Policy = Policy::Uniform;
    /// What `finetune importance` wrote, for --policy weighted or bernoulli
    #[arg(long, value_name = "FILE.json", help_heading = "Method")]
    importance: PathBuf = PathBuf::new();
    /// The same by hand: a number for each layer, by commas [default of bernoulli: active layers / layers]
    #[arg(long, value_delimiter = ',', value_name = "P,P,..", help_heading = "Method")]
    probabilities: Vec<f64> = Vec::new();
    /// The order of --policy cyclic [default: shuffled]
    #[arg(long, value_enum, help_heading = "Method")]
    order: Order = Order::Shuffled;
    /// The layers of --policy fixed, counted from 0, by commas
    #[arg(long, value_delimiter = ',', value_name = "LAYER,..", help_heading = "Method")]
    fixed_layers: Vec<usize> = Vec::new();
    /// Share of the layers' parameters that --policy budget trains at a time [default: 0.25]
    #[arg(long, value_name = "SHARE", help_heading = "Method")]
    share: f64 = 0.25;
    /// Draw parts of layers: what has one of these in its path, and the rest, such as attn
    #[arg(long, value_delimiter = ',', value_name = "PART,..", help_heading = "Method")]
    split: Vec<String> = Vec::new();
    /// Scale the gradients of a layer by 1 over its probability
    #[arg(long, num_args = 0..=1, default_missing_value = "true", help_heading = "Method")]
    unbiased: bool = false;
    /// What happens to the moments of a layer that freezes [default: drop]
    #[arg(long, value_enum, help_heading = "Method")]
    moments: Moments = Moments::Drop;
    /// Parts of paths of parameters to hold frozen, by commas, such as embed_tokens,lm_head
    #[arg(long, value_delimiter = ',', value_name = "PATH,..", help_heading = "Method")]
    freeze: Vec<String> = Vec::new();
    /// Type of the weights [default: what the checkpoint has; f32 for the bundled model]
    #[arg(long, value_enum, help_heading = "Method")]
    dtype: Dtype = Dtype::F32;
    /// Train bf16 and f16 weights without f32 master weights (small updates are then lost)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", help_heading = "Method")]
    no_master_weights: bool = false;
    /// Recompute activations, keeping the input of every N-th layer; 0 for not [default: 0]
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "1", help_heading = "Memory")]
    recompute: usize = 0;
    /// Go back through one layer at a time, in pieces (with --recompute; the least memory with N near the root of the number of layers)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", help_heading = "Memory")]
    pieces: bool = false;
    /// Step each layer as soon as its gradients are there (with --recompute; no accumulation, no clipping)
    #[arg(long, num_args = 0..=1, default_missing_value = "true", help_heading = "Memory")]
    update_in_backward: bool = false;
    /// What the device holds of frozen layers [default: none]
    #[arg(long, value_enum, help_heading = "Memory")]
    quantize: Quantize = Quantize::None;
    /// Rank of the adapters of `--method lora` [default: 8]
    #[arg(long, value_name = "R", help_heading = "Method")]
    lora_rank: usize = 8;
    /// Their scale is this over the rank [default: 16]
    #[arg(long, value_name = "ALPHA", help_heading = "Method")]
    lora_alpha: f64 = 16.0;

    /// Rows in a batch [default: 8]
    #[arg(long, value_name = "ROWS", help_heading = "Training")]
    batch_size: usize = 8;
    /// Batches in an optimizer step [default: 1]
    #[arg(long, value_name = "BATCHES", help_heading = "Training")]
    accumulation: usize = 1;
    /// The highest learning rate [default: 0.001]
    #[arg(long, value_name = "RATE", help_heading = "Training")]
    lr: f64 = 1e-3;
    /// Share of the steps in which it rises from 0; then it falls along a cosine [default: 0.03]
    #[arg(long, value_name = "SHARE", help_heading = "Training")]
    warmup: f64 = 0.03;
    /// What it falls to, as a share of the highest [default: 0.1]
    #[arg(long, value_name = "SHARE", help_heading = "Training")]
    min_lr: f64 = 0.1;
    /// Decoupled weight decay [default: 0.01]
    #[arg(long, value_name = "DECAY", help_heading = "Training")]
    weight_decay: f64 = 0.01;
    /// Largest norm of the whole gradient; 0 for no clipping [default: 1]
    #[arg(long, value_name = "NORM", help_heading = "Training")]
    max_grad_norm: f64 = 1.0;
    /// Leave out batches whose loss or gradient is no number, instead of stopping
    #[arg(long, num_args = 0..=1, default_missing_value = "true", help_heading = "Training")]
    skip_bad_steps: bool = false;
    /// Optimizer steps; 0 for --epochs [default: 0]
    #[arg(long, value_name = "STEPS", help_heading = "Training")]
    steps: usize = 0;
    /// Times the data is gone through [default: 12]
    #[arg(long, value_name = "TIMES", help_heading = "Training")]
    epochs: f64 = 12.0;
    /// Seed of draws, orders and adapters [default: 42]
    #[arg(long, help_heading = "Training")]
    seed: u64 = 42;

    /// Folder that everything is written to [default: runs/finetune]
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    out: PathBuf = PathBuf::from("runs/finetune");
    /// Steps between two checkpoints; 0 for none but on Ctrl-C [default: 200]
    #[arg(long, value_name = "STEPS", help_heading = "Output")]
    checkpoint_every: usize = 200;
    /// Steps between two held-out losses; 0 for before and after alone [default: 200]
    #[arg(long, value_name = "STEPS", help_heading = "Output")]
    eval_every: usize = 200;
    /// Held-out examples to generate answers for [default: 150]
    #[arg(long, value_name = "N", help_heading = "Output")]
    eval_examples: usize = 150;
    /// Longest answer that is generated, in tokens [default: 32]
    #[arg(long, value_name = "TOKENS", help_heading = "Output")]
    max_new_tokens: usize = 32;
}

/// A file that comes with the example.
#[must_use]
pub fn bundled(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

impl Flags {
    /// Reads a TOML file.
    pub fn from_toml(path: &Path) -> Result<Self> {
        let text = lisa_lm::read_small_text(path)
            .with_context(|| format!("cannot read the settings `{}`", path.display()))?;
        toml::from_str(&text).map_err(|error: toml::de::Error| {
            let line = error
                .span()
                .map(|span| text[..span.start.min(text.len())].lines().count().max(1));
            let message = format!("cannot use the settings `{}`", path.display());
            LisaError::new(ErrorKind::Config, message)
                .with_place(path, line)
                .with_source(error)
                .into()
        })
    }

    /// All settings, checked; `dtype` is what the checkpoint has where none is asked for.
    pub fn resolve(mut self, stored: Option<Dtype>) -> Result<Settings> {
        let bundled_data = self.data.is_none();
        if bundled_data && self.validation.is_none() {
            self.validation = Some(bundled("data/heldout.jsonl"));
        }
        // The bundled model is stored in half precision to be small; the processor likes f32.
        let stored = if self.model.is_none() {
            Some(Dtype::F32)
        } else {
            stored
        };
        self.dtype = self.dtype.or(stored);
        let settings = self.or_defaults();
        settings.check()?;
        Ok(settings)
    }
}

impl Settings {
    /// Refuses options of one policy that are given with another, and a policy without its options.
    fn check_policy(&self) -> Result<()> {
        use Policy::{Bernoulli, Fixed, Weighted};
        let by_layer = matches!(self.policy, Bernoulli | Weighted);
        let file = !self.importance.as_os_str().is_empty();
        let given = !self.probabilities.is_empty();
        ensure!(
            by_layer || !(file || given),
            "--importance and --probabilities go with --policy weighted or --policy bernoulli; add \
             one of them"
        );
        ensure!(
            !(file && given),
            "--importance and --probabilities are both given; leave one out"
        );
        ensure!(
            self.policy != Weighted || file || given,
            "--policy weighted needs a weight for each layer: run `finetune importance` and give its \
             --importance FILE.json, or --probabilities P,P,.."
        );
        ensure!(
            (self.policy == Fixed) != self.fixed_layers.is_empty(),
            "--policy fixed and --fixed-layers LAYER,.. go together; give both or neither"
        );
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let positive = [
            ("batch-size", self.batch_size),
            ("accumulation", self.accumulation),
            ("max-length", self.max_length),
            ("lora-rank", self.lora_rank),
        ];
        for (name, value) in positive {
            ensure!(value > 0, "--{name} is 0; give at least 1");
        }
        ensure!(
            self.lr > 0.0 && self.lr.is_finite(),
            "--lr is {}; give a rate above 0",
            self.lr
        );
        for (name, share) in [("warmup", self.warmup), ("min-lr", self.min_lr)] {
            ensure!(
                (0.0..=1.0).contains(&share),
                "--{name} is {share}; give a share of 0 to 1"
            );
        }
        for (name, value) in [
            ("max-grad-norm", self.max_grad_norm),
            ("weight-decay", self.weight_decay),
        ] {
            ensure!(value >= 0.0, "--{name} is {value}; give 0 or more");
        }
        ensure!(
            self.steps > 0 || (self.epochs > 0.0 && self.epochs.is_finite()),
            "--steps is 0 and --epochs is {}, so there is nothing to do; give one above 0",
            self.epochs
        );
        ensure!(
            !self.pieces || self.recompute > 0,
            "--pieces says how recomputed layers are run back; add --recompute"
        );
        if self.update_in_backward {
            ensure!(
                self.recompute > 0,
                "--update-in-backward steps layer by layer; add --recompute"
            );
            ensure!(
                self.accumulation == 1,
                "--update-in-backward has the gradients of one layer at a time, and --accumulation \
                 {} needs all of them; leave one out",
                self.accumulation
            );
            ensure!(
                self.max_grad_norm == 0.0,
                "--update-in-backward has the gradients of one layer at a time, and --max-grad-norm \
                 {} needs all of them; add --max-grad-norm 0",
                self.max_grad_norm
            );
        }
        ensure!(
            self.quantize == Quantize::None || self.method == Method::Lisa,
            "--quantize is for layers that are frozen in turn; it needs --method lisa"
        );
        ensure!(
            self.recompute == 0 || self.method != Method::Lora,
            "--recompute is not there for --method lora; leave one out"
        );
        self.check_policy()?;
        Ok(())
    }

    /// How activations are recomputed, where they are.
    #[must_use]
    pub fn recomputation(&self) -> Recompute {
        let plan = Recompute::new().with_every(self.recompute);
        if self.pieces {
            plan.with_sublayers()
        } else {
            plan
        }
    }

    /// The first setting in which a resumed run must agree with its checkpoint and does not.
    #[must_use]
    pub fn differs(&self, saved: &Self) -> Option<String> {
        macro_rules! compare {
            ($($name:ident),*) => {$(
                if self.$name != saved.$name {
                    let name = stringify!($name).replace('_', "-");
                    return Some(format!(
                        "--{name} is {:?} and the checkpoint was made with {:?}",
                        self.$name, saved.$name
                    ));
                }
            )*};
        }
        compare!(
            method,
            active_layers,
            period,
            policy,
            importance,
            probabilities,
            order,
            fixed_layers,
            share,
            split,
            unbiased,
            moments,
            freeze,
            dtype,
            no_master_weights,
            quantize,
            lora_rank,
            lora_alpha,
            batch_size,
            accumulation,
            max_length,
            pack,
            loss_on_all,
            seed,
            data,
            validation,
            validation_split
        );
        None
    }

    /// The learning rate of a step out of `steps`: a linear rise, then half a cosine.
    #[must_use]
    pub fn learning_rate(&self, step: u64, steps: u64) -> f64 {
        let warm = (self.warmup * steps as f64).round();
        let step = step as f64;
        if step < warm {
            return self.lr * (step + 1.0) / warm;
        }
        let way = (step - warm) / (steps as f64 - warm).max(1.0);
        let fall = 0.5 * (1.0 + (std::f64::consts::PI * way.min(1.0)).cos());
        self.lr * (self.min_lr + (1.0 - self.min_lr) * fall)
    }
}

#[cfg(test)]
mod tests;

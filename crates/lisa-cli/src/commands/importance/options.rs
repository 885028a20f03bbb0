//! [`Options`]: the options of `lisa importance`, and which settings they take.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};

use super::super::norms_plot::Names;
use crate::settings::{Flags, Method};
use crate::user_error::require;

/// What the importance of a layer is.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The ratio of its norms under LoRA and under full training, as in the paper
    Ratio,
    /// Its change in a run with LoRA, relative to its weights
    LoraUpdate,
    /// The mean norm of its gradients in a few batches, per root of its size, without training
    Gradient,
    /// The mean squared norm of its gradients in a few batches, without training
    SquaredGradient,
    /// The decrease of the loss that a step of Adam would cause, by its gradients in a few batches
    LossDecrease,
}

/// Which norms are measured.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// The weights, with merged adapters, as in the paper
    Weights,
    /// The change of the weights since the start of training
    Update,
}

/// What LoRA is compared with.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// Full training, as in the paper
    Full,
    /// LISA, for models whose full training needs too much memory
    Lisa,
}

/// Settings without effect here: the methods are given, adapters are new and not saved, the gradients
/// of all layers are needed at once, and nothing is skipped, evaluated or saved on the way.
const WITHOUT_EFFECT: [&str; 17] = [
    "method",
    "adapter",
    "no-merge",
    "update-in-backward",
    "skip-bad-steps",
    "epochs",
    "save-every",
    "keep",
    "log-every",
    "eval-every",
    "eval-rows",
    "eval-first",
    "final-eval-all",
    "no-eval",
    "metric",
    "eval-examples",
    "max-new-tokens",
];

/// Settings of `--against lisa`.
const OF_LISA: [&str; 13] = [
    "active-layers",
    "period",
    "policy",
    "moments",
    "importance",
    "probabilities",
    "order",
    "fixed-layers",
    "share",
    "split",
    "unbiased",
    "outer-every",
    "layer-warmup",
];

/// Settings of optimizer steps and of their gradients, which the kinds of `--by` that measure gradients do
/// not take.
const OF_TRAINING: [&str; 18] = [
    "lr",
    "schedule",
    "warmup-ratio",
    "warmup-steps",
    "min-lr-ratio",
    "min-lr",
    "weight-decay",
    "decay-all",
    "max-grad-norm",
    "lora-rank",
    "lora-alpha",
    "lora-dropout",
    "rslora",
    "lora-target-modules",
    "freeze",
    "recompute",
    "sublayers",
    "no-master-weights",
];

/// Options of `lisa importance`.
#[derive(Args, Debug)]
#[command(
    mut_args(|arg| {
        let is_without_effect = arg.get_long().is_some_and(|name| WITHOUT_EFFECT.contains(&name));
        if is_without_effect { arg.hide(true) } else { arg }
    }),
    mut_arg("steps", |arg| arg.help("Steps of a run [default: 200; 16 with gradients]")),
    mut_arg("out", |arg| arg.help("Folder of importance.json and its picture [default: runs/importance]"))
)]
pub struct Options {
    /// How importance is measured [default: gradient]
    #[arg(
        long,
        value_enum,
        default_value = "gradient",
        hide_default_value = true
    )]
    pub by: By,
    /// Which norms --by ratio measures [default: weights]
    #[arg(long, value_enum)]
    pub of: Option<Of>,
    /// What --by ratio compares LoRA with [default: full]
    #[arg(long, value_enum)]
    pub against: Option<Against>,
    /// Highest learning rate of the LoRA run [default: three times --lr]
    #[arg(long, value_name = "RATE")]
    pub lora_lr: Option<f64>,
    /// Replace the file of an earlier command
    #[arg(long)]
    pub overwrite: bool,
    /// TOML file of settings (keys: long flag names); flags override it
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// The settings of the batches or of both runs.
    #[command(flatten)]
    pub flags: Flags,
}

impl By {
    fn is_of_gradients(self) -> bool {
        matches!(
            self,
            Self::Gradient | Self::SquaredGradient | Self::LossDecrease
        )
    }

    /// The flag with its value.
    fn flag(self) -> String {
        let value = self.to_possible_value().unwrap_or_default();
        format!("--by {}", value.get_name())
    }
}

impl Options {
    /// The settings that were given, and the defaults of this command. Settings without effect are refused.
    pub(super) fn flags(&self) -> Result<Flags> {
        self.check()?;
        let mut flags = self.flags.clone();
        flags.refuse_flags(
            &WITHOUT_EFFECT,
            "`lisa importance`",
            "use it with `lisa train`",
        )?;
        let by = self.by.flag();
        if self.by.is_of_gradients() {
            flags.refuse_flags(&OF_TRAINING, &by, "use another --by")?;
        }
        if self.against != Some(Against::Lisa) {
            let by = match self.by {
                By::Ratio => "--against full",
                _ => &by,
            };
            flags.refuse_flags(&OF_LISA, by, "use --by ratio --against lisa")?;
        }
        if let Some(lr) = self.lora_lr {
            require!(
                lr > 0.0 && lr.is_finite(),
                "give a learning rate above 0",
                "--lora-lr is {lr}"
            );
        }
        if let Some(path) = &self.config {
            flags = flags.or(Flags::from_file(path)?);
        }
        let steps = if self.by.is_of_gradients() { 16 } else { 200 };
        flags.training.steps = flags.training.steps.or(Some(steps));
        flags.output.out = flags.output.out.or_else(|| Some("runs/importance".into()));
        Ok(flags)
    }

    /// The method of the run that is not of LoRA, if there is one.
    pub(super) fn method(&self) -> Method {
        match (self.by, self.against) {
            (By::LoraUpdate, _) => Method::Lora,
            (By::Ratio, Some(Against::Lisa)) => Method::Lisa,
            _ => Method::Full,
        }
    }

    /// What the norms of `--by ratio` are called.
    pub(super) fn names(&self) -> Names {
        Names {
            measured: match self.of {
                Some(Of::Update) => "update",
                _ => "weights",
            },
            other: match self.against {
                Some(Against::Lisa) => "LISA",
                _ => "full",
            },
        }
    }

    /// Returns an error if a flag of `--by ratio` is given with another importance.
    fn check(&self) -> Result<()> {
        let given = [
            ("of", self.of.is_some()),
            ("against", self.against.is_some()),
            ("lora-lr", self.lora_lr.is_some()),
        ];
        for (name, is_given) in given {
            require!(
                !is_given || self.by == By::Ratio,
                "leave it out, or use --by ratio",
                "--{name} has no effect with {}",
                self.by.flag()
            );
        }
        Ok(())
    }
}

//! Batches, steps and the learning rate.

use anyhow::Result;

use super::group::{MOST, differing, group};
use super::kinds::Schedule;
use crate::terminal::text::counted;
use crate::user_error::require;

/// The most steps, and the most epochs, that a run may be asked for: their products with other counts are
/// 64-bit numbers.
const LONGEST: u32 = 1_000_000_000;

group! { "Training", TrainingFlags, TrainingSettings {
    /// Rows of a batch [default: 4, less if memory is short]
    #[arg(long, value_name = "ROWS")]
    batch_size: usize = 4;
    /// Batches per step, more if memory is low [default: 1]
    #[arg(long, value_name = "BATCHES")]
    gradient_accumulation_steps: usize = 1;
    /// Highest learning rate [default: by method and model]
    #[arg(long, value_name = "RATE")]
    lr: f64 = 5e-5;
    /// Passes over the data [default: 1 to 3, by row count]
    #[arg(long, value_name = "N")]
    epochs: f64 = 3.0;
    /// Optimizer steps; 0: those of --epochs [default: 0]
    #[arg(long, value_name = "STEPS")]
    steps: usize = 0;
    /// Seed of all random choices [default: 42]
    #[arg(long, value_name = "SEED")]
    seed: u64 = 42;
    /// Learning rate after the warm-up [default: cosine]
    #[arg(long, value_enum, hide_short_help = true)]
    schedule: Schedule = Schedule::Cosine;
    /// Share of the steps in which the learning rate rises [default: 0.03]
    #[arg(long, value_name = "SHARE", hide_short_help = true)]
    warmup_ratio: f64 = 0.03;
    /// Steps in which the learning rate rises; 0: by --warmup-ratio [default: 0]
    #[arg(long, value_name = "STEPS", hide_short_help = true)]
    warmup_steps: usize = 0;
    /// Final learning rate as a share of --lr; linear: 0 [default: 0.1]
    #[arg(long, value_name = "SHARE", hide_short_help = true)]
    min_lr_ratio: f64 = 0.1;
    /// Final learning rate itself; -1: use --min-lr-ratio [default: -1]
    #[arg(long, value_name = "RATE", hide_short_help = true)]
    min_lr: f64 = -1.0;
    /// Decoupled weight decay [default: 0.01]
    #[arg(long, value_name = "DECAY", hide_short_help = true)]
    weight_decay: f64 = 0.01;
    /// Decay biases and the weights of norms as well, not only matrices
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    decay_all: bool = false;
    /// Largest global norm of the gradients; 0: no clipping [default: 1]
    #[arg(long, value_name = "NORM", hide_short_help = true)]
    max_grad_norm: f64 = 1.0;
    /// Skip batches whose loss or gradients are not finite, instead of stopping
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true, hide_short_help = true)]
    skip_bad_steps: bool = false;
}}

impl TrainingSettings {
    /// The learning rate of a step, given the number of `steps`: linear warm-up, then the schedule.
    #[must_use]
    pub(crate) fn learning_rate(&self, step: u64, steps: u64) -> f64 {
        let warm = match self.warmup_steps {
            0 => (self.warmup_ratio * steps as f64).round(),
            given => given as f64,
        };
        let step = step as f64;
        if step < warm {
            return self.lr * (step + 1.0) / warm;
        }
        let way = ((step - warm) / (steps as f64 - warm).max(1.0)).min(1.0);
        let fall = match self.schedule {
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * way).cos()),
            Schedule::Linear => 1.0 - way,
            Schedule::Constant => return self.lr,
        };
        let last = if self.min_lr < 0.0 {
            self.min_lr_ratio
        } else {
            self.min_lr / self.lr
        };
        self.lr * (last + (1.0 - last) * fall)
    }

    /// Refuses a final learning rate above the highest one.
    pub(super) fn falls(&self) -> Result<()> {
        require!(
            self.min_lr <= self.lr,
            format!("give a rate from 0 to {}, which is --lr", self.lr),
            "--min-lr is {}, and --lr is {}",
            self.min_lr,
            self.lr
        );
        Ok(())
    }

    /// Refuses a warm-up that does not end before a run of `steps` steps does.
    pub(crate) fn warms_up_within(&self, steps: u64) -> Result<()> {
        let given = self.warmup_steps as u64;
        require!(
            given == 0 || given < steps,
            format!(
                "give at most {}, or a longer run with --steps or --epochs",
                steps.saturating_sub(1)
            ),
            "--warmup-steps is {given}, and the run has {}",
            counted(steps as usize, "step")
        );
        Ok(())
    }

    pub(super) fn check(&self, update_in_backward: bool) -> Result<()> {
        for (name, count) in [
            ("batch-size", self.batch_size),
            (
                "gradient-accumulation-steps",
                self.gradient_accumulation_steps,
            ),
        ] {
            require!(
                (1..=MOST).contains(&count),
                format!("give 1 to {MOST}"),
                "--{name} is {count}"
            );
        }
        // The settings of a run are written as TOML, whose integers have a sign.
        require!(
            i64::try_from(self.seed).is_ok(),
            format!("give at most {}", i64::MAX),
            "--seed is {}",
            self.seed
        );
        require!(
            self.min_lr == -1.0 || (self.min_lr >= 0.0 && self.min_lr.is_finite()),
            "give a learning rate from 0 to --lr",
            "--min-lr is {}",
            self.min_lr
        );
        require!(
            self.lr > 0.0 && self.lr.is_finite(),
            "give a learning rate above 0",
            "--lr is {}",
            self.lr
        );
        for (name, share) in [
            ("warmup-ratio", self.warmup_ratio),
            ("min-lr-ratio", self.min_lr_ratio),
        ] {
            require!(
                (0.0..=1.0).contains(&share),
                "give a share from 0 to 1",
                "--{name} is {share}"
            );
        }
        for (name, value) in [
            ("max-grad-norm", self.max_grad_norm),
            ("weight-decay", self.weight_decay),
        ] {
            require!(
                value >= 0.0 && value.is_finite(),
                "give 0 or more",
                "--{name} is {value}"
            );
        }
        require!(
            self.steps > 0 || (self.epochs > 0.0 && self.epochs.is_finite()),
            "give a number above 0, or --steps",
            "--epochs is {}",
            self.epochs
        );
        require!(
            self.steps <= LONGEST as usize,
            format!("give at most {LONGEST}"),
            "--steps is {}",
            self.steps
        );
        require!(
            self.steps > 0 || self.epochs <= f64::from(LONGEST),
            format!("give at most {LONGEST}"),
            "--epochs is {:e}",
            self.epochs
        );
        if update_in_backward {
            require!(
                !self.skip_bad_steps,
                "leave one of them out",
                "--update-in-backward updates layers before the gradients of all are known, so \
                 --skip-bad-steps cannot leave a step out"
            );
            require!(
                self.gradient_accumulation_steps == 1,
                "leave one of them out",
                "--update-in-backward has the gradients of one layer at a time, and --gradient-accumulation-steps \
                 {} needs the gradients of all layers",
                self.gradient_accumulation_steps
            );
            require!(
                self.max_grad_norm == 0.0,
                "add --max-grad-norm 0",
                "--update-in-backward has the gradients of one layer at a time, and --max-grad-norm \
                 {} needs the gradients of all layers",
                self.max_grad_norm
            );
        }
        Ok(())
    }

    pub(super) fn differs(&self, saved: &Self) -> Option<String> {
        differing!(self, saved; batch_size, gradient_accumulation_steps, decay_all, seed);
        None
    }
}

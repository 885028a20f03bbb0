//! [`Settings`]: the workload of every measurement on a preset.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser};
use lisa_lm::ModelConfig;
use lisa_lm::model::LoraConfig;
use serde::{Deserialize, Serialize};

use crate::preset::{Dtype, Preset};

/// A model's shape and how it is trained.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// The model's shape; weights are random
    #[arg(long, value_enum, default_value = "small")]
    pub(crate) preset: Preset,
    /// The folder of a model: the shape of its config.json instead of a preset's
    #[arg(long, value_name = "DIR", conflicts_with_all = ["preset", "shrink"])]
    pub(crate) model: Option<PathBuf>,
    /// Divide the widths and the vocabulary by this; the number of layers stays
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) shrink: usize,
    /// Size of the vocabulary instead of the shape's
    #[arg(long, value_name = "N")]
    pub(crate) vocabulary: Option<usize>,
    /// Optimizer steps
    #[arg(long, default_value_t = 12)]
    pub(crate) steps: usize,
    /// First steps that the times leave out
    #[arg(long, default_value_t = 2, value_name = "STEPS")]
    pub(crate) warmup: usize,
    /// Rows in a batch
    #[arg(long, default_value_t = 1)]
    pub(crate) batch: usize,
    /// Tokens in a row
    #[arg(long, default_value_t = 256)]
    pub(crate) sequence: usize,
    /// Layers that are active in a period (gamma)
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub(crate) active_layers: usize,
    /// Optimizer steps between two draws (K)
    #[arg(long, default_value_t = 5, value_name = "STEPS")]
    pub(crate) period: usize,
    /// Rank of LoRA, on all matrices
    #[arg(long, default_value_t = 16, value_name = "R")]
    pub(crate) lora_rank: usize,
    /// Modules with an adapter in the methods `lora` and `lora-recompute` [default: all matrices]
    #[arg(long, value_delimiter = ',', value_name = "NAME,..")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) lora_modules: Vec<String>,
    /// Dropout of the inputs of LoRA's adapters, in the methods `lora` and `lora-recompute`
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) lora_dropout: f64,
    /// Clip gradients to this norm and look for gradients that are not finite, as `lisa train` does; 0:
    /// neither. Methods with recomputation then update after the backward pass
    #[arg(long, default_value_t = 0.0, value_name = "NORM")]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) max_grad_norm: f64,
    /// Batches whose gradients are added up for a step
    #[arg(long, default_value_t = 1, value_name = "BATCHES")]
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub(crate) accumulation: usize,
    /// Positions of padding at the end of each row
    #[arg(long, default_value_t = 0, value_name = "TOKENS")]
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) padding: usize,
    /// Whether all steps but the last have one short row: they make the optimizer's state only
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) last_only: bool,
    /// Learning rate
    #[arg(long, default_value_t = 1e-4, value_name = "RATE")]
    pub(crate) lr: f64,
    /// Seed of weights, tokens and draws
    #[arg(long, default_value_t = 42)]
    pub(crate) seed: u64,
    /// Dtype of the weights
    #[arg(long, value_enum, default_value = "f32")]
    pub(crate) dtype: Dtype,
    /// Train bf16 and f16 weights without f32 master weights
    #[arg(long)]
    pub(crate) no_master_weights: bool,
    /// Threads of each process
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) threads: usize,
}

impl Settings {
    /// Refuses a workload that cannot be measured.
    pub(crate) fn check(&self) -> Result<()> {
        let (steps, warmup) = (self.steps, self.warmup);
        ensure!(
            steps > warmup,
            "--steps is {steps} and --warmup {warmup}, so no step is left to measure"
        );
        ensure!(
            self.batch > 0 && self.sequence > 1,
            "--batch needs at least 1 row and --sequence at least 2 tokens"
        );
        ensure!(self.accumulation > 0, "--accumulation needs at least 1");
        ensure!(
            self.padding + 2 <= self.sequence,
            "--padding is {} of {} tokens; it leaves at least 2",
            self.padding,
            self.sequence
        );
        ensure!(self.threads > 0, "--threads needs at least 1");
        ensure!(
            self.shrink > 0,
            "--shrink is 0; 1 leaves the shape unchanged"
        );
        let (model, longest) = (self.name(), self.config()?.max_positions());
        ensure!(
            self.sequence <= longest,
            "--sequence is {}, and {model} has {longest} positions",
            self.sequence
        );
        Ok(())
    }

    /// The configuration of the model.
    pub(crate) fn config(&self) -> Result<ModelConfig> {
        let config = match &self.model {
            Some(folder) => read(folder)?,
            None => self.preset.config(self.shrink),
        };
        Ok(match self.vocabulary {
            Some(size) => config.with_vocab_size(size),
            None => config,
        })
    }

    /// The adapters of LoRA.
    pub(crate) fn lora(&self) -> LoraConfig {
        LoraConfig::new(self.lora_rank)
            .with_modules(self.lora_modules.clone())
            .with_dropout(self.lora_dropout)
    }

    /// Whether a step is taken with all gradients at a time, as `lisa train` takes it.
    pub(crate) fn is_whole(&self) -> bool {
        self.max_grad_norm > 0.0 || self.accumulation > 1 || self.lora_dropout > 0.0
    }

    /// The preset, if the model has its shape unchanged.
    pub(crate) fn preset_in_full(&self) -> Option<Preset> {
        let is_changed = self.model.is_some() || self.shrink != 1 || self.vocabulary.is_some();
        (!is_changed).then_some(self.preset)
    }

    /// The name of the model's shape.
    pub(crate) fn name(&self) -> String {
        match (&self.model, self.shrink) {
            (Some(folder), _) => {
                let name = folder.file_name().unwrap_or(folder.as_os_str());
                format!("`{}`", name.display())
            }
            (None, 1) => format!("`{}`", self.preset),
            (None, shrink) => format!("`{}` / {shrink}", self.preset),
        }
    }

    /// The same workload on the smallest model, to measure what a process needs without a model.
    pub(crate) fn tiny(&self) -> Self {
        Self {
            preset: Preset::Tiny,
            model: None,
            vocabulary: None,
            shrink: 1,
            steps: 2,
            warmup: 1,
            ..self.clone()
        }
    }
}

fn is_zero<T: PartialEq + From<u8>>(value: &T) -> bool {
    *value == T::from(0)
}

fn is_one<T: PartialEq + From<u8>>(value: &T) -> bool {
    *value == T::from(1)
}

fn one() -> usize {
    1
}

fn read(folder: &Path) -> Result<ModelConfig> {
    let path = folder.join("config.json");
    let text = lisa_lm::files::read_small_text(&path)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    let config = ModelConfig::from_json(&text);
    config.with_context(|| format!("`{}` is not used", path.display()))
}

impl Default for Settings {
    fn default() -> Self {
        #[derive(Parser)]
        struct Defaults {
            #[command(flatten)]
            settings: Settings,
        }
        Defaults::parse_from([""]).settings
    }
}

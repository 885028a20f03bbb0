//! The settings of a run. Flags override the file of `--config`, and the file overrides the
//! defaults.
//!
//! Each group of settings has a file. [`Flags`] has the settings that were given, [`Settings`] has
//! all settings. Tests: `settings/tests.rs`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::bundled;
use crate::user_error::require;

mod file;
mod group;
mod input;
mod kinds;
mod memory;
mod method;
pub(crate) mod names;
mod output;
mod paths;
mod training;

pub use input::{InputFlags, InputSettings};
pub use kinds::{
    Dtype, Empty, Method, Metric, Moments, OnBad, Order, Pairs, Policy, Quantize, Turns,
};
pub use memory::{MemoryFlags, MemorySettings};
pub use method::{MethodFlags, MethodSettings};
pub use output::{OutputFlags, OutputSettings};
pub use training::{TrainingFlags, TrainingSettings};

/// The settings that were given.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize)]
pub struct Flags {
    /// The model and the data.
    #[command(flatten)]
    #[serde(flatten)]
    pub input: InputFlags,
    /// Which parameters train.
    #[command(flatten)]
    #[serde(flatten)]
    pub method: MethodFlags,
    /// What decides how much memory a run needs.
    #[command(flatten)]
    #[serde(flatten)]
    pub memory: MemoryFlags,
    /// Batches, steps and the learning rate.
    #[command(flatten)]
    #[serde(flatten)]
    pub training: TrainingFlags,
    /// What a run writes.
    #[command(flatten)]
    #[serde(flatten)]
    pub output: OutputFlags,
}

/// All settings of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The model and the data.
    pub input: InputSettings,
    /// Which parameters train.
    pub method: MethodSettings,
    /// What decides how much memory a run needs.
    pub memory: MemorySettings,
    /// Batches, steps and the learning rate.
    pub training: TrainingSettings,
    /// What a run writes.
    pub output: OutputSettings,
}

impl Flags {
    /// These flags; if one is absent, that of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            input: self.input.or(other.input),
            method: self.method.or(other.method),
            memory: self.memory.or(other.memory),
            training: self.training.or(other.training),
            output: self.output.or(other.output),
        }
    }

    /// All settings, checked. `stored` is the dtype of the model's files, which is the default.
    ///
    /// Without a model and without data, the settings of `lisa demo` are the defaults.
    pub fn resolve(mut self, stored: Option<Dtype>) -> Result<Settings> {
        let absent =
            |path: &Option<PathBuf>| path.as_ref().is_none_or(|path| path.as_os_str().is_empty());
        // The bundled model is stored in half precision to be small, and a CPU is faster in f32.
        let stored = stored.filter(|_| !absent(&self.input.model));
        if absent(&self.input.model) && self.input.data.as_ref().is_none_or(Vec::is_empty) {
            self = self.or(Self::from_toml(bundled::DEMO, Path::new("demo.toml"))?);
        }
        self.memory.dtype = self.memory.dtype.or(stored);
        let settings = Settings {
            input: self.input.or_defaults(),
            method: self.method.or_defaults(),
            memory: self.memory.or_defaults(),
            training: self.training.or_defaults(),
            output: self.output.or_defaults(),
        };
        settings.check()?;
        Ok(settings)
    }
}

impl Settings {
    /// Every setting as a flag.
    #[must_use]
    pub fn to_flags(&self) -> Flags {
        Flags {
            input: self.input.to_flags(),
            method: self.method.to_flags(),
            memory: self.memory.to_flags(),
            training: self.training.to_flags(),
            output: self.output.to_flags(),
        }
    }

    /// The first setting that must be the same in a resumed run and its checkpoint, but is not.
    #[must_use]
    pub fn differs(&self, saved: &Self) -> Option<String> {
        self.method
            .differs(&saved.method)
            .or_else(|| self.memory.differs(&saved.memory))
            .or_else(|| self.training.differs(&saved.training))
            .or_else(|| self.input.differs(&saved.input))
    }

    fn check(&self) -> Result<()> {
        self.input.check()?;
        self.training.check(self.memory.update_in_backward)?;
        self.memory.check(self.method.method)?;
        require!(
            !(self.training.decay_all && self.method.method == Method::Lora),
            "leave it out",
            "--decay-all has no effect with --method lora: adapters are matrices, which are always \
             decayed"
        );
        self.output.check()?;
        self.method.check()
    }
}

#[cfg(test)]
mod tests;

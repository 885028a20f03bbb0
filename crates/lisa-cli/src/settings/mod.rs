//! The settings of a run. Flags override the file of `--config`, and the file overrides the
//! defaults.
//!
//! Each group of settings has a file. [`Flags`] has the settings that were given, `Settings` has
//! all settings. Tests: `settings/tests.rs`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::bundled;
use crate::user_error::UserError;

mod adapter;
mod changes;
mod derived;
mod effect;
mod effective;
mod file;
mod group;
mod input;
mod kinds;
mod memory;
mod method;
pub(crate) mod names;
mod origin;
pub(crate) mod others;
mod output;
mod paths;
mod training;
mod unusual;
mod value;

pub(crate) use derived::{
    DataFacts, KeptRows, LikeLora, ModelFacts, OUTER, Room, default_active_layers,
};
pub(crate) use effect::Contents;
pub use input::InputFlags;
pub(crate) use input::InputSettings;
pub use kinds::{
    Dtype, Empty, Method, Metric, Moments, OnBad, Order, Pairs, Policy, Quantize, Schedule, Turns,
};
pub use memory::MemoryFlags;
pub(crate) use memory::MemorySettings;
pub(crate) use memory::gib;
pub use method::MethodFlags;
pub(crate) use method::MethodSettings;
pub(crate) use origin::{Origin, Origins};
pub use output::OutputFlags;
pub(crate) use output::OutputSettings;
pub(crate) use paths::names_of_data;
pub use training::TrainingFlags;
pub(crate) use training::TrainingSettings;
pub(crate) use unusual::unusual;
use value::{as_given, difference};

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
    /// The origin of each setting that was not given as a flag.
    #[arg(skip)]
    #[serde(skip)]
    pub(crate) origins: Origins,
}

/// What the settings are derived from.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts<'a> {
    /// What is known of the model.
    pub(crate) model: Option<&'a ModelFacts>,
    /// What is known of the data.
    pub(crate) data: Option<&'a DataFacts>,
    /// The training rows that are not left out, by the length of rows; `None` if none is left out.
    pub(crate) kept: Option<KeptRows<'a>>,
    /// The memory that the run may use; `None` if it is not known.
    pub(crate) room: Option<&'a Room<'a>>,
    /// How many layers LISA can train with the memory of LoRA; `None` if it is not known.
    pub(crate) like_lora: Option<LikeLora<'a>>,
}

/// All settings of a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// The model and the data.
    pub(crate) input: InputSettings,
    /// Which parameters train.
    pub(crate) method: MethodSettings,
    /// What decides how much memory a run needs.
    pub(crate) memory: MemorySettings,
    /// Batches, steps and the learning rate.
    pub(crate) training: TrainingSettings,
    /// What a run writes.
    pub(crate) output: OutputSettings,
}

impl Flags {
    /// These flags; if one is absent, the flag of `other`. Steps and epochs are one setting, as are the
    /// steps and the ratio of the warm-up, and the final learning rate and its ratio: the other one of
    /// `other` is left out.
    #[must_use]
    pub fn or(self, mut other: Self) -> Self {
        if self.training.steps.is_some_and(|steps| steps > 0) {
            other.training.epochs = None;
        } else if self.training.epochs.is_some() {
            other.training.steps = other.training.steps.filter(|steps| *steps == 0);
        }
        if self.training.warmup_steps.is_some_and(|steps| steps > 0) {
            other.training.warmup_ratio = None;
        } else if self.training.warmup_ratio.is_some() {
            other.training.warmup_steps = other.training.warmup_steps.filter(|steps| *steps == 0);
        }
        if self.training.min_lr.is_some_and(|rate| rate >= 0.0) {
            other.training.min_lr_ratio = None;
        } else if self.training.min_lr_ratio.is_some() {
            other.training.min_lr = None;
        }
        Self {
            origins: self.origins_or(&other),
            input: self.input.or(other.input),
            method: self.method.or(other.method),
            memory: self.memory.or(other.memory),
            training: self.training.or(other.training),
            output: self.output.or(other.output),
        }
    }

    /// These flags, and the settings of `lisa demo` if neither a model nor data are given.
    pub(crate) fn or_demo(self) -> Result<Self> {
        if self.input.has_model() || self.input.has_data() {
            return Ok(self);
        }
        let demo = Self::from_toml(bundled::DEMO, "demo.toml".as_ref())?;
        Ok(self.or(demo.all_from(&Origin::Demo)))
    }

    /// These flags and the defaults of the program, unchecked.
    fn defaults(self) -> Settings {
        Settings {
            input: self.input.or_defaults(),
            method: self.method.or_defaults(),
            memory: self.memory.or_defaults(),
            training: self.training.or_defaults(),
            output: self.output.or_defaults(),
        }
    }

    /// The output folder. Other settings are not checked.
    pub(crate) fn out(&self) -> Result<PathBuf> {
        let out = self.clone().or_demo()?.output.or_defaults().out;
        if out.as_os_str().is_empty() {
            let error = UserError::new("--out is empty");
            let error = error.with_help("give a folder, or leave it out");
            return Err(self.placed(error, "out").into());
        }
        Ok(out)
    }

    /// All settings, checked, without anything of the model but the dtype of its files.
    pub(crate) fn resolve(self, stored: Option<Dtype>) -> Result<Settings> {
        Ok(self.resolved(stored, Facts::default())?.0)
    }

    /// All settings, checked, and where they come from. What was not given follows from the facts.
    pub(crate) fn resolve_with(self, facts: Facts<'_>) -> Result<(Settings, Origins)> {
        let stored = facts.model.and_then(|model| model.dtype);
        self.resolved(stored, facts)
    }

    fn resolved(self, stored: Option<Dtype>, facts: Facts<'_>) -> Result<(Settings, Origins)> {
        let mut all = self.or_demo()?;
        let mut origins = all.all_origins();
        let mut reasons = Vec::new();
        // `--freeze=` is one empty path, which every path contains.
        let paths = [&mut all.method.freeze, &mut all.method.split];
        for paths in paths.into_iter().flatten() {
            paths.retain(|path| !path.is_empty());
        }
        if all.memory.dtype.is_none() {
            // The bundled model is stored in half precision to be small, and a CPU is faster in f32.
            all.memory.dtype = stored.filter(|_| all.input.has_model());
            if all.memory.dtype.is_some() {
                reasons.push(("dtype", "as stored".to_owned()));
            }
        }
        if all.method.lora_alpha.is_none()
            && let Some(rank) = all.method.lora_rank
        {
            all.method.lora_alpha = Some(2.0 * rank as f64);
            reasons.push(("lora-alpha", "twice the rank".to_owned()));
        }
        // A resumed run has the rows of its checkpoint.
        if all.output.no_eval == Some(true) && all.input.eval_fraction.is_none() {
            all.input.eval_fraction = Some(0.0);
            reasons.push(("eval-fraction", "--no-eval".to_owned()));
        }
        if let Some(model) = facts.model {
            all.derive_from_model(model, &mut reasons);
            if let Some(data) = facts.data {
                all.derive_from_data(model, data, facts, &mut reasons);
            }
        }
        origins.add(reasons);
        let settings = all.clone().defaults();
        // A length that was not given follows from the data, which is not read yet.
        let is_settled = all.input.max_seq_length.is_some();
        let model = facts.model.filter(|_| is_settled);
        let mut checked = settings.check();
        if all.training.lr.is_some() {
            checked = checked.and_then(|()| settings.training.falls());
        }
        if let Some(model) = model {
            checked = checked.and_then(|()| settings.input.fits(model.positions));
        }
        checked.map_err(|error| all.at_its_place(error))?;
        Ok((settings, origins))
    }

    /// The error of a check with the place of the setting that its message begins with.
    pub(crate) fn at_its_place(&self, error: anyhow::Error) -> anyhow::Error {
        let message = error.to_string();
        let name = message
            .strip_prefix("--")
            .and_then(|rest| rest.split(' ').next());
        match (name, error.downcast::<UserError>()) {
            (Some(name), Ok(error)) => self.placed(error, name).into(),
            (None, Ok(error)) => error.into(),
            (_, Err(error)) => error,
        }
    }
}

impl Settings {
    /// Every setting as a flag.
    #[must_use]
    pub(crate) fn to_flags(&self) -> Flags {
        Flags {
            input: self.input.to_flags(),
            method: self.method.to_flags(),
            memory: self.memory.to_flags(),
            training: self.training.to_flags(),
            output: self.output.to_flags(),
            origins: Origins::default(),
        }
    }

    /// The first setting that must be the same in a resumed run and its checkpoint, but is not.
    #[must_use]
    pub(crate) fn differs(&self, saved: &Self) -> Option<String> {
        self.method
            .differs(&saved.method)
            .or_else(|| self.memory.differs(&saved.memory))
            .or_else(|| self.training.differs(&saved.training))
            .or_else(|| self.input.differs(&saved.input))
            .or_else(|| self.output.differs(&saved.output))
    }

    fn check(&self) -> Result<()> {
        self.input.check()?;
        self.training.check(self.memory.update_in_backward)?;
        self.memory.check(self.method.method)?;
        self.output.check()?;
        self.method.check()
    }
}

#[cfg(test)]
mod tests;

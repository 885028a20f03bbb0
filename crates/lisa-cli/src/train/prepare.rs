//! [`Job`]: a run that is ready to start, with its settings, model, data and optimizer.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use burn::tensor::{Device, FloatDType};
use lisa_lm::text::Batches;
use lisa_lm::{CausalLm, Checkpoint, Tokenizer};

use super::checkpoints::{self, State};
use super::data::{self, Data};
use super::fingerprint::{Allowed, Fingerprint};
use super::method::Trainer;
use crate::model_folder::model_folder;
use crate::model_tokenizer::model_tokenizer;
use crate::settings::{Dtype, Flags, Settings};
use crate::terminal::output::say;
use crate::terminal::progress::Slow;
use crate::user_error::{UserError, require};

/// Where a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the first step, in a folder without a run.
    Fresh,
    /// At the first step; the earlier run in the folder is replaced.
    Overwrite,
    /// At the newest checkpoint in the folder, with the model and the data that the run began with.
    Resume,
    /// As `Resume`, with another model or other data.
    ResumeChanged(Allowed),
}

impl Start {
    /// What a resumed run may have changed; `None` if the run begins at the first step.
    fn resumed(self) -> Option<Allowed> {
        match self {
            Self::Fresh | Self::Overwrite => None,
            Self::Resume => Some(Allowed::default()),
            Self::ResumeChanged(allowed) => Some(allowed),
        }
    }
}

/// A run that is ready to start.
pub(crate) struct Job<'a> {
    pub(crate) settings: Settings,
    pub(crate) start: Start,
    /// The checkpoint that a resumed run continues from.
    pub(crate) saved: Option<(PathBuf, State)>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) data: Data,
    /// Optimizer steps of the whole run.
    pub(crate) steps: u64,
    pub(crate) device: &'a Device,
    /// The same device, with gradients.
    pub(crate) training_device: Device,
}

impl<'a> Job<'a> {
    /// Resolves the settings and reads the data. Checks everything except the weights.
    pub(crate) fn open(flags: Flags, start: Start, device: &'a Device) -> Result<(Self, Batches)> {
        let (flags, saved) = if start.resumed().is_some() {
            let out = flags.clone().resolve(None)?.output.out;
            let (path, state) = checkpoints::newest(&out)?;
            (flags.or(state.settings.clone()), Some((path, state)))
        } else {
            (flags, None)
        };
        let model = model_folder(&flags.clone().resolve(None)?.input.model)?;
        let checkpoint = Checkpoint::open(&model)?;
        let settings = flags.resolve(Dtype::stored(&checkpoint))?;
        supports(device, settings.memory.dtype)?;
        if let Some((_, state)) = &saved {
            let made_with = state.settings.clone().resolve(None)?;
            if let Some(difference) = settings.differs(&made_with) {
                return Err(UserError::new(format!("cannot resume: {difference}"))
                    .with_help("leave that flag out, or start a new run with another --out")
                    .into());
            }
        }
        let out = &settings.output.out;
        require!(
            start != Start::Fresh || !holds_a_run(out),
            "continue it with --resume, replace it with --overwrite, or give another folder with \
             --out",
            "`{}` contains a run already",
            out.display()
        );
        let tokenizer = match &saved {
            Some((_, state)) => state.text.restore(Tokenizer::from_dir(&model)?)?,
            None => model_tokenizer(&model, &settings.input.chat_template)?,
        };
        let (data, tokenizer) = data::read(&settings, tokenizer, &checkpoint)?;
        let fingerprint = Fingerprint::of(&checkpoint, &tokenizer, &data)?;
        if let (Some((_, state)), Some(allowed)) = (&saved, start.resumed()) {
            for changed in fingerprint.check(&state.fingerprint, allowed)? {
                say(format_args!("changed since the run began: {changed}"))?;
            }
        }
        let batches = data::batches(&settings, &tokenizer, data.train.clone(), data.vocab_size)?;
        let accumulation = settings.training.gradient_accumulation_steps;
        let steps = match settings.training.steps {
            0 => batches.steps_in(settings.training.epochs, accumulation),
            steps => steps as u64,
        };
        if let Some((path, state)) = &saved {
            state.check_position(path, &batches, accumulation)?;
        }
        let job = Self {
            settings,
            start,
            saved,
            fingerprint,
            checkpoint,
            tokenizer,
            data,
            steps,
            device,
            training_device: device.clone().autodiff(),
        };
        Ok((job, batches))
    }

    /// Makes the output folder.
    pub(crate) fn make_folder(&self) -> Result<()> {
        let out = &self.settings.output.out;
        std::fs::create_dir_all(out)
            .with_context(|| format!("cannot make the folder `{}`", out.display()))
    }

    /// Loads the weights, and seeds the device for the parameters that the method initializes.
    pub(crate) fn load(&self) -> Result<CausalLm> {
        self.device.seed(self.settings.training.seed);
        let slow = Slow::bytes("reading the weights");
        let dtype = Some(FloatDType::from(self.settings.memory.dtype));
        let progress = move |done, all| slow.set(done, all);
        let model = self
            .checkpoint
            .load_with(&self.training_device, dtype, progress)?;
        Ok(model.resize_embeddings(self.data.vocab_size)?)
    }

    /// Prints the model, the device, the data and the number of steps.
    pub(crate) fn announce(&self, model: &CausalLm, trainer: &Trainer) -> Result<()> {
        let (input, training) = (&self.settings.input, &self.settings.training);
        let name = if input.model.as_os_str().is_empty() {
            "the bundled model".to_owned()
        } else {
            input.model.display().to_string()
        };
        say(format_args!(
            "{name} on {}, {}",
            device_name(self.device),
            self.settings.memory.dtype
        ))?;
        if input.is_demo() {
            say(
                "no --model and --data: `lisa demo` trains the bundled model on the bundled \
                 instructions",
            )?;
        }
        for line in &self.data.lines {
            say(line)?;
        }
        say(trainer.describe(model))?;
        let rows = match (training.gradient_accumulation_steps, training.batch_size) {
            (1, rows) => format!("{rows} rows"),
            (batches, rows) => format!("{batches} batches of {rows} rows"),
        };
        say(format_args!(
            "{} training and {} held-out examples; {} optimizer steps of {rows}",
            self.data.train.len(),
            self.data.held_out.len(),
            self.steps
        ))?;
        Ok(())
    }
}

/// Returns an error if the device does not support the dtype.
pub(crate) fn supports(device: &Device, dtype: Dtype) -> Result<()> {
    require!(
        device.supports_dtype(FloatDType::from(dtype)),
        "give another one with --dtype",
        "{} does not support {dtype}",
        device_name(device)
    );
    Ok(())
}

fn device_name(device: &Device) -> String {
    format!("{device:?}").chars().take(40).collect()
}

/// Whether a run has written to this folder.
fn holds_a_run(out: &Path) -> bool {
    ["metrics.jsonl", "checkpoints", "model", "summary.json"]
        .iter()
        .any(|name| out.join(name).exists())
}

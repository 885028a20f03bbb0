//! [`Job`]: a run that is ready to start, with its settings, model, data and optimizer.

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn::tensor::{Device, FloatDType};
use lisa_lm::text::Batches;
use lisa_lm::{CausalLm, Checkpoint, Tokenizer};

use super::adapter::begun_with;
use super::checkpoints::{self, State};
use super::data::{self, Data};
use super::evaluate::Evaluate;
use super::fingerprint::{Allowed, Fingerprint};
use super::moved;
use super::planned;
use super::record_limits::check_sizes;
use super::settle::{Settled, Shapes};
use super::shown_row::Show;
use crate::model_tokenizer::model_tokenizer;
use crate::output_folder;
use crate::settings::{Dtype, Flags, Origin, Origins, Settings};
use crate::terminal::interrupt::{Point, Stop, check};
use crate::terminal::output::{say, warn};
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
    /// Where the settings come from.
    pub(crate) origins: Origins,
    pub(crate) start: Start,
    /// The checkpoint that a resumed run continues from.
    pub(crate) saved: Option<(PathBuf, State)>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) data: Data,
    pub(crate) evaluate: Evaluate,
    /// Optimizer steps of the whole run.
    pub(crate) steps: u64,
    /// Optimizer steps of an epoch.
    pub(crate) steps_per_epoch: u64,
    /// The most bytes that the run has on disk.
    pub(crate) disk: u64,
    pub(crate) device: &'a Device,
    /// The same device, with gradients.
    pub(crate) training_device: Device,
}

/// The settings with those of the checkpoint of a resumed run, and that checkpoint. Checks the output
/// folder of a new run.
fn begin(flags: Flags, start: Start, out: &Path) -> Result<(Flags, Option<(PathBuf, State)>)> {
    let mut flags = flags.absolute()?;
    let mut saved = None;
    if let Some(allowed) = start.resumed() {
        let (path, state) = checkpoints::newest(out)?;
        moved::check(out, &state.settings, &flags, allowed.paths)?;
        flags = flags.or(state.settings.clone().all_from(&Origin::Checkpoint));
        saved = Some((path, state));
    } else {
        let is_run = output_folder::holds_a_run(out);
        require!(
            start != Start::Fresh || !is_run,
            "continue it with --resume, replace it with --overwrite, or give another folder with \
             --out",
            "`{}` contains a run already",
            out.display()
        );
        output_folder::require_ours(out, is_run, "a run")?;
        flags = flags.with_adapter()?;
    }
    // A resumed run writes where it was read.
    if flags.output.out.is_none() {
        flags.origins.set("out", Origin::Default);
    }
    flags.output.out = Some(out.to_owned());
    Ok((flags, saved))
}

impl<'a> Job<'a> {
    /// Resolves the settings and reads the data. Checks everything except the weights; the output
    /// folder comes first, and is made if `writes` is true.
    pub(crate) fn open(
        flags: Flags,
        start: Start,
        device: &'a Device,
        writes: bool,
        stop: Stop<'_>,
    ) -> Result<(Self, Batches)> {
        let out = std::path::absolute(flags.clone().resolve(None)?.output.out)?;
        let (flags, saved) = begin(flags, start, &out)?;
        if writes {
            output_folder::make(&out)?;
        }
        let model = flags.clone().resolve(None)?.input.folder()?;
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        require!(
            start != Start::Overwrite || !real(&model).starts_with(real(&out)),
            "give another folder with --out, or copy the model out of it first",
            "--overwrite would remove the model `{}`, from which the run begins",
            model.display()
        );
        let checkpoint = Checkpoint::open(&model)?;
        let shapes = Shapes::of(&checkpoint, device)?;
        let settings = shapes.settings(flags.clone())?;
        flags.check_effect(&settings)?;
        supports(device, settings.memory.dtype)?;
        if let Some((_, state)) = &saved {
            let made_with = state.settings.clone().resolve(None)?;
            if let Some(difference) = settings.differs(&made_with) {
                return Err(UserError::new(format!("cannot resume: {difference}"))
                    .with_help("leave that flag out, or start a new run with another --out")
                    .into());
            }
        }
        check(stop, Point::Prepare)?;
        let tokenizer = match &saved {
            Some((_, state)) => state.text.restore(Tokenizer::from_dir(&model)?)?,
            None => model_tokenizer(&model, &settings.input.chat_template)?,
        };
        let Settled {
            settings,
            origins,
            mut data,
            tokenizer,
        } = shapes
            .settle(flags, &settings, tokenizer.clone(), &checkpoint, device)
            .or_else(|error| {
                // If the model has changed, that may be why its data cannot be used.
                let run = saved
                    .as_ref()
                    .and_then(|(_, state)| state.fingerprint.as_ref());
                if let (Some(run), Some(allowed)) = (run, start.resumed()) {
                    Fingerprint::of_model(&checkpoint, &tokenizer)?.check_model(run, allowed)?;
                }
                Err(error)
            })?;
        check(stop, Point::Prepare)?;
        let fingerprint = Fingerprint::of(&checkpoint, &tokenizer, &data)?;
        if let (Some((path, state)), Some(allowed)) = (&saved, start.resumed()) {
            compare(&fingerprint, state, path, allowed)?;
        }
        let batches = data::batches(&settings, &tokenizer, data.train.clone(), data.vocab_size)?;
        data.summarize(&settings, &tokenizer, &batches)?;
        data.show(0, &tokenizer, Show::Borders)?;
        let accumulation = settings.training.gradient_accumulation_steps;
        let steps = match settings.training.steps {
            0 => batches.steps_in(settings.training.epochs, accumulation),
            steps => steps as u64,
        };
        let saved = match saved {
            Some((path, state)) => {
                let run = state.fingerprint.as_ref();
                if run.is_none_or(|run| fingerprint.has_training_data_of(run)) {
                    state.check_position(&path, &batches, accumulation)?;
                    Some((path, state))
                } else {
                    Some((path, state.in_other_data(&batches, accumulation)))
                }
            }
            None => None,
        };
        if let Some((_, state)) = &saved {
            require_later(steps, state.step, &out)?;
        }
        let evaluate = evaluate(&settings, &mut data, &tokenizer)?;
        // Settings that cannot be planned are reported where the optimizer is made.
        let state = planned::state(&settings, &shapes.model, device).unwrap_or(0);
        check_sizes(&shapes.model, settings.memory.dtype.into(), state)?;
        let disk = planned::disk(&settings, &shapes.model, device, steps).unwrap_or(0);
        if writes {
            output_folder::require_room(&out, disk)?;
        }
        let job = Self {
            settings,
            origins,
            start,
            saved,
            fingerprint,
            checkpoint,
            tokenizer,
            data,
            evaluate,
            steps,
            steps_per_epoch: batches.steps_per_epoch(accumulation) as u64,
            disk,
            device,
            training_device: device.clone().autodiff(),
        };
        Ok((job, batches))
    }

    /// Whether the run has taken its last step and written the finished model.
    pub(crate) fn is_finished(&self) -> bool {
        let step = self.saved.as_ref().map(|(_, state)| state.step);
        step == Some(self.steps) && finished_step(&self.settings.output.out) == step
    }

    /// Loads the weights.
    pub(crate) fn load(&self) -> Result<CausalLm> {
        let slow = Slow::bytes("reading the weights");
        let dtype = Some(FloatDType::from(self.settings.memory.dtype));
        let progress = move |done, all| slow.set(done, all);
        let model = self
            .checkpoint
            .load_with(&self.training_device, dtype, progress)?;
        let model = model.resize_embeddings(self.data.vocab_size)?;
        // A checkpoint has the adapter of its step.
        begun_with(&self.settings.method, model, self.saved.is_some())
    }
}

/// What is evaluated; the held-out rows are moved into it.
fn evaluate(settings: &Settings, data: &mut Data, tokenizer: &Tokenizer) -> Result<Evaluate> {
    let held_out = if settings.output.no_eval {
        Vec::new()
    } else {
        std::mem::take(&mut data.held_out)
    };
    let (sources, examples) = (&data.held_out_sources, &data.held_out_examples);
    let longest = settings.input.max_seq_length;
    Evaluate::new(settings, held_out, sources, examples, tokenizer, longest)
}

/// Returns an error if the run would end before its newest checkpoint or its finished model.
fn require_later(steps: u64, saved: u64, out: &Path) -> Result<()> {
    require!(
        steps >= saved,
        format!("give --steps {saved} or more, or start a new run with --out"),
        "the run would end at step {steps}, and its newest checkpoint is of step {saved}"
    );
    let written = finished_step(out).unwrap_or(0);
    require!(
        steps >= written,
        format!("give --steps {written} or more, or start a new run with --out"),
        "the run would end at step {steps}, and its finished model is of step {written}"
    );
    Ok(())
}

/// Compares the model and the data with those that the run began with.
fn compare(now: &Fingerprint, state: &State, path: &Path, allowed: Allowed) -> Result<()> {
    let Some(run) = &state.fingerprint else {
        warn(format_args!(
            "`{}` does not say with which model and data the run began, so they are not compared",
            path.display()
        ));
        return Ok(());
    };
    for changed in now.check(run, allowed)? {
        say(format_args!("changed since the run began: {changed}"))?;
    }
    Ok(())
}

/// The step of the finished model in a run's folder.
pub(crate) fn finished_step(out: &Path) -> Option<u64> {
    let text = lisa_lm::files::read_small_text(&out.join("summary.json")).ok()?;
    let summary: serde_json::Value = serde_json::from_str(&text).ok()?;
    summary["steps"].as_u64()
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

pub(crate) fn device_name(device: &Device) -> String {
    let name = format!("{device:?}");
    let name = name.strip_prefix("Device<").unwrap_or(&name);
    name.trim_end_matches('>').chars().take(40).collect()
}

//! [`Job`]: a run that is ready to start, with its settings, model, data and optimizer.

use std::path::Path;

use anyhow::Result;
use burn::tensor::{Device, FloatDType};
use lisa_lm::text::Batches;
use lisa_lm::{CausalLm, Checkpoint, Tokenizer};

use super::adapter;
use super::checkpoints::{self, State};
use super::data::{self, Data};
use super::evaluate::Evaluate;
use super::exact::host;
use super::fingerprint::Fingerprint;
use super::fitting::check_memory;
use super::planned::{self, Disk};
use super::record_limits::check_sizes;
use super::settle::{Settled, Shapes};
use super::shown_row::Show;
use super::start::{Entered, Saved, Start, require_outside};
use crate::earlier_run;
use crate::lock::Lock;
use crate::model_tokenizer::model_tokenizer;
use crate::output_folder::{self, Made};
use crate::run_folder;
use crate::settings::{Dtype, Flags, Method, Origins, Quantize, Settings, unusual};
use crate::terminal::interrupt::{Point, Stop, check};
use crate::terminal::output::{say, warn};
use crate::terminal::progress::Slow;
use crate::user_error::{UserError, require};

/// A run that is ready to start.
pub(crate) struct Job<'a> {
    pub(crate) settings: Settings,
    /// Where the settings come from.
    pub(crate) origins: Origins,
    /// The checkpoint that a resumed run continues from.
    pub(crate) saved: Option<Saved>,
    /// Whether the held-out rows are not those of that checkpoint.
    pub(crate) has_other_held_out: bool,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) data: Data,
    pub(crate) evaluate: Evaluate,
    /// Optimizer steps of the whole run.
    pub(crate) steps: u64,
    /// Whether the last step is taken, and everything is written.
    pub(crate) is_finished: bool,
    /// Optimizer steps of an epoch.
    pub(crate) steps_per_epoch: u64,
    /// The most bytes that the run has on disk.
    pub(crate) disk: u64,
    /// Keeps other commands from writing into the folder.
    _held: (Option<Lock>, Option<Made>),
    pub(crate) device: &'a Device,
    /// The same device, with gradients.
    pub(crate) training_device: Device,
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
        let Entered {
            out,
            flags,
            saved,
            held,
        } = Entered::of(flags, start, writes)?;
        let model = flags.clone().resolve(None)?.input.folder()?;
        if start == Start::Overwrite {
            require_outside(&flags, &model, &out)?;
        }
        let checkpoint = Checkpoint::open(&model)?;
        let shapes = Shapes::of(&checkpoint, device)?;
        let settings = shapes.settings(flags.clone())?;
        flags.check_effect(&settings)?;
        supports(device, settings.memory.dtype)?;
        // What a model of this structure refuses of the settings.
        planned::state(&settings, &shapes.model, device)?;
        if let Some((_, state)) = &saved {
            require_same(&settings, state)?;
        }
        check(stop, Point::Prepare)?;
        let tokenizer = tokenizer(&settings, &model, saved.as_ref())?;
        let temporary = std::env::temp_dir();
        let folder = if writes { &out } else { &temporary };
        let Settled {
            settings,
            origins,
            data,
            tokenizer,
        } = shapes
            .settle(
                flags,
                &settings,
                tokenizer.clone(),
                &checkpoint,
                device,
                folder,
            )
            .map_err(|error| cause(error, saved.as_ref(), start, &checkpoint, &tokenizer))?;
        check_memory(
            &settings,
            &shapes.model,
            device,
            data.longest(&settings),
            writes,
        )?;
        check(stop, Point::Prepare)?;
        let [training, held_out] = data.fingerprints;
        let fingerprint = Fingerprint::of(&checkpoint, &tokenizer, training, held_out)?;
        if let (Some((_, state)), Some(allowed)) = (&saved, start.resumed()) {
            for changed in fingerprint.check(&state.fingerprint, allowed)? {
                say(format_args!("changed since the run began: {changed}"))?;
            }
        }
        let batches = data::batches(&settings, &tokenizer, &data)?;
        let accumulation = settings.training.gradient_accumulation_steps;
        let steps = steps(&settings, &batches);
        for warning in unusual(&settings, &shapes.facts, steps) {
            warn(warning);
        }
        let (saved, has_other_held_out) = match saved {
            Some(saved) => {
                let (saved, other) = continued(saved, &fingerprint, &batches, accumulation)?;
                (Some(saved), other)
            }
            None => (None, false),
        };
        let mut is_finished = false;
        if let Some((_, state)) = &saved {
            require_later(steps, state.step, &out)?;
            is_finished = state.step == steps && is_written(&settings, steps);
        }
        if !is_finished || !writes {
            data.summarize(&settings, &tokenizer, &batches)?;
            data.show(0, &tokenizer, Show::Borders)?;
        }
        let evaluate = Evaluate::new(&settings, &data, &tokenizer)?;
        let disk = disk(&settings, &shapes, device, steps, !evaluate.is_empty())?;
        if writes {
            require_room(disk, &out, saved.is_some())?;
        }
        let rows_on_disk = if writes { data.file_bytes() } else { 0 };
        let job = Self {
            settings,
            origins,
            saved,
            has_other_held_out,
            fingerprint,
            checkpoint,
            tokenizer,
            data,
            evaluate,
            steps,
            is_finished,
            steps_per_epoch: batches.steps_per_epoch(accumulation) as u64,
            disk: disk.all + rows_on_disk,
            _held: held,
            device,
            training_device: device.clone().autodiff(),
        };
        Ok((job, batches))
    }

    /// The model with lazy parameters: nothing is allocated.
    pub(crate) fn shape(&self) -> Result<CausalLm> {
        self.shape_on(&self.training_device)
    }

    fn shape_on(&self, device: &Device) -> Result<CausalLm> {
        let config = self.checkpoint.config().clone();
        let config = config.with_vocab_size(self.data.vocab_size);
        Ok(config.init(device)?)
    }

    /// Where the model is before and after training: on the device, or in host memory if layers are
    /// quantized, which the device may not hold in full precision.
    pub(crate) fn home(&self) -> Device {
        match self.settings.memory.quantize {
            Quantize::None => self.training_device.clone(),
            _ => host(&self.training_device),
        }
    }

    /// The model that the run begins with, without new adapters. If it continues from a checkpoint, the
    /// weights are those of the checkpoint; those of the base model are read for LoRA only.
    pub(crate) fn load(&self) -> Result<CausalLm> {
        match &self.saved {
            Some((path, _)) if self.settings.method.method != Method::Lora => self.weights(path),
            _ => self.base(),
        }
    }

    /// The weights of a checkpoint of this run, which is not of LoRA.
    pub(crate) fn weights(&self, checkpoint: &Path) -> Result<CausalLm> {
        checkpoints::weights(checkpoint, self.shape_on(&self.home())?)
    }

    /// The base model, with the adapter that the run goes on with.
    pub(crate) fn base(&self) -> Result<CausalLm> {
        let slow = Slow::bytes("reading the weights");
        let dtype = Some(FloatDType::from(self.settings.memory.dtype));
        let progress = move |done, all| slow.set(done, all);
        let model = self.checkpoint.load_with(&self.home(), dtype, progress)?;
        let model = model.resize_embeddings(self.data.vocab_size)?;
        // A checkpoint has the adapter of its step.
        let base = (self.checkpoint.dir(), &self.settings.input.revision[..]);
        adapter::begun_with(&self.settings.method, model, base, self.saved.is_some())
    }
}

/// The tokenizer as the run has it from its first step.
fn tokenizer(settings: &Settings, model: &Path, saved: Option<&Saved>) -> Result<Tokenizer> {
    let input = &settings.input;
    match saved {
        Some((_, state)) => state.text.restore(Tokenizer::from_dir(model)?),
        None => model_tokenizer(model, &settings.method.adapter, &input.chat_template),
    }
}

/// The optimizer steps of the whole run.
fn steps(settings: &Settings, batches: &Batches) -> u64 {
    let training = &settings.training;
    match training.steps {
        0 => batches.steps_in(training.epochs, training.gradient_accumulation_steps),
        steps => steps as u64,
    }
}

/// What the run has on disk. Returns an error if Burn could not read a checkpoint.
fn disk(
    settings: &Settings,
    shapes: &Shapes,
    device: &Device,
    steps: u64,
    evaluates: bool,
) -> Result<Disk> {
    let state = planned::state(settings, &shapes.model, device)?;
    check_sizes(&shapes.model, settings.memory.dtype.into(), state)?;
    planned::disk(settings, &shapes.model, device, steps, evaluates)
}

/// Whether the output folder has everything that the run writes at its end, after so many steps.
fn is_written(settings: &Settings, steps: u64) -> bool {
    let (method, out) = (&settings.method, &settings.output.out);
    let Some(summary) = run_folder::summary(out) else {
        return false;
    };
    let has_best = !summary["best"].is_null();
    let is_written = |name: &str| {
        let best = out.join(format!("{name}-best"));
        run_folder::step_of(out, name) == Some(steps) && (!has_best || run_folder::has_model(&best))
    };
    summary["steps"].as_u64() == Some(steps)
        && (method.method != Method::Lora || is_written("adapter"))
        && (method.no_merge || is_written("model"))
}

/// Why the data of a resumed run cannot be used: that the model has changed, or else the error.
fn cause(
    error: anyhow::Error,
    saved: Option<&Saved>,
    start: Start,
    checkpoint: &Checkpoint,
    tokenizer: &Tokenizer,
) -> anyhow::Error {
    let (Some((_, state)), Some(allowed)) = (saved, start.resumed()) else {
        return error;
    };
    let model = Fingerprint::of_model(checkpoint, tokenizer);
    let changed = model.and_then(|model| model.check_model(&state.fingerprint, allowed));
    changed.err().unwrap_or(error)
}

/// Checks the room on the disk for a run. One that is resumed, or that replaces another one, has a
/// part of it already.
fn require_room(disk: Disk, out: &Path, is_resumed: bool) -> Result<()> {
    let replaces_model = is_resumed && run_folder::finished_step(out).is_some();
    let needed = disk.needed(earlier_run::bytes(out), replaces_model);
    output_folder::require_room(out, needed)
}

/// Returns an error if a setting must be that of the checkpoint and is not.
fn require_same(settings: &Settings, state: &State) -> Result<()> {
    let made_with = state.settings.clone().resolve(None)?;
    if let Some(difference) = settings.differs(&made_with) {
        return Err(UserError::new(format!("cannot resume: {difference}"))
            .with_help("leave that flag out, or start a new run with another --out")
            .into());
    }
    Ok(())
}

/// Returns an error if the run would end before its newest checkpoint or its finished model.
fn require_later(steps: u64, saved: u64, out: &Path) -> Result<()> {
    require!(
        steps >= saved,
        format!("give --steps {saved} or more, or start a new run with --out"),
        "the run would end at step {steps}, and its newest checkpoint is of step {saved}"
    );
    let written = run_folder::finished_step(out).unwrap_or(0);
    require!(
        steps >= written,
        format!("give --steps {written} or more, or start a new run with --out"),
        "the run would end at step {steps}, and its finished model is of step {written}"
    );
    Ok(())
}

/// The checkpoint as the run continues from it, and whether its held-out rows are other ones.
fn continued(
    (path, mut state): Saved,
    fingerprint: &Fingerprint,
    batches: &Batches,
    accumulation: usize,
) -> Result<(Saved, bool)> {
    let other = !fingerprint.has_held_out_data_of(&state.fingerprint);
    if fingerprint.has_training_data_of(&state.fingerprint) {
        state.check_position(&path, batches, accumulation)?;
    } else {
        state = state.in_other_data(batches, accumulation);
    }
    if other {
        state.without_held_out_losses();
        say(
            "the losses of the earlier held-out rows are left out: before training, of the steps, and \
             of the best checkpoint",
        )?;
    }
    Ok(((path, state), other))
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

//! [`Job`]: a run that is ready to start, with its settings, model, data and optimizer.

use std::path::Path;

use anyhow::Result;
use burn::tensor::{Device, FloatDType};
use lisa_lm::text::Batches;
use lisa_lm::{CausalLm, Checkpoint, Tokenizer};

use super::frozen::unmatched;
use super::resume::{cause, continued, require_later, require_same, tokenizer};
use super::settle::{Settled, Shapes, Unread};
use super::start::{Entered, Saved, Start, require_outside};
use crate::device;
use crate::earlier_run;
use crate::lock::Lock;
use crate::output_folder::{self, Made, OTHER_DISK};
use crate::run_folder;
use crate::settings::{Contents, Dtype, Flags, Method, Origins, Settings, unusual};
use crate::terminal::interrupt::{Point, Stop, check};
use crate::terminal::output::{say, warn};
use crate::terminal::progress::Slow;
use crate::train::data::rows::{Data, batches};
use crate::train::data::shown_row::Show;
use crate::train::evaluation::evaluate::Evaluate;
use crate::train::memory::check::check_memory;
use crate::train::memory::disk::{Disk, on_disk, state_bytes, state_tensors};
use crate::train::method::layerwise_model::host;
use crate::train::saved::adapter;
use crate::train::saved::checkpoints;
use crate::train::saved::fingerprint::Fingerprint;
use crate::train::saved::record_limits::{State, check_sizes};
use crate::user_error::require;

/// A run that is ready to start.
pub(crate) struct Job<'a> {
    pub(crate) settings: Settings,
    /// Where the settings come from.
    pub(crate) origins: Origins,
    /// The checkpoint that a resumed run continues from.
    pub(crate) saved: Option<Saved>,
    /// Whether the held-out rows differ from the held-out rows of that checkpoint.
    pub(crate) has_other_held_out: bool,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) data: Data,
    /// What the data has, before pairs are rendered as chats.
    pub(crate) contents: Contents,
    pub(crate) evaluate: Evaluate,
    /// Optimizer steps of the whole run.
    pub(crate) steps: u64,
    /// Whether the last step is taken, and everything is written.
    pub(crate) is_finished: bool,
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
        let entered = Entered::of(flags, start, writes)?;
        let opened = Opened::of(&entered, device)?;
        check(stop, Point::Prepare)?;
        let (settled, fingerprint) = opened.read(&entered, device)?;
        check(stop, Point::Prepare)?;
        if let (Some((_, state)), Some(allowed)) = (&entered.saved, start.resumed()) {
            for changed in fingerprint.check(&state.fingerprint, allowed)? {
                say(format_args!("changed since the run began: {changed}"))?;
            }
        }
        let Entered {
            out,
            flags,
            saved,
            held,
            ..
        } = entered;
        let Opened {
            checkpoint, shapes, ..
        } = opened;
        let Settled {
            settings,
            origins,
            data,
            contents,
            tokenizer,
        } = settled;
        let batches = batches(&settings, &tokenizer, &data)?;
        let accumulation = settings.training.gradient_accumulation_steps;
        let steps = steps(&settings, &batches);
        let warms_up = settings.training.warms_up_within(steps);
        warms_up.map_err(|error| flags.at_its_place(error))?;
        for warning in unusual(&settings, &origins, &shapes.facts, steps) {
            warn(warning);
        }
        if let Some(warning) = of_tied_head(&settings, checkpoint.config().is_tied()) {
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
            data.summarize(&settings, &batches)?;
            data.show(0, &tokenizer, Show::Borders)?;
        }
        let evaluate = Evaluate::new(&settings, &data, &tokenizer)?;
        let planner = shapes.planner(device);
        let state = State {
            tensors: state_tensors(planner, &settings)?,
            bytes: state_bytes(planner, &settings)?,
        };
        check_sizes(&shapes.model, settings.memory.dtype.into(), state)?;
        let disk = on_disk(planner, &settings, steps, !evaluate.is_empty())?;
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
            contents,
            evaluate,
            steps,
            is_finished,
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

    /// Where the model is before and after training: on the device, or in host memory if the device may
    /// not hold all layers in full precision.
    pub(crate) fn home(&self) -> Device {
        if self.settings.memory.keeps_exact_elsewhere() {
            host(&self.training_device)
        } else {
            self.training_device.clone()
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

/// The model and the settings of a run, before its data is read.
struct Opened {
    checkpoint: Checkpoint,
    shapes: Shapes,
    settings: Settings,
}

impl Opened {
    /// Reads the structure of the model, and checks the settings by it.
    fn of(entered: &Entered, device: &Device) -> Result<Self> {
        let flags = &entered.flags;
        let model = flags.clone().resolve(None)?.input.folder()?;
        if entered.start == Start::Overwrite {
            require_outside(flags, &model, &entered.out)?;
        }
        let checkpoint = Checkpoint::open(&model)?;
        let shapes = Shapes::of(&checkpoint, device)?;
        let settings = shapes.settings(flags.clone())?;
        flags.check_effect(&settings)?;
        let unmatched = unmatched(&settings.method.freeze, &shapes.model);
        for part in unmatched.map_err(|error| flags.at_its_place(error))? {
            warn(format_args!(
                "--freeze has `{part}`, and no parameter's path contains it: it freezes nothing"
            ));
        }
        supports(device, settings.memory.dtype)?;
        // What a model of this structure refuses of the settings.
        state_bytes(shapes.planner(device), &settings)?;
        if let Some((_, state)) = &entered.saved {
            require_same(&settings, state)?;
        }
        Ok(Self {
            checkpoint,
            shapes,
            settings,
        })
    }

    /// Reads the data, settles what depends on it, and checks the memory.
    fn read(&self, entered: &Entered, device: &Device) -> Result<(Settled, Fingerprint)> {
        let saved = entered.saved.as_ref();
        let tokenizer = tokenizer(&self.settings, self.checkpoint.dir(), saved)?;
        let temporary = std::env::temp_dir();
        let writes = entered.writes;
        let folder = if writes { &entered.out } else { &temporary };
        let unread = Unread {
            flags: entered.flags.clone(),
            settings: &self.settings,
            checkpoint: &self.checkpoint,
            tokenizer: tokenizer.clone(),
            folder,
        };
        let settled = self.shapes.settle(unread, device);
        let settled = settled
            .map_err(|error| cause(error, saved, entered.start, &self.checkpoint, &tokenizer))?;
        let Settled { settings, data, .. } = &settled;
        let longest = data.longest(settings);
        check_memory(self.shapes.planner(device), settings, longest, writes)?;
        let [training, held_out] = data.fingerprints;
        let tokenizer = &settled.tokenizer;
        let fingerprint = Fingerprint::of(&self.checkpoint, tokenizer, training, held_out)?;
        Ok((settled, fingerprint))
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

/// Whether the output folder has everything that the run writes at its end, after `steps` steps.
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

/// Checks the room on the disk for a run. One that is resumed, or that replaces another one, has a
/// part of it already.
fn require_room(disk: Disk, out: &Path, is_resumed: bool) -> Result<()> {
    let replaces_model = is_resumed && run_folder::finished_step(out).is_some();
    let needed = disk.needed(earlier_run::bytes(out), replaces_model);
    let or = if is_resumed {
        "move the folder of the run to another disk and add --allow-changed paths"
    } else {
        OTHER_DISK
    };
    output_folder::require_room(out, needed, or)
}

/// What a user should know of an adapter of the head if the head is tied to the embedding.
fn of_tied_head(settings: &Settings, is_tied: bool) -> Option<&'static str> {
    let method = &settings.method;
    let mut modules = method.lora_target_modules.iter();
    let has_head = method.method == Method::Lora && modules.any(|module| module == "lm_head");
    (has_head && is_tied).then_some(
        "the head is tied to the embedding, and gets an adapter: PEFT's merge_and_unload would add it to the \
         embedding, too; use the merged model of the run, or merge with `lisa export`",
    )
}

/// Returns an error if the device does not support the dtype.
pub(crate) fn supports(device: &Device, dtype: Dtype) -> Result<()> {
    require!(
        device.supports_dtype(FloatDType::from(dtype)),
        "give another one with --dtype",
        "{} does not support {dtype}",
        device::name(device)
    );
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::user_error::UserError;

    #[test]
    fn an_adapter_of_a_tied_head_has_a_warning() {
        let warns = |modules: &[&str], is_tied: bool| {
            let mut settings = Flags::default().resolve(None).unwrap();
            settings.method.lora_target_modules =
                modules.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(of_tied_head(&settings, is_tied), None);
            settings.method.method = Method::Lora;
            of_tied_head(&settings, is_tied).is_some()
        };
        assert!(warns(&["q_proj", "lm_head"], true));
        assert!(!warns(&["q_proj", "lm_head"], false));
        assert!(!warns(&["all-linear"], true));
    }

    #[test]
    fn a_resumed_run_without_room_is_not_told_to_give_another_folder() {
        let dir = tempfile::tempdir().unwrap();
        let mut disk = Disk::default();
        disk.all = 2;
        output_folder::FREE.set(Some(1));
        let help = |is_resumed| {
            let error = require_room(disk, dir.path(), is_resumed).unwrap_err();
            let error: UserError = error.downcast().unwrap();
            error.help().unwrap().to_owned()
        };
        let [new, resumed] = [false, true].map(help);
        output_folder::FREE.set(None);
        assert!(new.ends_with("on another disk with --out"), "{new}");
        assert!(!resumed.contains("--out"), "{resumed}");
        assert!(resumed.ends_with("--allow-changed paths"), "{resumed}");
    }
}

//! [`run`]: a training run from start to end. Tests: `tests/run/`.

use std::sync::atomic::AtomicBool;

use anyhow::Result;
use burn::tensor::Device;

use super::checkpoints;
use super::finish::finish;
use super::method::Trainer;
use super::planned::planned;
use super::prepare::Job;
use super::steps::{Training, train};
use crate::settings::Flags;
use crate::terminal::output::say;

pub use super::fingerprint::Allowed;
pub use super::prepare::Start;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The run is complete, and the model is written.
    Finished,
    /// `stop` was set, and a checkpoint is written.
    Stopped,
}

/// Runs the job. If `stop` is set, the run ends after the current step and writes a checkpoint.
pub fn run(flags: Flags, start: Start, device: &Device, stop: &AtomicBool) -> Result<Outcome> {
    let (job, batches) = Job::open(flags, start, device)?;
    job.make_folder()?;
    let (trainer, model) = Trainer::new(&job.settings, job.load()?)?;
    job.announce(&model, &trainer)?;
    let training = Training::begin(&job, model, trainer, batches)?;
    match train(&job, training, stop)? {
        Some(last) => finish(&job, last).map(|()| Outcome::Finished),
        None => Ok(Outcome::Stopped),
    }
}

/// Loads everything that the run needs, prints what will be trained and how much memory the run
/// needs. Writes nothing.
pub fn dry_run(flags: Flags, start: Start, device: &Device) -> Result<()> {
    let (job, batches) = Job::open(flags, start, device)?;
    let model = job.load()?;
    let longest = job.data.longest(&job.settings);
    let memory = planned(&job.settings, &model, device, longest)?;
    let (trainer, model) = Trainer::new(&job.settings, model)?;
    job.announce(&model, &trainer)?;
    if let Some((path, _)) = &job.saved {
        checkpoints::load(path, model, trainer)?;
        say(format_args!("the checkpoint {} loads", path.display()))?;
    }
    let accumulation = job.settings.training.gradient_accumulation_steps;
    job.data.describe(&batches, accumulation, job.steps)?;
    say(memory.trim_end())?;
    say("dry run: nothing was trained and nothing was written")?;
    Ok(())
}

//! [`run`]: a training run from start to end. Tests: `tests/run/`.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use lisa_lm::text::Batches;

use super::memory::out_of_memory::{advice, explained};
use super::memory::planned::{Planner, planned};
use super::method::trainer::Trainer;
use super::output::finish::finish;
use super::prepare::announce::announce;
use super::prepare::job::Job;
use super::saved::checkpoints;
use super::training_loop::steps::train;
use super::training_loop::training::Training;
use crate::earlier_run;
use crate::run_folder;
use crate::settings::Flags;
use crate::terminal::interrupt::{Point, Stop, Stopped, check};
use crate::terminal::output::{say, warn};

pub use super::prepare::start::Start;
pub use super::saved::fingerprint::Allowed;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The run is complete, and the model is written.
    Finished,
    /// The run was stopped. A checkpoint has every step that was taken.
    Stopped,
}

/// Runs the job. It ends early where `stop` returns true: then a checkpoint is written, unless there
/// is nothing to save.
pub fn run(flags: Flags, start: Start, device: &Device, stop: Stop<'_>) -> Result<Outcome> {
    match whole(flags, start, device, stop) {
        Err(error) if error.is::<Stopped>() => {
            say("stopped before training: there is nothing to save")?;
            Ok(Outcome::Stopped)
        }
        result => result,
    }
}

fn whole(flags: Flags, start: Start, device: &Device, stop: Stop<'_>) -> Result<Outcome> {
    let (job, batches) = Job::open(flags, start, device, true, stop)?;
    if job.is_finished {
        say(format_args!(
            "finished at step {}; give --steps M to go on to step M",
            job.steps
        ))?;
        return Ok(Outcome::Finished);
    }
    let result = explained(
        || whole_of(&job, batches, stop),
        || {
            let model = job.shape()?;
            let planner = Planner::new(&model, device);
            advice(planner, &job.settings, job.data.longest(&job.settings))
        },
    );
    if job.saved.is_none() && !matches!(result, Ok(Outcome::Finished)) {
        let was_stopped = match &result {
            Ok(_) => true,
            Err(error) => error.is::<Stopped>(),
        };
        if let Err(error) = ended_early(&job.settings.output.out, was_stopped) {
            warn(format_args!("{error:#}"));
        }
    }
    result
}

fn whole_of(job: &Job<'_>, batches: Batches, stop: Stop<'_>) -> Result<Outcome> {
    let (trainer, model) = Trainer::new(&job.settings, job.load()?, &job.training_device)?;
    check(stop, Point::Prepare)?;
    announce(job, &model, &trainer, &batches)?;
    let training = Training::begin(job, model, trainer, batches, stop)?;
    let finished = match train(job, training, stop)? {
        Some(last) => finish(job, last, stop)?,
        None => false,
    };
    Ok(if finished {
        Outcome::Finished
    } else {
        Outcome::Stopped
    })
}

/// Puts an earlier run back if the new one has no checkpoint. Without an earlier one, a run that was
/// stopped before its first checkpoint leaves nothing.
fn ended_early(out: &Path, was_stopped: bool) -> Result<()> {
    if earlier_run::settle(out)? {
        say(format_args!(
            "the earlier run in {} is unchanged",
            out.display()
        ))?;
    } else if was_stopped && !run_folder::is_saved(out) {
        run_folder::remove_own(out)?;
    }
    Ok(())
}

/// Loads everything that the run needs, prints what will be trained and how much memory the run
/// needs. Trains nothing and saves nothing.
pub fn dry_run(flags: Flags, start: Start, device: &Device) -> Result<()> {
    let (job, batches) = Job::open(flags, start, device, false, &|_| false)?;
    let model = job.load()?;
    let longest = job.data.longest(&job.settings);
    let memory = planned(Planner::new(&job.shape()?, device), &job.settings, longest)?;
    let (trainer, model) = Trainer::new(&job.settings, model, &job.training_device)?;
    announce(&job, &model, &trainer, &batches)?;
    if let Some((path, _)) = &job.saved {
        checkpoints::load(path, model, trainer)?;
        say(format_args!("the checkpoint {} loads", path.display()))?;
    }
    let accumulation = job.settings.training.gradient_accumulation_steps;
    job.data.describe(&batches, accumulation, job.steps)?;
    say(memory.trim_end())?;
    say("settings:")?;
    for line in job.origins.lines(&job.settings, true) {
        say(format_args!("  {line}"))?;
    }
    say("dry run: nothing was trained and nothing was saved")?;
    Ok(())
}

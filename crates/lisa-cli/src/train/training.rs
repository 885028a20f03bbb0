//! [`Training`]: the state of a run between two steps, and how it begins.

use anyhow::Result;
use lisa_lm::CausalLm;
use lisa_lm::text::Batches;

use super::checkpoints::{self, State};
use super::clock::{Clock, Part};
use super::evaluate::Extent;
use super::held_out::evaluation;
use super::method::Trainer;
use super::metrics::{Line, Metrics};
use super::prepare::{Job, Start};
use super::text::Text;
use crate::output_folder;
use crate::terminal::interrupt::Stop;
use crate::terminal::output::say;

/// The state of a run between two steps.
pub(crate) struct Training {
    pub(crate) model: CausalLm,
    pub(crate) trainer: Trainer,
    pub(crate) batches: Batches,
    pub(crate) state: State,
    pub(crate) metrics: Metrics,
    /// The step of the newest checkpoint.
    pub(crate) saved: Option<u64>,
}

impl Training {
    /// Evaluates the model before training, or loads the checkpoint of a resumed run.
    pub(crate) fn begin(
        job: &Job<'_>,
        model: CausalLm,
        trainer: Trainer,
        mut batches: Batches,
        stop: Stop<'_>,
    ) -> Result<Self> {
        let out = &job.settings.output.out;
        let (model, trainer, state) = if let Some((path, state)) = &job.saved {
            let (model, trainer) = checkpoints::load(path, model, trainer)?;
            batches.seek(state.position);
            say(format_args!(
                "resumed at step {} from {}",
                state.step,
                path.display()
            ))?;
            // Flags of this call, such as another place of the data, hold for later calls too.
            let state = State {
                settings: job.settings.to_flags(),
                fingerprint: Some(job.fingerprint.clone()),
                ..state.clone()
            };
            (model, trainer, state)
        } else {
            let mut clock = Clock::default();
            let extent = if job.settings.output.eval_first {
                Extent::Full
            } else {
                Extent::First
            };
            let exact = trainer.exact(&model);
            let before = evaluation("before", extent, job, &exact, &mut clock, stop)?;
            let state = State {
                step: 0,
                position: batches.position(),
                skipped: 0,
                settings: job.settings.to_flags(),
                fingerprint: Some(job.fingerprint.clone()),
                text: Text::of(&job.tokenizer, job.data.vocab_size),
                before,
                held_out_loss: None,
                clock,
                seconds: 0.0,
                tokens: 0,
            };
            (model, trainer, state)
        };
        if job.start == Start::Overwrite {
            output_folder::remove_run(out)?;
        }
        output_folder::clean(out)?;
        let evaluated = state.held_out_loss.is_some();
        let mut metrics = Metrics::open(out, state.step, evaluated)?;
        if job.saved.is_none()
            && let Some(before) = &state.before
        {
            metrics.push(Line::held_out(0, before.loss))?;
        }
        Ok(Self {
            model,
            trainer,
            batches,
            saved: job.saved.as_ref().map(|_| state.step),
            state,
            metrics,
        })
    }

    /// Writes a checkpoint, unless this step has one.
    pub(crate) fn save(&mut self, job: &Job<'_>) -> Result<()> {
        if self.saved == Some(self.state.step) {
            return Ok(());
        }
        let output = &job.settings.output;
        let mut clock = self.state.clock;
        clock.time(Part::Saving, || {
            let exact = self.trainer.exact(&self.model);
            checkpoints::save(&output.out, output.keep, &exact, &self.trainer, &self.state)
        })?;
        self.state.clock = clock;
        self.saved = Some(self.state.step);
        Ok(())
    }
}

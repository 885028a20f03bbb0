//! [`Training`]: the state of a run between two steps, and how it begins.

use std::path::Path;

use anyhow::Result;
use lisa_lm::CausalLm;
use lisa_lm::text::Batches;

use super::held_out::{evaluate, printed};
use super::watch::Watch;
use crate::earlier_run;
use crate::run_folder;
use crate::terminal::interrupt::Stop;
use crate::terminal::output::say;
use crate::terminal::report::has_help;
use crate::terminal::text::shell_word;
use crate::train::clock::{Clock, Part};
use crate::train::evaluation::evaluate::Extent;
use crate::train::method::finite;
use crate::train::method::layerwise_model::LayerwiseModel;
use crate::train::method::trainer::Trainer;
use crate::train::metrics::files::{HeldOut, Metrics};
use crate::train::metrics::line::Line;
use crate::train::prepare::job::Job;
use crate::train::saved::checkpoints::{self, State};
use crate::train::saved::text::Text;
use crate::user_error::{UserError, require};

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
            // A checkpoint of an earlier program lacks some settings.
            let earlier = state.settings.clone().resolve(None)?;
            for change in job.settings.changes(&earlier) {
                say(format_args!("  changed: {change}"))?;
            }
            // Flags of this call, such as another place of the data, hold for later calls too.
            let mut state = State {
                settings: job.settings.to_flags(),
                fingerprint: job.fingerprint.clone(),
                text: Text::of(&job.tokenizer, job.data.vocab_size),
                ..state.clone()
            };
            state.change_settings(job.settings.earlier_values(&earlier));
            (model, trainer, state)
        } else {
            let mut clock = Clock::default();
            let extent = if job.settings.output.eval_first {
                Extent::Full
            } else {
                Extent::First
            };
            let before = evaluate(extent, job, &trainer.exact(&model), &mut clock, stop);
            let before = printed("before", before?)?;
            let state = State {
                step: 0,
                position: batches.position(),
                skipped: 0,
                settings: job.settings.to_flags(),
                fingerprint: job.fingerprint.clone(),
                earlier_data: Vec::new(),
                earlier_settings: Vec::new(),
                text: Text::of(&job.tokenizer, job.data.vocab_size),
                before,
                held_out_loss: None,
                clock,
                seconds: 0.0,
                tokens: 0,
            };
            (model, trainer, state)
        };
        if job.saved.is_none() {
            if run_folder::is_saved(out) {
                earlier_run::set_aside(out)?;
            } else {
                run_folder::remove_own(out)?;
            }
        }
        run_folder::clean(out)?;
        let held_out = match state.held_out_loss {
            _ if job.has_other_held_out => HeldOut::None,
            Some(_) => HeldOut::All,
            None => HeldOut::Earlier,
        };
        let mut metrics = Metrics::open(out, state.step, held_out)?;
        if job.saved.is_none()
            && let Some(before) = &state.before
        {
            metrics.push(Line::evaluated(0, &job.evaluate, before))?;
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

    /// Writes a checkpoint, unless this step has one. Weights that are not finite are an error, so
    /// they never take the place of others. The first checkpoint of a run takes the place of an
    /// earlier run, which is said.
    pub(crate) fn save(&mut self, job: &Job<'_>, watch: &Watch) -> Result<()> {
        if self.saved == Some(self.state.step) {
            return Ok(());
        }
        let output = &job.settings.output;
        let mut clock = self.state.clock;
        let saved = clock.time(Part::Saving, || {
            let exact = self.trainer.exact(&self.model);
            require_finite(&exact, self.state.step, self.saved, &output.out)?;
            checkpoints::save(
                output,
                job.checkpoint.dir(),
                &self.model,
                &self.trainer,
                &self.state,
            )
        });
        saved.map_err(|error| not_saved(error, self.saved, &output.out))?;
        let is_removed = earlier_run::remove_earlier(&output.out)?;
        self.state.clock = clock;
        self.saved = Some(self.state.step);
        if is_removed {
            let out = output.out.display();
            watch.note(format_args!("the earlier run in {out} is removed"))?;
        }
        Ok(())
    }
}

/// The error of a checkpoint that cannot be written. If it does not say what to do, it names the checkpoint
/// from which the run can go on, which is of the step `saved`.
fn not_saved(error: anyhow::Error, saved: Option<u64>, out: &Path) -> anyhow::Error {
    let Some(step) = saved.filter(|_| !has_help(&error)) else {
        return error;
    };
    UserError::new(format!("the steps after step {step} are not saved"))
        .with_help(format!(
            "the checkpoint of step {step} is complete; when the cause is gone, continue from it with: lisa \
             train --resume --out {}",
            shell_word(out)
        ))
        .with_source(error)
        .into()
}

/// Returns an error if weights of the model are not finite. The newest checkpoint is of the step
/// `saved`.
pub(crate) fn require_finite(
    model: &LayerwiseModel<'_>,
    step: u64,
    saved: Option<u64>,
    out: &Path,
) -> Result<()> {
    let bad = finite::weights(model);
    let help = match saved {
        Some(saved) if saved < step => format!(
            "continue from the checkpoint of step {saved} with a lower --lr: lisa train --resume \
             --out {} --lr RATE",
            shell_word(out)
        ),
        _ => "begin again with a lower --lr".to_owned(),
    };
    require!(
        bad.is_empty(),
        help,
        "the weights after step {step} are not finite {}; they are not saved",
        finite::described(&bad)
    );
    Ok(())
}

//! [`finish`]: what a run does after its last step.

use std::path::Path;

use anyhow::Result;
use lisa_lm::files::write_atomically;
use serde_json::json;

use super::card::{Card, card};
use super::models::{what, write, write_best, written};
use crate::run_folder;
use crate::settings::{InputSettings, Method};
use crate::terminal::interrupt::{Stop, Stopped};
use crate::terminal::output::say;
use crate::terminal::text::{counted, duration, shell_word};
use crate::train::clock::{Clock, Part};
use crate::train::evaluation::evaluate::Extent;
use crate::train::evaluation::result::Evaluation;
use crate::train::method::layerwise_model::LayerwiseModel;
use crate::train::metrics::files::Metrics;
use crate::train::metrics::line::{Line, peak_bytes};
use crate::train::metrics::plot;
use crate::train::prepare::job::Job;
use crate::train::saved::adapter;
use crate::train::saved::checkpoints::{self, State};
use crate::train::training_loop::held_out::{evaluate, printed};
use crate::train::training_loop::training::Training;

/// Writes `model/`, `model-best/` if an earlier checkpoint is better, the plots and `summary.json`.
/// Returns whether the run is finished; it is not if it was stopped in the evaluation.
pub(crate) fn finish(job: &Job<'_>, trained: Training, stop: Stop<'_>) -> Result<bool> {
    let Training {
        model: last,
        mut trainer,
        batches,
        mut state,
        mut metrics,
        saved,
        ..
    } = trained;
    let out = &job.settings.output.out;
    let (folder, best_folder) = (out.join("model"), out.join("model-best"));
    let (layers, state_bytes) = (trainer.layers(), trainer.state_bytes());
    let rows = batches.rows();
    let mut clock = state.clock;
    // If the weights go to host memory, losses still need the model on the device.
    let on_device = (job.home() != job.training_device).then(|| last.clone());
    let model = clock.time(Part::Saving, || {
        write(job, (job.steps, saved), &folder, last, |last| {
            trainer.take_exact(last, &job.home())
        })
    })?;
    let exact = match &on_device {
        Some(last) => trainer.moved(last, &model),
        None => LayerwiseModel::whole(&model),
    };
    let evaluated = evaluations(job, exact, &mut state, &mut metrics, &mut clock, stop);
    let [after, after_all] = match evaluated {
        Err(error) if error.is::<Stopped>() => return stopped(job, &folder),
        result => result?,
    };
    drop((trainer, on_device));
    let best = checkpoints::best(out, &job.fingerprint)?;
    let finished = Finished {
        job,
        state,
        rows,
        after,
        after_all,
        best: best.filter(|(step, _)| *step != job.steps),
    };
    finished.cards(&folder, false)?;
    let best = finished.best.map(|(step, _)| step);
    clock.time(Part::Saving, || write_best(job, best, &best_folder, model))?;
    finished.cards(&best_folder, true)?;

    plot::losses(&metrics.lines, layers, &out.join("losses.svg"))?;
    plot::memory(&metrics.lines, &out.join("memory.svg"))?;
    finished.write_summary(&clock, state_bytes)?;
    say(format_args!("time: {clock}"))?;
    finished.say(&folder, &best_folder)?;
    Ok(true)
}

/// The evaluations of the finished model: of the rows of `--eval-rows`, and with `--final-eval-all` of all
/// held-out rows.
fn evaluations(
    job: &Job<'_>,
    exact: LayerwiseModel<'_>,
    state: &mut State,
    metrics: &mut Metrics,
    clock: &mut Clock,
    stop: Stop<'_>,
) -> Result<[Option<Evaluation>; 2]> {
    let output = &job.settings.output;
    let after = evaluate(Extent::Full, job, &exact, clock, stop)?;
    let Some(after) = printed("after", after)? else {
        return Ok([None, None]);
    };
    if state.held_out_loss.is_none() {
        metrics.push(Line::evaluated(job.steps, &job.evaluate, &after))?;
        state.held_out_loss = Some(after.loss);
        checkpoints::evaluated(output, state)?;
    }
    let mut all = None;
    if output.final_eval_all {
        all = printed("all rows", evaluate(Extent::All, job, &exact, clock, stop)?)?;
    }
    Ok([Some(after), all])
}

/// Says that the run was stopped in the evaluation of the finished model.
fn stopped(job: &Job<'_>, folder: &Path) -> Result<bool> {
    say(format_args!(
        "stopped after the last step, {}, in an evaluation: the {} is in {}, and there is no \
         summary of the run yet.\nContinue with: lisa train --resume --out {}",
        job.steps,
        what(job),
        written(job, folder).display(),
        shell_word(&job.settings.output.out)
    ))?;
    Ok(false)
}

/// The flags of the base model; none for the bundled one.
fn base_flags(input: &InputSettings) -> String {
    let mut flags = String::new();
    if !input.model.as_os_str().is_empty() {
        flags += &format!(" --model {}", shell_word(&input.model));
    }
    if !input.revision.is_empty() {
        flags += &format!(" --revision {}", shell_word(&input.revision));
    }
    flags
}

/// A run whose model is written and evaluated.
struct Finished<'a> {
    job: &'a Job<'a>,
    state: State,
    /// Rows of an epoch.
    rows: usize,
    after: Option<Evaluation>,
    after_all: Option<Evaluation>,
    /// The step and the held-out loss of the best checkpoint, if it is an earlier one.
    best: Option<(u64, f64)>,
}

impl Finished<'_> {
    /// Writes the cards of the last or the best model and of its adapter.
    fn cards(&self, folder: &Path, is_best: bool) -> Result<()> {
        let (step, tokens) = match self.best {
            _ if !is_best => (self.job.steps, self.state.tokens),
            Some((step, _)) => {
                let path = checkpoints::path(&self.job.settings.output.out, step);
                (step, checkpoints::state(&path)?.tokens)
            }
            None => return Ok(()),
        };
        let about = Card {
            job: self.job,
            state: &self.state,
            step,
            tokens,
            rows: self.rows,
            is_best,
            after: self.after.as_ref().filter(|_| !is_best),
            best: self.best,
        };
        let adapter = adapter::folder_of(folder);
        for (folder, is_adapter) in [(folder, false), (adapter.as_path(), true)] {
            // With --no-merge, a model of an earlier step may be there.
            if run_folder::step_of_model(folder) == Some(step) {
                card(&about, folder, is_adapter)?;
            }
        }
        Ok(())
    }

    /// Writes `summary.json`.
    fn write_summary(&self, clock: &Clock, state_bytes: u64) -> Result<()> {
        let (job, state) = (self.job, &self.state);
        let by_part = clock.parts();
        let by_part: serde_json::Map<String, serde_json::Value> = by_part
            .map(|(name, seconds)| (name.to_owned(), seconds.into()))
            .collect();
        let best = self.best;
        let summary = json!({
            "program": "lisa",
            "settings": job.settings.to_flags(),
            "steps": job.steps,
            "seconds": state.seconds,
            "seconds_by_part": by_part,
            "tokens": state.tokens,
            "tokens_per_second": state.tokens as f64 / state.seconds.max(1e-9),
            "peak_bytes": peak_bytes(job.device),
            "optimizer_state_bytes": state_bytes,
            "before": state.before,
            "after": self.after,
            "after_all_rows": self.after_all,
            "best": best.map(|(step, loss)| json!({"step": step, "held_out_loss": loss})),
        });
        let path = job.settings.output.out.join("summary.json");
        Ok(write_atomically(
            &path,
            format!("{summary:#}\n").as_bytes(),
        )?)
    }

    /// Says how the loss has changed, and where the models are.
    fn say(&self, folder: &Path, best_folder: &Path) -> Result<()> {
        let (job, state) = (self.job, &self.state);
        say(format_args!(
            "{}{} in {}; the {} of step {} is in {}",
            self.change(),
            counted(job.steps as usize, "step"),
            duration(state.seconds),
            what(job),
            job.steps,
            written(job, folder).display()
        ))?;
        if job.settings.method.method == Method::Lora {
            let adapter = adapter::folder_of(folder);
            let base = base_flags(&job.settings.input);
            let place = if job.settings.method.no_merge {
                "the adapter is in PEFT's format".to_owned()
            } else {
                let folder = adapter.display();
                format!("the adapter alone, in PEFT's format, is in {folder}")
            };
            let adapter = shell_word(&adapter);
            say(format_args!(
                "{place}: PEFT opens it on the base model, `lisa train{base} --adapter {adapter}` trains it \
                 further, and `lisa export {adapter} --merge --out DIR` merges it"
            ))?;
        }
        if let Some((step, loss)) = self.best {
            say(format_args!(
                "the checkpoint of step {step} is the best, held-out loss {loss:.4}: its {} is in {}",
                what(job),
                written(job, best_folder).display()
            ))?;
        }
        Ok(())
    }

    /// The held-out loss before and after, of the same rows.
    fn change(&self) -> String {
        let (Some(before), Some(after)) = (&self.state.before, &self.after) else {
            return String::new();
        };
        let (same, rows) = if before.rows == after.rows {
            (after.loss, String::new())
        } else {
            let rows = format!(" on the same {}", counted(before.rows, "row"));
            (after.first_rows_loss, rows)
        };
        format!("held-out loss {:.4} -> {same:.4}{rows}, ", before.loss)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Flags;

    #[test]
    fn the_command_that_trains_further_names_the_model_and_its_revision() {
        let mut input = Flags::default().resolve(None).unwrap().input;
        assert_eq!(base_flags(&input), "");
        input.model = "owner/name".into();
        assert_eq!(base_flags(&input), " --model owner/name");
        input.revision = "abc".to_owned();
        assert_eq!(base_flags(&input), " --model owner/name --revision abc");
    }
}

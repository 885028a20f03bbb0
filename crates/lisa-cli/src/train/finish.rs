//! [`finish`]: writes the trained model, its evaluation, the plots and the summary.

use anyhow::Result;
use burn::module::Module;
use lisa_lm::checkpoint::{SaveOptions, write_atomically};
use serde_json::json;

use super::metrics::{Line, peak_bytes};
use super::plot;
use super::prepare::Job;
use super::steps::{Training, evaluation};
use crate::settings::Method;
use crate::terminal::output::say;
use crate::terminal::progress::Slow;

/// Writes `model/`, `losses.svg`, `memory.svg` and `summary.json`.
pub(crate) fn finish(job: &Job<'_>, trained: Training) -> Result<()> {
    let Training {
        model,
        trainer,
        state,
        mut metrics,
        ..
    } = trained;
    let out = &job.settings.output.out;
    let model = match job.settings.method.method {
        Method::Lora => model.materialize(),
        _ => trainer.exact(&model),
    };
    let folder = out.join("model");
    let options = SaveOptions {
        source: Some(&job.checkpoint),
        ..SaveOptions::default()
    };
    let slow = Slow::bytes("writing the model");
    lisa_lm::checkpoint::save_with(&model, &folder, &options, move |done, all| {
        slow.set(done, all);
    })?;
    let after = evaluation("after", job, &model)?;

    metrics.lines.extend([
        Line::held_out(0, state.before.loss),
        Line::held_out(job.steps, after.loss),
    ]);
    metrics.lines.sort_by_key(|line| line.step);
    plot::losses(&metrics.lines, model.num_layers(), &out.join("losses.svg"))?;
    plot::memory(&metrics.lines, &out.join("memory.svg"))?;
    let summary = json!({
        "settings": job.settings.to_flags(),
        "steps": job.steps,
        "seconds": state.seconds,
        "tokens": state.tokens,
        "tokens_per_second": state.tokens as f64 / state.seconds.max(1e-9),
        "peak_bytes": peak_bytes(),
        "optimizer_state_bytes": trainer.state_bytes(),
        "before": state.before,
        "after": after,
    });
    let text = format!("{summary:#}\n");
    write_atomically(&out.join("summary.json"), text.as_bytes())?;
    say(format_args!(
        "held-out loss {:.4} -> {:.4} in {} steps, {:.0} s; the model is in {}",
        state.before.loss,
        after.loss,
        job.steps,
        state.seconds,
        folder.display()
    ))?;
    Ok(())
}

//! [`finish`]: writes the trained model, its evaluation, the plots and the summary.

use anyhow::Result;
use burn::module::Module;
use lisa_lm::checkpoint::SaveOptions;
use lisa_lm::files::write_atomically;
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
        files: &job.tokenizer.changed_files()?,
        ..SaveOptions::default()
    };
    let slow = Slow::bytes("writing the model");
    lisa_lm::checkpoint::save_with(&model, &folder, &options, move |done, all| {
        slow.set(done, all);
    })?;
    let after = evaluation("after", job, &model)?;

    let losses = [(0, &state.before), (job.steps, &after)]
        .map(|(step, evaluation)| Some((step, evaluation.as_ref()?.loss)));
    let losses: Vec<(u64, f64)> = losses.into_iter().flatten().collect();
    metrics.lines.extend(
        losses
            .iter()
            .map(|(step, loss)| Line::held_out(*step, *loss)),
    );
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
    let changed = match losses[..] {
        [(_, before), (_, after)] => format!("held-out loss {before:.4} -> {after:.4} in "),
        _ => String::new(),
    };
    say(format_args!(
        "{changed}{} steps, {:.0} s; the model is in {}",
        job.steps,
        state.seconds,
        folder.display()
    ))?;
    Ok(())
}

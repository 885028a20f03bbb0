//! [`watched`]: an evaluation with its progress on the terminal.

use anyhow::Result;

use super::evaluate::{Evaluate, Extent, With};
use super::result::Evaluation;
use crate::terminal::output::say;
use crate::terminal::progress::{is_watched, timed_bar};
use crate::terminal::text::counted;
use crate::train::method::layerwise_model::LayerwiseModel;

/// Evaluates the model with a progress bar of its own, or a line that says what happens.
pub(crate) fn watched(
    evaluate: &Evaluate,
    model: &LayerwiseModel<'_>,
    extent: Extent,
    with: &With<'_>,
) -> Result<Evaluation> {
    if !is_watched() {
        let (rows, answers) = evaluate.size(extent);
        let rows = counted(rows, "held-out row");
        match answers {
            0 => say(format_args!("evaluating {rows}"))?,
            answers => {
                let answers = counted(answers, "answer");
                say(format_args!("evaluating {rows}, generating {answers}"))?;
            }
        }
    }
    if !model.is_whole() && evaluate.size(extent).1 > 0 {
        say(
            "the answers are those of the model with quantized layers; losses are of the \
             full-precision weights",
        )?;
    }
    let bar = timed_bar(evaluate.length(extent));
    bar.set_message("evaluating");
    let result = evaluate.run(model, extent, with, || bar.inc(1));
    bar.finish_and_clear();
    result
}

//! [`evaluate`]: evaluates the model of a run on its held-out rows.

use anyhow::Result;

use crate::terminal::interrupt::Stop;
use crate::terminal::output::say;
use crate::terminal::progress::{is_watched, timed_bar};
use crate::terminal::text::counted;
use crate::train::clock::{Clock, Part};
use crate::train::evaluation::evaluate::{Extent, With};
use crate::train::evaluation::result::Evaluation;
use crate::train::method::exact::Exact;
use crate::train::prepare::job::Job;

/// Evaluates the model with a progress bar of its own, if there are held-out rows and evaluation is
/// on.
pub(crate) fn evaluate(
    extent: Extent,
    job: &Job<'_>,
    model: &Exact<'_>,
    clock: &mut Clock,
    stop: Stop<'_>,
) -> Result<Option<Evaluation>> {
    let evaluate = &job.evaluate;
    if evaluate.is_empty() {
        return Ok(None);
    }
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
    let with = With {
        tokenizer: &job.tokenizer,
        device: job.device,
        stop,
    };
    let result = clock.time(Part::Evaluation, || {
        evaluate.run(model, extent, &with, || bar.inc(1))
    });
    bar.finish_and_clear();
    result.map(Some)
}

/// Prints the result of an evaluation after the word `when`.
pub(crate) fn printed(when: &str, result: Option<Evaluation>) -> Result<Option<Evaluation>> {
    if let Some(result) = &result {
        say(format_args!("{when}: {result}"))?;
    }
    Ok(result)
}

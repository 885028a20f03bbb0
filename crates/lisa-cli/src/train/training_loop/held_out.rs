//! [`evaluate`]: evaluates the model of a run on its held-out rows.

use anyhow::Result;

use crate::terminal::interrupt::Stop;
use crate::terminal::output::say;
use crate::train::clock::{Clock, Part};
use crate::train::evaluation::evaluate::{Extent, With};
use crate::train::evaluation::result::Evaluation;
use crate::train::evaluation::watched::watched;
use crate::train::method::layerwise_model::LayerwiseModel;
use crate::train::prepare::job::Job;

/// Evaluates the model with a progress bar of its own, if there are held-out rows and evaluation is
/// on.
pub(crate) fn evaluate(
    extent: Extent,
    job: &Job<'_>,
    model: &LayerwiseModel<'_>,
    clock: &mut Clock,
    stop: Stop<'_>,
) -> Result<Option<Evaluation>> {
    if job.evaluate.is_empty() {
        return Ok(None);
    }
    let with = With {
        tokenizer: &job.tokenizer,
        device: job.device,
        stop,
    };
    let result = clock.time(Part::Evaluation, || {
        watched(&job.evaluate, model, extent, &with)
    });
    result.map(Some)
}

/// Prints the result of an evaluation after the word `when`.
pub(crate) fn printed(when: &str, result: Option<Evaluation>) -> Result<Option<Evaluation>> {
    if let Some(result) = &result {
        say(format_args!("{when}: {result}"))?;
    }
    Ok(result)
}
